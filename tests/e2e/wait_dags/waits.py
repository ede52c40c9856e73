"""Waits that need real Airflow processes: started in the triggerer, for a list, and many at the same time."""

import os
from datetime import timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
NEVER = "{{ dag_run.conf['never'] }}"
AGAIN = {"retries": 1, "retry_delay": 1}


class Create(CreatePredictionOperator):
    """A create that is skipped if its prompt says so."""

    def execute(self, context):
        """Skip, or create."""
        if "left out" in self.input.values():
            raise AirflowSkipException("left out")
        return super().execute(context)


@dag(schedule=None)
def modes():
    """Start waits in the triggerer, with results, without, and with timeouts."""
    create = CreatePredictionOperator(task_id="create", model=MODEL, input={"prompt": "a lighthouse"})
    PredictionSensor(task_id="from_output", prediction_id=create.output, start_from_trigger=True, retries=2)
    PredictionSensor(task_id="from_template", prediction_id="{{ dag_run.conf['id'] }}", start_from_trigger=True)
    left_out = Create(task_id="left_out", model=MODEL, input={"prompt": "left out"})
    PredictionSensor(
        task_id="from_skipped", prediction_id=left_out.output, start_from_trigger=True, trigger_rule="all_done", **AGAIN
    )
    PredictionSensor(task_id="late", prediction_id=NEVER, start_from_trigger=True, timeout=8, **AGAIN)
    killed = {"execution_timeout": timedelta(seconds=15), **AGAIN}
    PredictionSensor(task_id="killed", prediction_id=NEVER, start_from_trigger=True, **killed)
    PredictionSensor(task_id="killed_deferred", prediction_id=NEVER, defer_after=0, **killed)


@dag(schedule=None)
def lists():
    """Wait for all predictions of a mapped create in a single task."""
    inputs = [{"prompt": "a boat"}, {"prompt": "nsfw"}, {"prompt": "a fox"}, {"refused": None}, {"prompt": "left out"}]
    create = Create.partial(task_id="create", model=MODEL).expand(input=inputs)
    both = {"prediction_id": create.output, "trigger_rule": "all_done", "retries": 2, "retry_delay": 1}
    PredictionSensor(task_id="fail", defer_after=0, **both)
    PredictionSensor(task_id="keep", on_item_error="keep", **both)


@dag(schedule=None, max_active_tasks=2000)
def restarts():
    """Wait in many mapped tasks."""

    @task
    def ids(dag_run=None):
        return dag_run.conf["ids"]

    interval = os.environ.get("RESTARTS_POKE_INTERVAL")
    every = {"poke_interval": float(interval)} if interval else {}
    many = PredictionSensor.partial(task_id="wait", defer_after=0, retries=5, retry_delay=1, **every)
    many.expand(prediction_id=ids())


modes()
lists()
restarts()
