"""The sources of a key in the canary test, their connections and tasks, and the outcomes of these tasks."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_comet.emulator import Emulator
from tests.e2e.canary_rows import ROWS, Row, answer, prediction
from tests.e2e.processes import free_ports
from tests.e2e.rest import AirflowRest

MODES = ("deferrable", "poke", "reschedule")
CHAIN_MODEL = "black-forest-labs/flux-schnell"


@dataclass
class Source:
    """A key, the connection from which Airflow gets it, and the emulator that accepts it.

    :param conn_id: the connection; its variants for some rows are called `{conn_id}_{variant}`.
    :param rows: the rows for which there are tasks.
    :param every_mode: whether each row is waited for in all modes; otherwise the rows take turns with them.
    """

    name: str
    conn_id: str
    key: str
    rows: tuple[Row, ...]
    every_mode: bool
    emulator: Emulator = field(init=False)
    wrong_key: str = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the emulator and a key that it refuses."""
        self.wrong_key = f"{self.key[:3]}wrong-{secrets.token_hex(12)}"
        self.emulator = Emulator(duration=2, api_key=self.key)

    @property
    def dag_id(self) -> str:
        """The id of the DAG with the tasks of this source."""
        return f"canary_{self.name}"

    def connections(self) -> Iterator[dict[str, Any]]:
        """Yield the connection and its variants as bodies for Airflow's REST API."""
        url = self.emulator.base_url
        (closed,) = free_ports(1)
        variants: dict[str, dict[str, Any]] = {
            "": {},
            "slow": {"extra": {"read_timeout": 0.5}},
            "refused": {"host": f"http://127.0.0.1:{closed}"},
            "unknown": {"host": "https://comet.invalid"},
            "type": {"conn_type": "http"},
            "space": {"password": f"{self.key} x"},
            "wrong": {"password": self.wrong_key},
        }
        for variant, changes in variants.items():
            fields = {
                "conn_type": "cometapi",
                "host": url,
                "password": self.key,
                "extra": {"read_timeout": 20},
                **changes,
            }
            yield {"connection_id": self.connection_of(variant), **fields, "extra": json.dumps(fields["extra"])}

    def connection_of(self, variant: str) -> str:
        """Return the connection id of a variant."""
        return f"{self.conn_id}_{variant}" if variant else self.conn_id

    def tasks(self) -> list[dict[str, Any]]:
        """Return the tasks for `canary_tasks.py`, and add the faults for them to the emulator."""
        tasks: list[dict[str, Any]] = []
        for number, row in enumerate(self.rows):
            conn_id = self.connection_of(row.connection)
            fault = row.answer and row.answer(self.wrong_key if row.connection == "wrong" else self.key)
            if row.create:
                tasks.append({"kind": "create", "model": f"canary/{row.name}", "conn_id": conn_id})
                tasks[-1]["task_id"] = f"{row.name}.create"
                if fault:
                    self.emulator.fault(method="POST", path=f"/models/canary/{row.name}/", **fault)
            for mode in MODES if self.every_mode else (MODES[number % 3],):
                identity = f"{row.name}.{mode}"
                tasks.append({
                    "kind": mode,
                    "prediction_id": identity,
                    "conn_id": conn_id,
                    "timeout": row.timeout(mode),
                })
                tasks[-1]["task_id"] = identity
                if mode == "deferrable":
                    # The worker's first poll succeeds, so that the trigger gets the fault.
                    running = answer(200, {"id": identity, "status": "processing"}, self.key)
                    self.emulator.fault(method="GET", path=f"/predictions/{identity}", **{**running, "count": 1})
                if fault:
                    self.emulator.fault(method="GET", path=f"/predictions/{identity}", **fault)
        chain = {"kind": "create", "task_id": "chain.create", "model": CHAIN_MODEL, "conn_id": self.conn_id}
        wait = {"kind": "deferrable", "task_id": "chain.wait", "after": "chain.create", "conn_id": self.conn_id}
        return [*tasks, chain, {**wait, "timeout": 120}]

    def endless_wait(self) -> dict[str, Any]:
        """Return a wait that stays in the triggerer."""
        identity = f"held-{self.name}"
        self.emulator.fault(method="GET", path=f"/predictions/{identity}", **prediction("{key}")(self.key))
        wait = {"kind": "deferrable", "task_id": identity, "prediction_id": identity, "conn_id": self.conn_id}
        return {**wait, "timeout": 3000}


SOURCES_ROWS = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class TaskOutcome:
    """How a task of a row has ended.

    :param way: "create" or the mode of a wait.
    :param errors: the exception classes in its log.
    """

    source: str
    row: str
    way: str
    state: str
    errors: tuple[str, ...]
    log: str

    @property
    def is_lost(self) -> bool:
        """Whether Airflow itself failed the task: it can lose a task that resumes from a deferral."""
        return self.state == "failed" and not self.errors

    def problem(self) -> str | None:
        """Return what is different from the expectation of the row, if anything."""
        row = SOURCES_ROWS.get(self.row)
        expected = "success" if row is None else row.create if self.way == "create" else row.wait
        if expected == "success":
            return None if self.state == "success" else f"{self} should have succeeded"
        if self.state != "failed":
            return f"{self} should have failed"
        if expected == "timeout":
            error_names, words = ("AirflowSensorTimeout", "PredictionTimeoutError"), "counts as still running"
        else:
            assert isinstance(expected, type)
            error_names, words = (expected.__name__,), expected.summary
            may_time_out = expected.retryable or expected.__name__ == "PredictionNotFoundError"
            if may_time_out and self.way != "create":
                error_names = (expected.__name__, "PredictionTimeoutError")
        if not set(error_names) & set(self.errors):
            return f"{self} should have raised one of {error_names}"
        return None if words in self.log else f"the log of {self} does not say {words!r}"

    def __str__(self) -> str:
        """Return the task, its state and its errors."""
        return f"{self.source} {self.row}.{self.way}: {self.state} {self.errors}"


def task_outcomes(rest: AirflowRest, source: Source, run_id: str) -> list[TaskOutcome]:
    """Return the outcomes of all tasks of a source's run."""
    outcomes = []
    for task in rest.task_instances(source.dag_id, run_id):
        row, _, way = task["task_id"].rpartition(".")
        entries = rest.log_entries(source.dag_id, run_id, task["task_id"], try_number=max(1, task["try_number"]))
        errors = [error["exc_type"] for entry in entries for error in entry.get("error_detail") or []]
        log = rest.log(source.dag_id, run_id, task["task_id"], try_number=max(1, task["try_number"]))
        outcomes.append(TaskOutcome(source.name, row, way, str(task["state"]), tuple(dict.fromkeys(errors)), log))
    return outcomes


def table(outcomes: Iterable[TaskOutcome]) -> str:
    """Return a line for each row with the outcomes of its tasks."""
    lines: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        ours = [name for name in outcome.errors if not name.startswith("Airflow")] or list(outcome.errors)
        suffix = f":{ours[-1]}" if ours else ""
        lines[outcome.row].append(f"{outcome.source}/{outcome.way}={outcome.state}{suffix}")
    return "\n".join(f"{row:<20} {'  '.join(sorted(tasks))}" for row, tasks in lines.items())
