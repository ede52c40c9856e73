"""What a trigger's event says of the end of its waits: JSON, because it goes through Airflow's database to a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from airflow_provider_comet.api.errors import CometError, PredictionNotFoundError, PredictionTimeoutError
from airflow_provider_comet.api.portable import make_portable
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import INLINE_LIMIT_BYTES, SUMMARY_KEYS, TEXT_KEYS
from airflow_provider_comet.api.uris import DATA_URI

LIMIT_BYTES = 8_000
"""Airflow logs each event and stores it in its database. A result that does not fit is read again by the worker."""
MIN_OUTCOME_BYTES = 120
"""No outcome is shorter as JSON. With less room nothing is tried: a list may have thousands of results."""


class CarriedOutcome(TypedDict, total=False):
    """How the wait for one prediction ended: either its summary, or an error."""

    summary: dict[str, Any]
    error: dict[str, Any]


class WaitEvent(TypedDict, total=False):
    """The event of ``PredictionTrigger``.

    ``count``: predictions whose wait has ended. ``errors``: how many of these waits ended without a prediction.
    ``unfinished``: how many had not finished at the deadline. ``outcomes``: by prediction id, errors first; ``{}`` for
    an outcome that does not fit into ``LIMIT_BYTES``, or a last poll that was not made; absent if there is no room for
    the id. ``pending``: how many waits have not ended, because what has ended is handed over while others run; what
    the event does not name then is waited for again. ``error``: why all waits ended, if they ended together; then there
    is nothing else.
    """

    count: int
    errors: int
    unfinished: int
    pending: int
    outcomes: dict[str, CarriedOutcome]
    error: dict[str, Any]


def make_event(
    outcomes: Mapping[str, Prediction | CometError | None], *, pending: int = 0, carries_results: bool = True
) -> WaitEvent:
    """Return the event for ended waits, by prediction id.

    :param outcomes: ``None``: the deadline passed before the prediction could be polled once more.
    :param pending: how many waits have not ended.
    :param carries_results: whether the worker can use results as they are. A store reads them again in any case,
        because it needs the input and fresh links.
    """
    errors = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, CometError)}
    not_polled = sum(outcome is None for outcome in outcomes.values())
    event: WaitEvent = {
        "count": len(outcomes),
        "errors": len(errors) + not_polled,
        "unfinished": not_polled + sum(isinstance(error, PredictionTimeoutError) for error in errors.values()),
        **({"pending": pending} if pending else {}),
        "outcomes": {},
    }
    room = LIMIT_BYTES
    for prediction_id, outcome in {**errors, **(outcomes if carries_results else {})}.items():
        if (carried := _carry(outcome, room - len(prediction_id))) is not None:
            event["outcomes"][prediction_id] = carried
            room -= len(json.dumps({prediction_id: carried}))
    # The others without an outcome, so that the ids are known.
    for prediction_id in [key for key in outcomes if key not in event["outcomes"]]:
        if (room := room - len(json.dumps({prediction_id: {}}))) < 0:
            break
        event["outcomes"][prediction_id] = {}
    return event


def _carry(outcome: Prediction | CometError | None, room: int) -> CarriedOutcome | None:
    """Return the JSON of an outcome; ``None``: there is none, or an event can't carry it."""
    if outcome is None or room < MIN_OUTCOME_BYTES:
        return None
    carried: CarriedOutcome = (
        {"error": outcome.to_dict()} if isinstance(outcome, CometError) else {"summary": outcome.summary()}
    )
    text = json.dumps(carried)
    return None if len(text) > room or DATA_URI.search(text) else carried  # a data URI may stand within a text


def make_error_event(error: CometError) -> WaitEvent:
    """Return the event for an error that ended all waits."""
    return {"error": error.to_dict()}


