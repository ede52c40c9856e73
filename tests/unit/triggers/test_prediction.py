"""`PredictionTrigger`: polls, sends one event about how its waits ended, and owns nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.summary import has_marker
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, event_of
from tests.unit.conftest import KEY

PATH = "airflow_provider_comet.triggers.prediction.PredictionTrigger"


def trigger(*prediction_ids: Any, **kwargs: Any) -> Any:
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    return PredictionTrigger([*prediction_ids], **kwargs)


def status_of(event: Any) -> str:
    """Return the status in an event about a single prediction."""
    (outcome,) = event["outcomes"].values()
    return str(outcome["summary"]["status"])


def error_of(event: Any) -> Any:
    """Return the error in an event about a single prediction."""
    (outcome,) = event["outcomes"].values()
    return outcome["error"]


def test_one_event_then_the_end(comet: Emulator, create: Callable[..., str]) -> None:
    """A finished prediction is a single event with the whole result, after which the generator is at its end."""
    prediction = create()

    async def run() -> tuple[Any, bool]:
        events = trigger(prediction).run()
        first = await anext(events)
        # Airflow cancels, as if a user had, what a trigger does after its event.
        try:
            await asyncio.wait_for(anext(events), 0.5)
        except StopAsyncIteration:
            return first.payload, True
        return first.payload, False

    event, is_over = asyncio.run(run())
    assert is_over
    assert (event["count"], event["errors"], event["unfinished"]) == (1, 0, 0)
    summary = event["outcomes"][prediction]["summary"]
    assert (summary["id"], summary["status"]) == (prediction, "succeeded")


def test_only_reads(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """Whatever happens, a trigger sends GET for its one prediction and nothing else."""
    prediction = create(status="processing")
    comet.fault(method="GET", status=500, count=3)
    event_of(trigger(prediction, deadline=clock.time() + 120))
    created, *polls = comet.ledger()["requests"]
    assert created["method"] == "POST"
    assert {(poll["method"], poll["path"]) for poll in polls} == {("GET", f"/replicate/v1/predictions/{prediction}")}
    assert all(poll["authorization"] for poll in polls)


def test_serialize_round_trip() -> None:
    """A trigger that is made from the stored kwargs of another is the same; they are small JSON without secrets."""
    from airflow.sdk.serde import deserialize, serialize

    waits = {"started_at": 1_700_000_000.25, "deadline": 1_700_003_600.5, "poke_interval": 7.5}
    first = trigger("abc", conn_id="mine", **waits)
    path, kwargs = first.serialize()
    assert path == PATH
    stored = json.dumps(serialize(kwargs), allow_nan=False)
    assert json.loads(json.dumps(kwargs)) == kwargs
    assert type(first)(**deserialize(json.loads(stored))).serialize() == (path, kwargs)
    assert set(kwargs) == {"prediction_ids", "conn_id", "started_at", "deadline", "poke_interval", "last_polled_at"}
    assert len(stored) < 300


def test_nothing_secret_is_stored(comet: Emulator, create: Callable[..., str]) -> None:
    """Neither the stored kwargs of a trigger, before and after it ran, nor its event hold the key."""
    made = trigger(create())
    before = made.serialize()
    event = event_of(made)
    assert KEY not in json.dumps([before, made.serialize(), event]) + repr(made)


def test_kwargs_of_other_releases(clock: Clock) -> None:
    """A row of an older release lacks kwargs, one of a newer release has more: both start."""
    old = trigger("abc")
    assert old.serialize()[1] == {
        "prediction_ids": ["abc"],
        "conn_id": "cometapi_default",
        "started_at": clock.time(),
        "deadline": clock.time() + 3600,
        "poke_interval": None,
        "last_polled_at": None,
    }
    new = trigger("abc", started_at=5.0, colour="red", nested={"a": 1})
    assert new.serialize()[1]["deadline"] == 3605.0
    assert "colour" not in new.serialize()[1]


def test_a_restart_changes_no_kwargs() -> None:
    """The clock of a wait does not start again when the trigger does."""
    first = trigger("abc", started_at=5.0)
    assert type(first)(**first.serialize()[1]).serialize() == first.serialize()


@pytest.mark.parametrize("seconds_late", [0.0, 10.0, 1e6])
def test_polls_before_it_checks_the_clock(
    comet: Emulator, clock: Clock, create: Callable[..., str], seconds_late: float
) -> None:
    """A finished result is reported however long ago the deadline was: the triggerer may have been away."""
    now = clock.time()
    event = event_of(trigger(create(), started_at=now - seconds_late - 100, deadline=now - seconds_late))
    assert status_of(event) == "succeeded"
    assert clock.sleeps == []


def test_past_the_deadline_a_single_poll_decides(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A prediction that is not finished after the deadline is polled once, and is a timeout."""
    prediction = create(status="processing")
    now = clock.time()
    event = event_of(trigger(prediction, started_at=now - 100, deadline=now - 10))
    assert (error_of(event)["type"], [*event["outcomes"]]) == ("PredictionTimeoutError", [prediction])
    assert event["unfinished"] == 1
    assert [request["method"] for request in comet.ledger()["requests"]] == ["POST", "GET"]


