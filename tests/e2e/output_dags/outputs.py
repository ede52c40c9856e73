"""Outputs that only real Airflow processes can show: a batch that outlives its links, a list in one task and the DAGs
that run for what it stores, and a task that is killed."""

import os
from pathlib import Path

from airflow.sdk import Asset, AssetAlias, dag, task, task_group

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

MODEL = "black-forest-labs/flux-schnell"
LISTED, NEW = Asset("listed-pictures"), AssetAlias("new-listed-pictures")
NOTES = Path(os.environ["OUTPUTS_NOTES"])


def note_pid(context):
    (NOTES / f"{context['ti'].task_id}.{context['ti'].try_number}.pid").write_text(str(os.getpid()))


# Without "upstream" the scheduler prefers tasks with many others behind them: all creates would run before the first
# picture is stored, and its links would have expired by then. The pool leaves task slots to the others.
@dag(schedule=None, max_active_tasks=1000, default_args={"weight_rule": "upstream"})
def batch():
    @task
    def prompts(dag_run=None):
        return dag_run.conf["prompts"]

    @task_group
    def picture(prompt):
        create = CreatePredictionOperator(task_id="create", model=MODEL, input={"prompt": prompt}, pool="cometapi")
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, retry_delay=1)
        DownloadPredictionOutputOperator(
            task_id="store",
            prediction=wait.output,
            output_path=os.environ["OUTPUTS_FOLDER"],
            retries=2,
            retry_delay=1,
        )

    picture.expand(prompt=prompts())


@dag(schedule=None)
def listed():
    @task
    def inputs(dag_run=None):
        return [{"prompt": prompt} for prompt in dag_run.conf["prompts"]]

    create = CreatePredictionOperator.partial(task_id="create", model=MODEL).expand(input=inputs())
    wait = PredictionSensor(task_id="wait", prediction_id=create.output, on_item_error="keep")
    DownloadPredictionOutputOperator(
        task_id="store",
        prediction=wait.output,
        output_path=os.environ["OUTPUTS_FOLDER"],
        outlets=[LISTED, NEW],
        retries=2,
        retry_delay=1,
    )


def read(outlet):
    @task
    def read(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[outlet]]

    read()


@dag(schedule=[LISTED])
def by_asset():
    read(LISTED)


@dag(schedule=[NEW])
def by_alias():
    read(NEW)


@dag(schedule=None)
def killed():
    for name in ("local", "s3"):
        DownloadPredictionOutputOperator(
            task_id=name,
            prediction="{{ dag_run.conf['id'] }}",
            output_path=os.environ[f"OUTPUTS_{name.upper()}"],
            pre_execute=note_pid,
            retries=2,
            retry_delay=1,
        )


batch()
listed()
by_asset()
by_alias()
killed()
