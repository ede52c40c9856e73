"""The one judgement of a finished wait, the same in every mode; and what it means to Airflow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction, blames_input
from airflow_provider_comet.submissions.record import FORCE, PUT_ON_RECORD, MalformedRecordError

GOES_ON = (
    "Prediction %s goes on at CometAPI and may be billed: no way to cancel one is documented, so nothing was canceled. "
    "A PredictionSensor with this id waits for it, at no cost."
)
"""What a killed wait says."""
UNDER_WAY = (
    "A create is under way and may be accepted: no way to cancel one is documented. If it is, its id is in this log "
    "(comet.created id=...) or on the usage page of the CometAPI account."
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


def _is_empty(output: object) -> bool:
    if isinstance(output, (list, dict)):
        return all(_is_empty(item) for item in (output.values() if isinstance(output, dict) else output))
    return output is None or output == ""
