"""The one judgement of a finished wait, the same in every mode; and what it means to Airflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import DATA_URI_START, SUMMARY_KEYS, Prediction, blames_input
from airflow_provider_comet.api.record import FORCE, PUT_ON_RECORD, MalformedRecordError

EVENT_LIMIT_BYTES = 8_000
"""Airflow logs each event and stores it in its database; a larger summary is read again by the worker."""

GOES_ON = (
    "Prediction %s goes on at CometAPI and may be billed: no way to cancel one is documented, so nothing was canceled. "
    "A PredictionSensor with this id waits for it, at no cost."
)
"""What a killed wait says."""
UNDER_WAY = (
    "A create is under way and may be accepted: no way to cancel one is documented. If it is, its id is in this log "
    "(comet.create id=...) or on the usage page of the CometAPI account."
)
"""What a task says that is killed while it submits."""

CLEAR_BATCH = (
    "Correct what is wrong and clear the task: what was accepted is on record and not bought again. An input without a "
    "clear answer is submitted again then, and paid twice if it was accepted after all; if you know its prediction's "
    'id, set the record that is named with it to {"version": 1, "state": "accepted", "id": "<the id>"} before, in the '
    "task's state store."
)
"""How to go on with a batch that failed."""
NO_RECORD = "This Airflow keeps no record: a retry, or a cleared task, submits and pays all of it again."


def going_on(prediction_id: object) -> str:
    """``GOES_ON`` for an id, or for a list of them."""
    if isinstance(prediction_id, list) and len(prediction_id) > 1:
        return GOES_ON % f"{prediction_id[0]} (and {len(prediction_id) - 1} more)"
    return GOES_ON % (prediction_id,)


_ENDED_BADLY: dict[str, type[e.PredictionError]] = {
    "failed": e.PredictionFailedError,
    "canceled": e.PredictionCanceledError,
    "aborted": e.PredictionAbortedError,
}


def judge(ended: Prediction | e.CometError | Mapping[str, Any], *, allow_empty: bool) -> dict[str, Any]:
    """Return the summary of a prediction that succeeded.

    :param ended: how the wait ended: a prediction, its ``summary()``, or an error.
    :param allow_empty: whether a success without output is a result.
    :raises PredictionError: the prediction ended in any other way.
    :raises CometError: ``ended`` is this error.
    """
    if isinstance(ended, e.CometError):
        raise ended
    summary = ended.summary() if isinstance(ended, Prediction) else ended
    identity, status, error = str(summary["id"]), summary["status"], str(summary["error"] or "")
    if status == "failed" and blames_input(error):
        raise e.PredictionRefusedError(error, prediction_id=identity)
    if status in _ENDED_BADLY:
        raise _ENDED_BADLY[status](error, prediction_id=identity)
    if status != "succeeded":
        raise e.CometError(f"still {status!r} although it was reported as finished", prediction_id=identity)
    if _is_empty(summary["output"]):
        if summary["data_removed"]:
            raise e.PredictionExpiredError(error, prediction_id=identity)
        if not allow_empty:
            raise e.EmptyOutputError(error, prediction_id=identity)
    return dict(summary)


def judge_all(
    ended: Mapping[str, Prediction | e.CometError | Mapping[str, Any]], *, allow_empty: bool
) -> tuple[dict[str, dict[str, Any] | None], list[e.CometError]]:
    """Return what is known of each prediction, by id, and why some have no result.

    A prediction that ended badly keeps its summary, with its status and error; ``None`` stands for one that could not
    be seen at its end.
    """
    seen: dict[str, dict[str, Any] | None] = {}
    errors: list[e.CometError] = []
    for prediction_id, one in ended.items():
        try:
            seen[prediction_id] = judge(one, allow_empty=allow_empty)
        except e.CometError as error:
            errors.append(error.about(prediction_id))
            known = one.summary() if isinstance(one, Prediction) else one
            seen[prediction_id] = None if isinstance(known, e.CometError) else dict(known)
    return seen, errors


def airflow_error(error: e.CometError, *, is_execution_timeout: bool = False) -> BaseException:
    """Return what a wait raises for an error.

    Facts about the prediction fail the task for good. Trouble in reaching the API stays a plain error, which Airflow's
    ``retries`` repeat: a look costs nothing, and a paid result must not be lost to a key rotation.

    :param is_execution_timeout: the deadline was the task's ``execution_timeout``, which Airflow retries.
    """
    if isinstance(error, e.PredictionListError):
        # What a retry may get decides: it costs nothing, and the other results come back with it.
        kinds = {type(airflow_error(one, is_execution_timeout=is_execution_timeout)) for one in error.errors}
        final = (AirflowTaskTimeout, AirflowFailException, AirflowSensorTimeout)
        return next((kind(str(error)) for kind in final if kind in kinds <= {*final}), error)
    if isinstance(error, e.PredictionTimeoutError):
        return AirflowTaskTimeout(str(error)) if is_execution_timeout else AirflowSensorTimeout(str(error))
    if isinstance(error, (e.PredictionError, e.PredictionNotFoundError, e.InvalidInputError, MalformedRecordError)):
        return AirflowFailException(str(error))
    return error


def airflow_error_of_paid(
    error: e.CometError, *, has_record: bool, is_execution_timeout: bool = False
) -> BaseException:
    """Return what a task that has paid raises for an error while it waits, or hands over.

    The same, except that its retry may buy: wanted after a failure, never because of trouble on the way to the result.

    :param has_record: a retry knows what was paid.
    """
    if error.buys_again:
        return error
    raised = airflow_error(error, is_execution_timeout=is_execution_timeout and has_record)
    if not has_record and raised is error:
        return AirflowFailException(f"{error} This Airflow keeps no record: wait for it with a PredictionSensor.")
    if has_record and isinstance(raised, AirflowFailException):
        return AirflowFailException(f"{error} {FORCE}")
    return raised


def airflow_create_error(error: e.CometError, *, on_ambiguous_submit: str, has_record: bool) -> BaseException:
    """Return what a create raises for an error: without a chance, or with the risk to pay twice, it fails for good.

    A connection that can't be used was never used, so a retry is safe; and Airflow calls one missing, too, while its
    API server is down.

    :param on_ambiguous_submit: ``retry`` takes that risk.
    :param has_record: a clear knows what was put on record.
    """
    if isinstance(error, e.AmbiguousSubmissionError):
        if on_ambiguous_submit == "retry":
            return error
        known = PUT_ON_RECORD if has_record else "wait for it with a PredictionSensor."
        return AirflowFailException(
            f"{error} If it was not accepted, clear the task (again, if this error comes back): it submits anew, and "
            f"you pay twice if it was accepted after all. If you know the prediction's id, {known}"
        )
    if isinstance(error, e.UnrecordedPredictionError):
        return AirflowFailException(f"{error} To go on with it, {PUT_ON_RECORD}")
    if isinstance(error, MalformedRecordError):
        return AirflowFailException(str(error))
    if error.retryable or isinstance(error, (e.ConfigurationError, e.SubmissionRecordError)):
        return error
    if isinstance(error, e.PredictionError):  # it was paid before
        return airflow_error_of_paid(error, has_record=has_record)
    return AirflowFailException(str(error))


def airflow_batch_error(
    error: e.PredictionListError, *, on_ambiguous_submit: str, has_record: bool, may_be_paid: bool
) -> BaseException:
    """Return what a batch raises: what a retry may still submit decides, because it submits nothing else.

    :param on_ambiguous_submit: as for a create.
    :param has_record: a retry knows what was paid.
    :param may_be_paid: whether anything was.
    """
    if not has_record and may_be_paid:
        return AirflowFailException(f"{error}\n{NO_RECORD}")
    is_unrecorded = any(isinstance(one, e.UnrecordedPredictionError) for one in error.errors)
    may_retry = any(
        airflow_create_error(one, on_ambiguous_submit=on_ambiguous_submit, has_record=has_record) is one
        for one in error.errors
    )
    return error if may_retry and not is_unrecorded else AirflowFailException(f"{error}\n{CLEAR_BATCH}")


@contextlib.contextmanager
def raised_as(airflow_error: Callable[[e.CometError], BaseException]) -> Iterator[None]:
    """Raise errors of this package as what they mean to Airflow."""
    try:
        yield
    except e.CometError as error:
        if (raised := airflow_error(error)) is error:
            raise
        raise raised from error


def to_event(ended: Prediction | e.CometError) -> dict[str, Any]:
    """Return the JSON that carries the end of a wait from the trigger to the worker."""
    if isinstance(ended, e.CometError):
        return {"prediction_id": ended.prediction_id, "error": ended.to_dict()}
    event: dict[str, Any] = {"prediction_id": ended.id, "status": ended.status}
    if _carries(summary := ended.summary(), EVENT_LIMIT_BYTES):
        event["summary"] = summary
    return event


def to_unseen_event(prediction_id: str) -> dict[str, Any]:
    """Return the JSON for a wait whose last look had no turn: the worker has to look, and what runs on is late."""
    return {"prediction_id": prediction_id, "status": "unknown", "late": 1}


def to_list_event(ended: Mapping[str, Prediction | e.CometError | None]) -> dict[str, Any]:
    """Return the JSON that carries the ends of many waits: how many there are, and of the ends what fits, errors
    first. ``late``: how many were not finished at the deadline, or had no turn for their last look (``None``)."""
    errors = {one: end for one, end in ended.items() if isinstance(end, e.CometError)}
    late = sum(end is None or isinstance(end, e.PredictionTimeoutError) for end in ended.values())
    event: dict[str, Any] = {"count": len(ended), "errors": len(errors), "late": late, "ended": {}}
    room = EVENT_LIMIT_BYTES
    for prediction_id, end in {**errors, **ended}.items():
        if end is None:
            continue
        carried = {"error": end.to_dict()} if isinstance(end, e.CometError) else {"summary": end.summary()}
        if size := _carries(carried, room):
            event["ended"][prediction_id] = carried
            room -= size + len(prediction_id)
    return event


def _carries(value: Mapping[str, Any], room: int) -> int:
    """The size of a value that an event can carry; 0 if it can't."""
    text = json.dumps(value)
    return 0 if len(text) > room or DATA_URI_START.search(text) else len(text)  # one may stand amid text


