"""What an error of this package means to Airflow, in each phase of a task."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_comet.airflow_errors import (
    TABLE,
    AirflowRescheduleException,
    create_exception,
    paid_exception,
    raised_by_sensor,
    still_running,
    wait_exception,
)
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.submissions.record import MalformedRecordError

ALL_ERRORS = [
    value
    for value in vars(e).values()
    if isinstance(value, type) and issubclass(value, e.CometError) and value not in {e.CometError, e.APIError}
]
FACTS = {
    e.PredictionError,
    e.PredictionFailedError,
    e.PredictionRefusedError,
    e.PredictionCanceledError,
    e.PredictionAbortedError,
    e.PredictionExpiredError,
    e.UnusableIdError,
    e.EmptyOutputError,
    e.PredictionNotFoundError,
    e.InvalidInputError,
}


@pytest.mark.parametrize("error_class", ALL_ERRORS, ids=lambda error_class: error_class.__name__)
def test_what_errors_of_a_wait_mean_to_airflow(error_class: type[e.CometError]) -> None:
    """Facts fail for good, the timeout is a sensor's timeout, and everything else stays open to Airflow's retries."""
    error = error_class("words", prediction_id="abc")
    raised = wait_exception(error)
    if error_class is e.PredictionTimeoutError:
        expected = "AirflowSensorTimeout"
    else:
        expected = "AirflowFailException" if error_class in FACTS else error_class.__name__
    assert (type(raised).__name__, str(raised)) == (expected, str(error))


BUYS_AGAIN = {e.PredictionFailedError, e.PredictionCanceledError, e.PredictionAbortedError}


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize("error_class", ALL_ERRORS, ids=lambda error_class: error_class.__name__)
def test_what_errors_mean_to_a_task_that_creates_and_waits(error_class: type[e.CometError], has_record: bool) -> None:
    """As for a wait, but Airflow's retries buy a new prediction after a failure, unless the input was refused.

    Where a retry would not know what was paid, nothing else is retried. A final error says how to buy all the same.
    """
    error = error_class("words", prediction_id="abc")
    raised, as_wait = paid_exception(error, has_record=has_record), wait_exception(error)
    if error_class in BUYS_AGAIN:
        assert raised is error
    elif as_wait is error and not has_record:
        assert type(raised).__name__ == "AirflowFailException"
        assert str(raised).startswith(str(error))
        assert "wait for it with a PredictionSensor" in str(raised)
    else:
        assert type(raised) is type(as_wait)
        assert str(raised).startswith(str(error))
        is_final = type(raised).__name__ == "AirflowFailException"
        assert ("delete comet_submission from" in str(raised)) is (is_final and has_record)


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize("policy", ["fail", "retry"])
@pytest.mark.parametrize("error_class", ALL_ERRORS, ids=lambda error_class: error_class.__name__)
def test_what_errors_of_a_create_mean_to_airflow(
    error_class: type[e.CometError], policy: str, has_record: bool
) -> None:
    """Airflow's retries repeat only what certainly was not accepted and may be later, or what the author risks.

    A connection that can't be used is among it: Airflow calls a connection missing while its API server is away.
    """
    error = error_class("words")
    raised = create_exception(error, on_ambiguous_submit=policy, has_record=has_record)
    takes_risk = policy == "retry" and error_class is e.AmbiguousSubmissionError
    may_pass = {e.RateLimitedError, e.ServerError, e.TransportError, e.SubmissionRecordError}
    may_pass |= {e.ConfigurationError, e.ConnectionLookupError}
    if takes_risk or error_class in may_pass | BUYS_AGAIN:
        assert raised is error
    elif error_class is e.PredictionTimeoutError:
        assert type(raised).__name__ == "AirflowSensorTimeout"
    else:
        assert type(raised).__name__ == "AirflowFailException"
        assert str(raised).startswith(str(error))


def test_an_ambiguous_create_names_both_ways_to_continue() -> None:
    """Clear the task, or put the known id on record: in the words of this Airflow."""
    error = e.AmbiguousSubmissionError("gateway timeout")
    for has_record, way in ((True, "set comet_submission in the task's state store to"), (False, "PredictionSensor")):
        text = str(create_exception(error, on_ambiguous_submit="fail", has_record=has_record))
        assert "usage page" in text
        assert "clear the task (again, if this error appears again)" in text
        assert way in text


def test_every_error_has_a_row() -> None:
    """Each error finds a row, its own or that of a base class; no row stands for a class that can't be raised."""
    assert e.CometError in TABLE
    assert {*TABLE} <= {*ALL_ERRORS, e.CometError, MalformedRecordError}


def test_still_running_names_the_first_and_counts_the_others() -> None:
    """A list of a thousand ids is one id and a number in the log."""
    assert still_running(["abc"]).startswith("Prediction abc keeps running")
    assert still_running(["abc", "def", "ghi"]).startswith("Prediction abc (and 2 more) keeps running")


@pytest.mark.parametrize(
    ("error", "raised", "is_fact"),
    [
        (e.PredictionFailedError("no luck"), AirflowFailException, True),
        (e.PredictionTimeoutError("late"), AirflowSensorTimeout, True),
        (e.AuthenticationError(status=401), e.AuthenticationError, False),
        (AirflowTaskTimeout("Airflow's signal"), AirflowTaskTimeout, True),
        (ZeroDivisionError("a bug"), ZeroDivisionError, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_sensor_raises(error: BaseException, raised: type[BaseException], is_fact: bool) -> None:
    """`soft_fail` skips for facts and timeouts, `never_fail` for every error; the cause is kept."""
    for options, is_skipped in (((False, False), False), ((True, False), is_fact), ((False, True), True)):
        soft_fail, never_fail = options
        expected = AirflowSkipException if is_skipped else raised
        with (
            pytest.raises(expected) as caught,
            raised_by_sensor(wait_exception, soft_fail=soft_fail, never_fail=never_fail),
        ):
            raise error
        assert type(caught.value) is expected
        assert caught.value is error or caught.value.__cause__ is error


@pytest.mark.parametrize("options", [(True, False), (False, True)], ids=["soft_fail", "never_fail"])
def test_a_reschedule_is_no_error_of_a_sensor(options: tuple[bool, bool]) -> None:
    """A task that leaves the worker until its next poll is never skipped for that."""
    later = AirflowRescheduleException("later")  # type: ignore[no-untyped-call]
    with (
        pytest.raises(AirflowRescheduleException),
        raised_by_sensor(wait_exception, soft_fail=options[0], never_fail=options[1]),
    ):
        raise later
