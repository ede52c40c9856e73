"""The same prompts, with every picture stored: as a mapped task group, and as a batch with and without a sensor."""

import json
import os
from datetime import timedelta

from airflow.sdk import dag, task_group

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
PROMPTS = json.loads(os.environ["BENCHMARK_PROMPTS"])
FOLDER = os.environ["BENCHMARK_FOLDER"]
RETRY = {"retries": 2, "retry_delay": timedelta(seconds=1)}


def inputs(way):
    # Flat pictures: the emulator draws them on the same processors, and these seven times faster than square ones.
    return [{"prompt": f"picture {number}", "aspect_ratio": "10:1"} for number in range(PROMPTS[way])]


@dag(schedule=None, max_active_tasks=1000)
def mapped():
    """Create, wait and store in a mapped task group."""

    @task_group
    def picture(input):
        create = CreatePredictionOperator(task_id="create", model=MODEL, input=input, pool="cometapi")
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, **RETRY)
        DownloadPredictionOutputOperator(
            task_id="store", prediction=wait.output, output_path=f"file://{FOLDER}/mapped", **RETRY
        )

    picture.expand(input=inputs("mapped"))


@dag(schedule=None)
def sensor():
    """Create a batch, wait in a single sensor, and store in a single task."""
    create = CreatePredictionBatchOperator(task_id="create", model=MODEL, inputs=inputs("sensor"))
    wait = PredictionSensor(task_id="wait", prediction_id=create.output, **RETRY)
    DownloadPredictionOutputOperator(
        task_id="store", prediction=wait.output, output_path=f"file://{FOLDER}/sensor", **RETRY
    )


@dag(schedule=None)
def store():
    """Create a batch, and store in a single task, which waits by itself."""
    create = CreatePredictionBatchOperator(task_id="create", model=MODEL, inputs=inputs("store"))
    DownloadPredictionOutputOperator(
        task_id="store", prediction=create.output, output_path=f"file://{FOLDER}/store", **RETRY
    )


mapped()
sensor()
store()
