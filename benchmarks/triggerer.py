"""What a real triggerer process uses while it holds a thousand waits, and what Airflow's own part of that is.

For each row a fresh ``airflow triggerer`` gets that many deferred task instances (``benchmarks.hold``), and is
measured once it has all of them and has settled: CPU of its whole family (supervisor, runner, log server) over two
minutes (one where looks are frequent), its memory (proportional set size), and the looks that arrive at
``benchmarks.server`` in another process. No prediction ends meanwhile.

- ``idle``: ``DateTimeTrigger``s that sleep until tomorrow: Airflow's floor.
- ``http_60``: ``HttpSensorTrigger`` with ``poke_interval=60``, ``comet_60``: ours with the same: equal look rates.
- ``http_5``, ``comet_5``: the same with 5 s: 200 looks a second are wanted. The HTTP trigger asks Airflow for its
  connection before each look, and a triggerer answers such questions one after the other.
- ``comet``: ours on its own schedule, for predictions that are ten minutes old (a look every minute).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from benchmarks import processes
from benchmarks.airflow_processes import cpu, memory
from benchmarks.report import Part, Table, number
from benchmarks.ways import KEY, PATH, UNLIMITED
from tests.e2e.crash_run import until
from tests.e2e.standalone import Standalone

ROOT = Path(__file__).resolve().parent.parent
DAGS = Path(__file__).resolve().parent / "airflow_dags"
DAG = "held"
COMET = "airflow_provider_comet.triggers.prediction.PredictionTrigger"
HTTP = "airflow.providers.http.triggers.http.HttpSensorTrigger"
IDLE = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
ROWS = ("idle", "http_60", "comet_60", "http_5", "comet_5", "comet")
TITLES = {
    "idle": "asleep (`DateTimeTrigger`)",
    "http_60": "`HttpSensorTrigger`, every 60 s",
    "comet_60": "ours, every 60 s",
    "http_5": "`HttpSensorTrigger`, every 5 s",
    "comet_5": "ours, every 5 s",
    "comet": "ours, ten minutes old",
}
NOTES = [
    "An `airflow triggerer` of its own for each row gets 1,000 deferred task instances, settles until each has been "
    "looked at, and is measured with its whole family: CPU over two minutes (one where it looks every 5 s), memory as "
    "proportional set size. The looks are counted by the server, another process. What the row asleep uses is "
    "Airflow's own and is taken off where it says 'above asleep'.",
    "Every 5 s means 200 looks a second. `HttpSensorTrigger` asks Airflow for its connection before each look, and a "
    "triggerer answers such questions one after the other: it does not get there. In two rows ours looks once a "
    "minute: two runs have to agree on their mean.",
]
SECONDS = {"5": (30.0, 60.0)}
"""By interval: how long a row settles, because the first look of each wait writes a line into its task's log, and how
long it is measured."""
RARE_SECONDS = (75.0, 120.0)
"""The same of all others: a minute holds too few looks for a steady figure."""
OURS = {"60": ("comet_60", "comet"), "5": ("comet_5",)}
"""What is compared with ``HttpSensorTrigger``, by interval. Our own schedule looks once a minute, too: at 1 % of a
core, one row alone differs by a third from run to run."""
AGE_SECONDS = 600.0


def trigger(row: str, number: int) -> tuple[str, dict[str, Any]]:
    """Class and kwargs of one trigger of a row."""
    tomorrow = time.time() + 86_400
    prediction_id = f"w{number}.t{int(tomorrow * 1000)}"
    kind, _, interval = row.partition("_")
    if kind == "comet":
        return COMET, {
            "prediction_id": prediction_id,
            "started_at": time.time() - AGE_SECONDS,
            "deadline": tomorrow,
            "poke_interval": float(interval) if interval else None,
        }
    if kind == "http":
        headers = {"Authorization": f"Bearer {KEY}"}
        endpoint = f"/sensor{PATH}{prediction_id}"
        return HTTP, {"endpoint": endpoint, "headers": headers, "poke_interval": float(interval)}
    return IDLE, {"moment": tomorrow}


class Bench:
    """One Airflow, whose triggerer is replaced for each row.

    :param waits: triggers of a row.
    """

    def __init__(self, airflow: Standalone, server: processes.Process, waits: int) -> None:
        self._airflow = airflow
        self._server = server
        self._waits = waits
        airflow.rest.send("POST", "/api/v2/pools", {"name": "closed", "slots": 0})
        airflow.rest.wait_for_dag(DAG)

    def measure(self, row: str) -> dict[str, float]:
        """Start a triggerer with a row's triggers and measure it."""
        self._airflow.kill("triggerer")
        run_id = self._hold(row)
        self._airflow.start("triggerer")
        until("the triggerer runs", lambda: len(self._family()) > 1 or None)
        until("it has all triggers", lambda: self._ask_hold() == self._waits or None)
        settle, measure = SECONDS.get(row.partition("_")[2], RARE_SECONDS)
        time.sleep(settle)
        self._server.ask()
        family = self._family()
        began, used = time.monotonic(), cpu(family)
        time.sleep(measure)
        took = time.monotonic() - began
        looks = self._server.ask()["looks"] / took
        figures = {
            "cpu_share": (cpu(family) - used) / took,
            "memory_mb": memory(family) / 1e6,
            "looks_per_second": looks,
        }
        self._airflow.kill("triggerer")  # first: a live one would call on_kill a thousand times
        self._airflow.rest.send("PATCH", f"/api/v2/dags/{DAG}/dagRuns/{run_id}", {"state": "failed"})
        self._airflow.start("triggerer")
        return figures

    def _family(self) -> list[psutil.Process]:
        try:
            triggerer = self._airflow.component("triggerer")
            return [triggerer, *triggerer.children(recursive=True)]
        except (RuntimeError, psutil.Error):
            return []

    def _hold(self, row: str) -> str:
        rest = self._airflow.rest
        run_id = rest.trigger(DAG)
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances?state=scheduled&limit=1"
        until("all are scheduled", lambda: rest.send("GET", path)["total_entries"] == self._waits or None)
        triggers = [trigger(row, number) for number in range(self._waits)]
        self._ask_hold(run_id, triggers[0][0], content=json.dumps([kwargs for _, kwargs in triggers]))
        return run_id

    def _ask_hold(self, *arguments: str, content: str = "") -> int:
        command = [sys.executable, "-m", "benchmarks.hold", *arguments]
        env = {**self._airflow.env, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, input=content, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return 0 if arguments else int(done.stdout.split()[-1])


def connections(url: str) -> Iterator[tuple[str, str]]:
    """Variables that tell Airflow where the server is."""
    comet = {"conn_type": "cometapi", "host": url, "password": KEY, "extra": {"max_polls_per_second": UNLIMITED}}
    yield "AIRFLOW_CONN_COMETAPI_DEFAULT", json.dumps(comet)
    yield "AIRFLOW_CONN_HTTP_DEFAULT", json.dumps({"conn_type": "http", "host": url})


def run(waits: int = 1000) -> Part:
    """Measure all rows."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        server = stack.enter_context(processes.server())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True)))
        env = {
            **dict(connections(server.hello["url"])),
            "BENCHMARK_WAITS": str(waits),
            "AIRFLOW__TRIGGERER__CAPACITY": str(max(1000, waits)),
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        }
        airflow = stack.enter_context(Standalone(dags_folder=DAGS / "held", home=home / "airflow", env=env))
        bench = Bench(airflow, server, waits)
        for row in ROWS:
            measured = bench.measure(row)
            print(row, measured, flush=True)
            figures |= {f"{row}_{name}": value for name, value in measured.items()}
    for row in ROWS[1:]:
        above = figures[f"{row}_cpu_share"] - figures["idle_cpu_share"]
        figures[f"{row}_cpu_ms_per_look"] = above / figures[f"{row}_looks_per_second"] * 1000
    for every, rows in OURS.items():
        ours = fmean(figures[f"{row}_cpu_ms_per_look"] for row in rows)
        figures[f"http_over_comet_{every}"] = figures[f"http_{every}_cpu_ms_per_look"] / ours
    return Part(
        title="A real triggerer with 1,000 waits",
        tables=[table(figures)],
        figures=figures,
        ratios=["http_over_comet_60", "http_over_comet_5"],
        notes=NOTES,
    )


def table(figures: dict[str, float]) -> Table:
    """For a reader."""
    header = ["triggers", "CPU of a core", "looks a second", "CPU of a look above asleep, ms", "memory, MB"]
    return Table(
        header,
        [
            [
                TITLES[row],
                f"{figures[f'{row}_cpu_share']:.1%}",
                number(figures[f"{row}_looks_per_second"]),
                "" if row == "idle" else number(figures[f"{row}_cpu_ms_per_look"]),
                number(figures[f"{row}_memory_mb"]),
            ]
            for row in ROWS
        ],
    )
