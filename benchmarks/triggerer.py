"""What real triggerer processes use while each holds a thousand waits, and what Airflow's own part of that is.

One Airflow has a triggerer for each row of a group, at the same time: whatever disturbs the machine meets all of them.
Each gets that many deferred task instances (``benchmarks.hold``); once all have settled, their CPU (supervisor and
runner) is taken over two minutes, their memory (proportional set size), and the looks that arrive at
``benchmarks.server`` in another process. No prediction ends meanwhile.

- ``idle``: ``DateTimeTrigger``s that sleep until tomorrow: Airflow's floor.
- ``http_60``: ``HttpSensorTrigger`` with ``poke_interval=60``, ``comet_60``: ours with the same: equal look rates.
- ``comet``: ours on its own schedule, for predictions that are ten minutes old (a look every minute).
- ``http_5``, ``comet_5``: the same with 5 s: 200 looks a second are wanted. The HTTP trigger asks Airflow for its
  connection before each look, and a triggerer answers such questions one after the other.
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
"""Rows by the interval of their looks, in seconds."""
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
    "one Airflow, settle until each instance has been looked at, and are measured over the same two minutes: CPU with "
    "their child processes, memory as proportional set size. The looks are counted by the server, another process. "
    "What the row asleep uses is Airflow's own and is taken off where it says 'above asleep'.",
    "Every 5 s means 200 looks a second. `HttpSensorTrigger` asks Airflow for its connection before each look, and a "
    "triggerer answers such questions one after the other: it does not get there.",
]
SETTLE_SECONDS = {"60": 75.0, "5": 30.0}
"""By interval. The first look of each wait writes a line into its task's log, once."""
MEASURE_SECONDS = 120.0
AGE_SECONDS = 600.0


def trigger(row: str, number: int) -> tuple[str, dict[str, Any]]:
    """Class and kwargs of one trigger of a row."""
    tomorrow = time.time() + 86_400
    prediction_id = f"{row}.{number}.t{int(tomorrow * 1000)}"
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
    """One Airflow without a triggerer, to which some are added.

    :param waits: triggers of each.
    """

    def __init__(self, airflow: Standalone, server: processes.Process, waits: int) -> None:
        self._airflow = airflow
        self._server = server
        self._waits = waits
        airflow.rest.send("POST", "/api/v2/pools", {"name": "closed", "slots": 0})
        airflow.rest.wait_for_dag(DAG)
        airflow.kill("triggerer")

    def measure(self, rows: Sequence[str], settle: float, seconds: float) -> dict[str, float]:
        """Start a triggerer for each row, and measure all of them at once; figures by row and name."""
        triggerers = {}
        for count, row in enumerate(rows, 1):
            self._hold(row)
            # Those before have all that they can take, so the new one gets what is new.
            triggerers[row] = self._airflow.start("triggerer", "--skip-serve-logs", f"--capacity={self._waits}")
            until("it has all triggers", lambda count=count: self._ask_hold() == count * self._waits or None)
        time.sleep(settle)
        families = {row: [one, *one.children(recursive=True)] for row, one in triggerers.items()}
        self._server.ask()
        began, used = time.monotonic(), {row: cpu(family) for row, family in families.items()}
        time.sleep(seconds)
        took = time.monotonic() - began
        shares = {f"{row}_cpu_share": (cpu(family) - used[row]) / took for row, family in families.items()}
        looks = self._server.ask()["looks_by"]
        return {
            **shares,
            **{f"{row}_memory_mb": memory(family) / 1e6 for row, family in families.items()},
            **{f"{row}_looks_per_second": looks.get(row, 0) / took for row in rows},
        }

    def _hold(self, row: str) -> None:
        rest = self._airflow.rest
        run_id = rest.trigger(DAG)
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances?state=scheduled&limit=1"
        until("all are scheduled", lambda: rest.send("GET", path)["total_entries"] == self._waits or None)
        triggers = [trigger(row, number) for number in range(self._waits)]
        self._ask_hold(run_id, triggers[0][0], content=json.dumps([kwargs for _, kwargs in triggers]))

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
            figures[f"{row}_cpu_ms_per_look"] = above / figures[f"{row}_looks_per_second"] * 1000
        ours, theirs = (figures[f"{way}_{interval}_cpu_ms_per_look"] for way in ("comet", "http"))
        figures[f"http_over_comet_{interval}"] = theirs / ours
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
                number(figures[f"{row}_cpu_ms_per_look"]) if f"{row}_cpu_ms_per_look" in figures else "",
                number(figures[f"{row}_memory_mb"]),
            ]
            for row in TITLES
        ],
    )
