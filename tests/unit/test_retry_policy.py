"""`CometRetryPolicy`: what becomes of each error, with Airflow's own runner, and of tasks that use the hook."""

from __future__ import annotations

import json
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


def decided(error: BaseException, *, creates: bool = True, **task: Any) -> tuple[str, timedelta | None]:
    class Task:
        """A task of a user's with these attributes."""

    context: Any = {"task": Task()}
    vars(context["task"]).update(task)
    decision = CometRetryPolicy(creates=creates).evaluate(error, 1, 3, context)
    return decision.action.value, decision.retry_delay


def list_error(*errors: e.CometError) -> e.PredictionListError:
    return e.PredictionListError.of(errors, 3)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (ValueError("of the user's own"), "default"),
        (e.RateLimitedError("slow down"), "default"),
        (e.ServerError("busy"), "default"),
        (e.TransportError("gone"), "default"),
        (e.ConfigurationError("no key"), "default"),  # nothing was sent; it may be about to be made
        (e.AuthenticationError("wrong key"), "fail"),
        (e.PermissionDeniedError("not this model"), "fail"),
        (e.BalanceExhaustedError("no credit"), "fail"),
        (e.WrongURLError("a web page"), "fail"),
        (e.PredictionFailedError("out of memory", prediction_id="p"), "default"),  # raised as it is: buy another one
        (e.PredictionRefusedError("NSFW"), "fail"),
        (e.PredictionTimeoutError(""), "fail"),
        (e.PredictionExpiredError(""), "fail"),
        (e.PredictionNotFoundError("no such id"), "fail"),
        (e.BadRequestError("prompt is required"), "fail"),
        (e.ModelNotFoundError("no such model"), "fail"),
        (e.InvalidInputError("no dict"), "fail"),
        (e.AmbiguousSubmissionError("no answer"), "fail"),
        (e.UnrecordedPredictionError(""), "fail"),
        (list_error(e.EmptyOutputError(""), e.PredictionExpiredError("")), "fail"),
        (list_error(e.EmptyOutputError(""), e.ServerError("busy")), "default"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_what_becomes_of_each_error(error: BaseException, action: str) -> None:
    """What can't get better, or might pay twice, fails at once; the rest is the task's own business."""
    assert decided(error) == (action, None)


POLL_ERRORS = [e.TransportError, e.ServerError, e.RateLimitedError, e.AuthenticationError, e.PermissionDeniedError]
POLL_ERRORS += [e.BalanceExhaustedError, e.WrongURLError, e.BadRequestError, e.ModelNotFoundError]


@pytest.mark.parametrize("cls", POLL_ERRORS)
def test_trouble_with_a_prediction_that_is_there(cls: type[e.CometError]) -> None:
    """A task that creates by the hook would buy again; a task that only polls, or has a record, polls again."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    error = cls("", prediction_id="p")
    assert decided(error) == ("fail", None)
    assert decided(error, creates=False) == ("default", None)
    with dag():
        create = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "x"})
        wait = PredictionSensor(task_id="wait", prediction_id="p")
    for task in (create, wait):
        context: Any = {"task": task}
        assert CometRetryPolicy().evaluate(error, 1, 3, context).action.value == "default"


def test_when_the_server_said_to() -> None:
    """The server's pause is the delay of the retry, unless the task's own is longer."""
    assert decided(e.RateLimitedError("", retry_after=90.0)) == ("retry", timedelta(seconds=90))
    assert decided(e.ServerError("", status=503, retry_after=7.5)) == ("retry", timedelta(seconds=7.5))
    minute = timedelta(minutes=1)
    assert decided(e.RateLimitedError("", retry_after=90.0), retry_delay=minute) == ("retry", timedelta(seconds=90))
    assert decided(e.RateLimitedError("", retry_after=7.5), retry_delay=minute) == ("default", None)


def test_a_pause_of_what_does_not_pass_is_none() -> None:
    """Only for errors that pass by waiting: also in a list."""
    paused = e.RateLimitedError("", retry_after=90.0)
    refused = e.AuthenticationError("", prediction_id="p", retry_after=600.0)
    assert decided(refused, creates=False) == ("default", None)
    assert decided(list_error(refused, paused)) == ("retry", timedelta(seconds=90))


def test_a_cause_counts() -> None:
    """An error that another one was raised from is found."""
    outer = RuntimeError("the step failed")
    outer.__cause__ = e.BadRequestError("no")
    assert decided(outer) == ("fail", None)


def test_who_takes_the_risk_is_asked_no_more() -> None:
    """`on_ambiguous_submit="retry"` has been decided by the DAG's author."""
    assert decided(e.AmbiguousSubmissionError(""), on_ambiguous_submit="retry") == ("default", None)


@pytest.mark.parametrize("creates", [True, False])
def test_it_can_be_stored(creates: bool) -> None:
    """JSON makes an equal policy, also JSON of another release."""
    data = CometRetryPolicy(creates=creates).serialize()
    assert CometRetryPolicy.deserialize(json.loads(json.dumps(data))).creates is creates
    assert CometRetryPolicy.deserialize({"later": 1}).creates is True


@pytest.mark.parametrize(
    ("fault", "state", "delay"),
    [
        ({"status": 429, "headers": {"Retry-After": "400"}}, "up_for_retry", 400.0),
        ({"status": 400, "body": {"error": {"message": "no", "code": ""}}}, "failed", None),
        ({"status": 401, "body": {"error": {"message": "no", "code": ""}}}, "failed", None),
    ],
    ids=["429", "400", "401"],
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


@pytest.mark.parametrize(("creates", "state"), [(True, "failed"), (False, "up_for_retry")])
def test_a_task_that_creates_and_waits_by_the_hook(
    comet: Emulator, runner: TaskRunner, creates: bool, state: str
) -> None:
    """After the create, trouble with a poll ends the task: its retry would buy a new prediction."""
    from airflow.sdk import task

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    with dag():

        @task(retries=3, retry_policy=CometRetryPolicy(creates=creates))
        def buy_and_wait() -> Any:
            hook = CometReplicateHook()
            made = hook.create_prediction(SCHNELL, {"prompt": "x"})
            return hook.get_prediction(made.id).output

        made: Any = buy_and_wait()
    comet.fault(method="GET", count=None, status=401, body={"error": {"message": "no", "code": ""}})
    outcome = runner.run(made.operator)
    assert (outcome.state, comet.ledger()["accepted"]) == (state, 1)
    assert isinstance(outcome.error, e.AuthenticationError)
    assert outcome.error.prediction_id == comet.ledger()["creates"][0]["id"]


@pytest.mark.parametrize(("limit", "state"), [(timedelta(minutes=1), "up_for_retry"), (None, "failed")])
@pytest.mark.parametrize("kind", ["sensor", "create"])
def test_an_execution_timeout_is_retried(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], kind: str, limit: timedelta | None, state: str
) -> None:
    """As without a policy: the retry polls the same prediction. The end of the wait's own timeout is final."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    options: Any = {"timeout": 600, "execution_timeout": limit, "deferrable": False, "retries": 3}
    options["retry_policy"] = CometRetryPolicy()
    with dag():
        if kind == "sensor":
            task: Any = PredictionSensor(task_id="wait", prediction_id=create(status="processing"), **options)
        else:
            comet.next_outcome(status="processing")
            task = CreatePredictionOperator(
                task_id="create", model=SCHNELL, input={"prompt": "x"}, wait_for_completion=True, **options
            )
    outcome = runner.run(task)
    assert (outcome.state, outcome.sent.get("retry_delay_seconds")) == (state, None)
    assert isinstance(outcome.chain[-1], e.PredictionTimeoutError)


def test_a_sensor_and_a_store_with_it(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A wait whose key is refused is retried, and a store that was given no result is not: as without a policy."""
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    policy: Any = {"retries": 3, "retry_policy": CometRetryPolicy()}
    with dag():
        wait = PredictionSensor(task_id="wait", prediction_id=create(), deferrable=False, **policy)
    comet.fault(method="GET", count=None, status=401, body={"error": {"message": "no", "code": ""}})
    assert runner.run(wait).state == "up_for_retry"
    comet.reset()
    with dag():
        store = DownloadPredictionOutputOperator(
            task_id="store", prediction=None, output_path="file:///tmp/none", **policy
        )
    stored = runner.run(store)
    assert (stored.state, e.InvalidInputError.summary in stored.message) == ("failed", True)


def test_a_mapped_task_with_it(comet: Emulator, runner: TaskRunner) -> None:
    """The policy is kept through mapping."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag() as made:
        CreatePredictionOperator.partial(
            task_id="create", model=SCHNELL, retries=3, retry_policy=CometRetryPolicy(), pool="cometapi"
        ).expand(input=[{"prompt": "x"}, {"prompt": "y"}])
    mapped: Any = made.get_task("create")
    comet.fault(method="POST", count=None, status=429, headers={"Retry-After": "500"})
    outcome = runner.run(mapped.unmap({"input": {"prompt": "y"}}), map_index=1)
    assert (outcome.state, outcome.sent["retry_delay_seconds"]) == ("up_for_retry", 500.0)


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
