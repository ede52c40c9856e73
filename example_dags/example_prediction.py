"""Create a prediction and store its files: the store waits for it, without holding a worker."""

import os

from airflow.sdk import dag

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator

# Any URL that Airflow's ObjectStoragePath takes: s3://aws_default@bucket/pictures, gs://..., abfs://...
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


@dag(schedule=None, tags=["example", "cometapi"])
def example_prediction():
    """Create a picture and store it."""
    create = CreatePredictionOperator(
        task_id="create",
        model="black-forest-labs/flux-schnell",
        input={"prompt": "a lighthouse on a cliff at dawn, watercolour", "aspect_ratio": "16:9"},
    )

    # It waits in the triggerer. A retry is free: it polls, fetches what is not stored yet, and never buys anything.
    DownloadPredictionOutputOperator(
        task_id="store", prediction=create.output, output_path=FOLDER, retries=2, retry_delay=10
    )


example_prediction()
