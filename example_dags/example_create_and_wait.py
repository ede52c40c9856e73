"""Create a prediction and wait for it in the same task, whose retries buy a new prediction if it fails."""

from typing import Any

from airflow.sdk import dag, task

from airflow_provider_comet.operators.prediction import CreatePredictionOperator


@dag(schedule=None, tags=["example", "cometapi"])
def example_create_and_wait():
    """Create a picture, wait for it and use its file."""
    # After a crash or a lost connection, a retry waits for the paid prediction; only a failed prediction is replaced.
    generate = CreatePredictionOperator(
        task_id="generate",
        model="black-forest-labs/flux-schnell",
        input={"prompt": "a lighthouse on a cliff at dawn, watercolour"},
        wait_for_completion=True,
        timeout=1800,
        retries=2,
        retry_delay=10,
        # The pool limits how many predictions run at a time if it includes deferred tasks:
        # airflow pools set cometapi 4 "CometAPI creates" --include-deferred
        pool="cometapi",
    )

    @task
    def use(prediction: dict[str, Any]) -> str:
        print(f"{prediction['id']} {prediction['status']}: {prediction['files']}")
        return prediction["files"][0]

    use(generate.output["prediction"])


example_create_and_wait()
