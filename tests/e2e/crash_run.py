"""What a crash at each point must leave behind, and the run that makes it happen."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_comet.emulator import Emulator
from tests.e2e.rest import FINISHED, RestError
from tests.e2e.standalone import Standalone

_Value = TypeVar("_Value")


@dataclass
class Row:
    """One point at which the process dies, under one policy.

    :param record: the record's state at that instant.
    :param paid: accepted creates at that instant.
    :param ends: the task's final state, after Airflow's own retries.
    :param creates: accepted creates in the end.
    """

    point: str
    policy: str
    record: str | None
    paid: int
    ends: str
    creates: int
    evidence: str = ""
    recorded_id: str | None = None
    found: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def task_id(self) -> str:
        return f"{self.point}__{self.policy}"

    def expect(self, what: str, expected: object, found: object) -> None:
        """Note a difference; the table shows all of them."""
        if found != expected:
            self.wrong.append(f"{what}: {found!r} instead of {expected!r}")

    def __str__(self) -> str:
        verdict = "; ".join(self.wrong) or "ok"
        return f"{self.point:22} {self.policy:7} {self.evidence:42} {self.found:24} {verdict}"


def check(rows: list[Row]) -> None:
    """Print the table; it fails if any row found something else than it says."""
    print(f"\n{'kill point':22} {'policy':7} {'at that instant':42} {'in the end':24} verdict")
    print(*rows, sep="\n", flush=True)
    assert not [row.task_id for row in rows if row.wrong]
    assert all(row.found for row in rows)


CRASHES = [
    Row("before_intent", "fail", None, 0, "success", 1),
    Row("before_intent", "retry", None, 0, "success", 1),
    Row("after_intent", "fail", "sending", 0, "failed", 0),
    Row("after_intent", "retry", "sending", 0, "success", 1),
    Row("after_bytes", "fail", "sending", 1, "failed", 1),
    Row("after_bytes", "retry", "sending", 1, "success", 2),
    Row("after_answer", "fail", "sending", 1, "failed", 1),
    Row("after_answer", "retry", "sending", 1, "success", 2),
    # From here on the id is on record: nothing else may happen than success with it.
    *(
        Row(point, policy, state, 1, "success", 1)
        for point, state in (
            ("after_record", "accepted"),
            ("after_xcom", "delivered"),
            ("deferred", "accepted"),
            ("resuming", "accepted"),
        )
        for policy in ("fail", "retry")
    ),
]
API_SERVER = Row("api_server_away", "fail", "sending", 0, "success", 1)
UNLOGGED = 4
"""Processes that died between the create and its log line: after_bytes and after_answer."""


def until(what: str, check: Callable[[], _Value | None], timeout: float = 240.0, pause: float = 0.2) -> _Value:
    """Wait until there is a value; check each ``pause`` seconds."""
    end = time.monotonic() + timeout
    while True:
        with suppress(TimeoutError):  # the API server of a busy machine
            if (value := check()) is not None and value is not False:
                return value
        assert time.monotonic() < end, f"not within {timeout:.0f} s: {what}"
        time.sleep(pause)


class Crashes:
    """Observes a run of a crash DAG, and kills its processes.

    :param folder: where the tasks leave their notes.
    """

    def __init__(self, airflow: Standalone, emulator: Emulator, folder: Path, dag_id: str) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.folder = folder
        self.dag_id = dag_id
        airflow.rest.wait_for_dag(dag_id)
        self.run_id = airflow.rest.trigger(dag_id)

    def record(self, task_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.airflow.rest.record(self.dag_id, self.run_id, task_id)
        return found

    def creates(self, task_id: str) -> list[dict[str, Any]]:
        """This task's accepted creates, found by their prompt."""
        return [create for create in self.emulator.ledger()["creates"] if create["input"]["prompt"] == task_id]

    def states(self) -> dict[str, str | None]:
        return {ti["task_id"]: ti["state"] for ti in self.airflow.rest.task_instances(self.dag_id, self.run_id)}

    def noted(self, task_id: str, kind: str) -> dict[str, Any] | None:
        path = self.folder / f"{task_id}.{kind}"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def go(self, task_id: str) -> None:
        """Let a process that stands still continue."""
        (self.folder / f"{task_id}.go").touch()

    def observe(self, row: Row) -> None:
        """Write down what is true at this instant, and whether it is what the row claims."""
        until(
            f"{row.task_id}: the emulator has accepted {row.paid}", lambda: len(self.creates(row.task_id)) >= row.paid
        )
        record, paid = self.record(row.task_id), self.creates(row.task_id)
        state = record and record["state"]
        row.recorded_id = record and record["id"]
        row.evidence = f"record {state or 'none'}, {len(paid)} accepted, id {(row.recorded_id or 'unknown')[:8]}"
        row.expect("record at that instant", row.record, state)
        row.expect("accepted at that instant", row.paid, len(paid))
        row.expect(
            "id at that instant",
            [create["id"] for create in paid] if state in ("accepted", "delivered") else [],
            [row.recorded_id] if row.recorded_id else [],
        )

    def kill_at_points(self, rows: list[Row], hold: list[Row]) -> None:
        """Kill each task's process as soon as it stands at its point.

        :param hold: rows whose prediction must run until it is released.
        """
        open_rows, held = list(rows), set()
        end = time.monotonic() + 300
        while open_rows:
            for row in list(open_rows):
                if place := self.noted(row.task_id, "json"):
                    self.observe(row)
                    os.kill(place["pid"], signal.SIGKILL)
                    open_rows.remove(row)
            for row in hold:
                for made in self.creates(row.task_id):
                    if made["id"] not in held:
                        self.emulator.set_prediction(made["id"], status="processing")
                        held.add(made["id"])
            assert time.monotonic() < end, f"never came to their point: {[row.task_id for row in open_rows]}"
            time.sleep(0.1)

    def finish(self, rows: list[Row], timeout: float = 300.0) -> None:
        """Wait for the end, and compare each row with it; a run that has not finished by then is compared as it is."""
        end = time.monotonic() + timeout
        while self.airflow.rest.run_state(self.dag_id, self.run_id) not in FINISHED and time.monotonic() < end:
            time.sleep(0.2)
        states = self.states()
        for row in rows:
            creates = self.creates(row.task_id)
            row.found = f"{len(creates)} accepted, {states[row.task_id]}"
            row.expect("final state", row.ends, states[row.task_id])
            row.expect("creates", row.creates, len(creates))
            if row.ends == "success":
                result = self._result(row.task_id)
                row.expect("result", row.recorded_id or (creates[-1]["id"] if creates else "an id"), result)
                row.expect("record in the end", ("delivered", result), self._state_and_id(row.task_id))

    def _result(self, task_id: str) -> str | None:
        try:
            return str(self.airflow.rest.xcom(self.dag_id, self.run_id, task_id))
        except RestError:
            return None

    def _state_and_id(self, task_id: str) -> tuple[str, str] | None:
        record = self.record(task_id)
        return record and (record["state"], record["id"])
