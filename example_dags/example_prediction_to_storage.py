"""Pictures into storage of your own, before their links expire; another DAG runs when there are new ones."""

import os

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import Asset, dag, task, task_group

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]
# Any URL that Airflow's ObjectStoragePath takes: s3://aws_default@bucket/pictures, gs://..., abfs://...
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")
PICTURES = Asset("comet-pictures", uri=FOLDER)


# The links of a prediction last about an hour. Airflow prefers tasks with many others behind them: of a thousand
# prompts it would run all creates before it stores the first picture. "upstream" turns that around, and in a mapped
# group each picture is stored as soon as it is there.
@dag(schedule=None, tags=["example", "cometapi"], default_args={"weight_rule": "upstream"})
def example_prediction_to_storage():
    """Store the files of each prediction before its links expire, and announce them as an asset."""

    @task_group
    def picture(prompt: str):
        # So many creates at a time as the pool has slots: airflow pools set cometapi 4 "CometAPI creates"
        create = CreatePredictionOperator(
            task_id="create", model="black-forest-labs/flux-schnell", input={"prompt": prompt}, pool="cometapi"
        )
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, retry_delay=10)
        # A retry fetches only what is not there yet.
        store = DownloadPredictionOutputOperator(
            task_id="store", prediction=wait.output, output_path=FOLDER, retries=2, retry_delay=10
        )
        return store.output

    # One event for all pictures, also if some have failed. (With the asset as an outlet of `store` each picture would
    # send an event, and of two events within moments Airflow may hold the second back until there is another.)
    @task(outlets=[PICTURES], trigger_rule="all_done")
    def announce(stored, outlet_events=None):
        stored = stored[:]
        files = [file["uri"] for prediction in stored for file in prediction["files"]]
        if not files:
            raise AirflowSkipException("no picture was stored")
        outlet_events[PICTURES].extra = {
            "prediction_ids": [prediction["prediction_id"] for prediction in stored],
            "manifests": [prediction["manifest"] for prediction in stored],
            "files": files[:50],  # events stay small
            "file_count": len(files),
        }

    # A run succeeds if its last tasks do. `announce` also runs after failures, so this task makes the run fail then.
    @task
    def all_stored(stored):
        print(f"{len(stored)} predictions are stored")

    stored = picture.expand(prompt=PROMPTS)
    announce(stored)
    all_stored(stored)


@dag(schedule=[PICTURES], tags=["example", "cometapi"])
def example_new_pictures():
    """Use the files whenever new ones were announced."""

    @task
    def show(triggering_asset_events=None):
        events = [event for found in triggering_asset_events.values() for event in found]
        files = [file for event in events for file in event.extra["files"]]
        print(f"{sum(event.extra['file_count'] for event in events)} new pictures, such as {files}")
        return files

    show()


example_prediction_to_storage()
example_new_pictures()
