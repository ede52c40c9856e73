"""Answers that JSON allows and PostgreSQL, Airflow or a strict JSON parser refuses: no triggerer dies of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.postgres import postgres
from tests.e2e.rest import FINISHED, RestError
from tests.e2e.restart_run import created
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "answer_dags"
DAG = "answers"
SUMMARY = {"id", "model", "version", "status", "files", "output", "error", "metrics"}
SUMMARY |= {"created_at", "started_at", "completed_at", "data_removed"}
GOOD = {
    "model": '"black-forest-labs/flux-schnell"',
    "version": '"hidden"',
    "status": '"succeeded"',
    "output": '["https://example.com/a.webp"]',
    "error": "null",
    "metrics": '{"predict_time": 1.5}',
    "created_at": '"2026-11-30T10:00:00.000Z"',
    "started_at": '"2026-11-30T10:00:01.000Z"',
    "completed_at": '"2026-11-30T10:00:02.000Z"',
    "data_removed": "false",
}
"""The fields of a good answer without its id, each as JSON."""
NESTED = 400


@dataclass
class Row:
    """An answer to the polls of a wait.

    :param name: says what is odd about the answer.
    :param fields: the odd fields as JSON.
    :param ends: the state of the task.
    :param log: what the log says of it.
    :param before: the body of an HTTP 500 that comes first.
    """

    name: str
    fields: dict[str, str] = field(default_factory=dict)
    ends: str = "success"
    log: str = "status 'succeeded'"
    before: str | None = None
    task_id: str = "wait"
    map_index: int = -1
    id: str = ""
    deaths: int = 0
    wrong: list[str] = field(default_factory=list)

    def body(self) -> str:
        """Return the answer."""
        fields = {"id": json.dumps(self.id), **GOOD, **self.fields}
        return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"

    def output(self) -> Any:
        """Return the output that the answer has."""
        return json.loads(self.fields.get("output", GOOD["output"]))


FAILED = {"ends": "failed", "log": "AirflowFailException: Prediction"}
REFERENCE = '{"__classname__": "x", "__version__": 1, "__data__": {}}'
ANSWERS = [
    Row("healthy, the first"),
    Row("U+0000 in output", {"output": r'"a\u0000b"'}),
    Row("U+0000 in a key", {"output": r'{"a\u0000b": {"\u0000": 1}}'}),
    Row("NaN in output", {"output": '{"score": NaN}'}),
    Row("Infinity in output", {"output": "[Infinity]"}),
    Row("1e400 in output", {"output": "1e400"}),
    Row("-Infinity in nested lists", {"output": "[[1, [-Infinity]]]"}),
    Row("NaN in metrics", {"metrics": '{"predict_time": NaN}'}),
    Row("lone surrogate", {"output": r'"\ud83d"'}),
    Row("lone surrogate in a key", {"output": r'{"\udc00": 1}'}),
    Row("reserved keys of a class", {"output": REFERENCE}),
    Row("reserved keys of a class, nested", {"output": f'[{{"a": {REFERENCE}}}]'}),
    Row("reserved keys of a class in metrics", {"metrics": REFERENCE}),
    Row("reserved keys of a type", {"output": '{"__type": "dict", "__var": {}}'}),
    Row("healthy, in between"),
    Row("integer of 30 digits", {"output": "1" * 30}),
    Row("integer of 30 digits in metrics", {"metrics": f'{{"seed": -{"1" * 30}}}'}),
    Row(f"{NESTED} nested lists", {"output": "[" * NESTED + "]" * NESTED}),
    Row(f"{NESTED} nested objects", {"output": '{"a": ' * NESTED + "1" + "}" * NESTED}),
    Row("U+0000 in model", {"model": r'"black-forest-labs\u0000/flux"'}),
    Row("U+0000 in version", {"version": r'"\u0000"'}),
    Row("U+0000 in created_at", {"created_at": r'"2026-11-30T10:00:00.000Z\u0000"'}),
    Row("NaN in created_at", {"created_at": "NaN"}),
    Row("failed: U+0000, bidi", {"status": '"failed"', "error": r'"no \u0000 paint \u202e\u2066 today"'}, **FAILED),
    Row("failed: NaN", {"status": '"failed"', "error": "NaN"}, **FAILED),
    Row("HTTP 500 and 40 kB of blanks first", before=json.dumps({"error": {"message": " " * 40_000}})),
    Row("U+0000 in output, then stored", {"output": r'"a\u0000b"'}, task_id="text"),
    Row("healthy, the last"),
]
LATE = Row("U+0000 in status", {"status": r'"succeeded\u0000"'}, "failed", "AirflowSensorTimeout", task_id="late")
"""This status is not known, so the wait continues until its timeout, whose error names the status."""
CREATE = Row("NaN, U+0000: polled by a worker", {"output": r'{"a": NaN, "b": "\u0000"}'}, task_id="create")
"""The answer to a worker that creates the prediction and waits for it."""


class Run:
    """The run of the DAG, and the triggerer that holds its waits."""

    def __init__(self, airflow: Standalone, emulator: Emulator) -> None:
        self.rest = airflow.rest
        self._airflow = airflow
        self._emulator = emulator
        self._triggerer = airflow.component("triggerer")
        mapped = [row for row in ANSWERS if row.task_id == "wait"]
        for index, row in enumerate(mapped):
            row.map_index = index
        for row in (*ANSWERS, LATE):
            row.id = created(emulator, status="processing")
        self._answer(LATE)
        emulator.next_outcome(status="succeeded", output=CREATE.output())
        self.rest.wait_for_dag(DAG)
        conf = {row.task_id: row.id for row in (*ANSWERS, LATE)}
        self.run_id = self.rest.trigger(DAG, {**conf, "ids": [row.id for row in mapped]})
        self._path = f"/api/v2/dags/{DAG}/dagRuns/{quote(self.run_id, safe='')}/taskInstances"

    def answer_one_by_one(self) -> None:
        """Answer each wait when all are deferred, and note which answer the triggerer dies of."""
        until("all waits are deferred", lambda: self._deferred("wait") + self._deferred("text") == len(ANSWERS))
        for row in ANSWERS:
            self._answer(row)
            until(f"{row.name}: the triggerer has ended the wait", lambda row=row: self._has_left(row))

    def finish(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Wait for the end of the run, and return its task instances by task and map index."""
        until("the run has finished", lambda: self.rest.run_state(DAG, self.run_id) in FINISHED)
        CREATE.id = self.xcom("create")
        return {(task["task_id"], task["map_index"]): task for task in self.rest.task_instances(DAG, self.run_id)}

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Return an XCom, or the error of reading it."""
        try:
            return self.rest.xcom(DAG, self.run_id, task_id, map_index=map_index, key=key)
        except (OSError, RestError) as error:
            return error

    def log(self, task_id: str, task: dict[str, Any]) -> str:
        """Return the log of a task's last attempt."""
        return self.rest.log(DAG, self.run_id, task_id, try_number=task["try_number"], map_index=task["map_index"])

    def _answer(self, row: Row) -> None:
        answer = {"path": f"/predictions/{row.id}", "headers": {"content-type": "application/json"}}
        if row.before is not None:
            self._emulator.fault(**answer, status=500, body=row.before)
        self._emulator.fault(**answer, status=200, body=row.body(), count=None)

    def _deferred(self, task_id: str) -> int:
        """Return how many instances of a task are deferred."""
        return int(self.rest.send("GET", f"{self._path}?task_id={task_id}&state=deferred&limit=1")["total_entries"])

    def _has_left(self, row: Row) -> bool:
        path = f"{self._path}/{row.task_id}" + (f"/{row.map_index}" if row.map_index >= 0 else "")
        if not is_alive(self._triggerer):
            row.deaths += 1
            # The next triggerer would die of it, too: without this wait, the table shows all others.
            self.rest.send("PATCH", path, {"new_state": "failed"})
            self._triggerer = self._airflow.start("triggerer")
        return self.rest.send("GET", path)["state"] != "deferred"


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_answers(tmp_path: Path) -> None:
    """Whatever a prediction's answer holds, the triggerer lives, each wait ends as its status says, what it returns can
    be read by other tasks and over Airflow's REST API, and what is stored is what the API said, byte for byte."""
    with postgres() as url, Emulator(duration=1) as emulator:
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
            "ANSWERS_FOLDER": f"file://{tmp_path}/stored",
        }
        with Standalone(dags_folder=DAGS, home=tmp_path / "airflow", env=settings) as airflow:
            triggerer = airflow.triggerer_pid()
            run = Run(airflow, emulator)
            run.answer_one_by_one()
            tasks = run.finish()
            blocked = re.findall(r"async thread was blocked for ([\d.]+) seconds", airflow.log.read_text())
            print(f"\nThe triggerer's event loop was blocked for at most {max(map(float, blocked), default=0):.1f} s.")
            print(f"\n{'answer':36} {'task':8} {'triggerer deaths':16} XCom")
            for row in (*ANSWERS, LATE, CREATE):
                check(run, row, tasks[row.task_id, row.map_index])
            wrong = {row.name: row.wrong for row in (*ANSWERS, LATE, CREATE) if row.wrong}
            assert not wrong
            assert airflow.triggerer_pid() == triggerer
            waits = [row for row in ANSWERS if row.task_id == "wait" and row.ends == "success"]
            assert run.xcom("read") == [row.id for row in waits]
            (stored,) = run.xcom("store")["files"]
            assert Path(urlsplit(stored["uri"]).path).read_bytes() == b"a\0b"


