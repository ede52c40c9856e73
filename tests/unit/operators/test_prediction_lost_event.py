"""`CreatePredictionOperator` that waits: Airflow resumes it without its trigger's event (apache/airflow#65248)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, Outcome, TaskRunner, event_of
from tests.unit.submissions.creates import waiting


def deferred(comet: Emulator, runner: TaskRunner, **options: Any) -> tuple[Any, Outcome, str]:
    """Return a task that has paid for a prediction and waits for it, its deferral, and the prediction's id."""
    comet.next_outcome(status="processing")
    task = waiting(**options)
    outcome = runner.run(task)
    return task, outcome, outcome.trigger().prediction_ids[0]  # type: ignore[index,return-value]


def lose_the_event(runner: TaskRunner, task: Any, outcome: Outcome) -> Outcome:
    """Resume a deferred task as Airflow does when it has lost the event: with the kwargs of the deferral alone."""
    return runner.run(task, next_kwargs=outcome.next_kwargs)


@pytest.fixture(params=["on record", "no record"])
def store(request: pytest.FixtureRequest) -> None:
    """With and without Airflow's task state store."""
    if request.param == "no record":
        request.getfixturevalue("no_store")


@pytest.mark.usefixtures("store")
def test_a_running_prediction_is_waited_for_again(comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """The task defers again, to the same deadline, as often as it has to; the prediction is paid for once."""
    task, first, made = deferred(comet, runner, timeout=600)
    outcome = first
    for _ in range(5):
        clock.sleep(100)
        outcome = lose_the_event(runner, task, outcome)
        assert (outcome.state, outcome.next_kwargs) == ("deferred", first.next_kwargs)
        assert (outcome.trigger().prediction_ids, outcome.trigger().deadline) == ([made], first.trigger().deadline)
    comet.set_prediction(made, status="succeeded")
    result = runner.run(task, event=event_of(outcome.trigger()), next_kwargs=outcome.next_kwargs)
    assert (result.state, result.result, comet.ledger()["accepted"]) == ("success", made, 1)


@pytest.mark.usefixtures("store")
def test_a_finished_prediction_is_handed_over(comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """What has finished by then is the result."""
    task, first, made = deferred(comet, runner)
    comet.set_prediction(made, status="succeeded")
    outcome = lose_the_event(runner, task, first)
    assert (outcome.state, outcome.result, comet.ledger()["accepted"]) == ("success", made, 1)
    assert outcome.xcoms["prediction"]["id"] == made


def test_a_failed_prediction_is_bought_again(comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """A failure that is seen so is a failure like every other: the task's retries buy a new prediction."""
    task, first, made = deferred(comet, runner)
    comet.set_prediction(made, status="failed", error="CUDA out of memory")
    outcome = lose_the_event(runner, task, first)
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionFailedError")


@pytest.mark.parametrize(
    ("options", "state", "error"),
    [
        ({}, "failed", "AirflowSensorTimeout"),
        ({"execution_timeout": dt.timedelta(seconds=300)}, "up_for_retry", "AirflowTaskTimeout"),
    ],
    ids=["timeout", "execution_timeout"],
)
def test_the_deadline_stays(
    comet: Emulator, clock: Clock, runner: TaskRunner, options: dict[str, Any], state: str, error: str
) -> None:
    """The wait ends at the deadline that it had, with the prediction's id."""
    task, outcome, made = deferred(comet, runner, timeout=600, **options)
    began = clock.time()
    while outcome.state == "deferred":
        clock.sleep(45)
        outcome = lose_the_event(runner, task, outcome)
    assert (outcome.state, type(outcome.error).__name__) == (state, error)
    assert clock.time() - began <= 650
    assert f"Prediction {made}: " in outcome.message


@pytest.mark.parametrize("status", [401, 403, 404, 503])
@pytest.mark.usefixtures("store")
def test_one_odd_answer_ends_nothing(comet: Emulator, clock: Clock, runner: TaskRunner, status: int) -> None:
    """An error in place of a status is left to the trigger, which polls again: nothing is bought, no try is lost."""
    task, first, made = deferred(comet, runner)
    clock.sleep(300)
    comet.fault(method="GET", count=1, status=status)
    again = lose_the_event(runner, task, first)
    assert again.state == "deferred"
    comet.set_prediction(made, status="succeeded")
    result = runner.run(task, event=event_of(again.trigger()), next_kwargs=again.next_kwargs)
    assert (result.state, result.result, comet.ledger()["accepted"]) == ("success", made, 1)


def test_a_row_that_knows_nothing(comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """If Airflow has lost the kwargs as well, the record knows the prediction, and a new deadline counts from now."""
    task, _, made = deferred(comet, runner, timeout=600)
    again = runner.run(task, next_kwargs={})
    assert (again.trigger().prediction_ids, again.trigger().deadline) == ([made], pytest.approx(clock.time() + 600))


def test_a_row_that_knows_nothing_without_a_record(
    comet: Emulator, clock: Clock, runner: TaskRunner, no_store: None
) -> None:
    """If nobody knows what was paid, the task fails for good, and says where the id is."""
    task, _, _ = deferred(comet, runner)
    outcome = runner.run(task, next_kwargs={})
    assert outcome.state == "failed"
    assert "its id is in the log of the create" in outcome.message
    assert comet.ledger()["accepted"] == 1
