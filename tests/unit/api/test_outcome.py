"""``judge``: the one judgement of a finished wait."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.outcome import blames_input, judge, judge_all
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.statuses import STATUSES


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
        judge(summary, allow_empty=False)
    assert judge(summary, allow_empty=True) == {**summary, "files": []}


@pytest.mark.parametrize("output", [0, False, "no", [0], {"score": 0.0}, [[], "x"]], ids=str)
def test_falsy_output_is_a_result(output: Any) -> None:
    """Zero and false are values that a model returns."""
    assert judge(prediction(output=output).summary(), allow_empty=False)["output"] == output


def test_removed_output_is_told_from_an_empty_one() -> None:
    """What was removed was there once: it is an error whatever is allowed; a copy that survives is a result."""
    for allow_empty in (False, True):
        with pytest.raises(e.PredictionExpiredError):
            judge(prediction(output=None, data_removed=True).summary(), allow_empty=allow_empty)
    assert judge(prediction(data_removed=True).summary(), allow_empty=False)["files"]


@pytest.mark.parametrize("status", ["processing", "starting", "warming_up", ""])
def test_unfinished_is_never_a_success(status: str) -> None:
    """A summary that is not of a finished prediction is trouble which a retry may clear, and no fact."""
    with pytest.raises(e.CometError) as caught:
        judge(prediction(status=status).summary(), allow_empty=True)
    assert not isinstance(caught.value, e.PredictionError)
    assert caught.value.prediction_id == "abc"


def test_failure_quotes_the_server() -> None:
    """Who reads the error of a failed prediction reads the server's words, without secrets, and what to do."""
    words = "CUDA out of memory, see https://logs.example/1?signature=abcdef and sk-1234567890abcdef"
    with pytest.raises(e.PredictionFailedError) as caught:
        judge(prediction(status="failed", output=None, error=words).summary(), allow_empty=False)
    assert str(caught.value) == (
        "Prediction abc: it failed: CUDA out of memory, see https://logs.example/1?... and ***. "
        "Clear the create task to run it again (a new, billed prediction)."
    )


@pytest.mark.parametrize(
    ("words", "error_class"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", e.PredictionRefusedError),
        ("CUDA out of memory", e.PredictionFailedError),
        ("", e.PredictionFailedError),
    ],
)
def test_a_refused_input_is_told_from_a_failure(words: str, error_class: type[e.CometError]) -> None:
    """What is worth paying for again and what is not are two classes of error."""
    with pytest.raises(e.PredictionFailedError) as caught:
        judge(prediction(status="failed", output=None, error=words), allow_empty=False)
    assert type(caught.value) is error_class


@pytest.mark.parametrize("status", [name for name, status in STATUSES.items() if status.error], ids=str)
def test_every_bad_end_is_the_error_of_its_row(status: str) -> None:
    """The table of statuses says which error a bad end is."""
    with pytest.raises(e.PredictionError) as caught:
        judge(prediction(status=status, output=None), allow_empty=True)
    assert type(caught.value) is STATUSES[status].error


def test_a_list_keeps_what_is_known_of_each() -> None:
    """A bad end keeps its summary, an error has none, and each has its reason."""
    failed = prediction(id="b", status="failed", output=None, error="no")
    outcomes = {"a": prediction(id="a"), "b": failed, "c": e.PredictionTimeoutError("late"), "d": failed.summary()}
    summaries, errors = judge_all(outcomes, allow_empty=False)
    assert summaries == {"a": prediction(id="a").summary(), "b": failed.summary(), "c": None, "d": failed.summary()}
    assert [(type(error), error.prediction_id) for error in errors] == [
        (e.PredictionFailedError, "b"),
        (e.PredictionTimeoutError, "c"),
        (e.PredictionFailedError, "b"),
    ]


@pytest.mark.parametrize(
    ("words", "blames"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", True),
        ("All generated images contained NSFW content", True),
        ("The input or output was flagged as sensitive. Please try again with different inputs. (E005)", True),
        ("Prediction failed: E005", True),
        ("Your request was rejected by the safety system", True),
        ("prompt was moderated", True),
        ("Content policy violation", True),
        ("content_policy_violation", True),
        ("Input validation error: image: HTTP 404", True),
        ("Invalid input: width must be a multiple of 8", True),
        ("invalid image url", True),
        ("1 validation error for Input", True),
        ("Field required", True),
        ("CUDA out of memory", False),
        ("E1000", False),
        ("E1001: model out of memory", False),
        ("E6716: timeout starting prediction", False),
        ("Prediction interrupted; please retry (code: PA)", False),
        ("Prediction failed.", False),
        ("service unavailable", False),
        ("Director: unexpected error handling prediction (E9243)", False),
        ("connection reset by peer", False),
        ("safety checker could not be loaded: connection timed out", False),  # machines win
        ("Moderation service unavailable", False),
        ("Moderation request timed out", False),
        ("upstream request timeout", False),
        ("Read timeout while the prompt was moderated", False),
        ("Content filter: internal server error", False),
        ("No capacity, try again later", False),
        ("GPU worker died", False),
        ("Timeout: the upstream did not answer about this prompt, which is too long", False),
        ("moderation: ConnectionError", False),
        ("moderation ETIMEDOUT", False),
        ("Moderation server is busy", False),
        ("content_filter: RESOURCE_EXHAUSTED", False),
        ("moderation: rate_limit reached", False),
        ("Input validation error: timeout: ensure this value is at most 60", True),
        ("Invalid value for 'timeout'", True),
        ("Prompt too long", True),
        ("Rejected for safety reasons", True),
        ("The prompt names copyrighted characters", True),
        ("Input exceeds maximum length", True),
        ("moderation: upstream returned 503", False),
        ("The image must be 512 pixels wide", True),
        ("Your request may violate the provider's usage guidelines", True),
        ("This violates our usage policies", True),
        ("Prompt is too long: 5,012 characters, the maximum is 2,000", True),
        ("The image is too large", True),
        ("inappropriate", True),
        ("Request blocked by our moderation", True),
        ("blocked by the provider", True),
        ("prompt is required", True),
        ("PROHIBITED_CONTENT", True),
        ("finish reason: IMAGE_PROHIBITED_CONTENT", True),
        ("SAFETY", False),  # a word alone: what repeats decides
        ("The model took too long to respond", False),
        ("Prediction took too long", False),
        ("The moderation service takes too long to start", False),
        ("moderation: status_code=503", False),
        ("The video is too long to process", True),
        ("Input validation error: 500 is not one of 480, 720, 1080", True),
        ("Validation error: 540 exceeds the maximum of 480", True),
        ("Invalid value, error: 512 is too large", True),
        ("Input validation error: timeout: must be at most 60", True),
        ("Invalid parameter: timeout must be a number", True),
        ("", False),
    ],
)
def test_refusals_are_told_from_failures(words: str, blames: bool) -> None:
    """A failure is blamed on the input by the words that models use for it; anything else may pass next time."""
    assert blames_input(words) is blames