def check(run: Run, row: Row, task: dict[str, Any]) -> None:
    """Print a line of the table, and note in the row what is wrong."""
    key = "prediction" if row is CREATE else "return_value"
    result = run.xcom(row.task_id, row.map_index, key) if row.ends == "success" else None
    shown = {name: result.get(name) for name in row.fields} if isinstance(result, dict) else result
    print(f"{row.name:36} {task['state']:8} {row.deaths:<16} {ascii(shown)[:80]}", flush=True)
    if row.deaths:
        row.wrong.append("the triggerer died")
    if task["state"] != row.ends:
        row.wrong.append(f"the task is {task['state']}")
    if row.log not in (log := run.log(row.task_id, task)):
        row.wrong.append(f"the log lacks {row.log!r}: {log[-1500:]}")
    if re.search(r"[\0\u202e\u2066]", log):
        row.wrong.append(f"the log has characters that change how it reads: {log[-1500:]!r}")
    if row.ends == "success" and (not isinstance(result, dict) or set(result) != SUMMARY or result["id"] != row.id):
        row.wrong.append(f"XCom: {result!r}"[:300])
    elif result and result["output"] != row.output() and "not in XCom" not in str(result["output"]):
        row.wrong.append(f"XCom has another output: {result['output']!r}"[:300])