@dataclass(frozen=True)
class WaitResult:
    """What a worker knows from an event.

    :param outcomes: how waits ended, by prediction id. A prediction that is not among them has to be read again.
    :param not_carried: ids that the event names without an outcome.
    :param has_unfinished: whether some predictions had not finished at the deadline.
    :param is_final: whether all waits have ended; else only those that the event names.
    :param is_complete: whether ``outcomes`` has every wait that failed, but for those that had not finished in time.
        Then the trigger has found no prediction unknown that is not in it.
    """

    outcomes: Mapping[str, dict[str, Any] | CometError] = field(default_factory=dict)
    not_carried: Sequence[str] = ()
    has_unfinished: bool = False
    is_final: bool = True
    is_complete: bool = False

    def on_reread(self, result: Prediction | CometError) -> Prediction | CometError:
        """Judge what the worker has read of a prediction that the event did not carry.

        A prediction that still runs after the deadline is a timeout. A 404 for a prediction that the trigger has seen,
        or may have seen, is no proof that the prediction is unknown: a retry may find it.
        """
        if isinstance(result, Prediction) and not result.is_terminal and self.has_unfinished:
            return PredictionTimeoutError(result.described_status, prediction_id=result.id)
        if isinstance(result, Prediction) and result.missing_output:  # for the trigger, too: so it has ended the wait
            return result.without_output()
        if isinstance(result, PredictionNotFoundError) and self.is_complete:
            seen = "may have been seen" if self.has_unfinished else "was seen"
            return result.of_known(seen)
        return result


NO_EVENT = WaitResult(has_unfinished=True, is_complete=True)
"""Airflow's own timeout ended the deferral, and no event came: every prediction has to be read again."""


def read_event(event: object) -> WaitResult:
    """Read an event of this or another release.

    :raises CometError: all waits ended with this error, or the event can't be read. Never taken for a success.
    """
    if isinstance(event, Mapping) and isinstance(event.get("error"), dict):
        raise CometError.from_dict(event["error"])
    carried = event.get("outcomes") if isinstance(event, Mapping) else None
    if not isinstance(event, Mapping) or not isinstance(carried, Mapping):
        raise CometError("the trigger's event can't be read; the next try polls again")
    read = {key: _read_outcome(key, outcome) for key, outcome in carried.items() if isinstance(key, str)}
    outcomes = {prediction_id: outcome for prediction_id, outcome in read.items() if outcome is not None}
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, CometError)]
    other_failures = sum(not isinstance(error, PredictionTimeoutError) for error in failed)
    unfinished = event.get("unfinished")
    return WaitResult(
        outcomes,
        not_carried=[prediction_id for prediction_id, outcome in read.items() if outcome is None],
        has_unfinished=bool(unfinished),
        is_final=not event.get("pending"),
        is_complete=other_failures >= _number(event.get("errors")) - (_number(unfinished) if unfinished else 0),
    )


def _read_outcome(prediction_id: str, carried: object) -> dict[str, Any] | CometError | None:
    if not isinstance(carried, Mapping):
        return None
    if isinstance(carried.get("error"), dict):
        return CometError.from_dict(carried["error"])
    summary = carried.get("summary")
    if isinstance(summary, dict) and summary.keys() >= {*SUMMARY_KEYS} and _is_summary_of(prediction_id, summary):
        known = make_portable({key: summary[key] for key in SUMMARY_KEYS}, str, limit=INLINE_LIMIT_BYTES)
        return known.value if known.is_exact else None
    return None


def _is_summary_of(prediction_id: str, summary: Mapping[str, Any]) -> bool:
    """Return whether each field is of its type. What is not as the trigger wrote it is read again."""
    return (
        summary["id"] == prediction_id
        and isinstance(summary["status"], str)
        and isinstance(summary["files"], list)
        and isinstance(summary["data_removed"], bool)
        and isinstance(summary["metrics"], dict | None)
        and all(isinstance(summary[key], str | None) for key in TEXT_KEYS)
    )


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) else float("inf")
