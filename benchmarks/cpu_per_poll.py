"""Compare the client CPU of a poll with other ways to wait, over http and https."""

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
POLLS = 24
"""Polls of each wait, as many as a wait of a minute has: they share the cost of its start and end."""
INTERVAL = 0.5
"""Seconds between two polls of a wait: the shortest interval that our triggers allow."""
ROUNDS = 3
NOTES = [
    f"{WAITS:,} waits in one event loop poll {POLLS} times each, every {INTERVAL:g} s, one server in a process of "
    "its own. The ways take turns, one round after the other, each in a process that lives through all rounds, has "
    "been warmed up and has Airflow's modules loaded, as a triggerer has. CPU is user and system time of the whole "
    "process by `getrusage`, from the start of the first wait to the end of the last, divided by the polls that the "
    "server has counted: nothing is subtracted. Medians; a ratio is the median of the rounds' own ratios.",
    "Airflow's log level is ERROR, because the cost of a log line depends on where it is written. At INFO, "
    "`PredictionTrigger` would write two lines for such a wait, `HttpSensorTrigger` a line for each poll.",
    "`HttpSensorTrigger` reads no body: it waits for the end of a 404, so the server answers it with 404. All others "
    "read the same JSON and decide by its status.",
]


def measure(scheme: str, rounds: int, waits: int) -> dict[str, list[float]]:
    """Return the milliseconds of CPU of a poll in each round, by way."""
    measured: dict[str, list[float]] = {way: [] for way in ORDER}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if scheme == "https" else None
        server = stack.enter_context(processes.server(folder))
        url, ca = server.hello["url"], server.hello["ca"]
        clients = {way: stack.enter_context(processes.client(way, ca)) for way in ORDER}
        for way, client in clients.items():
            client.call(url=url, ids=[f"warm.{way}.{i}.n3" for i in range(50)], interval=INTERVAL, spread=INTERVAL)
        server.call()
        for turn in range(rounds):
            for way in ORDER[turn % len(ORDER) :] + ORDER[: turn % len(ORDER)]:
                ids = [f"{way}.{turn}.{i}.n{POLLS}" for i in range(waits)]
                used = clients[way].call(url=url, ids=ids, interval=INTERVAL, spread=INTERVAL)["cpu"]
                polls = server.call()["polls"]
                if polls != waits * POLLS:
                    raise RuntimeError(f"{way} polled {polls} times instead of {waits * POLLS}")
                measured[way].append(used / polls * 1000)
    return measured


def run(rounds: int = ROUNDS, waits: int = WAITS) -> Part:
    """Measure both schemes."""
    figures: dict[str, float] = {}
    rows, targets = [], []
    for scheme in ("http", "https"):
        measured = measure(scheme, rounds, waits)
        for way in ORDER:
            ratio = median(ms / base for ms, base in zip(measured[way], measured[BASE], strict=True))
            figures[f"{scheme}_{way}_ms"] = median(measured[way])
            figures[f"{scheme}_{way}_ratio"] = ratio
            spread = f"{number(min(measured[way]))} to {number(max(measured[way]))}"
            rows.append([f"{scheme}: {TITLES[way]}", number(median(measured[way])), spread, number(ratio)])
        figures[f"{scheme}_http_sensor_by_comet"] = median(
            peer / ours for peer, ours in zip(measured["http_sensor"], measured["comet"], strict=True)
        )
        targets += [
            Target(f"{scheme}_comet_ratio", f"{scheme}: CPU of a poll against the bare loop", 1.25, unit="x"),
            Target(
                f"{scheme}_http_sensor_by_comet",
                f"{scheme}: `HttpSensorTrigger` against ours",
                5,
                is_most=False,
                unit="x",
            ),
        ]
    return Part(
        title="CPU of a poll",
        tables=[Table(["way", "ms of CPU", "of all rounds", "against the bare loop"], rows)],
        figures=figures,
        ratios=[name for name in figures if not name.endswith("_ms")],
        targets=targets,
        notes=NOTES,
    )
