"""The one judgement of a finished wait, the same in every mode; and what it means to Airflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.prediction import DATA_URI_START, SUMMARY_KEYS, Prediction
from airflow_provider_comet.api.record import FORCE, PUT_ON_RECORD

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
    if status == "failed" and protocol.blames_input(error):
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


def airflow_error(error: e.CometError) -> Exception:
    """Return what a wait raises for an error.

    Facts about the prediction fail the task for good. Trouble in reaching the API stays a plain error, which Airflow's
    ``retries`` repeat: a look costs nothing, and a paid result must not be lost to a key rotation.
    """
    if isinstance(error, e.PredictionTimeoutError):
        return AirflowSensorTimeout(str(error))
    if isinstance(error, (e.PredictionError, e.PredictionNotFoundError, e.InvalidInputError)):
        return AirflowFailException(str(error))
    return error


def airflow_error_of_paid(error: e.CometError, *, has_record: bool) -> Exception:
    """Return what a task that has paid raises for an error while it waits, or hands over.

    The same, except that its retry may buy: wanted after a failure, never because of trouble on the way to the result.

    :param has_record: a retry knows what was paid.
    """
    if error.buys_again:
        return error
    raised = airflow_error(error)
    if not has_record and raised is error:
        return AirflowFailException(f"{error} This Airflow keeps no record: wait for it with a PredictionSensor.")
    if has_record and isinstance(raised, AirflowFailException):
        return AirflowFailException(f"{error} {FORCE}")
    return raised


def airflow_create_error(error: e.CometError, *, on_ambiguous_submit: str, has_record: bool) -> Exception:
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
    if error.retryable or isinstance(error, (e.ConfigurationError, e.SubmissionRecordError)):
        return error
    if isinstance(error, e.PredictionError):  # it was paid before
        return airflow_error_of_paid(error, has_record=has_record)
    return AirflowFailException(str(error))


@contextlib.contextmanager
def raised_as(airflow_error: Callable[[e.CometError], Exception]) -> Iterator[None]:
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
    summary = ended.summary()
    text = json.dumps(summary)
    if len(text) <= EVENT_LIMIT_BYTES and not DATA_URI_START.search(text):  # one may stand amid text
        event["summary"] = summary
    return event


def from_event(event: object) -> dict[str, Any] | e.CometError | None:
    """Read an event of this or another release: a summary, an error, or ``None`` if the result must be read again.

    Anything else is an error that a retry may repeat, never a success.
    """
    if isinstance(event, Mapping):
        summary, error = event.get("summary"), event.get("error")
        if isinstance(error, dict):
            return e.CometError.from_dict(error)
        if isinstance(summary, dict) and summary.keys() >= set(SUMMARY_KEYS):
            return {key: summary[key] for key in SUMMARY_KEYS}
        if event.get("status"):
            return None
    return e.CometError("the trigger's event can't be read; the next try looks again")


def _is_empty(output: object) -> bool:
    if isinstance(output, (list, dict)):
        return all(_is_empty(item) for item in (output.values() if isinstance(output, dict) else output))
    return output is None or output == ""
