"""`PredictionSensor`: Airflow resumes it without its trigger's event (apache/airflow#65248, #68820)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, event_of, run_sensor
from tests.unit.sensors.helpers import ONE_OR_MANY, copies, count_polls, ids_of, kind, polls_by_id, sensor, statuses_of

ERRORS: dict[str, dict[str, Any]] = {
    "404": {"status": 404},
    "401": {"status": 401},
    "403": {"status": 403},
    "429": {"status": 429},
    "503": {"status": 503},
    "dropped": {"drop": "before"},
    "page": {"status": 200, "body": "<!doctype html><title>Welcome</title>"},
}


def lose_the_event(runner: TaskRunner, task: Any, deferred: Outcome) -> Outcome:
    """Resume a deferred task as Airflow does when it has lost the event: with the kwargs of the deferral alone."""
    return runner.run(task, next_kwargs=deferred.next_kwargs)


def end(runner: TaskRunner, task: Any, deferred: Outcome) -> Outcome:
    """Let the trigger of a deferral do its work, and resume the task with its event."""
    return runner.run(task, event=event_of(deferred.trigger()), next_kwargs=deferred.next_kwargs)


@pytest.mark.parametrize("is_null", [False, True], ids=["no event", "null"])
@ONE_OR_MANY
def test_a_finished_prediction_is_returned(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], is_list: bool, is_null: bool
) -> None:
    """What has finished by then is a result: no second deferral is needed."""
    prediction = create(status="processing")
    task = sensor([prediction] if is_list else prediction)
    deferred = runner.run(task)
    comet.set_prediction(prediction, status="succeeded")
    event = {"event": None} if is_null else {}
    outcome = runner.run(task, next_kwargs={**deferred.next_kwargs, **event})
    assert outcome.state == "success"
    assert (ids_of(outcome.result) if is_list else outcome.result["id"]) == ([prediction] if is_list else prediction)


@pytest.mark.parametrize(
    "options", [{}, {"soft_fail": True}, {"never_fail": True}], ids=["", "soft_fail", "never_fail"]
)
@ONE_OR_MANY
def test_a_running_prediction_is_waited_for_again(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    is_list: bool,
    options: dict[str, Any],
) -> None:
    """The task defers again, to the same deadline and with the same start, and the log says why: no try is lost."""
    prediction = create(status="processing")
    task = sensor([prediction] if is_list else prediction, timeout=600, poke_interval=20, **options)
    first = runner.run(task)
    clock.sleep(100)
    with caplog.at_level(logging.WARNING):
        second = lose_the_event(runner, task, first)
    assert "resumed this task without its trigger's event" in caplog.text
    assert second.state == "deferred"
    assert second.next_kwargs == first.next_kwargs
    before, now = first.trigger(), second.trigger()
    assert (now.prediction_ids, now.deadline, now.poke_interval) == ([prediction], before.deadline, 20.0)
    assert now.started_at == pytest.approx(before.started_at, abs=1)
    comet.set_prediction(prediction, status="succeeded")
    assert end(runner, task, second).state == "success"


@ONE_OR_MANY
def test_the_deadline_stays(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], is_list: bool
) -> None:
    """However many events are lost, the wait ends at its deadline, like every other."""
    prediction = create(status="processing")
    task = sensor([prediction] if is_list else prediction, timeout=600)
    began = clock.time()
    outcome = runner.run(task)
    for _ in range(100):
        clock.sleep(45)
        outcome = lose_the_event(runner, task, outcome)
        if outcome.state != "deferred":
            break
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert 600 <= clock.time() - began <= 650
    assert f"Prediction {prediction}: it was not finished when the timeout ended" in outcome.message


def test_a_result_after_the_deadline(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A prediction that has finished by the time its task is resumed is a result, also after the deadline."""
    prediction = create(status="processing")
    task = sensor(prediction, timeout=600)
    deferred = runner.run(task)
    comet.set_prediction(prediction, status="succeeded")
    clock.sleep(700)
    comet.fault(method="GET", status=503, count=1)
    assert lose_the_event(runner, task, deferred).result["id"] == prediction


