"""What the canary test lets happen: sources of a key, their connections, tasks for every row, and how they ended."""

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
    """A key, where Airflow gets it from, and the emulator that it opens.

    :param conn_id: the connection; its variants for single rows are called `{conn_id}_{variant}`.
    :param modes: how the waits of a row wait, by the row's number.
    :param rows: the rows that are driven.
    """

    name: str
    conn_id: str
    key: str
    rows: tuple[Row, ...]
    every_mode: bool
    emulator: Emulator = field(init=False)
    wrong_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.wrong_key = f"{self.key[:3]}wrong-{secrets.token_hex(12)}"
        self.emulator = Emulator(duration=2, api_key=self.key)

    @property
    def dag_id(self) -> str:
        """The DAG with this source's tasks."""
        return f"canary_{self.name}"

    def connections(self) -> Iterator[dict[str, Any]]:
        """The connection and its variants, as Airflow's REST API takes them."""
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
        """The name of a variant."""
        return f"{self.conn_id}_{variant}" if variant else self.conn_id

    def tasks(self) -> list[dict[str, Any]]:
        """What `canary_tasks.py` makes tasks of; and the emulator told how to answer them."""
        made: list[dict[str, Any]] = []
        for number, row in enumerate(self.rows):
            conn_id = self.connection_of(row.connection)
            said = row.answer and row.answer(self.wrong_key if row.connection == "wrong" else self.key)
            if row.create:
                made.append({"kind": "create", "model": f"canary/{row.name}", "conn_id": conn_id})
                made[-1]["task_id"] = f"{row.name}.create"
                if said:
                    self.emulator.fault(method="POST", path=f"/models/canary/{row.name}/", **said)
            for mode in MODES if self.every_mode else (MODES[number % 3],):
                identity = f"{row.name}.{mode}"
                made.append({"kind": mode, "prediction_id": identity, "conn_id": conn_id, "timeout": row.timeout(mode)})
                made[-1]["task_id"] = identity
                if mode == "deferrable":
                    # The worker's first look sees nothing wrong, so that the trigger gets the trouble.
                    running = answer(200, {"id": identity, "status": "processing"}, self.key)
                    self.emulator.fault(method="GET", path=f"/predictions/{identity}", **{**running, "count": 1})
                if said:
                    self.emulator.fault(method="GET", path=f"/predictions/{identity}", **said)
        chain = {"kind": "create", "task_id": "chain.create", "model": CHAIN_MODEL, "conn_id": self.conn_id}
        wait = {"kind": "deferrable", "task_id": "chain.wait", "after": "chain.create", "conn_id": self.conn_id}
        return [*made, chain, {**wait, "timeout": 120}]

    def held(self) -> dict[str, Any]:
        """A wait that stays in the triggerer."""
        identity = f"held-{self.name}"
        self.emulator.fault(method="GET", path=f"/predictions/{identity}", **prediction("{key}")(self.key))
        wait = {"kind": "deferrable", "task_id": identity, "prediction_id": identity, "conn_id": self.conn_id}
        return {**wait, "timeout": 3000}


SOURCES_ROWS = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Ended:
    """How a task of a row ended."""

    source: str
    row: str
    way: str
    state: str
    errors: tuple[str, ...]
    log: str

    @property
    def is_lost(self) -> bool:
        """Whether Airflow failed it without a word of ours: it can lose a task that comes back from a deferral."""
        return self.state == "failed" and not self.errors

    def problem(self) -> str | None:
        """What is not as the row says, if anything."""
        row = SOURCES_ROWS.get(self.row)
        expected = "success" if row is None else row.create if self.way == "create" else row.wait
        if expected == "success":
            return None if self.state == "success" else f"{self} should have succeeded"
        if self.state != "failed":
            return f"{self} should have failed"
        if expected == "timeout":
            wanted, words = ("AirflowSensorTimeout", "PredictionTimeoutError"), "counts as still running"
        else:
            assert isinstance(expected, type)
            wanted, words = (expected.__name__,), expected.summary
            gives_up = expected.retryable or expected.__name__ == "PredictionNotFoundError"
            if gives_up and self.way != "create":
                wanted = (expected.__name__, "PredictionTimeoutError")
        if not set(wanted) & set(self.errors):
            return f"{self} should have raised one of {wanted}"
        return None if words in self.log else f"the log of {self} does not say {words!r}"

    def __str__(self) -> str:
        return f"{self.source} {self.row}.{self.way}: {self.state} {self.errors}"


def ends(rest: AirflowRest, source: Source, run_id: str) -> list[Ended]:
    """How all tasks of a source's run ended, as Airflow tells it."""
    found = []
    for task in rest.task_instances(source.dag_id, run_id):
        row, _, way = task["task_id"].rpartition(".")
        entries = rest.log_entries(source.dag_id, run_id, task["task_id"], try_number=max(1, task["try_number"]))
        errors = [error["exc_type"] for entry in entries for error in entry.get("error_detail") or []]
        log = rest.log(source.dag_id, run_id, task["task_id"], try_number=max(1, task["try_number"]))
        found.append(Ended(source.name, row, way, str(task["state"]), tuple(dict.fromkeys(errors)), log))
    return found


def table(ended: Iterable[Ended]) -> str:
    """Row -> how each of its tasks ended, for a person to read."""
    lines: dict[str, list[str]] = defaultdict(list)
    for one in ended:
        ours = [name for name in one.errors if not name.startswith("Airflow")] or list(one.errors)
        lines[one.row].append(f"{one.source}/{one.way}={one.state}" + (f":{ours[-1]}" if ours else ""))
    return "\n".join(f"{row:<20} {'  '.join(sorted(tasks))}" for row, tasks in lines.items())
