"""Many results that are used and not kept: one task submits all prompts, one sensor waits for all of them."""

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.sensors.prediction import PredictionSensor

ANIMALS = ["fox", "hare", "badger"]


@dag(schedule=None, tags=["example", "cometapi"])
def example_many_predictions():
    """Create many texts, wait for all of them in one task, and use them in another."""
    # on_item_error: what was refused, or has failed, takes its place in the list, and the others are used.
    create = CreatePredictionBatchOperator(
        task_id="create",
        model="meta/meta-llama-3-8b-instruct",
        inputs=[{"prompt": f"Describe a {animal} in one sentence"} for animal in ANIMALS],
        on_item_error="keep",
        retries=2,
    )
    wait = PredictionSensor(
        task_id="wait", prediction_id=create.output, on_item_error="keep", retries=2, retry_delay=10
    )

    @task
    def use(predictions: list[dict[str, Any] | None]) -> list[str]:
        texts = [
            f"{animal}: {''.join(prediction['output'])}"
            for animal, prediction in zip(ANIMALS, predictions, strict=True)
            if prediction and prediction["status"] == "succeeded"
        ]
        print(f"{len(texts)} of {len(ANIMALS)} texts: {texts}")
        return texts

    use(wait.output)


example_many_predictions()
