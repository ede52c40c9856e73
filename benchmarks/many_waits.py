"""Measure thousands of waits in one event loop: how late its timers fire, memory per wait, and whether all end."""

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
    f"Each run has a fresh process that waits for predictions which end {SECONDS:g} s later, polling every "
    f"{INTERVAL:g} s ({5000 / INTERVAL:,.0f} polls a second for 5,000 waits). Lag: how late a 10 ms timer of "
    "the same loop fires. Memory: the most that was resident (`/proc/self/statm`) above what it was before the first "
    "wait, in a process with Airflow's modules, after one wait that loads the libraries, divided by the waits. Medians "
    "of the rounds.",
    "No limit delays the polls here (a connection's default, 50 a second, would), so 5,000 waits keep a core busy, and "
    "polls that are due at the same time wait for each other: that is the lag. It grows without bound as the core's "
    "share approaches 100%, so a way that needs a quarter more CPU for a poll has a multiple of the lag.",
]


def measure(way: str, waits: int) -> dict[str, float]:
    """Return the figures of a run in a process of its own."""
    seconds = SECONDS if way != "idle" else INTERVAL + 0.5  # nothing happens after the last wait has started
    with processes.server() as server, processes.client(way) as client:
        url = server.hello["url"]
        client.call(url=url, ids=[f"warm.t{int(time.time() * 1000) + 500}"], interval=INTERVAL, spread=0)
        end = f"t{int((time.time() + seconds) * 1000)}"
        report = client.call(
            url=url, ids=[f"w{i}.{end}" for i in range(waits)], interval=INTERVAL, spread=INTERVAL, watch=True
        )
    return {
        "lag_p99_ms": report["lag_p99"] * 1000,
        "lag_max_ms": report["lag_max"] * 1000,
        "kb_per_wait": report["memory"] / waits / 1000,
        "unfinished": waits - len(report["ends"]),
        "cpu_share": report["cpu"] / report["elapsed"],
    }


def run(rounds: int = ROUNDS) -> Part:
    """Measure all ways and numbers, in turn."""
    measured: dict[tuple[str, int], list[dict[str, float]]] = {key: [] for key in RUNS}
    for _ in range(rounds):
        for key in RUNS:
            measured[key].append(measure(*key))
    figures: dict[str, float] = {}
    rows, targets = [], []
    for way, waits in RUNS:
        results = measured[way, waits]
        figures |= {f"{way}_{waits}_{name}": median(result[name] for result in results) for name in results[0]}
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
            figures[f"{prefix}_unfinished"] = max(result["unfinished"] for result in measured[way, waits])
            targets += [
                Target(
                    f"{prefix}_kb_above_idle", f"{waits:,} waits: memory of a wait above an idle task", 20, unit=" kB"
                ),
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
