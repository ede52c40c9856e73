"""`PredictionSensor` on a list."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, TaskRunner, dag, event_of, run_sensor
from tests.unit.sensors.helpers import (
    EACH_MODE,
    copies,
    count_polls,
    event_about,
    ids_of,
    kind,
    polls_by_id,
    sensor,
    statuses_of,
)

# The results of a list


@EACH_MODE
def test_order_and_length_are_kept(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The result has an item for each id, in the same order, whichever finished first; nulls stay nulls."""
    ids = [create(status="processing") for _ in range(4)]
    rounds: list[float] = []

    def finish(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) % 2 == 0 and len(rounds) // 2 <= 4:
            comet.set_prediction(ids[4 - len(rounds) // 2], status="succeeded")

    clock.on_sleep = finish
    raw_ids = [ids[2], None, *ids, None, ids[0]]
    outcome = run_sensor(runner, sensor(raw_ids, mode), clock)
    assert outcome.state == "success"
    assert ids_of(outcome.result) == raw_ids
    assert {*statuses_of(outcome.result)} == {"succeeded", None}
    assert set(outcome.xcoms) == {"return_value"}


@EACH_MODE
def test_equal_ids_are_polled_once(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """An id that is in the list twice costs no more polls than an id that is in it once."""
    first, second = create(), create()
    raw_ids = [first, second, first, first]
    outcome = run_sensor(runner, sensor(raw_ids, mode), clock)
    assert ids_of(outcome.result) == raw_ids
    assert polls_by_id(comet) == {first: 1, second: 1}


@EACH_MODE
def test_a_list_with_a_single_id_is_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The shape of the result does not depend on the number of ids, or on how many were left at the deferral."""
    running, finished = create(status="processing"), create()
    clock.on_sleep = lambda seconds: comet.set_prediction(running, status="succeeded")
    assert ids_of(run_sensor(runner, sensor([running], mode), clock).result) == [running]
    comet.set_prediction(running, status="processing")
    assert ids_of(run_sensor(runner, sensor((finished, running), mode), clock).result) == [finished, running]


def mapped(runner: TaskRunner, values: list[Any], instances: int | None = None, **options: Any) -> Any:
    """Return a sensor on the output of a mapped create, which left these values."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    runner.mapped["create"] = values
    runner.instances["create"] = len(values) if instances is None else instances
    with dag():
        create = CreatePredictionOperator.partial(task_id="create", model="a/b").expand(input=[{"prompt": "x"}])
        return PredictionSensor(task_id="wait", prediction_id=create.output, retries=2, **options)


@EACH_MODE
def test_a_mapped_create_is_read_by_one_slice(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All ids of a mapped create come with a single request, in map order, without a warning."""
    ids = copies(comet, create(), 40)
    outcome = run_sensor(runner, mapped(runner, ids, **MODES[mode]), clock)
    assert (outcome.state, ids_of(outcome.result)) == ("success", ids)
    assert [request for request in runner.asked if "/create/" in request] == [
        "GET /xcoms/dag/run/create/return_value/slice"
    ]
    assert "have no output" not in caplog.text


def test_gaps_of_a_mapped_create_are_logged(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow leaves out instances that failed or were skipped: the log says how many, and what that means."""
    ids = copies(comet, create(), 3)
    outcome = runner.run(mapped(runner, ids, 5))
    assert (outcome.state, ids_of(outcome.result)) == ("success", ids)
    (record,) = [record for record in caplog.records if "have no output" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert "2 of 5 instances of task 'create'" in record.getMessage()


def test_a_mapped_create_without_any_id(comet: Emulator, runner: TaskRunner) -> None:
    """If no instance left an id, the error says that there is nothing to wait for."""
    outcome = runner.run(mapped(runner, [], 3))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "empty list" in outcome.message


# Lists that are no lists of ids


@EACH_MODE
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "prediction_id is an empty list: there is nothing to wait for"),
        ([None, None], "prediction_id is a list of 2 nulls"),
        (["abc", "def", 7], "item 2 of the list: "),
        (["abc", [[["def"]]]], "item 1 of the list: "),
        ([None, "None"], "item 1 of the list: "),
        ("['abc', 'def']", "a template makes text of a list: give the task's output itself"),
        ("[]", "a template makes text of a list"),
        ({"id": "abc"}, "must be the id that a create returned"),
        ({"abc"}, "must be the id that a create returned"),
    ],
    ids=str,
)
def test_odd_lists(comet: Emulator, clock: Clock, runner: TaskRunner, mode: str, value: Any, words: str) -> None:
    """A value without ids, or with anything else, fails for good before anything is sent; the error names the item."""
    outcome = run_sensor(runner, sensor(value, mode), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_secret_in_a_list_is_not_shown(comet: Emulator, runner: TaskRunner) -> None:
    """A value in place of an id is not printed in full."""
    outcome = runner.run(sensor(["abc", "https://files.example/1.png?first=1&second=2&signature=abcdef"]))
    assert "item 1" in outcome.message
    assert "signature=abcdef" not in outcome.message


# Failures


@EACH_MODE
def test_a_failed_list_keeps_the_results_that_were_paid_for(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """After all waits have ended, the task fails, and names each prediction without a result, with the reason; the
    results are in XCom `predictions` by then, in the order of the ids."""
    good, bad = create(), create(status="failed", error="no such luck")
    slow = create(status="processing")
    clock.on_sleep = lambda seconds: comet.set_prediction(slow, status="canceled", error="by somebody")
    outcome = run_sensor(runner, sensor([bad, None, good, slow], mode), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "2 of 3" in outcome.message
    assert f"Prediction {bad}: it failed: no such luck." in outcome.message
    assert f"Prediction {slow}: it was canceled: by somebody." in outcome.message
    assert good not in outcome.message
    assert set(outcome.xcoms) == {"predictions"}
    kept = outcome.xcoms["predictions"]
    assert ids_of(kept) == [bad, None, good, slow]
    assert statuses_of(kept) == ["failed", None, "succeeded", "canceled"]


@EACH_MODE
def test_keep_returns_the_list_in_spite_of_errors(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """With `on_item_error="keep"` the task succeeds: a failed prediction is returned with its status and error, an
    unfinished prediction is a null."""
    good, bad = create(), create(status="failed", error="no such luck")
    unfinished = create(status="processing")
    task = sensor([bad, unfinished, good], mode, on_item_error="keep", timeout=300)
    outcome = run_sensor(runner, task, clock)
    assert outcome.state == "success"
    assert statuses_of(outcome.result) == ["failed", None, "succeeded"]
    assert outcome.result[0]["error"] == "no such luck"
    assert set(outcome.xcoms) == {"return_value"}


def test_many_unknown_ids_are_nulls(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """More unknown ids than an event has room for are no trouble with the API: with `keep` the task succeeds."""
    finished, unknown = create(), [f"unknown{number:03}" for number in range(60)]
    task = sensor([finished, *unknown], on_item_error="keep")
    event = event_of(runner.run(task).trigger())
    assert len(event["outcomes"]) < event["errors"] == 60
    outcome = runner.run(task, event=event)
    assert outcome.state == "success"
    assert ids_of(outcome.result) == [finished, *[None] * 60]


@pytest.mark.parametrize("trouble", ["key", "away"])
def test_keep_does_not_lose_a_result_that_could_not_be_read(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], trouble: str
) -> None:
    """If the API can't be read, the prediction does not count as without a result: the task waits on, or fails, and
    the next try gets the result."""
    good, missed, bad = create(), create(), create(status="failed")
    refused = {"error": e.AuthenticationError(status=401, prediction_id=missed).to_dict()}
    event = {"count": 3, "errors": 1, "unfinished": 0, "outcomes": {missed: refused} if trouble == "key" else {}}
    if trouble == "away":
        comet.fault(method="GET", path=missed, status=503, count=None)
    task = sensor([good, missed, bad], on_item_error="keep")
    outcome = runner.run(task, event=event)
    if trouble == "away":
        assert outcome.state == "deferred"
        assert outcome.trigger().prediction_ids == [missed]
    else:
        assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.PredictionListError)
        assert statuses_of(outcome.xcoms["predictions"]) == ["succeeded", None, "failed"]
    comet.clear_faults()
    retried = run_sensor(runner, task, clock, try_number=2)
    assert statuses_of(retried.result) == ["succeeded", "succeeded", "failed"]


@EACH_MODE
def test_keep_fails_if_nothing_succeeded(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """With `on_item_error="keep"` a list without a single result fails the task for good, names each prediction, and
    leaves what is known in XCom `predictions`."""
    failed, empty = create(status="failed", error="no such luck"), create(status="succeeded", output=[])
    task = sensor([failed, None, empty, "unknown"], mode, on_item_error="keep")
    outcome = run_sensor(runner, task, clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "3 of 3" in outcome.message
    for prediction in (failed, empty, "unknown"):
        assert f"Prediction {prediction}: " in outcome.message
    assert statuses_of(outcome.xcoms["predictions"]) == ["failed", None, "succeeded", None]
    assert "return_value" not in outcome.xcoms


@EACH_MODE
def test_keep_fails_if_nothing_finished_in_time(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """With `on_item_error="keep"` a list of which nothing was finished in time is a timeout of the sensor."""
    ids = [create(status="processing"), create(status="processing")]
    outcome = run_sensor(runner, sensor(ids, mode, on_item_error="keep", timeout=100), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert outcome.xcoms["predictions"] == [None, None]


@EACH_MODE
def test_timeouts_of_many(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The error names each prediction that is not finished at the deadline; it is a sensor's timeout, and on time."""
    ids, finished = copies(comet, create(status="processing"), 5), create()
    began = clock.time()
    outcome = run_sensor(runner, sensor([*ids, finished], mode, timeout=300), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert 300 <= clock.time() - began + 0.01 <= 310
    assert "5 of 6" in outcome.message
    for prediction_id in ids:
        assert f"Prediction {prediction_id}: it was not finished when the timeout ended" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == [*[None] * 5, finished]


@EACH_MODE
def test_a_failure_beside_a_timeout(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The error is the same in every mode, also where a failure and a timeout come together: the failure decides."""
    ids = [create(status="processing"), create(status="failed"), create()]
    outcome = run_sensor(runner, sensor(ids, mode, timeout=100), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")


@EACH_MODE
def test_an_unknown_id_in_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """An id that the API does not know after a minute has no result; the other waits continue."""
    good = create(status="processing")

    def finish(seconds: float) -> None:
        if clock.time() > began + 200:
            comet.set_prediction(good, status="succeeded")

    began = clock.time()
    clock.on_sleep = finish
    outcome = run_sensor(runner, sensor([good, "unknown"], mode), clock)
    is_forgotten = mode == "reschedule"  # a later poke takes it for a stray "not found", until the deadline
    ends = "AirflowSensorTimeout" if is_forgotten else "AirflowFailException"
    assert (outcome.state, kind(outcome)) == ("failed", ends)
    assert "1 of 2" in outcome.message
    assert "Prediction unknown: " in outcome.message
    assert "CometAPI knows no such prediction" in outcome.message
    assert outcome.xcoms["predictions"][0]["status"] == "succeeded"


@EACH_MODE
def test_soft_fail_skips_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """With `soft_fail` the task is skipped with the same words, and the results are in XCom as well."""
    ids = [create(), create(status="failed")]
    outcome = run_sensor(runner, sensor(ids, mode, soft_fail=True), clock)
    assert outcome.state == "skipped"
    assert "1 of 2" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == ids


def test_a_long_message_is_shortened(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Of many failures fifty are in the message."""
    ids = copies(comet, create(status="failed"), 120)
    outcome = run_sensor(runner, sensor(ids), clock)
    assert outcome.message.count("it failed") == 50
    assert "... and 70 more" in outcome.message
    assert len(outcome.message) < 20_000


# Many predictions


@pytest.mark.parametrize("outcomes", ["good", "bad", "unfinished", "mixed"])
def test_three_hundred_predictions(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    outcomes: str,
) -> None:
    """Three hundred ids are a single trigger and a small event; the worker reads the rest, sixteen at once."""
    from airflow_provider_comet.client.sync_client import CometClient

    at_once, most, lock, send = 0, 0, threading.Lock(), CometClient.send

    def counted(client: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return send(client, *args, **kwargs)
        finally:
            with lock:
                at_once -= 1

    statuses = {
        "good": ["succeeded"],
        "bad": ["failed"],
        "unfinished": ["processing"],
        "mixed": ["succeeded", "failed"],
    }
    first = create(status="processing")
    ids = [
        prediction_id
        for n, status in enumerate(statuses[outcomes])
        for prediction_id in copies(comet, first, 300, status=status)[n::2]
    ][:300]
    monkeypatch.setattr(CometClient, "send", counted)
    task = sensor(ids, timeout=70, poke_interval=60)
    deferred = runner.run(task)
    assert deferred.state == "deferred"
    assert not polls_by_id(comet)
    event = event_of(deferred.trigger())
    assert len(json.dumps(event)) <= 8_000 * 1.1
    polls = count_polls(comet)
    resumed = runner.run(task, event=event)
    assert most <= 16
    connections = {request["connection"] for request in comet.ledger()["requests"][-(count_polls(comet) - polls) :]}
    assert len(connections) <= 16
    if outcomes == "good":
        assert (resumed.state, ids_of(resumed.result)) == ("success", ids)
    else:
        assert resumed.state == "failed"
        assert kind(resumed) == ("AirflowSensorTimeout" if outcomes == "unfinished" else "AirflowFailException")
        count = len([True for key in ids if comet._store.predictions[key].pinned["status"] != "succeeded"])
        assert f"{count} of {len(ids)}" in resumed.message


def test_results_that_are_read_again_may_be_away(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the API is away when the worker reads the results that the event did not carry, it waits for all of them."""
    ids = copies(comet, create(), 60)
    task = sensor(ids)
    event = event_of(runner.run(task).trigger())
    assert len(event["outcomes"]) < 60
    comet.fault(method="GET", status=503, count=None)
    outcome = runner.run(task, event=event)
    assert (outcome.state, outcome.trigger().prediction_ids) == ("deferred", ids)
    comet.clear_faults()
    event, kwargs = event_of(outcome.trigger()), outcome.next_kwargs
    assert ids_of(runner.run(task, event=event, next_kwargs=kwargs).result) == ids


def test_trouble_is_retried_although_another_prediction_failed(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If a retry may get another result, the task is retried: polling costs nothing."""
    bad, good = create(status="failed"), create()
    error = {"error": e.ServerError(status=502, prediction_id=good).to_dict()}
    event = {"count": 2, "errors": 1, "unfinished": 0, "outcomes": {good: error}}
    outcome = runner.run(sensor([bad, good]), event=event)
    assert outcome.state == "up_for_retry"
    assert "2 of 2" in outcome.message


@pytest.mark.parametrize("event", ["done", [], {}, {"outcomes": 3}, {"prediction_id": "abc"}], ids=str)
def test_an_unreadable_event_of_a_list(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], event: Any
) -> None:
    """An event that can't be read is neither success nor skip: the next try polls again."""
    outcome = runner.run(sensor([create()], soft_fail=True), event=event)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, e.CometError)


def test_an_event_about_other_ids(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A list that has changed since the deferral (a mapped create was cleared) gets the results of the ids it has
    now."""
    old, new = create(), create()
    event = event_about({old: {}})
    assert ids_of(runner.run(sensor([new]), event=event).result) == [new]


def test_an_event_about_other_ids_has_no_audit_line_for_them(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """The log counts the predictions of this task, not others that the event knows."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    old, new = create(), create()
    event = event_of(PredictionTrigger([old, new]))
    with caplog.at_level(logging.INFO, logger="airflow_provider_comet"):
        assert ids_of(runner.run(sensor([new]), event=event).result) == [new]
    assert f"comet.finished id={new} " in caplog.text
    assert f"comet.finished id={old} " not in caplog.text


def test_what_finished_on_the_worker_is_not_waited_for_again(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """The trigger gets the ids of the predictions that have not finished on the worker."""
    finished, running = create(), create(status="processing")
    assert runner.run(sensor([finished, running], defer_after=0)).trigger().prediction_ids == [running]


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_429_stops_all_polls_of_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """All polls share a rate limit: before the time that the server named has passed, no other prediction is polled, on
    the worker and after it has deferred."""
    ids = copies(comet, create(status="processing"), 4)
    comet.fault(method="GET", path=ids[2], status=429, headers={"Retry-After": "100"}, count=1)
    counts: list[tuple[float, int]] = []
    clock.on_sleep = lambda seconds: counts.append((clock.time(), count_polls(comet)))
    began = clock.time()
    outcome = run_sensor(runner, sensor(ids, mode, poke_interval=5, timeout=300), clock)
    assert kind(outcome) == "AirflowSensorTimeout"
    assert {count for moment, count in counts if 1 < moment - began < 100} <= {4}
    assert min(polls_by_id(comet).values()) > 20


def test_a_429_does_not_outlast_the_deadline_of_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Also a pause that is longer than the wait ends with a last poll at the deadline."""
    ids = copies(comet, create(status="processing"), 3)
    comet.fault(method="GET", path=ids[0], status=429, headers={"Retry-After": "1000"}, count=1)
    clock.on_sleep = lambda seconds: [comet.set_prediction(key, status="succeeded") for key in ids] and None
    began = clock.time()
    outcome = run_sensor(runner, sensor(ids, "poke", timeout=60), clock)
    assert ids_of(outcome.result) == ids
    assert clock.time() - began <= 62


def test_a_refused_id_of_a_list_is_left_to_the_triggerer(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """The triggerer waits for predictions that the key was refused for, and for those that have not finished."""
    finished, refused, running = create(), create(), create(status="processing")
    comet.fault(method="GET", path=refused, status=401, count=1)
    outcome = runner.run(sensor([finished, refused, running]))
    assert outcome.state == "deferred"
    assert sorted(outcome.trigger().prediction_ids or []) == sorted([refused, running])
