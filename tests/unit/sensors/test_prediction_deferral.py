"""`PredictionSensor`: when it defers, and how it resumes after a deferral."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, Outcome, TaskRunner, event_of, run_sensor
from tests.unit.sensors.helpers import (
    AIRFLOWS_TIMEOUT,
    EACH_MODE,
    ONE_OR_MANY,
    copies,
    count_polls,
    event_about,
    kind,
    polls_by_id,
    sensor,
)

# When it defers


def test_defer_after_lets_short_predictions_finish(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A prediction that finishes within three seconds is returned by the worker, which needs no triggerer."""
    prediction = create(status="processing")

    def finish(seconds: float) -> None:
        if clock.time() + seconds >= began + 2:
            comet.set_prediction(prediction, status="succeeded")

    began = clock.time()
    clock.on_sleep = finish
    outcome = runner.run(sensor(prediction))
    assert (outcome.state, outcome.result["id"]) == ("success", prediction)
    assert clock.time() - began <= 3


def test_defer_after_is_over(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A longer wait leaves the worker after three seconds, and the triggerer knows when the worker polled last."""
    prediction = create(status="processing")
    began = clock.time()
    outcome = runner.run(sensor(prediction))
    assert outcome.state == "deferred"
    assert 1 < clock.time() - began <= 3
    assert outcome.trigger().last_polled_at == pytest.approx(clock.time(), abs=0.01)
    assert count_polls(comet) >= 3


@pytest.mark.parametrize("zero", [0, 0.0, dt.timedelta(0)], ids=repr)
@ONE_OR_MANY
def test_defer_after_zero_is_a_single_poll(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], zero: Any, is_list: bool
) -> None:
    """With 0 the worker polls once, and defers for a prediction that has not finished."""
    prediction = create(status="processing")
    task = sensor([prediction] if is_list else prediction, defer_after=zero)
    assert runner.run(task).state == "deferred"
    assert (polls_by_id(comet), clock.sleeps) == ({prediction: 1}, [])
    comet.set_prediction(prediction, status="succeeded")
    assert runner.run(task).state == "success"


def test_defer_after_a_timedelta(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """`defer_after` may be a `timedelta`."""
    began = clock.time()
    assert runner.run(sensor(create(status="processing"), defer_after=dt.timedelta(seconds=30))).state == "deferred"
    assert 15 < clock.time() - began <= 30


@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
def test_defer_after_does_not_outlast_the_deadline(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], limit: str
) -> None:
    """A wait that may stay on the worker for an hour still ends at the deadline."""
    began = clock.time()
    value: Any = dt.timedelta(seconds=20)
    outcome = runner.run(sensor(create(status="processing"), defer_after=3600, **{limit: value}))
    assert outcome.state == ("failed" if limit == "timeout" else "up_for_retry")
    assert clock.time() - began == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("interval", [5, 40])
@EACH_MODE
def test_an_interval_is_kept_for_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str, interval: float
) -> None:
    """A fixed interval is kept for each id of a list, in every mode."""
    ids = copies(comet, create(status="processing"), 3)
    run_sensor(runner, sensor(ids, mode, timeout=400, poke_interval=interval), clock)
    for count in polls_by_id(comet).values():
        assert 400 / (interval * 1.1) - 1 <= count <= 400 / (interval * 0.9) + 3


def test_reschedule_polls_a_list_once_a_minute_at_most(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Without an interval, a rescheduled list is polled no more often than once a minute, also when it is young."""
    ids = copies(comet, create(status="processing"), 3)
    run_sensor(runner, sensor(ids, "reschedule", timeout=600), clock)
    between = [seconds for seconds in clock.sleeps if seconds > 1]  # shorter sleeps are between polls of the same round
    assert min(between[:-1]) >= 60
    assert max(polls_by_id(comet).values()) <= 12


# Before and after a deferral


def test_finished_prediction_needs_no_triggerer(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A prediction that is finished at the first poll on the worker is returned at once."""
    outcome = runner.run(sensor(create()))
    assert outcome.state == "success"
    assert count_polls(comet) == 1


def test_deferral(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """The trigger gets the wait's clock and deadline, and Airflow's own timeout comes later than the sensor's."""
    prediction = create(status="processing")
    outcome = runner.run(sensor(prediction, timeout=600, poke_interval=20))
    assert (outcome.state, count_polls(comet), clock.sleeps) == ("deferred", 1, [])
    kwargs = outcome.trigger().serialize()[1]
    assert kwargs == {
        "prediction_ids": [prediction],
        "conn_id": "cometapi_default",
        # The server's own clocks may set it back: an age from whole seconds in `Date` is up to a second off.
        "started_at": pytest.approx(clock.time(), abs=1),
        "deadline": pytest.approx(clock.time() + 600, abs=0.001),
        "poke_interval": 20.0,
        "last_polled_at": pytest.approx(clock.time(), abs=0.001),
        "key_from": "connection",
        "is_known": True,
    }
    assert outcome.sent["next_method"] == "execute_complete"
    backstop = re.fullmatch(r"PT(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", outcome.sent["trigger_timeout"])
    assert backstop is not None
    assert int(backstop[1] or 0) * 60 + float(backstop[2] or 0) == pytest.approx(900, abs=1)


def test_adaptive_deferral_has_no_interval(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """`poke_interval=None` stays `None`: the trigger uses the adaptive schedule."""
    assert runner.run(sensor(create(status="processing"))).trigger().poke_interval is None


def resumed(runner: TaskRunner, prediction: str, event: object, **options: Any) -> Outcome:
    return runner.run(sensor(prediction, **options), event=event)


@pytest.mark.parametrize("event", ["done", [], {}, {"prediction_id": "abc"}, {"outcomes": 3}], ids=str)
@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
def test_unreadable_event(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], event: object, soft_fail: bool
) -> None:
    """An event that can't be read is neither success nor skip: the next try polls again."""
    prediction = create()
    outcome = resumed(runner, prediction, event, soft_fail=soft_fail)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, e.CometError)
    assert outcome.message.startswith(f"Prediction {prediction}: ")


def test_event_of_a_later_release(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """Keys that this release does not know, in event and summary, do not get into the result."""
    prediction = create()
    event = event_of_finished(prediction)
    carried = event["outcomes"][prediction]
    known = dict(carried["summary"])
    carried["summary"]["cost"] = 0.03
    carried["format"] = event["format"] = 2
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result) == ("success", known)


def event_of_finished(prediction: str) -> Any:
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    return event_of(PredictionTrigger([prediction]))


def test_event_without_summary_is_read_again(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A result too large for an event is fetched by the worker."""
    text = "word " * 4000
    prediction = create(status="succeeded", output=text)
    event = event_of_finished(prediction)
    assert event["outcomes"] == {prediction: {}}
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result["output"], count_polls(comet)) == ("success", text, 2)


def test_a_result_in_the_event_is_not_lost(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A result in the event needs no further poll: it counts although the API is away or has removed it since."""
    prediction = create()
    event = event_of_finished(prediction)
    comet.set_prediction(prediction, output=None, data_removed=True)
    comet.fault(status=503, count=None)
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result["files"]) == ("success", event["outcomes"][prediction]["summary"]["files"])
    assert count_polls(comet) == 1


def test_a_fetch_after_the_event_is_waited_for(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the API is away when a large result is fetched, the task defers again, to the same deadline."""
    prediction = create()
    comet.fault(status=503, count=None)
    event, kwargs = event_about({prediction: {}}), {"started_at": clock.time(), "deadline": clock.time() + 1000}
    again = runner.run(sensor(prediction, soft_fail=True), event=event, next_kwargs=kwargs)
    assert (again.state, again.trigger().deadline) == ("deferred", kwargs["deadline"])
    comet.clear_faults()
    ended = runner.run(sensor(prediction), event=event_of(again.trigger()), next_kwargs=again.next_kwargs)
    assert ended.result["id"] == prediction


def test_a_fetch_after_the_deadline_can_be_retried(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Then there is no time to wait: the task is retried, and nothing is lost."""
    prediction = create()
    comet.fault(status=503, count=None)
    kwargs = {"started_at": clock.time() - 1000, "deadline": clock.time() + 60}  # over before the reread gives up
    outcome = runner.run(sensor(prediction), event=event_about({prediction: {}}), next_kwargs=kwargs)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.ServerError)
    comet.clear_faults()
    assert runner.run(sensor(prediction), try_number=2).result["id"] == prediction


@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
def test_failed_trigger_is_retried(runner: TaskRunner, soft_fail: bool) -> None:
    """A trigger that could not run says nothing about the prediction: the task is retried, never skipped."""
    task = sensor(soft_fail=soft_fail)
    outcome = runner.run(task, next_method="__fail__", next_kwargs={"error": "Trigger failure", "traceback": ["boom"]})
    assert outcome.state == "up_for_retry"


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_airflows_timeout_names_the_prediction(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], soft_fail: bool, state: str
) -> None:
    """If Airflow's own timeout ends the deferral, the task ends as at its own timeout, with the prediction's id."""
    prediction = create(status="processing")
    task = sensor(prediction, soft_fail=soft_fail)
    outcome = runner.run(task, **AIRFLOWS_TIMEOUT)
    assert outcome.state == state
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert "last status 'processing'" in outcome.message
    assert count_polls(comet) == 1


