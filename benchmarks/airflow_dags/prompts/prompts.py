"""The same prompts as a mapped task group, and as a batch with a single sensor."""

import os
from datetime import timedelta

from airflow.sdk import dag, task_group

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
INPUTS = [{"prompt": f"picture {number}"} for number in range(int(os.environ["BENCHMARK_PROMPTS"]))]
RETRY = {"retries": 2, "retry_delay": timedelta(seconds=1)}


@dag(schedule=None, max_active_tasks=1000)
def mapped():
    """Create and wait in a mapped task group."""

    @task_group
    def picture(input):
        create = CreatePredictionOperator(task_id="create", model=MODEL, input=input)
        PredictionSensor(task_id="wait", prediction_id=create.output, **RETRY)

    picture.expand(input=INPUTS)


@dag(schedule=None)
def batch():
    """Create a batch, and wait in a single sensor."""
    create = CreatePredictionBatchOperator(task_id="create", model=MODEL, inputs=INPUTS)
    PredictionSensor(task_id="wait", prediction_id=create.output, **RETRY)


mapped()
batch()
