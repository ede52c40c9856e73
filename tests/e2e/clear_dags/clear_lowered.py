"""Tasks whose `retries` are lowered by an edit of this file, in a copy."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_comet.operators.prediction import CreatePredictionOperator

RETRIES = 2

with DAG("clear_lowered", schedule=None):
    for task_id, model in (
        ("lowered_delivered", "black-forest-labs/flux-schnell"),
        ("lowered_sending", "stability-ai/sdxl"),
    ):
        common = {"model": model, "retries": RETRIES, "retry_delay": timedelta(seconds=1)}
        CreatePredictionOperator(task_id=task_id, input={"prompt": f"{task_id}/0"}, **common)
        CreatePredictionOperator.partial(task_id=f"{task_id}_mapped", **common).expand(
            input=[{"prompt": f"{task_id}_mapped/{n}"} for n in range(2)]
        )
