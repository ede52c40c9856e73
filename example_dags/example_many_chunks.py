"""More than a thousand prompts: the two tasks of example_batch.py, mapped over parts of the list."""

import hashlib
import json
import os
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import dag, task, task_group

from airflow_provider_comet.inputs.parameter_grid import parameter_grid
from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

FOLDER = os.environ.get("COMET_PICTURES", "file:///tmp/comet-pictures")
INPUTS = parameter_grid({"prompt": ["a fox in the rain", "a paper boat on a pond"], "seed": [*range(6)]})
# Some 700 inputs a chunk are a good size. Do not change the number under a run: its inputs would change their chunks.
CHUNKS = 3


# "upstream": the first chunk is stored before the last is created. The pool has one slot: one batch submits at a time.
# airflow pools set cometapi 1 "CometAPI creates"
@dag(schedule=None, tags=["example", "cometapi"], default_args={"weight_rule": "upstream"})
def example_many_chunks():
    """Submit a long list in several tasks, and store the files of each part as they come."""

    # Each instance of `create` has records of its own. So an input must stay in its chunk when a row is put in front of
    # the list: its content decides about the chunk, not its place. (By place, the last of each chunk would be paid
    # again.)
    @task
    def chunks() -> list[list[dict[str, Any]]]:
        found: list[list[dict[str, Any]]] = [[] for _ in range(CHUNKS)]
        for one in INPUTS:
            digest = hashlib.sha256(json.dumps(one, sort_keys=True).encode()).digest()
            found[int.from_bytes(digest[:8], "big") % CHUNKS].append(one)
        sizes = [len(chunk) for chunk in found]
        if not 1 <= min(sizes) <= max(sizes) <= 1000:
            raise AirflowFailException(f"chunks of {sizes} inputs; a chunk takes 1 to 1,000: change CHUNKS ({CHUNKS})")
        return found

    @task_group
    def chunk(inputs):
        create = CreatePredictionBatchOperator(
            task_id="create", model="black-forest-labs/flux-schnell", inputs=inputs, pool="cometapi", retries=2
        )
        DownloadPredictionOutputOperator(
            task_id="store", prediction=create.output, output_path=FOLDER, retries=2, retry_delay=10
        )

    chunk.expand(inputs=chunks())


example_many_chunks()
