"""Measure what a finished prediction costs a whole Airflow: CPU of all its processes, worker slots, and time.

A real ``airflow standalone`` (LocalExecutor, sqlite) runs DAGs of two tasks, create and wait, against the emulator: one
run at a time, all ways in turn. The figures are the medians of the rounds.

- CPU: user and system time of every process of Airflow, from the trigger of the run until a second after its end, minus
  what the same processes use in as much time without any run (measured in each round, with the same REST requests). Of
  it, workers: the LocalExecutor's processes and the tasks in them, which use nothing when nothing runs.
- Slot-seconds: how long a worker of the LocalExecutor had a task, by its process title, create included.
- Time: from the start to the end of the run, according to Airflow.
- ``list``: 200 predictions of a single task, for which a single sensor waits; CPU and slots are divided by 200.
- ``http``: ``HttpOperator``, then ``HttpSensor(deferrable=True, poke_interval=5)``. Its trigger waits for the end of a
  404, which this API never answers, so a proxy in this process turns a prediction that has not finished into a 404. It
  returns no result: a third task would have to fetch it.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from airflow_provider_comet.emulator import Emulator
from benchmarks.airflow_processes import Gate, Slots, cpu, workers
from benchmarks.report import Part, Table, number
from tests.e2e.rest import FINISHED
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "airflow_dags" / "single"
WAYS = ("http", "defer_after_0", "defer_after_3", "from_trigger", "list")
TITLES = {
    "http": "`HttpOperator` and `HttpSensor(deferrable=True)`",
    "defer_after_0": "create and wait, `defer_after=0`",
    "defer_after_3": "create and wait, `defer_after=3`",
    "from_trigger": "create and wait, `start_from_trigger=True`",
    "list": "200 ids on one sensor, each",
}
SECONDS = (2, 20)
ROUNDS = 3
LIST = 200
CHECK_EVERY_SECONDS = 0.5
IDLE_SECONDS = 20.0
ENDING_SECONDS = 1.0
"""How long the CPU is counted after the end of the run, because the process of the last task ends later."""
MEASURES = ("cpu", "workers", "slot", "time")


NOTES = [
    "`airflow standalone` (LocalExecutor, sqlite) runs one DAG at a time, create and wait as two tasks, against the "
    "emulator. CPU: every process of Airflow until a second after the run's end, less what they use without any run; "
    "slot-seconds: how long a worker was taken, create included. All ways in turn, medians of the rounds.",
    "`HttpSensor`'s trigger waits for the end of a 404, which this API never answers for a prediction that exists, so "
    "a proxy turns a prediction that has not finished into a 404; and it returns no result: a third task would have to "
    "fetch it.",
]


class Measured(NamedTuple):
    """The figures of a run, or of a time without any run; all are in seconds.

    :param watched: seconds over which the CPU was counted.
    """

    cpu: float
    workers: float
    slot: float
    time: float
    watched: float


class Runs:
    """Runs of DAGs in an Airflow that does nothing else.

    :param airflow: a running Airflow that has found its DAGs.
    """

    def __init__(self, airflow: Standalone) -> None:
        """Use a running Airflow."""
        self._airflow = airflow

    def idle(self) -> float:
        """Return the CPU seconds per second while nothing runs."""
        end = time.monotonic() + IDLE_SECONDS
        measured = self._watch(lambda: time.monotonic() > end)
        return measured.cpu / measured.watched

    def measure(self, dag_id: str) -> Measured:
        """Run a DAG and return its figures."""
        rest = self._airflow.rest
        run_id = rest.trigger(dag_id)
        measured = self._watch(lambda: self._state(run_id) in FINISHED)
        run = rest.send("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        if run["state"] != "success":
            raise RuntimeError(f"{dag_id} has ended as {run['state']}\n{self._airflow.log_tail()}")
        lasted = datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])
        return measured._replace(time=lasted.total_seconds())

    def _state(self, run_id: str) -> str:
        # Not from the API server: of a run with thousands of tasks its answer takes a second of CPU, which would count.
        with closing(sqlite3.connect(f"file:{self._airflow.home / 'airflow.db'}?mode=ro", uri=True)) as database:
            return str(database.execute("SELECT state FROM dag_run WHERE run_id = ?", [run_id]).fetchone()[0])

    def _watch(self, is_over: Callable[[], bool]) -> Measured:
        members = self._airflow.members()
        began, used, used_by_workers = time.monotonic(), cpu(members), cpu(workers(members))
        with Slots(members) as slots:
            while not is_over():
                time.sleep(CHECK_EVERY_SECONDS)
            time.sleep(ENDING_SECONDS)
        members = self._airflow.members()
        took = time.monotonic() - began
        return Measured(cpu(members) - used, cpu(workers(members)) - used_by_workers, slots.seconds, 0.0, took)


def run(rounds: int = ROUNDS) -> Part:
    """Measure all ways, in turn."""
    measured: dict[tuple[str, int], list[Measured]] = {}
    idle: list[float] = []
    with ExitStack() as stack:
        airflow = stack.enter_context(airflow_with_emulators(stack))
        runs = Runs(airflow)
        for way in WAYS:
            for seconds in SECONDS:
                airflow.rest.wait_for_dag(f"{way}_{seconds}")
            runs.measure(f"{way}_{SECONDS[0]}")  # warm up: modules are loaded, caches are filled
        for turn in range(rounds):
            idle.append(runs.idle())
            for seconds in SECONDS:
                for way in WAYS:
                    measured.setdefault((way, seconds), []).append(runs.measure(f"{way}_{seconds}"))
            print(f"round {turn + 1} of {rounds}", flush=True)
    figures = {"idle_cpu_share": median(idle)}
    for (way, seconds), results in measured.items():
        net = [run._replace(cpu=run.cpu - rate * run.watched) for run, rate in zip(results, idle, strict=True)]
        for measure in MEASURES:
            share = LIST if way == "list" and measure != "time" else 1
            figures[f"{way}_{seconds}_{measure}"] = median(getattr(run, measure) for run in net) / share
    ratios = []
    for way in WAYS[1:]:
        for seconds in SECONDS:
            name = f"{way}_{seconds}_workers_over_http"
            figures[name] = figures[f"{way}_{seconds}_workers"] / figures[f"http_{seconds}_workers"]
            ratios.append(name)
    return Part(
        title="From create to result on a whole Airflow",
        tables=[table(figures, seconds) for seconds in SECONDS],
        figures=figures,
        ratios=ratios,
        notes=NOTES,
    )


def airflow_with_emulators(stack: ExitStack) -> Standalone:
    """Return an Airflow with connections to an emulator for each duration."""
    env = {
        "BENCHMARK_SECONDS": ",".join(map(str, SECONDS)),
        # Otherwise the DAG processor would use more CPU than a run.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
    for seconds in SECONDS:
        emulator = stack.enter_context(Emulator(duration=seconds))
        gate = stack.enter_context(Gate(emulator.base_url, emulator.api_key))
        key = {"Authorization": f"Bearer {emulator.api_key}"}
        env[f"AIRFLOW_CONN_COMET_{seconds}"] = emulator.connection_json()
        for name, url in (("HTTP", emulator.base_url), ("GATE", gate.url)):
            env[f"AIRFLOW_CONN_{name}_{seconds}"] = json.dumps({"conn_type": "http", "host": url, "extra": key})
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True))
    return Standalone(dags_folder=DAGS, home=Path(home) / "airflow", env=env)


def table(figures: dict[str, float], seconds: int) -> Table:
    """Return the figures of the predictions of this duration as a table."""
    header = [f"a prediction of {seconds} s", "CPU, s", "of it workers", "slot-seconds", "start to end, s"]
    rows = [[TITLES[way], *(number(figures[f"{way}_{seconds}_{measure}"]) for measure in MEASURES)] for way in WAYS]
    return Table(header, rows)
