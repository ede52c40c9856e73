"""Create a prediction, wait for it without holding a worker, use its result: nothing is kept."""

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor


@dag(schedule=None, tags=["example", "cometapi"])
def example_wait():
    """Create a picture, wait for it and use its file."""
    create = CreatePredictionOperator(
        task_id="create",
        model="black-forest-labs/flux-schnell",
        input={"prompt": "a lighthouse on a cliff at dawn, watercolour", "aspect_ratio": "16:9"},
    )

    # It waits in the triggerer. Polling costs nothing, so a retry is free: it never buys the prediction again.
    wait = PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, retry_delay=10)

    @task
    def use(prediction: dict[str, Any]) -> str:
        print(f"{prediction['id']} {prediction['status']}: {prediction['files']}")
        return prediction["files"][0]

    use(wait.output)


example_wait()
