"""Create a prediction for each of several prompts, and wait for each on its own."""

from collections.abc import Iterable
from typing import Any

from airflow.sdk import dag, task, task_group

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]


@dag(schedule=None, tags=["example", "cometapi"])
def example_prediction_mapped():
    """Create pictures from prompts and collect the files of those that succeeded."""

    # The group is mapped, not its tasks. In a chain of two mapped tasks every `wait` depends on every `create`: no wait
    # would start before the last create has ended, and a single bad prompt would lose the results of all the others.
    @task_group
    def picture(prompt: str):
        create = CreatePredictionOperator(
            task_id="create",
            model="black-forest-labs/flux-schnell",
            input={"prompt": prompt, "aspect_ratio": "1:1"},
            # The pool limits how many creates run at a time, to stay within the API's rate limit:
            # airflow pools set cometapi 4 "CometAPI creates". Waiting needs none: a deferred task holds no slot.
            pool="cometapi",
        )
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, retry_delay=10)
        return wait.output

    # all_done: the others are collected although a prompt has failed. Check the tasks, not only the run: this last task
    # makes the run a success, and a failed prompt can be cleared by itself.
    @task(trigger_rule="all_done")
    def collect(predictions: Iterable[dict[str, Any]]) -> list[str]:
        files = [file for prediction in predictions for file in prediction["files"]]
        print(f"{len(files)} files from {len(PROMPTS)} prompts: {files}")
        return files

    collect(picture.expand(prompt=PROMPTS))


example_prediction_mapped()
