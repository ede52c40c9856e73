"""`CometRetryPolicy`: what becomes of each error, with Airflow's own runner, and of tasks that use the hook."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.retry_policy import CometRetryPolicy
from tests.support.task_runner import Clock, TaskRunner, dag

SCHNELL = "black-forest-labs/flux-schnell"


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


def decided(error: BaseException, **task: Any) -> tuple[str, timedelta | None]:
    class Task:
        """A task with these attributes."""

    context: Any = {"task": Task()}
    vars(context["task"]).update(task)
    decision = CometRetryPolicy().evaluate(error, 1, 3, context)
    return decision.action.value, decision.retry_delay


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (ValueError("of the user's own"), "default"),
        (e.RateLimitedError("slow down"), "default"),
        (e.ServerError("busy"), "default"),
        (e.TransportError("gone"), "default"),
        (e.AuthenticationError("wrong key"), "default"),  # it may be about to be replaced
        (e.ConfigurationError("no key"), "default"),
        (
            e.PredictionFailedError("out of memory"),
            "default",
        ),  # whoever raises it as it is wants to buy another one
        (e.PredictionRefusedError("NSFW"), "fail"),
        (e.PredictionTimeoutError(""), "fail"),
        (e.PredictionExpiredError(""), "fail"),
        (e.PredictionNotFoundError("no such id"), "fail"),
        (e.BadRequestError("prompt is required"), "fail"),
        (e.ModelNotFoundError("no such model"), "fail"),
        (e.InvalidInputError("no dict"), "fail"),
        (e.AmbiguousSubmissionError("no answer"), "fail"),
        (e.UnrecordedPredictionError(""), "fail"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_what_becomes_of_each_error(error: BaseException, action: str) -> None:
    """What can't get better, or might pay twice, fails at once; the rest is the task's own business."""
    assert decided(error) == (action, None)


def test_when_the_server_said_to() -> None:
    """The server's pause is the delay of the retry."""
    assert decided(e.RateLimitedError("", retry_after=90.0)) == ("retry", timedelta(seconds=90))
    assert decided(e.ServerError("", status=503, retry_after=7.5)) == ("retry", timedelta(seconds=7.5))


def test_a_cause_counts() -> None:
    """An error that another one was raised from is found."""
    outer = RuntimeError("the step failed")
    outer.__cause__ = e.BadRequestError("no")
    assert decided(outer) == ("fail", None)


def test_who_takes_the_risk_is_asked_no_more() -> None:
    """`on_ambiguous_submit="retry"` has been decided by the DAG's author."""
    assert decided(e.AmbiguousSubmissionError(""), on_ambiguous_submit="retry") == ("default", None)


@pytest.mark.parametrize(
    ("fault", "state", "delay"),
    [
        ({"status": 429, "headers": {"Retry-After": "400"}}, "up_for_retry", 400.0),
        ({"status": 400, "body": {"error": {"message": "no", "code": ""}}}, "failed", None),
    ],
    ids=["429", "400"],
)
def test_a_task_that_uses_the_hook(
    comet: Emulator, runner: TaskRunner, fault: dict[str, Any], state: str, delay: float | None
) -> None:
    """Airflow's runner asks the policy, and reports its delay."""
    from airflow.sdk import task

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    with dag():

        @task(retries=3, retry_policy=CometRetryPolicy())
        def buy() -> str:
            return CometReplicateHook().create_prediction(SCHNELL, {"prompt": "x"}).id

        made: Any = buy()
    comet.fault(method="POST", count=None, **fault)
    outcome = runner.run(made.operator)
    assert outcome.state == state
    assert outcome.sent.get("retry_delay_seconds") == delay


def test_an_operator_with_it(comet: Emulator, runner: TaskRunner, serialized: Callable[[Any], Any]) -> None:
    """An operator's rate limit is retried when the server said to, and the DAG can be serialized."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag() as made:
        create = CreatePredictionOperator(
            task_id="create", model=SCHNELL, input={"prompt": "x"}, retries=3, retry_policy=CometRetryPolicy()
        )
    serialized(made)
    comet.fault(method="POST", count=None, status=429, headers={"Retry-After": "500"})
    outcome = runner.run(create)
    assert (outcome.state, outcome.sent["retry_delay_seconds"]) == ("up_for_retry", 500.0)
    assert comet.ledger()["accepted"] == 0


@pytest.fixture
def serialized() -> Callable[[Any], Any]:
    def serialized(made: Any) -> Any:
        from airflow.serialization.serialized_objects import DagSerialization

        return DagSerialization.from_dict(DagSerialization.to_dict(made))

    return serialized


def test_an_airflow_without_policies() -> None:
    """Before Airflow 3.3 the import says what is needed, and what happens without it."""
    code = """
import sys
sys.modules["airflow.sdk.definitions.retry_policy"] = None
try:
    import airflow_provider_comet.retry_policy
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "AirflowOptionalProviderFeatureException CometRetryPolicy needs Airflow 3.3" in done.stdout
