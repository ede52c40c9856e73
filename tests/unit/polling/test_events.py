"""``polling/events.py``: the event that carries the end of a wait from the trigger to the worker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet import metrics
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.outcome import judge
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import SUMMARY_KEYS
from airflow_provider_comet.polling import events
from tests.support.characters import acting

ALL_ERRORS = [
    cls
    for cls in vars(e).values()
    if isinstance(cls, type) and issubclass(cls, e.CometError) and cls not in {e.CometError, e.APIError}
]
Outcomes = dict[str, Prediction | e.CometError | None]
FINISHED = Prediction("abc", "succeeded", output=["https://files.example/1.png"])
RUNNING = Prediction("abc", "processing")


def prediction(**fields: Any) -> Prediction:
    return Prediction(**{"id": "abc", "status": "succeeded", "output": ["https://files.example/1.png"], **fields})


def through_json(outcome: Prediction | e.CometError | None) -> Any:
    """Return the event for one prediction, as a worker gets it."""
    return json.loads(json.dumps(events.make_event({"abc": outcome}), allow_nan=False))


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_errors_survive_the_event(cls: type[e.CometError]) -> None:
    """The worker gets the error that the trigger had: class, words, ids and hints. Of one wait, or of all together."""
    error = cls("w" * 400, status=503, code="c", request_id="r-1", prediction_id="abc", retry_after=2.5)
    read = events.read_event(through_json(error)).outcomes["abc"]
    assert type(read) is cls
    assert (vars(read), str(read)) == (vars(error), str(error))
    with pytest.raises(cls) as caught:
        events.read_event(json.loads(json.dumps(events.make_error_event(error), allow_nan=False)))
    assert type(caught.value) is cls
    assert (vars(caught.value), str(caught.value)) == (vars(error), str(error))


def test_results_survive_the_event() -> None:
    """A finished result is not lost: the event carries all twelve keys of its summary."""
    result = prediction(metrics={"predict_time": 1.5}, model="a/b", created_at="2026-11-23T06:00:00Z")
    assert events.read_event(through_json(result)).outcomes == {"abc": result.summary()}


@pytest.mark.parametrize("text", ["x" * 40_000, "x" * 9000, "\u00fc" * 2000], ids=["huge", "large", "escaped"])
def test_large_results_stay_out_of_the_event(text: str) -> None:
    """An event is logged and stored, so a result above 8 kB is only named: the worker reads it again."""
    event = through_json(prediction(output=text))
    assert event["outcomes"] == {"abc": {}}
    assert len(json.dumps(event)) < 200
    read = events.read_event(event)
    assert (read.outcomes, read.not_carried) == ({}, ["abc"])


@pytest.mark.parametrize("length", range(7_500, 8_100, 50))
def test_event_limit(length: int) -> None:
    """Whatever the result's size, the JSON of a summary in an event has at most 8 kB."""
    event = events.make_event({"abc": prediction(output="x" * length)})
    assert len(json.dumps(event["outcomes"]["abc"])) <= 8_000


URI = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    "fields",
    [
        {"output": URI},
        {"output": [URI]},
        {"output": {"images": [{"url": URI}]}},
        {"output": ["https://files.example/1.png", URI]},
        {"output": [f"![picture]({URI})"]},
        {"output": ["![picture](data:image/svg+xml,%3Csvg%3E)"]},
        {"metrics": {"preview": URI}},
        {"status": "failed", "output": None, "error": f"can't read {URI}"},
    ],
    ids=["bare", "list", "nested", "second", "in-text", "in-text-plain", "metrics", "error"],
)
def test_no_data_uri_in_an_event(fields: dict[str, Any]) -> None:
    """Pictures in data URIs never get into the log and the database as a part of an event."""
    text = json.dumps(events.make_event({"abc": prediction(**fields)}))
    assert "base64,iVBOR" not in text
    assert "%3Csvg" not in text


@pytest.mark.parametrize(
    "event",
    [
        None,
        "success",
        7,
        [],
        {},
        {"prediction_id": "abc"},
        {"count": 1, "errors": 0, "unfinished": 0},
        {"outcomes": None},
        {"outcomes": "succeeded"},
        {"outcomes": []},
        {"error": "failed"},
    ],
    ids=str,
)
def test_odd_events_are_errors_that_a_retry_repeats(event: object) -> None:
    """An event that can't be read is never a success, and never a fact about the prediction."""
    with pytest.raises(e.CometError, match="can't be read") as caught:
        events.read_event(event)
    assert type(caught.value) is e.CometError


