"""The one judgement of a finished wait, and what it means to Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction

ALL_ERRORS = [
    cls
    for cls in vars(e).values()
    if isinstance(cls, type) and issubclass(cls, e.CometError) and cls not in {e.CometError, e.APIError}
]
FACTS = {
    e.PredictionError,
    e.PredictionFailedError,
    e.PredictionRefusedError,
    e.PredictionCanceledError,
    e.PredictionAbortedError,
    e.PredictionExpiredError,
    e.EmptyOutputError,
    e.PredictionNotFoundError,
    e.InvalidInputError,
}


def prediction(**fields: Any) -> Prediction:
    return Prediction(**{"id": "abc", "status": "succeeded", "output": ["https://files.example/1.png"], **fields})


@pytest.mark.parametrize(
    "output",
    [None, "", [], {}, [None], [""], {"image": None}, {"images": []}, [{"url": ""}, []]],
    ids=str,
)
def test_empty_output_is_no_result(output: Any) -> None:
    """A success with nothing in it, at any depth, is an error of its own unless it is allowed."""
    summary = prediction(output=output).summary()
    with pytest.raises(e.EmptyOutputError, match=r"^Prediction abc: "):
        outcome.judge(summary, allow_empty=False)
    assert outcome.judge(summary, allow_empty=True) == {**summary, "files": []}


@pytest.mark.parametrize("output", [0, False, "no", [0], {"score": 0.0}, [[], "x"]], ids=str)
def test_falsy_output_is_a_result(output: Any) -> None:
    """Zero and false are values that a model returns."""
    assert outcome.judge(prediction(output=output).summary(), allow_empty=False)["output"] == output


def test_removed_output_is_told_from_an_empty_one() -> None:
    """What was removed was there once: it is an error whatever is allowed; a copy that survives is a result."""
    for allow_empty in (False, True):
        with pytest.raises(e.PredictionExpiredError):
            outcome.judge(prediction(output=None, data_removed=True).summary(), allow_empty=allow_empty)
    assert outcome.judge(prediction(data_removed=True).summary(), allow_empty=False)["files"]


@pytest.mark.parametrize("status", ["processing", "starting", "warming_up", ""])
def test_unfinished_is_never_a_success(status: str) -> None:
    """A summary that is not of a finished prediction is trouble which a retry may clear, and no fact."""
    with pytest.raises(e.CometError) as caught:
        outcome.judge(prediction(status=status).summary(), allow_empty=True)
    assert not isinstance(caught.value, e.PredictionError)
    assert caught.value.prediction_id == "abc"
    assert outcome.airflow_error(caught.value) is caught.value


def test_failure_quotes_the_server() -> None:
    """Who reads the error of a failed prediction reads the server's words, without secrets, and what to do."""
    words = "CUDA out of memory, see https://logs.example/1?signature=abcdef and sk-1234567890abcdef"
    with pytest.raises(e.PredictionFailedError) as caught:
        outcome.judge(prediction(status="failed", output=None, error=words).summary(), allow_empty=False)
    assert str(caught.value) == (
        "Prediction abc: it failed: CUDA out of memory, see https://logs.example/1?... and ***. "
        "Clear the create task to run it again (a new, billed prediction)."
    )


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_what_errors_of_a_wait_mean_to_airflow(cls: type[e.CometError]) -> None:
    """Facts fail for good, the timeout is a sensor's timeout, and everything else stays open to Airflow's retries."""
    error = cls("words", prediction_id="abc")
    raised = outcome.airflow_error(error)
    if cls is e.PredictionTimeoutError:
        expected = "AirflowSensorTimeout"
    else:
        expected = "AirflowFailException" if cls in FACTS else cls.__name__
    assert (type(raised).__name__, str(raised)) == (expected, str(error))


WORTH_A_NEW_ONE = {e.PredictionFailedError, e.PredictionCanceledError, e.PredictionAbortedError}


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_what_errors_mean_to_a_task_that_creates_and_waits(cls: type[e.CometError], has_record: bool) -> None:
    """The same, but a failed prediction is left to the retries, which buy a new one, unless its input was refused.

    Where a retry would not know what was paid, nothing else is left to it. A final error says how to buy all the same.
    """
    error = cls("words", prediction_id="abc")
    raised, as_sensor = outcome.airflow_error_of_paid(error, has_record=has_record), outcome.airflow_error(error)
    if cls in WORTH_A_NEW_ONE:
        assert raised is error
    elif as_sensor is error and not has_record:
        assert type(raised).__name__ == "AirflowFailException"
        assert str(raised).startswith(str(error))
        assert "wait for it with a PredictionSensor" in str(raised)
    else:
        assert type(raised) is type(as_sensor)
        assert str(raised).startswith(str(error))
        is_final = type(raised).__name__ == "AirflowFailException"
        assert ("delete comet_submission from" in str(raised)) is (is_final and has_record)


@pytest.mark.parametrize(
    ("words", "cls"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", e.PredictionRefusedError),
        ("CUDA out of memory", e.PredictionFailedError),
        ("", e.PredictionFailedError),
    ],
)
def test_a_refused_input_is_told_from_a_failure(words: str, cls: type[e.CometError]) -> None:
    """What is worth paying for again and what is not are two classes of error."""
    with pytest.raises(e.PredictionFailedError) as caught:
        outcome.judge(prediction(status="failed", output=None, error=words), allow_empty=False)
    assert type(caught.value) is cls


@pytest.mark.parametrize("has_record", [True, False])
@pytest.mark.parametrize("policy", ["fail", "retry"])
@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_what_errors_of_a_create_mean_to_airflow(cls: type[e.CometError], policy: str, has_record: bool) -> None:
    """Only what certainly was not accepted, and may be later, is left to Airflow's retries; and what may have been
    accepted, if the author takes the risk.

    A connection that can't be used is among it: Airflow calls one missing while its API server is away.
    """
    error = cls("words")
    raised = outcome.airflow_create_error(error, on_ambiguous_submit=policy, has_record=has_record)
    takes_risk = policy == "retry" and cls is e.AmbiguousSubmissionError
    may_pass = {e.RateLimitedError, e.ServerError, e.TransportError, e.SubmissionRecordError}
    may_pass |= {e.ConfigurationError, e.ConnectionLookupError}
    if takes_risk or cls in may_pass | WORTH_A_NEW_ONE:
        assert raised is error
    elif cls is e.PredictionTimeoutError:
        assert type(raised).__name__ == "AirflowSensorTimeout"
    else:
        assert type(raised).__name__ == "AirflowFailException"
        assert str(raised).startswith(str(error))


def test_an_unknown_fate_tells_both_ways_on() -> None:
    """Clear it, or put the known id on record: in the words of this Airflow."""
    error = e.AmbiguousSubmissionError("gateway timeout")
    for has_record, way in ((True, "set comet_submission in the task's state store to"), (False, "PredictionSensor")):
        text = str(outcome.airflow_create_error(error, on_ambiguous_submit="fail", has_record=has_record))
        assert "usage page" in text
        assert "clear the task (again, if this error comes back)" in text
        assert way in text
