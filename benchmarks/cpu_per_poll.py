"""Client CPU of one look, over http and https, against other ways to wait."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import processes
from benchmarks.report import Part, Table, Target, number
from benchmarks.ways import TITLES

ORDER = ("comet", "shared_session", "http_sensor", "threads", "raw_socket")
BASE = "shared_session"
WAITS = 200
LOOKS = 24
"""What a wait of a minute takes by our own schedule: the cost of a wait's beginning and end is spread over as many."""
INTERVAL = 0.5
"""Seconds between two looks of one wait: the shortest that our triggers allow."""
ROUNDS = 3
NOTES = [
    f"{WAITS:,} waits in one event loop look {LOOKS} times each, every {INTERVAL:g} s, at one server in a process of "
    "its own. The ways take turns, one round after the other, each in a process that lives through all rounds, has "
    "been warmed up and has Airflow's modules loaded, as a triggerer has. CPU is user and system time of the whole "
    "process by `getrusage`, from the first wait's start to the last one's end, divided by the looks that the server "
    "has counted: nothing is subtracted. Medians; a ratio is the median of the rounds' own ratios.",
    "Airflow's log level is ERROR, because what a line costs depends on where it goes. At INFO, `PredictionTrigger` "
    "would write two lines for such a wait, `HttpSensorTrigger` one for each look.",
    "`HttpSensorTrigger` reads no answer: it waits for a 404 to end, so that is what the server gives it. All others "
    "read the same JSON and go by its status.",
]


def measure(scheme: str, rounds: int, waits: int) -> dict[str, list[float]]:
    """Milliseconds of CPU for one look, by way, of each round."""
    seen: dict[str, list[float]] = {way: [] for way in ORDER}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if scheme == "https" else None
        server = stack.enter_context(processes.server(folder))
        url, ca = server.hello["url"], server.hello["ca"]
        clients = {way: stack.enter_context(processes.client(way, ca)) for way in ORDER}
        for way, client in clients.items():
            client.ask(url=url, ids=[f"warm.{way}.{i}.n3" for i in range(50)], interval=INTERVAL, spread=INTERVAL)
        server.ask()
        for turn in range(rounds):
            for way in ORDER[turn % len(ORDER) :] + ORDER[: turn % len(ORDER)]:
                ids = [f"{way}.{turn}.{i}.n{LOOKS}" for i in range(waits)]
                used = clients[way].ask(url=url, ids=ids, interval=INTERVAL, spread=INTERVAL)["cpu"]
                looks = server.ask()["looks"]
                if looks != waits * LOOKS:
                    raise RuntimeError(f"{way} looked {looks} times in place of {waits * LOOKS}")
                seen[way].append(used / looks * 1000)
    return seen


def run(rounds: int = ROUNDS, waits: int = WAITS) -> Part:
    """Measure both schemes."""
    figures: dict[str, float] = {}
    rows, targets = [], []
    for scheme in ("http", "https"):
        seen = measure(scheme, rounds, waits)
        for way in ORDER:
            ratio = median(one / base for one, base in zip(seen[way], seen[BASE], strict=True))
            figures[f"{scheme}_{way}_ms"] = median(seen[way])
            figures[f"{scheme}_{way}_ratio"] = ratio
            spread = f"{number(min(seen[way]))} to {number(max(seen[way]))}"
            rows.append([f"{scheme}: {TITLES[way]}", number(median(seen[way])), spread, number(ratio)])
        figures[f"{scheme}_http_sensor_by_comet"] = median(
            peer / ours for peer, ours in zip(seen["http_sensor"], seen["comet"], strict=True)
        )
        targets += [
            Target(f"{scheme}_comet_ratio", f"{scheme}: CPU of a look against the bare loop", 1.25, unit="x"),
            Target(
                f"{scheme}_http_sensor_by_comet",
                f"{scheme}: `HttpSensorTrigger` against ours",
                5,
                is_most=False,
                unit="x",
            ),
        ]
    return Part(
        title="CPU of one look",
        tables=[Table(["way", "ms of CPU", "of all rounds", "against the bare loop"], rows)],
        figures=figures,
        ratios=[name for name in figures if not name.endswith("_ms")],
        targets=targets,
        notes=NOTES,
    )
