"""One task for each point at which a process can die, with each policy."""

from __future__ import annotations

from datetime import timedelta

import crash_hooks
from airflow.sdk import DAG

from airflow_provider_comet.operators.prediction import CreatePredictionOperator

crash_hooks.install()

POINTS = ("before_intent", "after_intent", "after_bytes", "after_answer", "after_record", "after_xcom")
WAITING = ("deferred", "resuming")


def create(task_id: str, *, wait: bool = False, retry_delay: int = 1) -> None:
    CreatePredictionOperator(
        task_id=task_id,
        model="black-forest-labs/flux-schnell",
        input={"prompt": task_id},  # says whose create it is in the emulator's ledger
        on_ambiguous_submit="retry" if task_id.endswith("retry") else "fail",
        wait_for_completion=wait,
        poke_interval=1,
        retries=4,
        retry_delay=timedelta(seconds=retry_delay),
    )


with DAG("crash", schedule=None):
    for policy in ("fail", "retry"):
        for point in POINTS:
            create(f"{point}__{policy}")
        for point in WAITING:
            create(f"{point}__{policy}", wait=True)

with DAG("crash_api_server", schedule=None):
    create("api_server_away__fail")

with DAG("crash_orphan", schedule=None):
    create("orphan_before_intent__fail")
    create("orphan_after_intent__fail")

with DAG("crash_worker", schedule=None):
    for point in ("after_log", "after_record", "after_id"):
        create(f"{point}__fail", retry_delay=5)  # time to see what is there before the next try begins
    create("after_log_alone__fail")
