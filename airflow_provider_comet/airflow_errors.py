"""What an error of this package means to Airflow: one table, with a column for each phase of a task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException as AirflowRescheduleException
except ImportError:  # older releases have it elsewhere, and common-compat does not offer it
    from airflow.exceptions import AirflowRescheduleException as AirflowRescheduleException

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import log_value
from airflow_provider_comet.submissions.record import FORCE, PUT_ON_RECORD, MalformedRecordError

STILL_RUNNING = (
    "Prediction %s keeps running at CometAPI and may be billed: no way to cancel one is documented, so nothing was "
    "canceled. A PredictionSensor with this id waits for it, at no cost."
)
"""What the log of a killed wait says."""
MAY_BE_ACCEPTED = (
    "A create was being sent and may be accepted: no way to cancel one is documented. If it is, its id is in this log "
    "(comet.created id=...) or on the usage page of the CometAPI account."
)
"""What the log of a task says that is killed while it submits."""
CLEAR_BATCH = (
    "Correct what is wrong and clear the task: what was accepted is on record and not bought again. An input without a "
    "clear answer is submitted again then, and paid twice if it was accepted after all; if you know its prediction's "
    'id, set the record that is named with it to {"version": 1, "state": "accepted", "id": "<the id>"} before, in the '
    "task's state store."
)
"""What to do about a batch that failed."""
NO_RECORD = "This Airflow keeps no record: a retry, or a cleared task, submits and pays all of it again."


Action: TypeAlias = Literal["retry", "fail", "time out", "ask"]
"""``retry``: raise the error as it is, and Airflow's ``retries`` decide (in column ``paid`` only if a record is kept).
``fail``: the task fails for good. ``time out``: Airflow's exception for a timeout. ``ask``: ``on_ambiguous_submit``
decides between ``retry`` and ``fail``."""


class Row(NamedTuple):
    """What Airflow is to do about an error, by what its task was doing.

    :param create: it submits: a retry submits again, unless something is on record.
    :param wait: it waits for, or stores, what another task has paid for: a retry costs nothing.
    :param paid: it has paid, and waits for the result or hands it over: a retry may buy a new prediction.
    """

    create: Action
    wait: Action
    paid: Action


TABLE = {
    # The row of the nearest base class counts. An error that is ``retryable`` is retried in every column, and one that
    # ``buys_again`` is raised as it is by whoever has paid.
    e.CometError: Row(create="fail", wait="retry", paid="retry"),
    e.AmbiguousSubmissionError: Row(create="ask", wait="retry", paid="retry"),
    e.ConfigurationError: Row(create="retry", wait="retry", paid="retry"),  # nothing was sent
    e.SubmissionRecordError: Row(create="retry", wait="retry", paid="retry"),  # in a create: nothing was sent
    MalformedRecordError: Row(create="fail", wait="fail", paid="fail"),
    e.InvalidInputError: Row(create="fail", wait="fail", paid="fail"),
    e.PredictionNotFoundError: Row(create="fail", wait="fail", paid="fail"),
    e.PredictionError: Row(create="fail", wait="fail", paid="fail"),
    e.PredictionTimeoutError: Row(create="time out", wait="time out", paid="time out"),
}
"""Trouble in reaching the API is retried while a task waits, because polling costs nothing and a paid result must not
be lost to a key rotation. In a create it is final, unless the error says that a retry may help."""

_FINAL = (AirflowTaskTimeout, AirflowFailException, AirflowSensorTimeout)
"""In this order: of several errors of a list the first kind counts."""

Translate: TypeAlias = Callable[[e.CometError], BaseException]


def find_row(error: e.CometError) -> Row:
    """Return what Airflow is to do about an error: always a retry if it is ``retryable``, else its class's row."""
    if error.retryable:
        return Row("retry", "retry", "retry")
    return next(TABLE[error_class] for error_class in type(error).__mro__ if error_class in TABLE)


def create_exception(error: e.CometError, *, on_ambiguous_submit: str, has_record: bool) -> BaseException:
    """Return what a create raises for an error.

    :param on_ambiguous_submit: ``retry`` takes the risk to pay twice.
    :param has_record: whether what was paid is on record, so that a cleared task knows of it.
    """
    if isinstance(error, e.PredictionError):  # it was paid before
        return paid_exception(error, has_record=has_record)
    action = find_row(error).create
    if (on_ambiguous_submit if action == "ask" else action) == "retry":
        return error
    if isinstance(error, e.AmbiguousSubmissionError):
        known_id = PUT_ON_RECORD if has_record else "wait for it with a PredictionSensor."
        return AirflowFailException(
            f"{error} If it was not accepted, clear the task (again, if this error appears again): it submits anew, "
            f"and you pay twice if it was accepted after all. If you know the prediction's id, {known_id}"
        )
    if isinstance(error, e.UnrecordedPredictionError):
        return AirflowFailException(f"{error} To continue with it, {PUT_ON_RECORD}")
    return AirflowFailException(str(error))