@pytest.mark.parametrize(
    "summary",
    [{}, {"id": "abc"}, {"status": "succeeded"}, {"id": "abc", "status": "succeeded", "output": ["https://x.example"]}],
    ids=str,
)
def test_summaries_without_all_keys_are_no_results(summary: dict[str, Any]) -> None:
    """A summary of another release that lacks keys is read again by the worker."""
    read = events.read_event({"count": 1, "errors": 0, "unfinished": 0, "outcomes": {"abc": {"summary": summary}}})
    assert (read.outcomes, read.not_carried) == ({}, ["abc"])


@pytest.mark.parametrize("carried", [None, 7, "succeeded", [], {"error": "failed"}, {"summary": "ok"}], ids=str)
def test_odd_outcomes_are_read_again(carried: object) -> None:
    """An outcome that can't be read is neither a result nor an error, and the others are read."""
    outcomes = {"abc": carried, "def": {"summary": prediction(id="def").summary()}}
    read = events.read_event({"count": 2, "errors": 0, "unfinished": 0, "outcomes": outcomes})
    assert ([*read.outcomes], read.not_carried) == (["def"], ["abc"])


def test_keys_of_a_later_release_do_not_get_into_the_result() -> None:
    """The XCom has the twelve keys of this release, also if a newer trigger sent more."""
    summary = prediction().summary()
    carried = {"summary": {**summary, "cost": 1}, "version": 2}
    assert events.read_event({"outcomes": {"abc": carried}, "version": 2}).outcomes == {"abc": summary}


@pytest.mark.parametrize("is_of_all", [False, True], ids=["of one wait", "of all waits"])
def test_error_of_a_later_release_is_still_an_error(is_of_all: bool) -> None:
    """A class that this release does not know is a plain error with the same words."""
    carried = {"error": {"type": "QuantumError", "detail": "words", "status": 599, "spin": 1}}
    if is_of_all:
        with pytest.raises(e.CometError) as caught:
            events.read_event(carried)
        error: object = caught.value
    else:
        error = events.read_event({"outcomes": {"abc": carried}}).outcomes["abc"]
    assert type(error) is e.CometError
    assert "words" in str(error)


# Many predictions


def test_errors_are_carried_first() -> None:
    """A worker can read results again, but not errors: an event that can't carry all of them carries errors first."""
    results = {f"p{n:03}": prediction(id=f"p{n:03}", output="x" * 300) for n in range(50)}
    event = events.make_event({**results, "bad": e.PredictionNotFoundError(status=404, prediction_id="bad")})
    assert next(iter(event["outcomes"])) == "bad"
    assert (event["count"], event["errors"], event["unfinished"]) == (51, 1, 0)
    assert len(json.dumps(event)) <= events.LIMIT_BYTES * 1.1
    read = events.read_event(json.loads(json.dumps(event)))
    assert 1 < len(read.outcomes) < 51
    assert read.is_complete


def test_too_many_errors_for_an_event() -> None:
    """The number of errors tells the worker that the event does not carry all of them."""
    errors = {f"p{n:03}": e.PredictionNotFoundError(status=404, prediction_id=f"p{n:03}") for n in range(100)}
    event = events.make_event(errors)
    assert event["errors"] == 100
    assert not events.read_event(json.loads(json.dumps(event))).is_complete


def test_unfinished_predictions_are_counted() -> None:
    """A timeout and a prediction without a last poll are unfinished; of the latter the id is named."""
    timeout = e.PredictionTimeoutError("last status 'processing'", prediction_id="late")
    event = events.make_event({"abc": FINISHED, "late": timeout, "unpolled": None})
    assert (event["count"], event["errors"], event["unfinished"]) == (3, 2, 2)
    assert sorted(event["outcomes"]) == ["abc", "late", "unpolled"]
    read = events.read_event(json.loads(json.dumps(event)))
    assert (read.has_unfinished, read.is_complete, read.not_carried) == (True, True, ["unpolled"])


