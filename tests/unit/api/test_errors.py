"""``api/errors.py``: what messages show, what they hide, and the way through a trigger's event."""

from __future__ import annotations

import json

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.file_errors import DeliveryError, InputFileError, StorageError

KEY = "sk-Abc123_def-456GHI789"


def tree(cls: type[e.CometError] = e.CometError) -> list[type[e.CometError]]:
    """A class and all below it."""
    return [cls, *(found for sub in cls.__subclasses__() for found in tree(sub))]


RETRYABLE = {e.RateLimitedError, e.ServerError, e.TransportError, e.ConnectionLookupError}
RETRYABLE |= {InputFileError, DeliveryError, StorageError}


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_every_error_survives_the_way_through_json(cls: type[e.CometError]) -> None:
    """``from_dict`` of a dictionary that went through JSON gives the same class, fields and message."""
    error = cls("the words", status=503, code="c", request_id="r", prediction_id="p", retry_after=2.5)
    again = e.CometError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(again) is cls
    assert (again.to_dict(), str(again), again.args) == (error.to_dict(), str(error), error.args)


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_exactly_these_classes_are_retryable(cls: type[e.CometError]) -> None:
    """The same may succeed later after a rate limit, a server's error, a lost connection, and when there is space."""
    assert cls.retryable is (cls in RETRYABLE)


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_every_message_names_the_facts_and_the_next_step(cls: type[e.CometError]) -> None:
    """A message has the prediction, the status, the code, the request id, the server's words and the next step."""
    text = str(cls("the server's words", status=503, code="busy", request_id="2026X", prediction_id="abc"))
    assert text.startswith(
        f"Prediction abc: {cls.summary} (HTTP 503, code busy, request id 2026X): the server's words."
    )
    assert text.endswith(cls.next_step)


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_a_message_without_facts_is_still_a_sentence(cls: type[e.CometError]) -> None:
    """With nothing known, the message is what the class says, ended by a full stop."""
    assert str(cls()) == f"{cls.summary}. {cls.next_step}".strip()


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for cls in tree()
        if issubclass(cls, (e.APIError, e.TransportError, e.AmbiguousSubmissionError, e.PredictionError))
        and cls not in {e.APIError, e.PredictionError}
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_error_of_a_server_has_a_next_step(cls: type[e.CometError]) -> None:
    """Whatever the API answers, the error says what to do."""
    assert cls.next_step.endswith(".")


def test_an_error_is_caught_by_its_base() -> None:
    """Every class is a ``CometError``, and facts about a prediction are told apart from answers of the API."""
    assert all(issubclass(cls, e.CometError) for cls in tree())
    assert not issubclass(e.PredictionError, e.APIError)
    assert not issubclass(e.AmbiguousSubmissionError, (e.APIError, e.TransportError))