def wait_exception(error: e.CometError, *, is_execution_timeout: bool = False) -> BaseException:
    """Return what a wait raises for an error.

    :param is_execution_timeout: whether the deadline was the task's ``execution_timeout``, which Airflow retries.
    """
    if isinstance(error, e.PredictionListError):
        # The error that a retry may cure decides: it costs nothing, and the other results are returned with it.
        kinds = {type(wait_exception(item, is_execution_timeout=is_execution_timeout)) for item in error.errors}
        return next((kind(str(error)) for kind in _FINAL if kind in kinds <= {*_FINAL}), error)
    action = find_row(error).wait
    if action == "time out":
        return AirflowTaskTimeout(str(error)) if is_execution_timeout else AirflowSensorTimeout(str(error))
    return error if action == "retry" else AirflowFailException(str(error))


def is_final(error: e.CometError) -> bool:
    """Return whether no retry of a wait, or of a store, can help."""
    return wait_exception(error) is not error


def paid_exception(error: e.CometError, *, has_record: bool, is_execution_timeout: bool = False) -> BaseException:
    """Return what a task that has paid raises for an error while it waits, or hands over.

    Its retry may buy a new prediction: that is wanted after a failure, never because of trouble on the way to a result.

    :param has_record: whether a retry knows what was paid.
    :param is_execution_timeout: as for ``wait_exception``.
    """
    if error.buys_again:
        return error
    action = find_row(error).paid
    if action == "time out":
        return wait_exception(error, is_execution_timeout=is_execution_timeout and has_record)
    if has_record:
        return error if action == "retry" else AirflowFailException(f"{error} {FORCE}")
    hint = " This Airflow keeps no record: wait for it with a PredictionSensor." if action == "retry" else ""
    return AirflowFailException(f"{error}{hint}")


def batch_exception(
    error: e.PredictionListError, *, on_ambiguous_submit: str, has_record: bool, may_be_paid: bool
) -> BaseException:
    """Return what a batch raises: the inputs that a retry would submit decide, because it submits nothing else.

    :param on_ambiguous_submit: as for ``create_exception``.
    :param has_record: whether a retry knows what was paid.
    :param may_be_paid: whether anything was, as far as anybody knows.
    """
    if not has_record and may_be_paid:
        return AirflowFailException(f"{error}\n{NO_RECORD}")
    is_unrecorded = any(isinstance(item, e.UnrecordedPredictionError) for item in error.errors)
    may_retry = any(
        create_exception(item, on_ambiguous_submit=on_ambiguous_submit, has_record=has_record) is item
        for item in error.errors
    )
    return error if may_retry and not is_unrecorded else AirflowFailException(f"{error}\n{CLEAR_BATCH}")


@contextlib.contextmanager
def raised_as(translate: Translate) -> Iterator[None]:
    """Raise errors of this package as the exceptions that ``translate`` returns for them."""
    try:
        yield
    except e.CometError as error:
        if (raised := translate(error)) is error:
            raise
        raise raised from error


@contextlib.contextmanager
def raised_by_sensor(translate: Translate, *, soft_fail: bool, never_fail: bool) -> Iterator[None]:
    """Raise errors as ``raised_as`` does, and apply a sensor's options by the same rules in every mode.

    :param soft_fail: skip for a fact about a prediction and for a timeout, not for trouble in reaching the API.
    :param never_fail: skip for every error.
    """
    try:
        yield
    except AirflowRescheduleException:
        raise  # no failure
    except (Exception, AirflowTaskTimeout) as error:
        raised = translate(error) if isinstance(error, e.CometError) else error
        if never_fail or (soft_fail and isinstance(raised, _FINAL)):
            raise AirflowSkipException(str(raised)) from error
        if raised is error:
            raise
        raise raised from error


@contextlib.contextmanager
def final_where_paid(*, has_record: bool, words_about_paid: Callable[[], str | None]) -> Iterator[None]:
    """Fail for good, whatever has ended the try, if something is paid for, or may be, and nothing is on record.

    A retry would pay again.

    :param has_record: whether a retry knows what was paid: then everything is raised as it is.
    :param words_about_paid: returns what to say about what was paid, or may have been; ``None``: nothing was.
    """
    try:
        yield
    except (e.CometError, TaskDeferred, AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
        raise  # translated already, or no failure
    except BaseException as error:  # the task's timeout, say
        if has_record or (words := words_about_paid()) is None:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}. {words} {NO_RECORD}") from error


def still_running(prediction_ids: Sequence[object]) -> str:
    """Return ``STILL_RUNNING`` for these predictions."""
    more = f" (and {len(prediction_ids) - 1} more)" if len(prediction_ids) > 1 else ""
    return STILL_RUNNING % f"{log_value(prediction_ids[0] if prediction_ids else None)}{more}"


def words_about_paid(paid_id: str | None, *, may_be_paid: bool) -> str | None:
    """Return what the log of a task that ends says about what it has paid for; ``None``: nothing.

    :param paid_id: the prediction that was paid for, if its id is known.
    :param may_be_paid: whether something may have been accepted whose id is not known.
    """
    if paid_id is not None:
        return still_running([paid_id])
    return MAY_BE_ACCEPTED if may_be_paid else None