def test_ids_without_an_outcome_take_no_room_from_outcomes() -> None:
    """Outcomes that fit come first; ids of the others follow while there is room, and the limit holds."""
    large = {f"large{n}": prediction(id=f"large{n}", output="x" * 9000) for n in range(500)}
    small = {f"small{n}": prediction(id=f"small{n}") for n in range(10)}
    event = events.make_event({**large, **small})
    read = events.read_event(event)
    assert {*read.outcomes} == {*small}
    assert {*read.not_carried} < {*large}
    assert len(read.not_carried) > 100
    assert len(json.dumps(event["outcomes"])) <= events.LIMIT_BYTES


# A hand-over: some waits have ended, and others have not


@pytest.mark.parametrize("pending", [0, 1, 950])
def test_a_hand_over_is_not_the_end(pending: int) -> None:
    """If waits are pending, the worker waits again for what the event does not name; else all of them have ended."""
    event = json.loads(json.dumps(events.make_event({"abc": FINISHED}, pending=pending)))
    assert event["count"] == 1, "pending waits are no part of what has ended"
    assert event.get("pending", 0) == pending
    assert events.read_event(event).is_final is (pending == 0)


def test_an_event_that_says_nothing_of_pending_waits_is_final() -> None:
    """A sensor's trigger writes no such field, and its events are as small as ever."""
    event = through_json(FINISHED)
    assert "pending" not in event
    assert events.read_event(event).is_final


@pytest.mark.parametrize("pending", ["some", [1], {"count": 1}, True, -1])
def test_an_odd_number_of_pending_waits_ends_no_wait(pending: Any) -> None:
    """To wait again costs a poll; to take a wait for ended may lose a prediction."""
    assert not events.read_event({**through_json(FINISHED), "pending": pending}).is_final


def test_a_store_gets_ids_and_errors_only() -> None:
    """It reads each result again, so results would only fill Airflow's database; an error can't be read again."""
    error = e.PredictionNotFoundError(status=404, prediction_id="bad")
    outcomes: Outcomes = {"abc": FINISHED, "bad": error, "def": prediction(id="def", output=URI)}
    event = events.make_event(outcomes, pending=2, carries_results=False)
    assert event["outcomes"] == {"bad": {"error": error.to_dict()}, "abc": {}, "def": {}}
    read = events.read_event(json.loads(json.dumps(event)))
    assert ([*read.outcomes], sorted(read.not_carried)) == (["bad"], ["abc", "def"])
    assert (read.is_final, read.is_complete, read.has_unfinished) == (False, True, False)


def test_a_hand_over_names_as_many_as_it_has_room_for() -> None:
    """The usual round of 50 is named completely; of a longer list the rest is waited for again, not forgotten."""
    rounds = {count: {f"{number:026}": FINISHED for number in range(count)} for count in (50, 1000)}
    read = {
        count: events.read_event(events.make_event(outcomes, pending=1, carries_results=False))
        for count, outcomes in rounds.items()
    }
    assert {*read[50].not_carried} == {*rounds[50]}
    assert {*read[1000].not_carried} < {*rounds[1000]}
    assert not read[1000].is_final
    longest = events.make_event(rounds[1000], pending=1, carries_results=False)
    assert len(json.dumps(longest["outcomes"])) <= events.LIMIT_BYTES


def test_errors_of_a_hand_over_count_as_before() -> None:
    """Whether the event has all errors does not depend on what it carries of results."""
    errors = {f"p{n:03}": e.PredictionNotFoundError(status=404, prediction_id=f"p{n:03}") for n in range(100)}
    event = events.make_event({"abc": FINISHED, **errors}, pending=1, carries_results=False)
    assert (event["count"], event["errors"], event["unfinished"]) == (101, 100, 0)
    assert not events.read_event(event).is_complete


NOT_FOUND = e.PredictionNotFoundError("task_not_exist", status=404, prediction_id="abc")
ALL_FINISHED = events.WaitResult(is_complete=True)
SOME_UNFINISHED = events.WaitResult(has_unfinished=True, is_complete=True)
SOME_ERRORS_MISSING = events.WaitResult()


MISSING = prediction(id="abc", status="processing", output=None, missing_output="the task says SUCCESS, it has no data")


@pytest.mark.parametrize("result", [ALL_FINISHED, SOME_ERRORS_MISSING])
def test_a_success_without_output_is_read_again_as_such(result: events.WaitResult) -> None:
    """What the trigger has found to be a success without output is one for the worker, too, after a single poll."""
    assert result.on_reread(MISSING) == MISSING.without_output()


