"""Batches whose process kills itself at a random point of its first try. Lives in tests alone."""

from __future__ import annotations

import functools
import http.client
import itertools
import os
import random
import signal
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.submissions.submission import Submission

COUNT = int(os.environ["BATCH_COUNT"])
POINTS_OF_AN_INPUT = 5
passed = itertools.count(1)
dies_at = 0


def point(*args: Any) -> None:
    """Pass one more point; at the chosen point the process dies, with all its threads."""
    if next(passed) == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: bool, after: bool) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            point()
        result = original(*args, **kwargs)
        if after:
            point()
        return result

    setattr(owner, name, wrapped)


def arm(context: Any) -> None:
    """Choose the point, by the run's id: before and after the intent is on record, when the bytes are out, and before
    and after the id is on record, of any input."""
    global dies_at
    ti = context["ti"]
    if ti.try_number == 1:
        dies_at = random.Random(ti.run_id).randrange(1, COUNT * POINTS_OF_AN_INPUT)
    around(Submission, "sending", before=True, after=True)
    around(Submission, "accepted", before=True, after=True)
    around(http.client.HTTPConnection, "getresponse", before=True, after=False)


for policy in ("fail", "retry"):
    with DAG(f"batch_{policy}", schedule=None, max_active_runs=4):
        CreatePredictionBatchOperator(
            task_id="create",
            model="black-forest-labs/flux-schnell",
            inputs=[{"prompt": f"{{{{ run_id }}}} {number}"} for number in range(COUNT)],
            on_ambiguous_submit=policy,
            pre_execute=arm,
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
