"""Many pictures into storage of your own; another DAG runs when there are new ones."""

import os

from airflow.sdk import Asset, dag, task

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")
PICTURES = Asset("comet-pictures", uri=FOLDER)


@dag(schedule=None, tags=["example", "cometapi"])
def example_prediction_to_storage():
    """Create pictures, store them, and announce them as an asset."""
    # So many creates at a time as the pool has slots: airflow pools set cometapi 4 "CometAPI creates"
    create = CreatePredictionOperator.partial(
        task_id="create", model="black-forest-labs/flux-schnell", pool="cometapi"
    ).expand(input=[{"prompt": prompt} for prompt in PROMPTS])

    # One task for all of them: it stores what has finished while the others run, and sends one event at its end.
    DownloadPredictionOutputOperator(
        task_id="store",
        prediction=create.output,
        output_path=FOLDER,
        outlets=[PICTURES],
        retries=2,
        retry_delay=10,
    )


@dag(schedule=[PICTURES], tags=["example", "cometapi"])
def example_new_pictures():
    """Use the files whenever there are new ones."""

    @task
    def show(triggering_asset_events=None):
        events = triggering_asset_events[PICTURES]
        files = [file["uri"] for event in events for file in event.extra["files"]]
        print(f"{sum(event.extra['file_count'] for event in events)} new pictures, such as {files}")
        return files

    show()


example_prediction_to_storage()
example_new_pictures()
