"""The DAGs of the canary test: `CANARY_TASKS` holds {DAG id: [task, ...]} as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.sdk import DAG, get_parsing_context
from canary_plants import PlantOperator

from airflow_provider_comet.client import sync_client
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.polling import wait
from airflow_provider_comet.sensors.prediction import PredictionSensor

# A wait tolerates transient errors for two minutes, which would be most of the test's time.
sync_client.RETRY_BUDGET_SECONDS = 2.0
wait.NOT_FOUND_GRACE_SECONDS = 1.0


def add(task: dict[str, Any], operators: dict[str, Any]) -> None:
    """Add a task to the current DAG and to `operators`."""
    task_id, kind = task["task_id"], task["kind"]
    if kind == "plant":
        operators[task_id] = PlantOperator(task_id=task_id, rendered=task["rendered"])
        return
    if kind == "create":
        operators[task_id] = CreatePredictionOperator(
            task_id=task_id, model=task["model"], input={"prompt": "a canary"}, conn_id=task["conn_id"]
        )
        return
    after = operators.get(task.get("after", ""))
    operators[task_id] = PredictionSensor(
        task_id=task_id,
        prediction_id=after.output if after else task["prediction_id"],
        conn_id=task["conn_id"],
        timeout=task["timeout"],
        # If two pokes follow too closely, Airflow can take the end of the first for the end of the second and fail it.
        poke_interval=4 if kind == "reschedule" else 0.5,
        deferrable=kind == "deferrable",
        mode="reschedule" if kind == "reschedule" else "poke",
    )


# A worker needs only its own task and the task before it, which saves most of the parsing.
parsing_context = get_parsing_context()
for dag_id, tasks in json.loads(os.environ["CANARY_TASKS"]).items():
    if parsing_context.dag_id in {None, dag_id}:
        requested = [task for task in tasks if parsing_context.task_id in {None, task["task_id"]}]
        before = [task for task in tasks if any(task["task_id"] == other.get("after") for other in requested)]
        with DAG(dag_id, schedule=None, max_active_tasks=100, default_args={"retries": 0}) as dag:
            built: dict[str, Any] = {}
            for task in before + [task for task in requested if task not in before]:
                add(task, built)
        globals()[dag_id] = dag
