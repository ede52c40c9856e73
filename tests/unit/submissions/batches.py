"""Batches for the tests of what an attempt submits, and by which record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import dag

SCHNELL = "black-forest-labs/flux-schnell"
SCHEMA = {"properties": {"prompt": {"type": "string"}, "seed": {"type": "integer"}}, "required": ["prompt"]}
REFUSED = '{"error": {"message": "refused by the model", "type": "comet_api_error", "code": "invalid_request"}}'


def inputs(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt} for prompt in prompts]


def operator(batch_inputs: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    options = {"task_id": "create", "model": SCHNELL, "max_in_flight": 1, "retries": 2, **options}
    with dag():
        return CreatePredictionBatchOperator(inputs=batch_inputs, **options)


def bought(comet: Emulator) -> list[str]:
    """The prompts that were accepted, in this order."""
    return [create["input"]["prompt"] for create in comet.ledger()["creates"]]


def ids(comet: Emulator, prompts: Sequence[str]) -> list[str]:
    """The id of each prompt; of a prompt that was bought twice, the newest."""
    known = {create["input"]["prompt"]: create["id"] for create in comet.ledger()["creates"]}
    return [known[prompt] for prompt in prompts]


def refuse(comet: Emulator, count: int = 1) -> None:
    comet.fault(method="POST", status=400, body=REFUSED, count=count)


def lose(comet: Emulator, count: int = 1) -> None:
    """The next creates are accepted and billed; the answer says nothing about it."""
    comet.fault(method="POST", status=504, accept=True, body="gateway", count=count)
