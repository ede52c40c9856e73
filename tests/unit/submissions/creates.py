"""Creates for the tests of what an attempt does by its record."""

from __future__ import annotations

from typing import Any

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Outcome, TaskRunner, dag, event_of

SCHNELL = "black-forest-labs/flux-schnell"
# What a prediction ends with -> the error, and the task's state.
FAILURES: list[tuple[dict[str, Any], str, str]] = [
    ({"status": "failed", "error": "CUDA out of memory"}, "PredictionFailedError", "up_for_retry"),
    ({"status": "canceled"}, "PredictionCanceledError", "up_for_retry"),
    ({"status": "aborted"}, "PredictionAbortedError", "up_for_retry"),
    ({"status": "failed", "error": "NSFW content detected"}, "PredictionRefusedError", "failed"),
    ({"status": "failed", "error": "Invalid input: width"}, "PredictionRefusedError", "failed"),
    ({"status": "succeeded", "output": []}, "EmptyOutputError", "failed"),
    ({"status": "succeeded", "data_removed": True}, "PredictionExpiredError", "failed"),
]


def operator(**options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options = {"task_id": "create", "model": SCHNELL, "input": {"prompt": "a lighthouse"}, "retries": 2, **options}
    with dag():
        return CreatePredictionOperator(**options)


def waiting(**options: Any) -> Any:
    return operator(wait_for_completion=True, **options)


def to_the_end(runner: TaskRunner, task: Any, **options: Any) -> Outcome:
    """Run a task, and its deferral."""
    outcome = runner.run(task, **options)
    if outcome.state != "deferred":
        return outcome
    return runner.run(task, event=event_of(outcome.trigger()), next_kwargs=outcome.next_kwargs, **options)


def lose_the_answer(comet: Emulator) -> None:
    """The next create is accepted and billed; the answer says nothing about it."""
    comet.fault(
        method="POST", status=504, accept=True, body="gateway", headers={"x-cometapi-request-id": "2026REQ"}, count=1
    )


def interrupt(*args: Any, **kwargs: Any) -> Any:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    raise AirflowTaskTimeout("execution_timeout")
