"""Where a task's process stands still, so that the test can observe it and then kill it. Lives in tests alone.

A task is called after its point (`after_intent__fail`); only the first try that comes there stops. It writes a file
`<task>.json` with its pid and waits for a file `<task>.go`.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk.execution_time import task_runner

from airflow_provider_comet import metrics
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.submissions.submission import Submission

FOLDER = Path(os.environ["CRASH_FOLDER"])
current: Any = None
"""The task instance that has a create under way."""


def note(kind: str, ti: Any) -> None:
    """Leave a file for the test."""
    path = FOLDER / f"{ti.task_id}.{kind}"
    path.with_suffix(".tmp").write_text(json.dumps({"pid": os.getpid(), "at": time.time()}))
    path.with_suffix(".tmp").rename(path)


def stand_still(point: str, ti: Any) -> None:
    """Stop here if this is the task's point."""
    if ti.task_id.split("__")[0] != point or (FOLDER / f"{ti.task_id}.json").exists():
        return
    note("json", ti)
    while not (FOLDER / f"{ti.task_id}.go").exists():
        time.sleep(0.05)


def around(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        result = original(*args, **kwargs)
        after(*args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def nothing(*args: Any, **kwargs: Any) -> None:
    pass


def before_sending(submission: Any, key_from: str) -> None:
    stand_still("before_intent", submission._ti)
    stand_still("orphan_before_intent", submission._ti)


def after_sending(submission: Any, key_from: str) -> None:
    global current
    for point in ("after_intent", "api_server_away", "orphan_after_intent"):
        stand_still(point, submission._ti)
    current = submission._ti


def bytes_are_out(connection: Any) -> None:
    """Request line, headers and body were given to the kernel; the answer was not read."""
    if current is not None and connection.host == "127.0.0.1":
        stand_still("after_bytes", current)


def before_accepted(submission: Any, prediction_id: str) -> None:
    global current
    current = None
    note("answered", submission._ti)
    stand_still("after_answer", submission._ti)


def after_log(prediction_id: str, model: str, reason: str, ti: Any) -> None:
    """The log line was written; the record still says ``sending``."""
    stand_still("after_log", ti)
    stand_still("after_log_alone", ti)


def before_id(submission: Any, prediction_id: str) -> None:
    """The record says ``accepted``; XCom `prediction_id` was not pushed."""
    stand_still("after_record", submission._ti)


def after_id(submission: Any, prediction_id: str) -> None:
    stand_still("after_id", submission._ti)


def after_xcom(result: Any, ti: Any, log: Any) -> None:
    stand_still("after_xcom", ti)


def before_resuming(operator: Any, context: Any, *args: Any, **kwargs: Any) -> None:
    stand_still("resuming", context["ti"])


def install() -> None:
    around(Submission, "sending", before_sending, after_sending)
    around(http.client.HTTPConnection, "getresponse", bytes_are_out, nothing)
    around(Submission, "accepted", before_accepted, nothing)
    around(metrics, "created", nothing, after_log)
    around(Submission, "_push_id", before_id, after_id)
    around(task_runner, "_push_xcom_if_needed", nothing, after_xcom)
    around(CreatePredictionOperator, "execute_complete", before_resuming, nothing)