@pytest.mark.parametrize("error", ERRORS)
@ONE_OR_MANY
def test_one_odd_answer_ends_nothing(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], is_list: bool, error: str
) -> None:
    """An error in place of a status is left to the trigger, which polls again: the worker forgets what was seen."""
    prediction = create(status="processing")
    task = sensor([prediction] if is_list else prediction, timeout=3600, defer_after=0)
    deferred = runner.run(task)
    clock.sleep(300)
    comet.fault(method="GET", count=1, **ERRORS[error])
    again = lose_the_event(runner, task, deferred)
    assert again.state == "deferred"
    comet.set_prediction(prediction, status="succeeded")
    assert end(runner, task, again).state == "success"


def test_a_list_of_which_some_have_ended(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """The next trigger waits for those that are still running; the results are those of the whole list, in order."""
    slow, good, bad = (create(status="processing") for _ in range(3))
    task = sensor([slow, None, bad, good, slow], on_item_error="keep")
    deferred = runner.run(task)
    comet.set_prediction(good, status="succeeded")
    comet.set_prediction(bad, status="failed", error="no such luck")
    again = lose_the_event(runner, task, deferred)
    assert again.trigger().prediction_ids == [slow]
    comet.set_prediction(slow, status="succeeded")
    outcome = end(runner, task, again)
    assert ids_of(outcome.result) == [slow, None, bad, good, slow]
    assert statuses_of(outcome.result) == ["succeeded", None, "failed", "succeeded", "succeeded"]


def test_an_error_of_the_first_attempt_on_the_worker_is_not_forgotten(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """What has ended with an error before the deferral is a fact after it, with and without an event."""
    prediction = create(status="processing")
    task = sensor(["unknown", prediction], timeout=3600, defer_after=100)
    first = runner.run(task)
    again = lose_the_event(runner, task, first)
    assert first.trigger().prediction_ids == again.trigger().prediction_ids == [prediction]
    comet.set_prediction(prediction, status="succeeded")
    for outcome in (lose_the_event(runner, task, again), end(runner, task, again)):
        assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
        assert "Prediction unknown: " in outcome.message
        assert ids_of(outcome.xcoms["predictions"]) == [None, prediction]


def test_a_long_list_holds_no_worker(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A list that is too long for a round of polls on a worker defers at once."""
    ids = copies(comet, create(status="processing"), 51)
    task = sensor(ids)
    again = lose_the_event(runner, task, runner.run(task))
    assert (again.trigger().prediction_ids, count_polls(comet)) == (ids, 0)


@pytest.mark.parametrize("stored", [{}, {"key_from": "connection"}, {"started_at": None, "deadline": None}], ids=str)
def test_a_row_that_does_not_know_its_deadline(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], stored: dict[str, Any]
) -> None:
    """If Airflow has lost the kwargs as well, or the wait began in the triggerer, which has none, the task's own times
    decide; from then on the deadline stays."""
    prediction = create(status="processing")
    task = sensor(prediction, timeout=600)
    again = runner.run(task, next_kwargs=stored)
    assert again.trigger().deadline == pytest.approx(clock.time() + 600, abs=5)
    clock.sleep(601)
    assert kind(lose_the_event(runner, task, again)) == "AirflowSensorTimeout"


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_task_that_does_not_defer_any_more(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """A DAG that was changed while its task was deferred: the task waits as it does now, to the deadline of then."""
    prediction = create(status="processing")
    deferred = runner.run(sensor(prediction, timeout=100, poke_interval=10))
    task = sensor(prediction, mode, timeout=100, poke_interval=10)
    outcome = lose_the_event(runner, task, deferred)
    if mode == "reschedule":
        assert outcome.state == "up_for_reschedule"
        comet.set_prediction(prediction, status="succeeded")
        assert run_sensor(runner, task, clock).state == "success"
    else:
        assert kind(outcome) == "AirflowSensorTimeout"
    assert set(polls_by_id(comet)) == {prediction}


def test_a_trigger_that_failed_is_not_a_lost_event(runner: TaskRunner) -> None:
    """If Airflow says that the trigger has failed, the task is retried, as ever."""
    outcome = runner.run(
        sensor(**MODES["deferrable"]), next_method="__fail__", next_kwargs={"error": "Trigger failure"}
    )
    assert (outcome.state, kind(outcome)) == ("up_for_retry", "CometError")
