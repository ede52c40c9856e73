"""TaskFlow: a function returns the input, and its task submits it, returns the id and retries as CometAPI says."""

import os

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.sdk import dag, task

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

try:
    from airflow_provider_comet.retry_policy import CometRetryPolicy
except AirflowOptionalProviderFeatureException:  # Airflow before 3.3
    POLICY = {}
else:
    POLICY = {"retry_policy": CometRetryPolicy()}

FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


@dag(schedule=None, tags=["example", "cometapi"])
def example_taskflow():
    """Create a picture for each place, and store all of them."""

    @task
    def places():
        return ["a harbour", "a lighthouse"]

    # Two at a time. `from airflow_provider_comet.decorators.prediction import comet_prediction` is the same decorator
    # with parameters that editors and type checkers know.
    @task.comet_prediction(model="black-forest-labs/flux-schnell", max_active_tis_per_dag=2, retries=3, **POLICY)
    def picture(place, dag_run=None):  # `ds` is None in a run that was triggered by hand
        return {"prompt": f"{place} on {dag_run.run_after:%d %B}, watercolour", "aspect_ratio": "16:9"}

    created = picture.expand(place=places())
    DownloadPredictionOutputOperator(task_id="store", prediction=created, output_path=FOLDER, retries=2, retry_delay=10)


example_taskflow()
