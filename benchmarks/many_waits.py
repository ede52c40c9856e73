"""Thousands of waits in one event loop: how late its timers come, what a wait weighs, and that all of them end."""

from __future__ import annotations

import math
import time
from statistics import median

from benchmarks import processes
from benchmarks.report import Part, Table, Target, number
from benchmarks.ways import TITLES

RUNS = (
    ("comet", 1000),
    ("shared_session", 1000),
    ("http_sensor", 1000),
    ("idle", 1000),
    ("comet", 5000),
    ("shared_session", 5000),
    ("idle", 5000),
)
INTERVAL = 3.0
SECONDS = 6.5
"""How long the predictions take, from the start of the first wait."""
ROUNDS = 3
NOTES = [
    f"Each run has a fresh process that waits for predictions which end {SECONDS:g} s later, looking every "
    f"{INTERVAL:g} s ({5000 / INTERVAL:,.0f} looks a second for 5,000 waits). Lag: how late a 10 ms timer of "
    "the same loop comes. Memory: the most that was resident (`/proc/self/statm`) above what it was before the first "
    "wait, in a process with Airflow's modules, after one wait that loads the libraries, divided by the waits. Medians "
    "of the rounds.",
    "No limit holds the looks back here (a connection's default, 50 a second, would), so 5,000 waits keep a core busy, "
    "and looks that come due together wait for each other: that is the lag. It grows without bound as the core's share "
    "comes to 100%, so a way that needs a quarter more CPU for a look has a multiple of the lag.",
]


def measure(way: str, waits: int) -> dict[str, float]:
    """One run in a process of its own."""
    seconds = SECONDS if way != "idle" else INTERVAL + 0.5  # nothing happens to it after the last one's start
    with processes.server() as server, processes.client(way) as client:
        url = server.hello["url"]
        client.ask(url=url, ids=[f"warm.t{int(time.time() * 1000) + 500}"], interval=INTERVAL, spread=0)
        end = f"t{int((time.time() + seconds) * 1000)}"
        seen = client.ask(
            url=url, ids=[f"w{i}.{end}" for i in range(waits)], interval=INTERVAL, spread=INTERVAL, watch=True
        )
    return {
        "lag_p99_ms": seen["lag_p99"] * 1000,
        "lag_max_ms": seen["lag_max"] * 1000,
        "kb_per_wait": seen["memory"] / waits / 1000,
        "unfinished": waits - len(seen["ends"]),
        "cpu_share": seen["cpu"] / seen["elapsed"],
    }


def run(rounds: int = ROUNDS) -> Part:
    """Measure all ways and numbers, in turn."""
    seen: dict[tuple[str, int], list[dict[str, float]]] = {one: [] for one in RUNS}
    for _ in range(rounds):
        for one in RUNS:
            seen[one].append(measure(*one))
    figures: dict[str, float] = {}
    rows, targets = [], []
    for way, waits in RUNS:
        got = {name: median(one[name] for one in seen[way, waits]) for name in seen[way, waits][0]}
        figures |= {f"{way}_{waits}_{name}": value for name, value in got.items()}
    for way, waits in RUNS:
        prefix = f"{way}_{waits}"
        above = figures[f"{prefix}_kb_above_idle"] = (
            figures[f"{prefix}_kb_per_wait"] - figures[f"idle_{waits}_kb_per_wait"]
        )
        rows.append([
            f"{waits:,} waits: {TITLES[way]}",
            number(figures[f"{prefix}_lag_p99_ms"]),
            number(figures[f"{prefix}_lag_max_ms"]),
            f"{figures[f'{prefix}_kb_per_wait']:.1f}",
            f"{above:.1f}",
            f"{figures[f'{prefix}_cpu_share']:.0%}",
        ])
        if way == "comet":
            figures[f"{prefix}_unfinished"] = max(one["unfinished"] for one in seen[way, waits])
            targets += [
                Target(f"{prefix}_kb_above_idle", f"{waits:,} waits: memory of one above an idle task", 20, unit=" kB"),
                Target(f"{prefix}_unfinished", f"{waits:,} waits: without an end", 0),
            ]
    if any(math.isnan(value) for value in figures.values()):
        raise RuntimeError("a run gave no figures")
    return Part(
        title="Thousands of waits in one loop",
        tables=[Table(["", "lag p99, ms", "lag max, ms", "kB a wait", "above idle", "CPU of a core"], rows)],
        figures=figures,
        ratios=[f"comet_{waits}_kb_per_wait" for waits in (1000, 5000)],
        targets=targets,
        notes=NOTES,
    )
