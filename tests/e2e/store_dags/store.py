"""Many prompts in two tasks: create all, and store each result as it comes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

COUNT = int(os.environ["STORE_COUNT"])
NOTES = Path(os.environ["STORE_NOTES"])


def note_process(context: Any) -> None:
    """Tell the test which process runs the task now."""
    ti = context["ti"]
    with (NOTES / ti.run_id).open("a") as notes:
        notes.write(json.dumps({"pid": os.getpid(), "try_number": ti.try_number}) + "\n")


with DAG("store", schedule=None):
    create = CreatePredictionBatchOperator(
        task_id="create",
        model="black-forest-labs/flux-schnell",
        inputs=[{"prompt": f"picture {number}"} for number in range(COUNT)],
        conn_id="{{ dag_run.conf['conn_id'] }}",
        retries=2,
        retry_delay=1,
    )
    DownloadPredictionOutputOperator(
        task_id="store",
        prediction=create.output,
        names=[f"SKU-{number}" for number in range(COUNT)],
        output_path="{{ dag_run.conf['folder'] }}",
        conn_id="{{ dag_run.conf['conn_id'] }}",
        outlets=[Asset("stored-pictures")],
        poke_interval=float(os.environ["STORE_POKE_INTERVAL"]),
        pre_execute=note_process,
        retries=30,
        retry_delay=1,
    )
