"""What a trigger's event says of the end of a wait: JSON, because it goes through Airflow's database to a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_comet.api.errors import CometError, PredictionNotFoundError, PredictionTimeoutError
from airflow_provider_comet.api.prediction import DATA_URI_START, SUMMARY_KEYS, Prediction

LIMIT_BYTES = 8_000
"""Airflow logs each event and stores it in its database; a larger summary is read again by the worker."""
UNSEEN: Final = {"status": "unknown", "late": 1, "ended": {}}
"""Of a wait, or many, that nobody has seen at the deadline: all is read again, and what runs on is late."""


def to_event(ended: Prediction | CometError) -> dict[str, Any]:
    """Return the JSON that carries the end of a wait from the trigger to the worker."""
    if isinstance(ended, CometError):
        return {"prediction_id": ended.prediction_id, "error": ended.to_dict()}
    event: dict[str, Any] = {"prediction_id": ended.id, "status": ended.status}
    if _carries(summary := ended.summary(), LIMIT_BYTES):
        event["summary"] = summary
    return event


def to_list_event(ended: Mapping[str, Prediction | CometError | None]) -> dict[str, Any]:
    """Return the JSON that carries the ends of many waits: how many there are, and of the ends what fits, errors
    first. ``late``: how many were not finished at the deadline, or had no turn for their last look (``None``)."""
    errors = {one: end for one, end in ended.items() if isinstance(end, CometError)}
    late = sum(end is None or isinstance(end, PredictionTimeoutError) for end in ended.values())
    event: dict[str, Any] = {"count": len(ended), "errors": len(errors), "late": late, "ended": {}}
    room = LIMIT_BYTES
    for prediction_id, end in {**errors, **ended}.items():
        if end is None:
            continue
        carried = {"error": end.to_dict()} if isinstance(end, CometError) else {"summary": end.summary()}
        if size := _carries(carried, room):
            event["ended"][prediction_id] = carried
            room -= size + len(prediction_id)
    return event


def _carries(value: Mapping[str, Any], room: int) -> int:
    """The size of a value that an event can carry; 0 if it can't."""
    text = json.dumps(value)
    return 0 if len(text) > room or DATA_URI_START.search(text) else len(text)  # one may stand amid text


def error_in(event: object) -> CometError | None:
    """The error that ended a wait as a whole, if one did."""
    error = event.get("error") if isinstance(event, Mapping) else None
    return CometError.from_dict(error) if isinstance(error, dict) else None


def from_event(event: object) -> dict[str, Any] | CometError | None:
    """Read an event of this or another release: a summary, an error, or ``None`` if the result must be read again.

    Anything else is an error that a retry may repeat, never a success.
    """
    if (error := error_in(event)) is not None:
        return error
    if isinstance(event, Mapping):
        summary = event.get("summary")
        if isinstance(summary, dict) and summary.keys() >= set(SUMMARY_KEYS):
            return {key: summary[key] for key in SUMMARY_KEYS}
        if event.get("status"):
            return None
    return CometError("the trigger's event can't be read; the next try looks again")


def read_again(seen: Prediction | CometError, event: Mapping[str, Any]) -> Prediction | CometError:
    """What a look of the worker says of a prediction that the event did not carry: late, if that was at the deadline
    and it has not finished. One that the trigger has seen is not unknown because of a single answer; it may not have
    if it was among errors that the event had no room for."""
    if isinstance(seen, Prediction) and not seen.is_terminal and event.get("late"):
        return PredictionTimeoutError(f"last status {seen.status!r}", prediction_id=seen.id)
    carried = sum("error" in one for one in event.get("ended", {}).values())
    was_seen = event.get("status") != "unknown" and carried >= event.get("errors", 0)
    if isinstance(seen, PredictionNotFoundError) and was_seen:
        return CometError(f"it was seen, and is unknown now: {seen.detail}", prediction_id=seen.prediction_id)
    return seen


def from_list_event(event: object) -> dict[str, dict[str, Any] | CometError]:
    """Read what an event carries of many waits, by id; whatever it does not carry must be read again.

    :raises CometError: the wait as a whole failed, or the event can't be read.
    """
    ended = event.get("ended") if isinstance(event, Mapping) else None
    if not isinstance(ended, Mapping):
        known = from_event(event)
        raise known if isinstance(known, CometError) else CometError("the trigger's event is not one of a list")
    read = {str(prediction_id): from_event(carried) for prediction_id, carried in ended.items()}
    return {prediction_id: one for prediction_id, one in read.items() if one is not None}
