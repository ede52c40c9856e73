"""The DAGs that the canary test asks for: `CANARY_TASKS` holds {DAG id: [task, ...]} as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.sdk import DAG, get_parsing_context
from canary_plants import PlantOperator

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.polling import schedule as polling
from airflow_provider_comet.sensors.prediction import PredictionSensor

# What passes by itself is waited out for two minutes, which would be most of the test's time.
polling.PATIENCE = 2.0
polling.NOT_FOUND_GRACE = 1.0


def add(task: dict[str, Any], made: dict[str, Any]) -> None:
    """Make one task of the DAG that is being built."""
    task_id, kind = task["task_id"], task["kind"]
    if kind == "plant":
        made[task_id] = PlantOperator(task_id=task_id, rendered=task["rendered"])
        return
    if kind == "create":
        made[task_id] = CreatePredictionOperator(
            task_id=task_id, model=task["model"], input={"prompt": "a canary"}, conn_id=task["conn_id"]
        )
        return
    after = made.get(task.get("after", ""))
    made[task_id] = PredictionSensor(
        task_id=task_id,
        prediction_id=after.output if after else task["prediction_id"],
        conn_id=task["conn_id"],
        timeout=task["timeout"],
        # Airflow can take the end of a look for that of the next one, and fail the task, if they follow too closely.
        poke_interval=4 if kind == "reschedule" else 0.5,
        deferrable=kind == "deferrable",
        mode="reschedule" if kind == "reschedule" else "poke",
    )


# A worker needs its own task only (and the one before it), which saves it most of the parsing.
wanted = get_parsing_context()
for dag_id, tasks in json.loads(os.environ["CANARY_TASKS"]).items():
    if wanted.dag_id in {None, dag_id}:
        mine = [one for one in tasks if wanted.task_id in {None, one["task_id"]}]
        before = [one for one in tasks if any(one["task_id"] == other.get("after") for other in mine)]
        with DAG(dag_id, schedule=None, max_active_tasks=100, default_args={"retries": 0}) as dag:
            built: dict[str, Any] = {}
            for one in before + [one for one in mine if one not in before]:
                add(one, built)
        globals()[dag_id] = dag