def error_in(event: object) -> e.CometError | None:
    """The error that ended a wait as a whole, if one did."""
    error = event.get("error") if isinstance(event, Mapping) else None
    return e.CometError.from_dict(error) if isinstance(error, dict) else None


def from_event(event: object) -> dict[str, Any] | e.CometError | None:
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
    return e.CometError("the trigger's event can't be read; the next try looks again")


def read_again(seen: Prediction | e.CometError, event: Mapping[str, Any]) -> Prediction | e.CometError:
    """What a look of the worker says of a prediction that the event did not carry: late, if that was at the deadline
    and it has not finished. One that the trigger has seen is not unknown because of a single answer; it may not have
    if it was among errors that the event had no room for."""
    if isinstance(seen, Prediction) and not seen.is_terminal and event.get("late"):
        return e.PredictionTimeoutError(f"last status {seen.status!r}", prediction_id=seen.id)
    carried = sum("error" in one for one in event.get("ended", {}).values())
    was_seen = event.get("status") != "unknown" and carried >= event.get("errors", 0)
    if isinstance(seen, e.PredictionNotFoundError) and was_seen:
        return e.CometError(f"it was seen, and is unknown now: {seen.detail}", prediction_id=seen.prediction_id)
    return seen


def from_list_event(event: object) -> dict[str, dict[str, Any] | e.CometError]:
    """Read what an event carries of many waits, by id; whatever it does not carry must be read again.

    :raises CometError: the wait as a whole failed, or the event can't be read.
    """
    ended = event.get("ended") if isinstance(event, Mapping) else None
    if not isinstance(ended, Mapping):
        known = from_event(event)
        raise known if isinstance(known, e.CometError) else e.CometError("the trigger's event is not one of a list")
    read = {str(prediction_id): from_event(carried) for prediction_id, carried in ended.items()}
    return {prediction_id: one for prediction_id, one in read.items() if one is not None}


def _is_empty(output: object) -> bool:
    if isinstance(output, (list, dict)):
        return all(_is_empty(item) for item in (output.values() if isinstance(output, dict) else output))
    return output is None or output == ""