def test_a_last_poll_that_was_not_made_makes_no_prediction_unknown() -> None:
    """A 404 in place of the trigger's last poll may be a stray answer: the next try polls again."""
    read = events.read_event(json.loads(json.dumps(events.make_event({"abc": None}))))
    found = read.on_reread(NOT_FOUND)
    assert type(found) is e.CometError
    assert "it may have been seen before, and is unknown now" in str(found)


@pytest.mark.parametrize(
    ("result", "reread", "outcome"),
    [
        pytest.param(ALL_FINISHED, FINISHED, Prediction, id="finished"),
        pytest.param(SOME_UNFINISHED, FINISHED, Prediction, id="finished meanwhile"),
        pytest.param(SOME_UNFINISHED, RUNNING, e.PredictionTimeoutError, id="still running at the deadline"),
        pytest.param(events.NO_EVENT, RUNNING, e.PredictionTimeoutError, id="still running without an event"),
        pytest.param(ALL_FINISHED, RUNNING, Prediction, id="running again"),
        pytest.param(ALL_FINISHED, NOT_FOUND, e.CometError, id="was seen by the trigger"),
        pytest.param(SOME_ERRORS_MISSING, NOT_FOUND, e.PredictionNotFoundError, id="may be a missing error"),
        pytest.param(events.NO_EVENT, NOT_FOUND, e.CometError, id="no event"),
        pytest.param(ALL_FINISHED, e.WrongURLError(status=200), e.WrongURLError, id="a web page"),
        pytest.param(SOME_UNFINISHED, MISSING, e.PredictionTimeoutError, id="no output, perhaps not finished"),
        pytest.param(ALL_FINISHED, e.ServerError(status=503), e.ServerError, id="the API is away"),
    ],
)
def test_a_prediction_that_the_worker_reads_again(
    result: events.WaitResult, reread: Prediction | e.CometError, outcome: type
) -> None:
    """A prediction that still runs after the deadline is a timeout; a 404 about a prediction that the trigger has seen
    is an error that a retry may cure; everything else stays what the worker has read."""
    found = result.on_reread(reread)
    assert type(found) is outcome
    assert type(reread) is not outcome or found is reread


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["abc", "failed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ALTERED = st.tuples(st.sampled_from([*SUMMARY_KEYS]), VALUES)


def check(event: Any) -> None:
    """An event is an error of ours, or outcomes that can be judged, counted and handed over."""
    try:
        read = events.read_event(event)
    except e.CometError as error:
        json.dumps(error.to_dict(), allow_nan=False)
        return
    metrics.finished(read.outcomes.values())
    shown: list[str] = []
    for outcome in read.outcomes.values():
        try:
            json.dumps(judge(outcome, allow_empty=False))
        except e.CometError as error:
            shown.append(str(error))
    assert acting("".join(shown)) == []
    assert all(isinstance(prediction_id, str) for prediction_id in read.not_carried)
    read.on_reread(RUNNING)


@given(VALUES | st.dictionaries(st.sampled_from([*events.WaitEvent.__annotations__]), VALUES))
def test_an_event_of_any_json_is_an_error_or_a_result(event: Any) -> None:
    """Never an exception of another kind, which would fail a task that has paid."""
    check(event)


@given(st.lists(ALTERED, max_size=3), st.sampled_from(["succeeded", "failed", "running"]))
def test_an_altered_summary_is_read_again(altered: list[tuple[str, Any]], status: str) -> None:
    """A field that is not of its type makes the worker poll once more; it is never taken for a result."""
    summary = {**prediction().summary(), "status": status, **dict(altered)}
    event = {"count": 1, "errors": 0, "outcomes": {"abc": {"summary": summary}}}
    check(event)
    outcome = events.read_event(event).outcomes.get("abc")
    if outcome is not None:
        assert not isinstance(outcome, e.CometError)
        assert outcome["id"] == "abc"
        assert isinstance(outcome["status"], str)


@pytest.mark.parametrize("key", SUMMARY_KEYS)
@pytest.mark.parametrize("levels", [100, 400, 900, 50_000])
def test_a_deep_summary_is_an_error_or_a_result(key: str, levels: int) -> None:
    """Nesting that Python can't walk is no exception of its own, in whatever field."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    check({"count": 1, "outcomes": {"abc": {"summary": {**prediction().summary(), key: value}}}})
    check({"count": 1, "outcomes": {"abc": {"error": {"type": "ServerError", "detail": value, "status": value}}}})