def test_airflows_timeout_is_a_last_poll(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A prediction that has finished while the triggerer was away is a result, or a failure."""
    good, bad = create(), create(status="failed", error="no such luck")
    outcome = runner.run(sensor(good), **AIRFLOWS_TIMEOUT)
    assert (outcome.state, outcome.result["id"], outcome.result["status"]) == ("success", good, "succeeded")
    outcome = runner.run(sensor(bad), **AIRFLOWS_TIMEOUT)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "it failed: no such luck" in outcome.message


def test_airflows_timeout_without_the_api_is_retried(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the last poll gets no answer, nobody knows whether there is a result: the next try polls again."""
    prediction = create()
    comet.fault(status=503, count=None)
    outcome = runner.run(sensor(prediction), **AIRFLOWS_TIMEOUT)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.ServerError)


def test_a_last_poll_that_got_no_slot(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """If a pause has kept the trigger from its last poll, the worker polls: it finds a result, or a timeout."""
    finished, running = create(), create(status="processing")
    event = {"count": 1, "errors": 1, "unfinished": 1, "outcomes": {}}
    outcome = runner.run(sensor(finished), event=event)
    assert (outcome.state, outcome.result["id"]) == ("success", finished)
    outcome = runner.run(sensor(running), event=event)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")


@pytest.mark.parametrize("is_named", [False, True], ids=["without its id", "with its id"])
@ONE_OR_MANY
def test_a_result_that_a_single_poll_does_not_find(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], is_list: bool, is_named: bool
) -> None:
    """A prediction that the trigger has seen finished is not unknown because a poll of the worker says so: the next try
    polls again."""
    prediction = create()
    comet.fault(method="GET", path=prediction, status=404, count=1)
    event = event_about({prediction: {}} if is_named else {})
    outcome = runner.run(sensor([prediction] if is_list else prediction), event=event)
    assert outcome.state == "up_for_retry"
    assert "it was seen before, and is unknown now" in outcome.message


