"""An input that is checked before it is paid for; a prompt with braces that is no template."""

import os
from pathlib import Path

from airflow.sdk import dag
from airflow.sdk.definitions.template import literal  # from 3.1 on also airflow.sdk.literal

from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.operators.prediction import CreatePredictionOperator

SCHEMAS = Path(__file__).parent / "schemas"
MODEL = "black-forest-labs/flux-schnell"
FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")


# Templates make text of everything; with native objects "{{ params.number }}" stays the number that the schema wants.
# They make 42 of a text "42", too: a prompt that may be a number is no template, or a literal.
@dag(schedule=None, params={"number": 2}, render_template_as_native_obj=True, tags=["example", "cometapi"])
def example_input_schema():
    """Check an input by the model's schema before it is paid for, and store the pictures."""
    create = CreatePredictionOperator(
        task_id="create",
        model=MODEL,
        input={
            "prompt": literal("a poster that says {{ hello }}"),
            "num_outputs": "{{ params.number }}",
            "output_format": "png",
        },
        input_schema=SCHEMAS / f"{MODEL}.json",
        strict=True,
    )
    DownloadPredictionOutputOperator(
        task_id="store", prediction=create.output, output_path=FOLDER, retries=2, retry_delay=10
    )


example_input_schema()
