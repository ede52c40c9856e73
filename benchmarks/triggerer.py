"""Measure what real triggerer processes use while each holds a thousand waits, and Airflow's own part of that.

One Airflow has a triggerer for each row of a group at the same time, so that a disturbance affects all of them. Each
gets that many deferred task instances (``benchmarks.hold``). After they have settled, these are measured over two
minutes: CPU (supervisor and runner), memory (proportional set size), and the polls that ``benchmarks.server`` gets in
another process. No prediction ends in this time.

- ``idle``: ``DateTimeTrigger``s that sleep until tomorrow: Airflow's own part.
- ``http_60``: ``HttpSensorTrigger`` with ``poke_interval=60``, ``comet_60``: ours with the same: equal poll rates.
- ``comet``: ours on its own schedule, for predictions that are ten minutes old (a poll every minute).
- ``http_5``, ``comet_5``: the same with 5 s: 200 polls a second are due. The HTTP trigger requests its connection
  from Airflow before each poll, and a triggerer answers such requests one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
GROUPS = {"60": ("idle_60", "http_60", "comet_60", "comet"), "5": ("idle_5", "http_5", "comet_5")}
"""Rows by the interval of their polls, in seconds."""
TITLES = {
    "idle_60": "asleep (`DateTimeTrigger`)",
    "http_60": "`HttpSensorTrigger`, every 60 s",
    "comet_60": "ours, every 60 s",
    "comet": "ours, ten minutes old",
    "idle_5": "asleep, beside the next two",
    "http_5": "`HttpSensorTrigger`, every 5 s",
    "comet_5": "ours, every 5 s",
}
NOTES = [
    "Each row is an `airflow triggerer` with 1,000 deferred task instances. Those of an interval run side by side in "
    "one Airflow, settle until each instance has been polled, and are measured over the same two minutes: CPU with "
    "their child processes, memory as proportional set size. The polls are counted by the server, another process. "
    "What the row asleep uses is Airflow's own part, which is subtracted where it says 'above asleep'.",
    "Every 5 s means 200 polls a second. `HttpSensorTrigger` requests its connection from Airflow before each poll, "
    "and a triggerer answers such requests one after the other, so it does not reach this rate.",
]
SETTLE_SECONDS = {"60": 75.0, "5": 30.0}
"""Seconds by interval, in which each wait writes the log line of its first poll."""
MEASURE_SECONDS = 120.0
AGE_SECONDS = 600.0


def trigger(row: str, number: int) -> tuple[str, dict[str, Any]]:
    """Return class and kwargs of a trigger of a row."""
    tomorrow = time.time() + 86_400
    prediction_id = f"{row}.{number}.t{int(tomorrow * 1000)}"
    kind, _, interval = row.partition("_")
    if kind == "comet":
        return COMET, {
            "prediction_ids": [prediction_id],
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
    """An Airflow whose triggerer is replaced by a triggerer for each row.

    :param waits: the number of triggers of each row.
    """

    def __init__(self, airflow: Standalone, server: processes.Process, waits: int) -> None:
        """Create the pool and kill the triggerer."""
        self._airflow = airflow
        self._server = server
        self._waits = waits
        airflow.rest.send("POST", "/api/v2/pools", {"name": "closed", "slots": 0})
        airflow.rest.wait_for_dag(DAG)
        airflow.kill("triggerer")

    def measure(self, rows: Sequence[str], settle: float, seconds: float) -> dict[str, float]:
        """Start a triggerer for each row, and measure all of them at the same time."""
        triggerers = {}
        for count, row in enumerate(rows, 1):
            self._hold(row)
            # The triggerers before are at their capacity, so the new triggerer gets the new triggers.
            triggerers[row] = self._airflow.start("triggerer", "--skip-serve-logs", f"--capacity={self._waits}")
            until("it has all triggers", lambda count=count: self._run_hold() == count * self._waits or None)
        time.sleep(settle)
        families = {row: [triggerer, *triggerer.children(recursive=True)] for row, triggerer in triggerers.items()}
        self._server.call()
        began, used = time.monotonic(), {row: cpu(family) for row, family in families.items()}
        time.sleep(seconds)
        took = time.monotonic() - began
        shares = {f"{row}_cpu_share": (cpu(family) - used[row]) / took for row, family in families.items()}
        polls = self._server.call()["polls_by"]
        return {
            **shares,
            **{f"{row}_memory_mb": memory(family) / 1e6 for row, family in families.items()},
            **{f"{row}_polls_per_second": polls.get(row, 0) / took for row in rows},
        }

    def _hold(self, row: str) -> None:
        rest = self._airflow.rest
        run_id = rest.trigger(DAG)
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances?state=scheduled&limit=1"
        until("all are scheduled", lambda: rest.send("GET", path)["total_entries"] == self._waits or None)
        triggers = [trigger(row, number) for number in range(self._waits)]
        self._run_hold(run_id, triggers[0][0], content=json.dumps([kwargs for _, kwargs in triggers]))

    def _run_hold(self, *arguments: str, content: str = "") -> int:
        command = [sys.executable, "-m", "benchmarks.hold", *arguments]
        env = {**self._airflow.env, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, input=content, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return 0 if arguments else int(done.stdout.split()[-1])


def connections(url: str) -> Iterator[tuple[str, str]]:
    """Yield the environment variables with the connections to the server."""
    comet = {"conn_type": "cometapi", "host": url, "password": KEY, "extra": {"max_polls_per_second": UNLIMITED}}
    yield "AIRFLOW_CONN_COMETAPI_DEFAULT", json.dumps(comet)
    yield "AIRFLOW_CONN_HTTP_DEFAULT", json.dumps({"conn_type": "http", "host": url})


def run(waits: int = 1000) -> Part:
    """Measure all rows."""
    figures: dict[str, float] = {}
    for interval, rows in GROUPS.items():
        with ExitStack() as stack:
            server = stack.enter_context(processes.server())
            temporary = tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary)) / "airflow"
            env = {**dict(connections(server.hello["url"])), "BENCHMARK_WAITS": str(waits)}
            airflow = stack.enter_context(Standalone(dags_folder=DAGS / "held", home=home, env=env))
            bench = Bench(airflow, server, waits)
            measured = bench.measure(rows, SETTLE_SECONDS[interval], MEASURE_SECONDS)
            print(measured, flush=True)
            figures |= measured
        for row in rows[1:]:
            above = figures[f"{row}_cpu_share"] - figures[f"{rows[0]}_cpu_share"]
            figures[f"{row}_cpu_ms_per_poll"] = above / figures[f"{row}_polls_per_second"] * 1000
        ours, theirs = (figures[f"{way}_{interval}_cpu_ms_per_poll"] for way in ("comet", "http"))
        figures[f"http_over_comet_{interval}"] = theirs / ours
    return Part(
        title="A real triggerer with 1,000 waits",
        tables=[table(figures)],
        figures=figures,
        ratios=["http_over_comet_60", "http_over_comet_5"],
        notes=NOTES,
    )


def table(figures: dict[str, float]) -> Table:
    """Return the figures as a table."""
    header = ["triggers", "CPU of a core", "polls a second", "CPU of a poll above asleep, ms", "memory, MB"]
    return Table(
        header,
        [
            [
                TITLES[row],
                f"{figures[f'{row}_cpu_share']:.1%}",
                number(figures[f"{row}_polls_per_second"]),
                number(figures[f"{row}_cpu_ms_per_poll"]) if f"{row}_cpu_ms_per_poll" in figures else "",
                number(figures[f"{row}_memory_mb"]),
            ]
            for row in TITLES
        ],
    )