def test_polls_once_more_at_the_deadline(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """The last sleep ends at the deadline, and a prediction that is finished by then is a result."""
    prediction = create(status="processing")

    def finish(seconds: float) -> None:
        if clock.time() + seconds >= deadline:
            comet.set_prediction(prediction, status="succeeded")

    clock.on_sleep = finish
    deadline = clock.time() + 100
    event = event_of(trigger(prediction, started_at=clock.time(), deadline=deadline, poke_interval=70))
    assert status_of(event) == "succeeded"
    assert clock.time() == pytest.approx(deadline)


def test_adaptive_schedule(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """The delay between polls grows with the prediction's age, up to a minute."""
    prediction = create(status="processing")
    event_of(trigger(prediction, deadline=clock.time() + 2000))
    assert clock.sleeps[0] == pytest.approx(1.0, rel=0.11)
    assert 54 <= max(clock.sleeps) <= 66
    assert 30 < len(clock.sleeps) < 70


@pytest.mark.parametrize("interval", [10.0, 300.0])
def test_poke_interval(comet: Emulator, clock: Clock, create: Callable[..., str], interval: float) -> None:
    """A fixed interval is kept, give or take a tenth."""
    prediction = create(status="processing")
    event_of(trigger(prediction, deadline=clock.time() + 10 * interval, poke_interval=interval))
    assert len(clock.sleeps) >= 9
    assert all(0.9 * interval <= seconds <= 1.1 * interval for seconds in clock.sleeps[:-1])


@pytest.mark.parametrize("interval", [0.0, 0.001])
def test_no_hammering(comet: Emulator, clock: Clock, create: Callable[..., str], interval: float) -> None:
    """An interval of zero does not turn a triggerer into a load test."""
    prediction = create(status="processing")
    event_of(trigger(prediction, deadline=clock.time() + 10, poke_interval=interval))
    assert len(clock.sleeps) < 30


def test_missing_connection_is_an_event(clock: Clock) -> None:
    """`run` raises nothing: a missing connection is an error with the prediction's id. Airflow also calls a connection
    missing while its secrets backend is away, so it is read again, for ten minutes."""
    event = event_of(trigger("abc", conn_id="missing"))
    assert event["error"]["prediction_id"] == "abc"
    assert event["error"]["type"] == "ConnectionLookupError"
    assert clock.sleeps == [60.0] * 10
    assert "connection 'missing' does not exist" in event["error"]["detail"]


def test_unusable_connection_is_an_event(connection: Callable[..., None]) -> None:
    """A connection of another type is an error in words, too."""
    connection("odd", conn_type="http")
    assert "is of type 'http'" in event_of(trigger("abc", conn_id="odd"))["error"]["detail"]


@pytest.mark.parametrize("prediction_id", [None, "", "a/b", 7], ids=repr)
def test_odd_id_is_an_event(comet: Emulator, prediction_id: Any) -> None:
    """Even a value that can't be an id ends in an event, and nothing is sent."""
    assert event_of(trigger(prediction_id))["error"]["type"] == "InvalidInputError"
    assert comet.ledger()["requests"] == []


def test_unforeseen_error_is_an_event(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of this package is an error in words that can be retried, instead of `Trigger failure`."""
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.polling import events

    async def fail(*args: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(AsyncCometClient, "send", fail)
    error = events.read_event(event_of(trigger("abc"))).outcomes["abc"]
    assert type(error) is e.CometError
    assert (error.prediction_id, error.detail) == ("abc", "ZeroDivisionError: by zero")


def test_an_error_outside_of_a_poll_keeps_its_reason(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits run in a group of asyncio tasks: the event names the first error in it, and not the group."""
    from airflow_provider_comet.polling import events
    from airflow_provider_comet.polling.wait import Wait

    def fail(*args: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Wait, "first_delay", fail)
    with pytest.raises(e.CometError, match="ZeroDivisionError: by zero"):
        events.read_event(event_of(trigger("abc")))


@pytest.mark.parametrize("moment", ["sleeping", "polling"])
def test_cancelled_leaks_nothing(
    comet: Emulator, create: Callable[..., str], caplog: pytest.LogCaptureFixture, moment: str
) -> None:
    """A trigger that is cancelled while it sleeps or polls closes its connections and sends no event."""
    prediction = create(status="processing")
    if moment == "polling":
        comet.fault(method="GET", delay=5)
    complaints: list[dict[str, Any]] = []

    async def run() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        events: list[Any] = []

        async def collect() -> None:
            events.extend([event async for event in trigger(prediction, poke_interval=60).run()])

        task = asyncio.create_task(collect())
        await asyncio.sleep(0.3)
        assert len(comet.ledger()["requests"]) == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        return events

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert asyncio.run(run()) == []
        gc.collect()
    assert [str(warning.message) for warning in warned if issubclass(warning.category, ResourceWarning)] == []
    assert complaints == []
    assert "Unclosed" not in caplog.text


def test_finished_leaks_nothing(comet: Emulator, create: Callable[..., str]) -> None:
    """After the event no connection is open."""
    prediction = create()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        event_of(trigger(prediction))
        gc.collect()
    assert [str(warning.message) for warning in warned if "nclosed" in str(warning.message)] == []


def test_large_result_stays_out_of_the_event(comet: Emulator, create: Callable[..., str]) -> None:
    """The event of a result above 8 kB only names the prediction."""
    prediction = create(status="succeeded", output=["word " * 4000])
    event = event_of(trigger(prediction))
    assert event == {"count": 1, "errors": 0, "unfinished": 0, "outcomes": {prediction: {}}}


def test_picture_stays_out_of_the_event(comet: Emulator, create: Callable[..., str]) -> None:
    """However small, a data URI is not carried: a marker replaces it, and a text that holds a data URI is read again by
    the worker."""
    uri = "data:image/png;base64,iVBORw0KGgo="
    event = event_of(trigger(create(status="succeeded", output=[uri])))
    (outcome,) = event["outcomes"].values()
    assert outcome["summary"]["files"][0].startswith("<image/png, ")
    assert "base64" not in json.dumps(event)
    prediction = create(status="succeeded", output=f"![picture]({uri})")
    assert event_of(trigger(prediction))["outcomes"] == {prediction: {}}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_half_a_character_is_in_no_event(comet: Emulator, create: Callable[..., str], status: str, count: int) -> None:
    """Airflow sends events as msgpack, which is UTF-8: other text would end this triggerer, and then the next.

    An output with such text is left out, so that a store reads it exactly; in other fields it is replaced.
    """
    ids = [create() for _ in range(count)]
    text = '"output": {"\\udc00": ["half \\ud83d"]}, "error": "no \\ud83d", "model": "\\ud83d"'
    body = '{"id": "abc", "status": "%s", ' + text + "}"
    comet.fault(method="GET", status=200, body=body % status, count=count)
    event = event_of(trigger(*ids))
    json.dumps(event, ensure_ascii=False).encode()
    assert len(event["outcomes"]) == count
    for outcome in event["outcomes"].values():
        summary = outcome["summary"]
        assert (summary["error"], summary["model"]) == ("no \ufffd", "\ufffd")
        assert has_marker(summary["output"])


def test_half_a_character_is_in_no_error(comet: Emulator, create: Callable[..., str]) -> None:
    """The same holds for the words of an error."""
    comet.fault(method="GET", status=400, body='{"error": {"message": "no \\ud83d", "code": "\\ud83d"}}')
    event = event_of(trigger(create()))
    assert "no \ufffd" in json.dumps(event, ensure_ascii=False).encode().decode()


def test_echoed_key_is_in_no_event(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A server that answers with the key does not get it into Airflow's database."""
    prediction = create(status="failed", error=f"bad key {KEY}", logs=KEY)
    assert KEY not in json.dumps(event_of(trigger(prediction)))
    comet.fault(method="GET", status=401, body={"error": {"message": f"bad key {KEY}", "code": KEY}})
    assert KEY not in json.dumps(event_of(trigger(prediction)))


def test_airflow_can_load_it_by_its_path() -> None:
    """The class path that is stored with waiting tasks never moves."""
    from airflow.sdk._shared.module_loading import import_string

    assert import_string(PATH).__name__ == "PredictionTrigger"
    assert trigger("abc").serialize()[0] == PATH


@pytest.mark.parametrize(("items", "in_loop"), [(10, True), (100_000, False)])
def test_the_summary_of_a_large_result_does_not_block(
    comet: Emulator, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch, items: int, in_loop: bool
) -> None:
    """A result of many values is summarized in a thread, because other waits are on the event loop."""
    from airflow_provider_comet.triggers import prediction as module

    threads: list[bool] = []
    make_event = module.make_event

    def noted(outcomes: Any, **options: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return make_event(outcomes, **options)

    monkeypatch.setattr(module, "make_event", noted)
    event = event_of(trigger(create(status="succeeded", output=list(range(items)))))
    assert len(event["outcomes"]) == 1
    assert threads == [in_loop]


PAGE = {"method": "GET", "status": 200, "body": "<html><title>Back soon</title></html>"}


@pytest.mark.parametrize(
    ("is_known", "seconds_ago", "ends"), [(None, 0, True), (True, 0, False), (None, 59, True), (None, 61, False)]
)
def test_who_has_seen_the_prediction(
    comet: Emulator, clock: Clock, create: Callable[..., str], is_known: bool | None, seconds_ago: float, ends: bool
) -> None:
    """A web page ends a wait at its first poll if nobody has seen the prediction, no worker and no other triggerer."""
    comet.fault(**PAGE)
    began = clock.time() - seconds_ago
    event = event_of(trigger(create(), started_at=began, deadline=began + 600, is_known=is_known))
    if ends:
        assert error_of(event)["type"] == "WrongURLError"
    else:
        assert status_of(event) == "succeeded"


def test_a_list_outlives_a_maintenance_page(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """Each prediction of a list that was polled before outlives a page; an id that was wrong does not."""
    ids = [create(status="processing") for _ in range(3)]

    def break_then_finish(seconds: float) -> None:
        clock.on_sleep = lambda seconds: None
        comet.fault(**PAGE, count=6)
        for prediction_id in ids:
            comet.set_prediction(prediction_id, status="succeeded")

    clock.on_sleep = break_then_finish
    event = event_of(trigger(*ids, "unknown", deadline=clock.time() + 600, is_known=True))
    assert {key: [*outcome] for key, outcome in event["outcomes"].items()} == {
        "unknown": ["error"],
        **{key: ["summary"] for key in ids},
    }
    assert event["outcomes"]["unknown"]["error"]["type"] == "PredictionNotFoundError"
    assert (event["errors"], event["unfinished"]) == (1, 0)


def test_a_success_without_output_is_in_the_event(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """The summary of a success whose output never came says what came in its place."""
    body = {"code": "success", "data": {"task_id": "x", "status": "SUCCESS", "data": None}}
    comet.fault(method="GET", status=200, body=body, count=None)
    (outcome,) = event_of(trigger(create(), deadline=clock.time() + 600))["outcomes"].values()
    summary = outcome["summary"]
    assert (summary["status"], summary["output"]) == ("succeeded", None)
    assert summary["error"] == "the task says SUCCESS, its data is null"
    assert sum(clock.sleeps) <= 20
