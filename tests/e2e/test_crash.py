"""Paid once, whenever a process dies: SIGKILL at every point of a create and its wait, in a real Airflow.

`python -m pytest tests/e2e/test_crash.py -s` prints the table: kill point, policy, what was true at that instant (read
from outside, from Airflow's REST API and the emulator's ledger), accepted creates and final state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import psutil

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import API_SERVER, CRASHES, UNLOGGED, Crashes, Row, check, until
from tests.e2e.spending import assert_documented_command_agrees, assert_logs_agree
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "crash_dags"


@contextmanager
def world(tmp_path: Path, **settings: str) -> Iterator[tuple[Standalone, Emulator, Path]]:
    """An Airflow, an emulator whose predictions take eight seconds, and the folder for the tasks' notes."""
    folder = tmp_path / "notes"
    folder.mkdir()
    with Emulator(duration=8) as emulator:
        env = {
            "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
            "CRASH_FOLDER": str(folder),
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            **settings,
        }
        with Standalone(dags_folder=DAGS, home=tmp_path / "airflow", env=env) as airflow:
            yield airflow, emulator, folder


def test_killed_at_every_point(tmp_path: Path) -> None:
    """Whenever the task's process dies, the next try does what the table says: no result that is on record is bought
    again or lost, and a create of unknown fate is repeated only by `on_ambiguous_submit="retry"`.

    Then the API server is away from before a POST until a minute after its answer: the id reaches the record all the
    same.
    """
    rows = deepcopy(CRASHES)
    # Airflow ends a task whose API server is away for three heartbeats; the provider can wait longer than that.
    with world(tmp_path, AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS="100") as (airflow, emulator, folder):
        run = Crashes(airflow, emulator, folder, "crash")
        deferred = [row for row in rows if row.point == "deferred"]
        run.kill_at_points([row for row in rows if row.point != "deferred"], hold=deferred)
        kill_triggerer(run, deferred)
        run.finish(rows)
        rows.append(api_server_away(airflow, emulator, folder))
        check(rows)
        logged = assert_logs_agree(airflow.home, emulator, unlogged=UNLOGGED)
        assert_documented_command_agrees(airflow.home, logged)
    assert {line["reason"] for line in logged} == {"first", "retry_ambiguous"}


def kill_triggerer(run: Crashes, rows: list[Row]) -> None:
    """Kill the triggerer while it holds these waits, and start another one."""
    until("both are deferred", lambda: {run.states()[row.task_id] for row in rows} == {"deferred"})
    for row in rows:
        run.observe(row)
        row.expect("state at that instant", "deferred", run.states()[row.task_id])
    run.airflow.kill("triggerer")
    for made in (made for row in rows for made in run.creates(row.task_id)):
        run.emulator.set_prediction(made["id"], status="succeeded")
    run.airflow.start("triggerer")


def api_server_away(airflow: Standalone, emulator: Emulator, folder: Path) -> Row:
    """Take the API server away right before a POST, and bring it back a minute after the answer."""
    row = deepcopy(API_SERVER)
    run = Crashes(airflow, emulator, folder, "crash_api_server")
    until("the task is about to send", lambda: run.noted(row.task_id, "json"))
    run.observe(row)
    airflow.kill("api-server")
    run.go(row.task_id)
    answered = until("the answer is there", lambda: run.noted(row.task_id, "answered"))
    row.expect("creates while the API server is away", 1, len(run.creates(row.task_id)))
    time.sleep(max(0.0, answered["at"] + 60 - time.time()))
    airflow.start("api-server")
    airflow.wait_until_healthy()
    run.finish([row])
    return row


def test_an_attempt_that_was_given_up_cannot_submit(tmp_path: Path) -> None:
    """Airflow gives up a try whose supervisor it does not hear from, and starts the next one while the old process may
    still live. What the old one has not put on record by then it can't any more, so it does not send; what it has put
    on record keeps the new one from sending. Either way at most one is accepted.
    """
    free = Row("orphan_before_intent", "fail", None, 0, "success", 1)
    bound = Row("orphan_after_intent", "fail", "sending", 0, "failed", 1)
    settings = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    }
    with world(tmp_path, **settings) as (airflow, emulator, folder):
        run = Crashes(airflow, emulator, folder, "crash_orphan")
        tasks: list[psutil.Process] = []
        for row in (free, bound):
            place = until(f"{row.task_id} is at its point", lambda row=row: run.noted(row.task_id, "json"))
            run.observe(row)
            tasks.append(psutil.Process(place["pid"]))
        supervisors = [task.parent() for task in tasks]
        for supervisor in supervisors:
            supervisor.suspend()
        try:
            until("the new tries have ended", lambda: airflow.rest.run_state(run.dag_id, run.run_id) == "failed")
            free.expect("creates when the new try has ended", 1, len(run.creates(free.task_id)))
            bound.expect("creates when the new try has ended", 0, len(run.creates(bound.task_id)))
        finally:
            for supervisor in supervisors:
                supervisor.resume()
        for row in (free, bound):
            run.go(row.task_id)
        until("the old try that had its intent on record has sent", lambda: run.creates(bound.task_id) or None)
        until("the old processes are gone", lambda: not any(task.is_running() for task in tasks), timeout=90)
        run.finish([free, bound])
        check([free, bound])
        assert_logs_agree(airflow.home, emulator)
