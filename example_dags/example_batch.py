"""Many prompts in two tasks: one submits all of them, one stores each picture under a name of yours."""

import os

from airflow.sdk import dag

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

PRODUCTS = {"B-17": "a red bicycle in the rain", "B-18": "a paper boat on a pond", "T-02": "a tent under a fern"}
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


@dag(schedule=None, tags=["example", "cometapi"])
def example_batch():
    """Submit many prompts in one task, and store their files in another."""
    # All inputs are checked before the first is paid for. A retry submits only what is missing.
    create = CreatePredictionBatchOperator(
        task_id="create",
        model="black-forest-labs/flux-schnell",
        inputs=[{"prompt": prompt} for prompt in PRODUCTS.values()],
        max_in_flight=8,
        retries=2,
    )
    # It stores what has finished while the others run. The names are in the manifests, in XCom and in asset events.
    DownloadPredictionOutputOperator(
        task_id="store", prediction=create.output, output_path=FOLDER, names=[*PRODUCTS], retries=2, retry_delay=10
    )


example_batch()
