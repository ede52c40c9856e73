"""The tasks that are cleared: in all states, unmapped and mapped; and a DAG whose whole run is cleared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_comet.operators.prediction import CreatePredictionOperator

SCHNELL = "black-forest-labs/flux-schnell"
WORKER = {"wait_for_completion": True, "deferrable": False, "poke_interval": 1}
TRIGGERER = {"wait_for_completion": True, "poke_interval": 1}


def create(
    task_id: str, *, indexes: int = 0, model: str = SCHNELL, word: str = "", note: str = "a note", **arguments: Any
) -> None:
    """One task; the prompt says whose create it is in the emulator's ledger.

    :param indexes: how many map indexes; 0: not mapped.
    :param word: stands in the prompt.
    :param note: stands in the input; a template.
    """
    common = {"task_id": task_id, "retries": 2, "retry_delay": timedelta(seconds=1), "model": model, **arguments}
    inputs = [{"prompt": f"{task_id}/{n} {word}".strip(), "note": note} for n in range(indexes or 1)]
    if indexes:
        CreatePredictionOperator.partial(**common).expand(input=inputs)
    else:
        CreatePredictionOperator(**common, input=inputs[0])


def changing(task_id: str) -> str:
    """Return a note that a story can change, by an Airflow variable; its value must never be in a log."""
    return "{{ var.value.get('note_" + task_id + "', 'value-of-the-note-before') }}"


with DAG("clear_tasks", schedule=None):
    create("running", **WORKER)
    create("running_mapped", indexes=2, **WORKER)
    create("deferred", **TRIGGERER)
    create("deferred_mapped", indexes=2, **TRIGGERER)
    create("success")
    create("success_mapped", indexes=3)
    create("waited", **TRIGGERER)
    create("waited_mapped", indexes=2, **TRIGGERER)

    # Each model is given faults of its own: a fault can't be matched by the input.
    create("rejected", model="black-forest-labs/flux-dev")
    create("rejected_mapped", indexes=2, model="black-forest-labs/flux-2-dev")
    create("ambiguous_again", model="black-forest-labs/flux-pro")
    create("ambiguous_known", model="black-forest-labs/flux-1.1-pro")
    create("ambiguous_mapped", indexes=3, model="black-forest-labs/flux-2-pro")

    create("refused", word="nsfw", **WORKER)
    create("refused_mapped", indexes=2, word="nsfw", **TRIGGERER)

    create("twice", indexes=0)
    create("twice_mapped", indexes=2)
    create("twice_queued")
    create("twice_running", **WORKER)

    create("kept", timeout=20, **WORKER)
    create("deleted", timeout=20, **WORKER)
    create("kept_mapped", indexes=3, timeout=20, **WORKER)
    create("changed", note=changing("changed"), timeout=20, **WORKER)
    create("changed_mapped", note=changing("changed_mapped"), indexes=1, timeout=20, **WORKER)
    create("changed_running", note=changing("changed_running"), indexes=1, **WORKER)

with DAG("clear_run", schedule=None):
    create("run_plain")
    create("run_mapped", indexes=2)
    create("run_waited", **TRIGGERER)
