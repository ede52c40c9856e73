"""Store only the pictures that a person has chosen.

Needs Airflow 3.1 and apache-airflow-providers-standard 1.13, or later.
"""

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import dag, task

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.outputs.markdown import code, picture
from airflow_provider_comet.sensors.prediction import PredictionSensor

PROMPTS = ["a red bicycle in the rain", "a paper boat on a pond", "a fox asleep under a fern"]
NONE = "none of them"
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


@dag(schedule=None, tags=["example", "cometapi"])
def example_review():
    """Create pictures, ask a person which to store, and store those."""
    # The pool limits how many creates run at a time: airflow pools set cometapi 4 "CometAPI creates"
    create = CreatePredictionOperator.partial(
        task_id="create", model="black-forest-labs/flux-schnell", pool="cometapi"
    ).expand(input=[{"prompt": prompt} for prompt in PROMPTS])

    # all_done: a failed prediction is in the list too, so that the list has the order of the prompts.
    wait = PredictionSensor(
        task_id="wait", prediction_id=create.output, on_item_error="keep", retries=2, retry_delay=10
    )

    # Airflow shows Markdown with pictures: the browser of the person fetches them by their links. Prompts and links are
    # escaped, so that no word in them becomes a link of its own.
    @task
    def contact_sheet(predictions: list[dict[str, Any] | None]) -> str:
        rows = []
        for prompt, prediction in zip(PROMPTS, predictions, strict=True):
            files = prediction["files"] if prediction else []
            pictures = " ".join(map(picture, files))
            rows.append(f"## {code(prompt)}\n\n{pictures or 'There is no picture.'}")
        return "\n\n".join(rows)

    # The links last about an hour. Without an answer before that the task fails, and nothing is stored.
    review = HITLOperator(
        task_id="review",
        subject="Which pictures are stored?",
        body=contact_sheet(wait.output),
        options=[*PROMPTS, NONE],
        multiple=True,
        response_timeout=timedelta(minutes=45),
    )

    @task
    def chosen(predictions: list[dict[str, Any] | None], answer: dict[str, Any]) -> list[dict[str, Any]]:
        selected = [
            prediction
            for prompt, prediction in zip(PROMPTS, predictions, strict=True)
            if prediction and prediction["files"] and prompt in answer["chosen_options"]
        ]
        if not selected:
            raise AirflowSkipException("nothing was chosen")
        return selected

    DownloadPredictionOutputOperator(
        task_id="store", prediction=chosen(wait.output, review.output), output_path=FOLDER, retries=2, retry_delay=10
    )


example_review()
