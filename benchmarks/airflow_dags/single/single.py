"""DAGs that create a prediction and wait for it in each of the compared ways, for each duration."""

import json
import os
from datetime import timedelta

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, dag, task

from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
INPUT = {"prompt": "a lighthouse"}
QUERY = "/replicate/v1/predictions/{{ ti.xcom_pull('create') }}"
LIST = 200


def dags(seconds):
    """Create the DAGs of all ways for predictions of this duration."""
    conn_id = f"comet_{seconds}"

    @dag(dag_id=f"http_{seconds}", schedule=None)
    def http():
        create = HttpOperator(
            task_id="create",
            http_conn_id=f"http_{seconds}",
            endpoint=f"/replicate/v1/models/{MODEL}/predictions",
            data=json.dumps({"input": INPUT}),
            headers={"Content-Type": "application/json"},
            response_filter=lambda answer: answer.json()["id"],
        )
        # The sensor waits for the end of a 404; with a response_check it would not defer.
        create >> HttpSensor(
            task_id="wait", http_conn_id=f"gate_{seconds}", endpoint=QUERY, deferrable=True, poke_interval=5
        )

    @dag(dag_id=f"list_{seconds}", schedule=None)
    def many():
        @task
        def create():
            hook = CometReplicateHook(conn_id)
            return [hook.create_prediction(MODEL, INPUT).id for _ in range(LIST)]

        PredictionSensor(task_id="wait", prediction_id=create(), conn_id=conn_id)

    http()
    many()
    for name, options in {
        "defer_after_0": {"defer_after": 0},
        "defer_after_3": {"defer_after": 3},
        "from_trigger": {"start_from_trigger": True},
    }.items():
        with DAG(f"{name}_{seconds}", schedule=None):
            create = CreatePredictionOperator(task_id="create", model=MODEL, input=INPUT, conn_id=conn_id)
            PredictionSensor(
                task_id="wait",
                prediction_id=create.output,
                conn_id=conn_id,
                retries=2,
                retry_delay=timedelta(0),
                **options,
            )


for duration in os.environ["BENCHMARK_SECONDS"].split(","):
    dags(int(duration))
