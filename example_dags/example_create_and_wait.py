"""Create a prediction and wait for it in one task, whose retries buy a new one if it fails."""

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_comet.operators.prediction import CreatePredictionOperator


@dag(schedule=None, tags=["example", "cometapi"])
def example_create_and_wait():
    # A crash or a lost connection re-attaches to the prediction that was paid for; only a failed one is bought again.
    generate = CreatePredictionOperator(
        task_id="generate",
        model="black-forest-labs/flux-schnell",
        input={"prompt": "a lighthouse on a cliff at dawn, watercolour"},
        wait_for_completion=True,
        timeout=1800,
        retries=2,
        retry_delay=10,
        # So many predictions on their way at a time as the pool has slots, if deferred tasks keep theirs:
        # airflow pools set cometapi 4 "CometAPI creates" --include-deferred
        pool="cometapi",
    )

    @task
    def use(prediction: dict[str, Any]) -> str:
        print(f"{prediction['id']} {prediction['status']}: {prediction['files']}")
        return prediction["files"][0]

    use(generate.output["prediction"])


example_create_and_wait()
