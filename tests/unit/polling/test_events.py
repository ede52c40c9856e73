"""The event that carries the end of a wait from the trigger to the worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling import events

ALL_ERRORS = [
    cls
    for cls in vars(e).values()
    if isinstance(cls, type) and issubclass(cls, e.CometError) and cls not in {e.CometError, e.APIError}
]


def prediction(**fields: Any) -> Prediction:
    return Prediction(**{"id": "abc", "status": "succeeded", "output": ["https://files.example/1.png"], **fields})


def through_json(ended: Prediction | e.CometError) -> Any:
    return json.loads(json.dumps(events.to_event(ended), allow_nan=False))


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_errors_survive_the_event(cls: type[e.CometError]) -> None:
    """The worker gets the error that the trigger had: class, words, ids and hints."""
    error = cls("w" * 400, status=503, code="c", request_id="r-1", prediction_id="abc", retry_after=2.5)
    event = through_json(error)
    assert event["prediction_id"] == "abc"
    back = events.from_event(event)
    assert type(back) is cls
    assert (vars(back), str(back)) == (vars(error), str(error))


def test_results_survive_the_event() -> None:
    """A result once seen is not lost: the event carries all twelve keys of it."""
    seen = prediction(metrics={"predict_time": 1.5}, model="a/b", created_at="2026-11-23T06:00:00Z")
    assert events.from_event(through_json(seen)) == seen.summary()


@pytest.mark.parametrize("text", ["x" * 40_000, "x" * 9000, "\u00fc" * 2000], ids=["huge", "large", "escaped"])
def test_large_results_stay_out_of_the_event(text: str) -> None:
    """An event is logged and stored, so that one above 8 kB only says that there is a result to fetch."""
    event = through_json(prediction(output=text))
    assert "summary" not in event
    assert len(json.dumps(event)) < 200
    assert events.from_event(event) is None


@pytest.mark.parametrize("length", range(7_500, 8_100, 50))
def test_event_limit(length: int) -> None:
    """Whatever the result's size, the JSON of a summary in an event has at most 8 kB."""
    event = events.to_event(prediction(output="x" * length))
    assert len(json.dumps(event.get("summary"))) <= 8_000


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
    text = json.dumps(events.to_event(prediction(**fields)))
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
        {"summary": None},
        {"summary": "succeeded"},
        {"error": "failed"},
        {"status": None},
        {"status": ""},
    ],
    ids=str,
)
def test_odd_events_are_errors_that_a_retry_repeats(event: object) -> None:
    """What can't be read is never a success, and never a fact about the prediction."""
    error = events.from_event(event)
    assert type(error) is e.CometError


@pytest.mark.parametrize(
    "summary",
    [{}, {"id": "abc"}, {"status": "succeeded"}, {"id": "abc", "status": "succeeded", "output": ["https://x.example"]}],
    ids=str,
)
def test_summaries_without_all_keys_are_no_results(summary: dict[str, Any]) -> None:
    """Another release's summary that lacks keys is read again or an error of ours, but no crash and no result."""
    ended = events.from_event({"prediction_id": "abc", "status": "succeeded", "summary": summary})
    assert ended is None or isinstance(ended, e.CometError)


def test_keys_of_a_later_release_do_not_get_into_the_result() -> None:
    """The XCom has the twelve keys of this release, also if a newer trigger sent more."""
    summary = prediction().summary()
    event = {"prediction_id": "abc", "status": "succeeded", "summary": {**summary, "cost": 1}, "version": 2}
    ended = events.from_event(event)
    assert ended == summary


def test_error_of_a_later_release_is_still_an_error() -> None:
    """A class that this release does not know is a plain error with the same words."""
    error = events.from_event({"error": {"type": "QuantumError", "detail": "words", "status": 599, "spin": 1}})
    assert type(error) is e.CometError
    assert "words" in str(error)