RESUMES: dict[str, dict[str, Any]] = {
    "not carried": {"event": event_about({})},
    "not polled": {"event": {"count": 1, "errors": 1, "unfinished": 1, "outcomes": {}}},
    "no event": AIRFLOWS_TIMEOUT,
}


@pytest.mark.parametrize("resume", RESUMES.values(), ids=[*RESUMES])
@pytest.mark.parametrize("status", [200, 302, 400, 404, 503])
def test_an_odd_answer_loses_no_result(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], resume: dict[str, Any], status: int
) -> None:
    """Whatever the worker gets in place of a result that no event has carried: this try waits on for what passes until
    its deadline, or the next try has the result."""
    prediction = create()
    body = "<html><title>Back soon</title></html>" if status == 200 else {"error": {"message": "no", "code": ""}}
    comet.fault(method="GET", path=prediction, status=status, body=body, count=None)
    outcome = runner.run(sensor(prediction), **resume)
    is_waited_for = status == 503 and resume is RESUMES["not carried"]
    assert outcome.state == ("deferred" if is_waited_for else "up_for_retry"), outcome.message
    comet.clear_faults()
    outcome = run_sensor(runner, sensor(prediction), clock, try_number=2)
    assert (outcome.state, outcome.result["id"]) == ("success", prediction)


@pytest.mark.parametrize("allow_empty", [False, True])
def test_a_success_without_output(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], allow_empty: bool
) -> None:
    """A task that says SUCCESS without output is a failure with words about what came; `allow_empty` takes it."""
    prediction = create()
    body = {"code": "success", "data": {"task_id": "x", "status": "SUCCESS", "data": "gone"}}
    comet.fault(method="GET", status=200, body=body, count=None)
    outcome = run_sensor(runner, sensor(prediction, allow_empty=allow_empty), clock)
    words = 'the task says SUCCESS, its data is "gone"'
    if allow_empty:
        assert outcome.state == "success"
        assert (outcome.result["status"], outcome.result["error"]) == ("succeeded", words)
    else:
        assert (outcome.state, type(outcome.chain[-1])) == ("failed", e.EmptyOutputError)
        assert words in outcome.message
