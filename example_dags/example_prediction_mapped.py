"""Create a prediction for each of several prompts, and use each as soon as it is there."""

from typing import Any

from airflow.sdk import dag, task, task_group

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]


@dag(schedule=None, tags=["example", "cometapi"])
def example_prediction_mapped():
    """Create pictures from prompts, and use each by itself."""

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

        @task
        def use(prediction: dict[str, Any]) -> str:
            print(f"{prediction['id']} {prediction['status']}: {prediction['files']}")
            return prediction["files"][0]

        use(wait.output)

    picture.expand(prompt=PROMPTS)


example_prediction_mapped()
