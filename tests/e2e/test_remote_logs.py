"""Where a paid prediction's id is when its worker is gone, with a real Airflow whose logs go to S3.

Airflow's supervisor uploads a task's log when the task ends, so SIGKILL of both, as of a lost pod or machine, leaves
nothing of that try in S3. `python -m pytest tests/e2e/test_remote_logs.py -s` prints what is left at each moment.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import Crashes, Row, check, until
from tests.e2e.rest import RestError
from tests.e2e.standalone import Standalone
from tests.support.s3 import BUCKET, S3, s3_server

DAGS = Path(__file__).resolve().parent / "crash_dags"


class Worker(Crashes):
    """A run whose logs go to S3, and the places in which an id may be."""

    def __init__(self, airflow: Standalone, emulator: Emulator, folder: Path, s3: S3) -> None:
        super().__init__(airflow, emulator, folder, "crash_worker")
        self.s3 = s3

    def local_log(self, task_id: str) -> Path:
        """The log of the first try on the worker's disk."""
        (path,) = (self.airflow.home / "logs").rglob(f"task_id={task_id}/attempt=1.log")
        return path

    def remote_log(self, task_id: str, try_number: int) -> str | None:
        """The log of a try in S3; `None`: there is none."""
        found = [key for key in self.s3.objects() if f"/task_id={task_id}/attempt={try_number}.log" in key]
        return self.s3.content(found[0]).decode() if found else None

    def id_in_xcom(self, task_id: str) -> Any:
        try:
            return self.airflow.rest.xcom(self.dag_id, self.run_id, task_id, key="prediction_id")
        except RestError as error:
            if error.status != 404:
                raise
            return None

    def in_database(self, text: str) -> bool:
        """Whether any table of Airflow's database has a text."""
        return any(text.encode() in path.read_bytes() for path in self.airflow.home.glob("airflow.db*"))

    def task_at_point(self, row: Row) -> psutil.Process:
        """Wait until a task stands at its point and the log on its worker's disk has the id, and return its process."""
        place = until(f"{row.task_id} is at its point", lambda: self.noted(row.task_id, "json"))
        (made,) = self.creates(row.task_id)
        log, line = self.local_log(row.task_id), f"comet.created id={made['id']} "
        until(f"{row.task_id}: the supervisor has written the line", lambda: line in log.read_text())
        until(f"{row.task_id}: the worker's output has it", lambda: line in self.airflow.log.read_text(), timeout=10)
        row.expect("log in S3 while the task runs", None, self.remote_log(row.task_id, 1))
        return psutil.Process(place["pid"])

    def lose_worker(self, row: Row) -> None:
        """Kill a task together with its supervisor, and take the worker's disk away."""
        task = self.task_at_point(row)
        supervisor = task.parent()
        assert supervisor is not None
        assert "LocalExecutor" in " ".join(supervisor.cmdline())
        for process in (supervisor, task):  # in this order: a supervisor that lives uploads the log
            process.kill()
        shutil.rmtree(self.local_log(row.task_id).parent)

    def lose_task(self, row: Row) -> None:
        """Kill a task's process alone: its supervisor uploads the log."""
        task = self.task_at_point(row)
        self.observe(row)
        task.kill()
        (made,) = self.creates(row.task_id)
        log = until(f"{row.task_id}: the log is in S3", lambda: self.remote_log(row.task_id, 1))
        row.expect("id in the log in S3", True, f"comet.created id={made['id']} " in log)

    def compare(self, row: Row, *, xcom: bool) -> None:
        """Compare what is left when Airflow has noticed, before the next try begins."""
        until(f"{row.task_id} waits for its retry", lambda: self.states()[row.task_id] == "up_for_retry")
        (made,) = self.creates(row.task_id)
        self.observe(row)
        answered, stood = (self.noted(row.task_id, kind) or {} for kind in ("answered", "json"))
        row.evidence += f", {(stood['at'] - answered['at']) * 1000:.0f} ms"  # since the answer
        row.expect("XCom prediction_id", made["id"] if xcom else None, self.id_in_xcom(row.task_id))
        row.expect("id in the database", row.record == "accepted", self.in_database(made["id"]))
        row.expect("log in S3", None, self.remote_log(row.task_id, 1))
        shown = self.airflow.rest.log(self.dag_id, self.run_id, row.task_id)
        row.expect("id in the log that Airflow shows", False, made["id"] in shown)
        row.expect("state when all was seen", "up_for_retry", self.states()[row.task_id])


def test_a_worker_that_is_gone(tmp_path: Path) -> None:
    """Only between the answer and the record is the id lost, and then nothing is bought before somebody has checked.

    From the record on, the next try continues with the id although no log has it; XCom has it until that try begins.
    If the task's process alone is killed, its supervisor uploads the log, with the id.
    """
    lost = Row("after_log", "fail", "sending", 1, "failed", 1)
    recorded = Row("after_record", "fail", "accepted", 1, "success", 1)
    pushed = Row("after_id", "fail", "accepted", 1, "success", 1)
    alone = Row("after_log_alone", "fail", "sending", 1, "failed", 1)
    folder = tmp_path / "notes"
    folder.mkdir()
    with s3_server() as s3, Emulator() as emulator:
        env = {
            "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
            "AIRFLOW_CONN_AWS_DEFAULT": s3.connection,
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{BUCKET}/logs",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
            "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "True",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "CRASH_FOLDER": str(folder),
        }
        with Standalone(dags_folder=DAGS, home=tmp_path / "airflow", env=env) as airflow:
            run = Worker(airflow, emulator, folder, s3)
            for row in (lost, recorded, pushed):
                run.lose_worker(row)
            run.lose_task(alone)
            for row in (lost, recorded, pushed):
                run.compare(row, xcom=row is pushed)
            run.finish([lost, recorded, pushed, alone])
            for row in (lost, recorded, pushed, alone):
                (made,) = run.creates(row.task_id)
                log = until(f"{row.task_id}: the second log is in S3", lambda row=row: run.remote_log(row.task_id, 2))
                row.expect("id in the second log", row.record == "accepted", made["id"] in log)
                row.expect("the second log says what to check", row.record == "sending", "usage page" in log)
                row.expect("XCom prediction_id in the end", None, run.id_in_xcom(row.task_id))
            for row in (lost, recorded, pushed):
                row.expect("log of the first try in the end", None, run.remote_log(row.task_id, 1))
            check([lost, recorded, pushed, alone])
