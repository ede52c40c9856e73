"""Many prompts in one task: all are checked before the first is paid for, one sensor waits, one task stores."""

import os

from airflow.sdk import dag, task

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


@dag(schedule=None, tags=["example", "cometapi"])
def example_batch():
    """Submit many prompts in one task, wait for all of them, store their files."""

    @task
    def inputs():
        return [{"prompt": f"{animal} in the rain"} for animal in ("a fox", "a hare", "an owl")]

    # Each input has a record of its own: a retry submits only what is missing.
    create = CreatePredictionBatchOperator(
        task_id="create", model="black-forest-labs/flux-schnell", inputs=inputs(), max_in_flight=8, retries=2
    )
    wait = PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, retry_delay=10)
    DownloadPredictionOutputOperator(
        task_id="store", prediction=wait.output, output_path=FOLDER, retries=2, retry_delay=10
    )


example_batch()
