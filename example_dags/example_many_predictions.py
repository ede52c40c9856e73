"""Many prompts, one wait: a mapped create, and one sensor for all of its predictions."""

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]


@dag(schedule=None, tags=["example", "cometapi"])
def example_many_predictions():
    """Create many predictions in mapped tasks, and wait for all of them in one."""
    create = CreatePredictionOperator.partial(
        task_id="create",
        model="black-forest-labs/flux-schnell",
        # So many creates at a time as the pool has slots, to stay within the API's rate limit:
        # airflow pools set cometapi 4 "CometAPI creates"
        pool="cometapi",
    ).expand(input=[{"prompt": prompt} for prompt in PROMPTS])

    # One task and one trigger for all of them. trigger_rule: it also waits for the others if a create has failed.
    # on_item_error: a prediction that failed is returned with its status and error, in its place.
    wait = PredictionSensor(
        task_id="wait",
        prediction_id=create.output,
        trigger_rule="all_done",
        on_item_error="keep",
        retries=2,
        retry_delay=10,
    )

    @task
    def use(predictions: list[dict[str, Any] | None]) -> list[str]:
        files = [file for prediction in predictions if prediction for file in prediction["files"]]
        print(f"{len(files)} files of {len(predictions)} predictions: {files}")
        return files

    use(wait.output)


example_many_predictions()
