"""`PredictionSensor` on a list; and what is the same in every mode: when it defers, deadlines, and rows of other
releases."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, dag, event_of, run_sensor

EACH_MODE = pytest.mark.parametrize("mode", MODES)
GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"


def sensor(prediction_id: Any, way: str | None = None, /, **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    options = {"retries": 2, **(MODES[way] if way else {}), **options}
    with dag():
        return PredictionSensor(task_id="wait", prediction_id=prediction_id, **options)


def looks(comet: Emulator) -> Counter[str]:
    """How often each id was asked for."""
    return Counter(one["path"].split("/")[-1] for one in comet.ledger()["requests"] if one["method"] == "GET")


def copies(comet: Emulator, first: str, count: int, **pins: Any) -> list[str]:
    """So many predictions like one that was created, in one step."""

    def copy() -> list[str]:
        known = comet._store.predictions
        made = [
            dataclasses.replace(known[first], id=f"{first}-{n:04}", pinned={**known[first].pinned, **pins})
            for n in range(count)
        ]
        known.update({one.id: one for one in made})
        return [one.id for one in made]

    return comet._on_loop(copy)


def kind(outcome: Outcome) -> str:
    return type(outcome.error).__name__


def ids_of(results: Any) -> list[Any]:
    return [None if one is None else one["id"] for one in results]


# The results of a list


@EACH_MODE
def test_order_and_length_are_kept(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The result has an item for each item given, in the same order, whoever finished first; nulls stay nulls."""
    ids = [create(status="processing") for _ in range(4)]
    rounds: list[float] = []

    def finish(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) % 2 == 0 and len(rounds) // 2 <= 4:
            comet.set_prediction(ids[4 - len(rounds) // 2], status="succeeded")

    clock.on_sleep = finish
    given = [ids[2], None, *ids, None, ids[0]]
    outcome = run_sensor(runner, sensor(given, mode), clock)
    assert outcome.state == "success"
    assert ids_of(outcome.result) == given
    assert {one["status"] for one in outcome.result if one} == {"succeeded"}
    assert set(outcome.xcoms) == {"return_value"}


@EACH_MODE
def test_equal_ids_are_asked_once(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """An id that is in the list twice costs as many looks as once."""
    one, other = create(), create()
    outcome = run_sensor(runner, sensor([one, other, one, one], mode), clock)
    assert ids_of(outcome.result) == [one, other, one, one]
    assert looks(comet) == {one: 1, other: 1}


@EACH_MODE
def test_a_list_of_one_is_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The shape of the result does not depend on how many there are, or were left at the deferral."""
    one, done = create(status="processing"), create()
    clock.on_sleep = lambda seconds: comet.set_prediction(one, status="succeeded")
    assert ids_of(run_sensor(runner, sensor([one], mode), clock).result) == [one]
    comet.set_prediction(one, status="processing")
    assert ids_of(run_sensor(runner, sensor((done, one), mode), clock).result) == [done, one]


def mapped(runner: TaskRunner, values: list[Any], instances: int | None = None, **options: Any) -> Any:
    """A sensor on the output of a mapped create, which left these values."""
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
    """All ids of a mapped create come with one request, in map order, without a warning."""
    ids = copies(comet, create(), 40)
    outcome = run_sensor(runner, mapped(runner, ids, **MODES[mode]), clock)
    assert (outcome.state, ids_of(outcome.result)) == ("success", ids)
    assert [one for one in runner.asked if "/create/" in one] == ["GET /xcoms/dag/run/create/return_value/slice"]
    assert "have left nothing" not in caplog.text


def test_gaps_of_a_mapped_create_are_told(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow leaves out instances that failed or were skipped: the log says how many, and what that means."""
    ids = copies(comet, create(), 3)
    outcome = runner.run(mapped(runner, ids, 5))
    assert (outcome.state, ids_of(outcome.result)) == ("success", ids)
    (record,) = [one for one in caplog.records if "have left nothing" in one.getMessage()]
    assert record.levelno == logging.WARNING
    assert "2 of 5 instances of task 'create'" in record.getMessage()


def test_a_mapped_create_without_any_id(comet: Emulator, runner: TaskRunner) -> None:
    """If none of its instances left an id, the error says that there is nothing to wait for."""
    outcome = runner.run(mapped(runner, [], 3))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "empty list" in outcome.message


# Lists that can't be meant


@EACH_MODE
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "prediction_id is an empty list: there is nothing to wait for"),
        ([None, None], "prediction_id is a list of 2 nulls"),
        (["abc", "def", 7], "item 2 of the list: "),
        (["abc", ["def"]], "item 1 of the list: "),
        ([None, "None"], "item 1 of the list: "),
        ("['abc', 'def']", "a template makes text of a list: give the task's output itself"),
        ("[]", "a template makes text of a list"),
        ({"id": "abc"}, "must be the id that a create returned"),
        ({"abc"}, "must be the id that a create returned"),
    ],
    ids=str,
)
def test_odd_lists(comet: Emulator, clock: Clock, runner: TaskRunner, mode: str, value: Any, words: str) -> None:
    """What holds no id, or something else, fails for good before anything is sent, and says which item it is."""
    outcome = run_sensor(runner, sensor(value, mode), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_secret_amid_a_list_is_not_shown(comet: Emulator, runner: TaskRunner) -> None:
    """What stands in place of an id is not printed in full."""
    outcome = runner.run(sensor(["abc", "https://files.example/1.png?first=1&second=2&signature=abcdef"]))
    assert "item 1" in outcome.message
    assert "signature=abcdef" not in outcome.message


# Failures


@EACH_MODE
def test_all_success_keeps_what_was_paid_for(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """After all have ended, the task fails with all that have no result, by id and reason; before that, the results are
    in XCom `predictions`, in the order given."""
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
    assert [one and one["status"] for one in kept] == ["failed", None, "succeeded", "canceled"]


@EACH_MODE
def test_all_done_returns_what_there_is(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The task succeeds: failures are returned with status and error, what could not be seen at its end is a null."""
    good, bad = create(), create(status="failed", error="no such luck")
    late = create(status="processing")
    outcome = run_sensor(runner, sensor([bad, late, good], mode, wait_rule="all_done", timeout=300), clock)
    assert outcome.state == "success"
    assert [one and one["status"] for one in outcome.result] == ["failed", None, "succeeded"]
    assert outcome.result[0]["error"] == "no such luck"
    assert set(outcome.xcoms) == {"return_value"}


def test_many_unknown_ids_are_nulls(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """More of them than an event has room for are no trouble with the API: the rule holds, and no retry is wanted."""
    done, unknown = create(), [f"unknown{number:03}" for number in range(60)]
    task = sensor([done, *unknown], wait_rule="all_done")
    event = event_of(runner.run(task).trigger())
    assert len(event["ended"]) < event["errors"] == 60
    outcome = runner.run(task, event=event)
    assert outcome.state == "success"
    assert [one and one["id"] for one in outcome.result] == [done, *[None] * 60]


@pytest.mark.parametrize("trouble", ["key", "away"])
def test_all_done_is_not_all_lost(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], trouble: str
) -> None:
    """If the API can't be read, a prediction is not taken for one without a result: the next try gets it."""
    done, missed, bad = create(), create(), create(status="failed")
    refused = {"error": e.AuthenticationError(status=401, prediction_id=missed).to_dict()}
    event = {"count": 3, "errors": 1, "late": 0, "ended": {missed: refused} if trouble == "key" else {}}
    if trouble == "away":
        comet.fault(method="GET", path=missed, status=503, count=None)
    outcome = runner.run(sensor([done, missed, bad], wait_rule="all_done"), event=event)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.PredictionListError)
    assert [one and one["status"] for one in outcome.xcoms["predictions"]] == ["succeeded", None, "failed"]
    comet.clear_faults()
    again = run_sensor(runner, sensor([done, missed, bad], wait_rule="all_done"), clock, try_number=2)
    assert [one["status"] for one in again.result] == ["succeeded", "succeeded", "failed"]


def test_a_wait_rule_that_does_not_exist() -> None:
    """A rule that can't be meant is refused while parsing."""
    with pytest.raises(ValueError, match="'all_success' or 'all_done', not 'one_success'"):
        sensor(["abc"], wait_rule="one_success")


@EACH_MODE
def test_timeouts_of_many(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """All that are not finished at the deadline are named; it is a sensor's timeout, and comes on time."""
    ids, done = copies(comet, create(status="processing"), 5), create()
    began = clock.time()
    outcome = run_sensor(runner, sensor([*ids, done], mode, timeout=300), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert 300 <= clock.time() - began + 0.01 <= 310
    assert "5 of 6" in outcome.message
    for one in ids:
        assert f"Prediction {one}: it was not finished when the timeout ended" in outcome.message
    assert [one and one["id"] for one in outcome.xcoms["predictions"]] == [*[None] * 5, done]


@EACH_MODE
def test_a_fact_beside_a_timeout(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The error is the same in every mode, also where several kinds come together."""
    ids = [create(status="processing"), create(status="failed"), create()]
    outcome = run_sensor(runner, sensor(ids, mode, timeout=100), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")


@EACH_MODE
def test_an_unknown_id_in_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """An id that the API does not know after a minute has no result, and the others do not suffer from it."""
    good = create(status="processing")

    def finish(seconds: float) -> None:
        if clock.time() > began + 200:
            comet.set_prediction(good, status="succeeded")

    began = clock.time()
    clock.on_sleep = finish
    outcome = run_sensor(runner, sensor([good, "unknown"], mode), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "1 of 2" in outcome.message
    assert "Prediction unknown: CometAPI knows no such prediction" in outcome.message
    assert outcome.xcoms["predictions"][0]["status"] == "succeeded"


@EACH_MODE
def test_soft_fail_skips_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """With `soft_fail` the task is skipped with the same words, and the results are kept as well."""
    ids = [create(), create(status="failed")]
    outcome = run_sensor(runner, sensor(ids, mode, soft_fail=True), clock)
    assert outcome.state == "skipped"
    assert "1 of 2" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == ids


def test_a_long_message_is_cut(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """Of hundreds of failures fifty are in the message, and all of them in the log."""
    ids = copies(comet, create(status="failed"), 120)
    outcome = run_sensor(runner, sensor(ids), clock)
    assert outcome.message.count("it failed") == 50
    assert "... and 70 more" in outcome.message
    assert len(outcome.message) < 20_000


# Many


@pytest.mark.parametrize("outcomes", ["good", "bad", "late", "mixed"])
def test_three_hundred(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    outcomes: str,
) -> None:
    """Three hundred ids are one trigger and one small event; the worker reads the rest, sixteen at once."""
    from airflow_provider_comet.client.sync_client import CometClient

    at_once, most, lock, look = 0, 0, threading.Lock(), CometClient.look

    def counted(client: Any, prediction_id: object) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return look(client, prediction_id)
        finally:
            with lock:
                at_once -= 1

    statuses = {"good": ["succeeded"], "bad": ["failed"], "late": ["processing"], "mixed": ["succeeded", "failed"]}
    first = create(status="processing")
    ids = [
        one for n, status in enumerate(statuses[outcomes]) for one in copies(comet, first, 300, status=status)[n::2]
    ][:300]
    monkeypatch.setattr(CometClient, "look", counted)
    task = sensor(ids, timeout=70, poke_interval=60)
    deferred = runner.run(task)
    assert deferred.state == "deferred"
    assert not looks(comet)
    event = event_of(deferred.trigger())
    assert len(json.dumps(event)) <= 8_000 * 1.1
    asked = sum(looks(comet).values())
    resumed = runner.run(task, event=event)
    assert most <= 16
    connections = {one["connection"] for one in comet.ledger()["requests"][-(sum(looks(comet).values()) - asked) :]}
    assert len(connections) <= 16
    if outcomes == "good":
        assert (resumed.state, ids_of(resumed.result)) == ("success", ids)
    else:
        assert resumed.state == "failed"
        assert kind(resumed) == ("AirflowSensorTimeout" if outcomes == "late" else "AirflowFailException")
        count = len([one for one in ids if comet._store.predictions[one].pinned["status"] != "succeeded"])
        assert f"{count} of {len(ids)}" in resumed.message


def test_results_that_are_read_again_may_be_away(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the API is away when the worker reads what the event did not carry, the next try gets everything."""
    ids = copies(comet, create(), 60)
    task = sensor(ids)
    event = event_of(runner.run(task).trigger())
    assert len(event["ended"]) < 60
    comet.fault(method="GET", status=503, count=None)
    outcome = runner.run(task, event=event)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, e.PredictionListError)
    assert {type(one) for one in outcome.error.errors} == {e.ServerError}
    kept = outcome.xcoms["predictions"]
    assert len(kept) == 60
    assert sum(one is not None for one in kept) == len(event["ended"])
    comet.clear_faults()
    again = run_sensor(runner, task, clock, try_number=2)
    assert ids_of(again.result) == ids


def test_trouble_of_one_is_retried_although_another_failed(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If a retry may get one result more, the task is retried: looking costs nothing."""
    bad, good = create(status="failed"), create()
    error = {"error": e.ServerError(status=502, prediction_id=good).to_dict()}
    event = {"count": 2, "errors": 1, "late": 0, "ended": {good: error}}
    outcome = runner.run(sensor([bad, good]), event=event)
    assert outcome.state == "up_for_retry"
    assert "2 of 2" in outcome.message


@pytest.mark.parametrize("event", [None, "done", [], {}, {"ended": 3}, {"prediction_id": "abc"}], ids=str)
def test_an_unreadable_event_of_a_list(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], event: Any
) -> None:
    """An event that can't be read is neither success nor skip: the next try looks again."""
    outcome = runner.run(sensor([create()], soft_fail=True), event=event)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, e.CometError)


def test_an_event_about_other_ids(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A list that has changed since the deferral (a mapped create was cleared) gets the results of the ids it has
    now."""
    old, new = create(), create()
    event = {"count": 1, "errors": 0, "late": 0, "ended": {old: {"status": "succeeded"}}}
    assert ids_of(runner.run(sensor([new]), event=event).result) == [new]


def test_what_finished_on_the_worker_is_not_waited_for_again(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """The trigger gets the ids that are still open, as a list also if it is one."""
    done, running = create(), create(status="processing")
    assert runner.run(sensor([done, running], defer_after=0)).trigger().prediction_id == [running]


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_one_429_stops_all_looks_of_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The limit is one for all: until the time that the server named has passed, none of the others is asked for, on
    the worker and after it has deferred."""
    ids = copies(comet, create(status="processing"), 4)
    comet.fault(method="GET", path=ids[2], status=429, headers={"Retry-After": "100"}, count=1)
    seen: list[tuple[float, int]] = []
    clock.on_sleep = lambda seconds: seen.append((clock.time(), sum(looks(comet).values())))
    began = clock.time()
    outcome = run_sensor(runner, sensor(ids, mode, poke_interval=5, timeout=300), clock)
    assert kind(outcome) == "AirflowSensorTimeout"
    assert {count for moment, count in seen if 1 < moment - began < 100} <= {4}
    assert min(looks(comet).values()) > 20


def test_a_429_does_not_outlast_the_deadline_of_a_list(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Also a pause that is longer than the wait ends with a last look at the deadline."""
    ids = copies(comet, create(status="processing"), 3)
    comet.fault(method="GET", path=ids[0], status=429, headers={"Retry-After": "1000"}, count=1)
    clock.on_sleep = lambda seconds: [comet.set_prediction(one, status="succeeded") for one in ids] and None
    began = clock.time()
    outcome = run_sensor(runner, sensor(ids, "poke", timeout=60), clock)
    assert ids_of(outcome.result) == ids
    assert clock.time() - began <= 62


def test_a_refused_id_of_a_list_is_left_to_the_triggerer(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """What a key was refused for goes on in the triggerer with what has not finished; the rest is done."""
    done, refused, running = create(), create(), create(status="processing")
    comet.fault(method="GET", path=refused, status=401, count=1)
    outcome = runner.run(sensor([done, refused, running]))
    assert outcome.state == "deferred"
    assert sorted(outcome.trigger().prediction_id) == sorted([refused, running])


# When it defers


def test_defer_after_lets_short_predictions_finish(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """What is done within three seconds is returned by the worker, which needs no triggerer."""
    one = create(status="processing")

    def finish(seconds: float) -> None:
        if clock.time() + seconds >= began + 2:
            comet.set_prediction(one, status="succeeded")

    began = clock.time()
    clock.on_sleep = finish
    outcome = runner.run(sensor(one))
    assert (outcome.state, outcome.result["id"]) == ("success", one)
    assert clock.time() - began <= 3


def test_defer_after_is_over(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """What takes longer leaves the worker after three seconds, and the triggerer knows when it was looked at last."""
    one = create(status="processing")
    began = clock.time()
    outcome = runner.run(sensor(one))
    assert outcome.state == "deferred"
    assert 1 < clock.time() - began <= 3
    assert outcome.trigger().looked_at == pytest.approx(clock.time(), abs=0.01)
    assert looks(comet)[one] >= 3


@pytest.mark.parametrize("nothing", [0, 0.0, dt.timedelta(0)], ids=repr)
@pytest.mark.parametrize("is_list", [False, True])
def test_defer_after_nothing_is_one_look(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], nothing: Any, is_list: bool
) -> None:
    """0 looks once, and defers what is not done."""
    one = create(status="processing")
    assert runner.run(sensor([one] if is_list else one, defer_after=nothing)).state == "deferred"
    assert (looks(comet), clock.sleeps) == ({one: 1}, [])
    comet.set_prediction(one, status="succeeded")
    assert runner.run(sensor([one] if is_list else one, defer_after=nothing)).state == "success"


def test_defer_after_a_timedelta(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """It may be given as a `timedelta`."""
    began = clock.time()
    assert runner.run(sensor(create(status="processing"), defer_after=dt.timedelta(seconds=30))).state == "deferred"
    assert 15 < clock.time() - began <= 30


@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
def test_defer_after_does_not_outlast_the_deadline(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], limit: str
) -> None:
    """Whoever stays on the worker for an hour still ends at the deadline."""
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
    """A given interval holds for each id of a list, in every mode."""
    ids = copies(comet, create(status="processing"), 3)
    run_sensor(runner, sensor(ids, mode, timeout=400, poke_interval=interval), clock)
    for count in looks(comet).values():
        assert 400 / (interval * 1.1) - 1 <= count <= 400 / (interval * 0.9) + 3


def test_reschedule_looks_once_a_minute_at_most(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Without an interval, a rescheduled list is looked at no more often than once a minute, also when it is young."""
    ids = copies(comet, create(status="processing"), 3)
    run_sensor(runner, sensor(ids, "reschedule", timeout=600), clock)
    between = [seconds for seconds in clock.sleeps if seconds > 1]  # the others keep looks of one round apart
    assert min(between[:-1]) >= 60
    assert max(looks(comet).values()) <= 12


# Deadlines


@EACH_MODE
@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize(
    ("options", "state", "error"),
    [
        ({"timeout": 300, "execution_timeout": dt.timedelta(seconds=120)}, "up_for_retry", "AirflowTaskTimeout"),
        ({"timeout": 120, "execution_timeout": dt.timedelta(seconds=300)}, "failed", "AirflowSensorTimeout"),
        ({"timeout": 120}, "failed", "AirflowSensorTimeout"),
    ],
    ids=["execution_timeout", "timeout", "timeout alone"],
)
def test_the_earlier_deadline_decides(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    is_list: bool,
    options: dict[str, Any],
    state: str,
    error: str,
) -> None:
    """`execution_timeout` is a task's timeout, which Airflow retries; `timeout` a sensor's, which it does not; in every
    mode, on time, and the last look is at the deadline."""
    one = create(status="processing")
    began = clock.time()
    seen: list[float] = []
    clock.on_sleep = lambda seconds: seen.append(clock.time() + seconds)
    outcome = run_sensor(runner, sensor([one] if is_list else one, mode, **options), clock)
    assert (outcome.state, kind(outcome)) == (state, error)
    assert 120 <= clock.time() - began + 0.01 <= 125
    assert f"Prediction {one}: " in outcome.message
    comet.set_prediction(one, status="succeeded")
    assert run_sensor(runner, sensor([one] if is_list else one, mode, **options), clock).state == "success"


@EACH_MODE
@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
@pytest.mark.parametrize("is_list", [False, True])
def test_one_last_look_at_the_deadline(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    limit: str,
    is_list: bool,
) -> None:
    """What is finished in the last moment is returned."""
    one = create(status="processing")
    deadline = clock.time() + 100

    def finish(seconds: float) -> None:
        if clock.time() + seconds >= deadline - 0.01:
            comet.set_prediction(one, status="succeeded")

    clock.on_sleep = finish
    options: dict[str, Any] = {limit: dt.timedelta(seconds=100), "poke_interval": 35}
    outcome = run_sensor(runner, sensor([one] if is_list else one, mode, **options), clock)
    assert outcome.state == "success"
    assert clock.time() >= deadline - 0.01


@pytest.mark.parametrize("soft_fail", [False, True])
def test_execution_timeout_with_soft_fail(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], soft_fail: bool
) -> None:
    """`soft_fail` skips at both deadlines, in every mode."""
    for mode in MODES:
        task = sensor(
            create(status="processing"), mode, execution_timeout=dt.timedelta(seconds=60), soft_fail=soft_fail
        )
        assert run_sensor(runner, task, clock).state == ("skipped" if soft_fail else "up_for_retry")


def test_the_backstop_keeps_what_was_paid_for(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """If the triggerer was away until Airflow's own timeout, what has finished is a result and the rest is late."""
    good, slow = create(), create(status="processing")
    outcome = runner.run(sensor([good, slow]), next_method="__fail__", next_kwargs={"error": "Trigger timeout"})
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert "1 of 2" in outcome.message
    assert f"Prediction {slow}: it was not finished when the timeout ended" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == [good, None]
    comet.set_prediction(slow, status="succeeded")
    outcome = runner.run(sensor([good, slow]), next_method="__fail__", next_kwargs={"error": "Trigger timeout"})
    assert (outcome.state, ids_of(outcome.result)) == ("success", [good, slow])


def test_the_backstop_of_an_execution_timeout(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """If the triggerer was away and Airflow's own timeout ended the deferral, it is the same kind of timeout."""
    one = create(status="processing")
    for is_list in (False, True):
        task = sensor([one] if is_list else one, execution_timeout=dt.timedelta(seconds=60))
        outcome = runner.run(task, next_method="__fail__", next_kwargs={"error": "Trigger timeout"})
        assert (outcome.state, kind(outcome)) == ("up_for_retry", "AirflowTaskTimeout")


# Options that do not exist here


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"silent_fail": True}, "no silent_fail: trouble that may pass is waited out"),
        ({"exponential_backoff": True}, "no exponential_backoff: by default the interval grows"),
        ({"max_wait": dt.timedelta(minutes=1)}, "no max_wait: by default the interval grows to a minute"),
        ({"max_wait": 60}, "no max_wait"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [None, *MODES])
def test_options_of_airflow_that_do_nothing_are_refused(options: dict[str, Any], words: str, mode: str | None) -> None:
    """An option that a deferred wait would silently ignore is refused while parsing, with what happens instead."""
    with pytest.raises(ValueError, match=words):
        sensor("abc", mode, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exponential_backoff": True}, "no exponential_backoff"),
        ({"silent_fail": True}, "no silent_fail"),
        ({"max_wait": dt.timedelta(minutes=1)}, "no max_wait"),
        ({"wait_rule": "nonsense"}, "wait_rule must be"),
    ],
    ids=str,
)
def test_refused_wherever_they_are_given(options: dict[str, Any], words: str) -> None:
    """The same in a DAG's `default_args`, and for a sensor that is mapped."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(default_args=options), pytest.raises(ValueError, match=words):
        PredictionSensor(task_id="wait", prediction_id="abc")
    with dag(default_args=options), pytest.raises(ValueError, match=words):
        PredictionSensor.partial(task_id="wait").expand(prediction_id=["abc"])
    with dag(), pytest.raises(ValueError, match=words):
        PredictionSensor.partial(task_id="wait", **options).expand(prediction_id=["abc"])


@pytest.mark.parametrize(
    "options", [{"silent_fail": False}, {"exponential_backoff": False}, {"max_wait": None}], ids=str
)
def test_their_defaults_are_accepted(options: dict[str, Any]) -> None:
    """Whoever says explicitly that such an option is off is right."""
    assert sensor("abc", **options).deferrable


# Rows of other releases


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def place(comet: Emulator, create: Callable[..., str], *ids: str) -> None:
    """Let the emulator know succeeded predictions by these ids."""
    first = comet._store.predictions[create()]
    for one in ids:
        comet._store.predictions[one] = dataclasses.replace(first, id=one, pinned={"status": "succeeded"})


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("trigger-*.json")))
def test_stored_triggers_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """A wait that another release has stored starts, looks, and ends with a result for the task that waits."""
    from airflow.sdk.serde import deserialize

    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    trigger = PredictionTrigger(**deserialize(stored))
    _, kwargs = trigger.serialize()
    assert {key: value for key, value in kwargs.items() if key in stored} == {
        key: value for key, value in stored.items() if key in kwargs
    }
    outcome = runner.run(sensor(stored["prediction_id"]), event=event_of(trigger))
    assert outcome.state == "success"
    given = stored["prediction_id"]
    assert (ids_of(outcome.result) if isinstance(given, list) else outcome.result["id"]) == given


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("trigger-*.json")))
def test_stored_triggers_that_are_still_running(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """Long after its deadline such a wait ends as a timeout, not as a bug."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    for one in (GOLDEN_ID, f"{GOLDEN_ID}2"):
        comet.set_prediction(one, status="processing")
    outcome = runner.run(sensor(stored["prediction_id"]), event=event_of(PredictionTrigger(**stored)))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")


ENDS = {
    "event-past-summary": ("success", None),
    "event-past-status": ("success", None),
    "event-past-error": ("failed", "AirflowSensorTimeout"),
    "event-past-transient": ("up_for_retry", "AuthenticationError"),
    "event-past-failed": ("failed", "AirflowFailException"),
    "event-present-list": ("failed", "AirflowFailException"),
    "event-future-summary": ("success", None),
    "event-future-status": ("success", None),
    "event-future-error": ("up_for_retry", "CometError"),
    "event-future-list": ("success", None),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("event-*.json")))
def test_events_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """An event that another release has stored ends the wait as it says; what is not known here is left out."""
    from airflow_provider_comet.api.prediction import SUMMARY_KEYS

    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    is_list = name.endswith("-list")
    given = [GOLDEN_ID, f"{GOLDEN_ID}2"] if is_list else GOLDEN_ID
    outcome = runner.run(sensor(given), event=golden(name))
    state, error = ENDS[name]
    assert (outcome.state, outcome.error and kind(outcome)) == (state, error)
    if state == "success":
        for one in outcome.result if is_list else [outcome.result]:
            assert tuple(one) == SUMMARY_KEYS
    else:
        assert GOLDEN_ID in outcome.message


@pytest.mark.parametrize("name", ["event-past-summary", "event-past-status", "event-past-error"])
def test_an_event_of_one_for_a_task_that_waits_for_a_list_now(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """A DAG that was changed to a list while the task waited for one id: no success by mistake."""
    place(comet, create, GOLDEN_ID)
    outcome = runner.run(sensor([GOLDEN_ID]), event=golden(name))
    assert outcome.state in {"up_for_retry", "failed"}
