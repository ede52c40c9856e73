"""Tasks that get the odd answers of `tests/e2e/test_answers.py`."""

import os

from airflow.sdk import dag, task

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
WAIT = {"defer_after": 0, "poke_interval": 0.5}


# Airflow loses an attempt now and then: of a wait (apache/airflow#67287), and of any task on a busy machine.
@dag(schedule=None, max_active_tasks=100, default_args={"retries": 2, "retry_delay": 1})
def answers():
    """Wait in the triggerer, wait on a worker, and use what the waits return."""

    @task
    def ids(dag_run=None):
        return dag_run.conf["ids"]

    @task(trigger_rule="all_done")
    def read(results):
        return [result["id"] for result in results]

    read(PredictionSensor.partial(task_id="wait", **WAIT).expand(prediction_id=ids()).output)

    PredictionSensor(task_id="late", prediction_id="{{ dag_run.conf['late'] }}", timeout=20, **WAIT)
    text = PredictionSensor(task_id="text", prediction_id="{{ dag_run.conf['text'] }}", **WAIT)
    DownloadPredictionOutputOperator(task_id="store", prediction=text.output, output_path=os.environ["ANSWERS_FOLDER"])

    CreatePredictionOperator(
        task_id="create",
        model=MODEL,
        input={"prompt": "a boat"},
        wait_for_completion=True,
        deferrable=False,
        poke_interval=1,
    )


answers()
