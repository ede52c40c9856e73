"""``CometError``: its message, and its way through JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from tests.support.characters import acting

KEY = "sk-test-0123456789abcdef"


def test_an_unknown_type_is_a_plain_error_with_its_fields() -> None:
    """Another release's class arrives as ``CometError``, not retryable, with all its known facts."""
    error = e.CometError.from_dict({"type": "FromTheFutureError", "detail": "words", "status": 418, "request_id": "r"})
    assert type(error) is e.CometError
    assert (error.detail, error.status, error.request_id, error.retryable) == ("words", 418, "r", False)


def test_unknown_and_missing_fields_are_no_trouble() -> None:
    """Fields of another release are dropped, and missing ones are ``None``."""
    error = e.CometError.from_dict({"type": "ServerError", "colour": "red", "args": [1], "retryable": False})
    assert type(error) is e.ServerError
    assert error.to_dict() == e.ServerError().to_dict()
    assert type(e.CometError.from_dict({})) is e.CometError


@pytest.mark.parametrize("name", ["Exception", "CometError.__init__", None, 7, "SystemExit"])
def test_a_type_from_outside_the_tree_is_never_built(name: object) -> None:
    """``from_dict`` makes errors of this package only, whatever name it is given."""
    assert type(e.CometError.from_dict({"type": name, "detail": "x"})) is e.CometError


@pytest.mark.parametrize("field", ["code", "request_id"])
def test_other_words_of_the_server_are_bounded_and_redacted_too(field: str) -> None:
    """The server also chooses code and request id: they are cut and redacted like its message."""
    facts: dict[str, Any] = {field: f"{KEY} " + "z" * 5000}
    text = str(e.ServerError("x", **facts))
    assert KEY not in text
    assert len(text) < 1000


@pytest.mark.parametrize("asked", [3601.0, 86_400.0, 1e300, float("inf")])
@pytest.mark.parametrize("detail", ["", "slow down", "w" * 400])
def test_a_very_long_pause_is_cut_and_the_message_says_so(asked: float, detail: str) -> None:
    """A server gets an hour at most. The message says once what it asked for, also after the way through JSON."""
    error = e.RateLimitedError(detail, status=429, retry_after=asked)
    assert error.retry_after == 3600
    for shown in (error, e.CometError.from_dict(error.to_dict())):
        assert str(shown).count(f"The server asks for a pause of {asked:g} s and gets 3600 s.") == 1
        assert len(shown.detail) <= 300
        assert shown.to_dict() == error.to_dict()


@pytest.mark.parametrize("asked", [None, 0.0, 59.5, 3600.0])
def test_a_pause_of_up_to_an_hour_is_kept(asked: float | None) -> None:
    """A usual hint is taken over and not spoken of."""
    error = e.RateLimitedError("slow down", retry_after=asked)
    assert (error.retry_after, error.detail) == (asked, "slow down")


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["type", "detail", "status", "code", "request_id", "prediction_id", "retry_after", "errors", "self"]
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


def check(error: e.CometError) -> None:
    """Each field has its type, the error is plain JSON, and can be shown."""
    assert isinstance(error.detail, str)
    assert type(error.status) in {int, type(None)}
    for text in (error.code, error.request_id, error.prediction_id):
        assert isinstance(text, str | None)
    assert error.retry_after is None or (type(error.retry_after) is float and 0 <= error.retry_after < math.inf)
    assert acting(str(error), "\n" if isinstance(error, e.PredictionListError) else "") == []
    carried = json.loads(json.dumps(error.to_dict(), allow_nan=False))
    again = e.CometError.from_dict(carried)
    assert (type(again), again.to_dict()) == (type(error), error.to_dict())


@given(st.dictionaries(st.sampled_from(NAMES), VALUES | st.sampled_from(["ServerError", "PredictionListError"])))
def test_any_json_makes_an_error(data: dict[str, Any]) -> None:
    """An event that was altered, or comes from another release, still makes an error whose fields have their types."""
    check(e.CometError.from_dict(data))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [DEEP, math.nan, math.inf, -1, 10**5000, True, "soon", {"a": 1}, "\ud83d"], ids=type)
def test_no_single_value_breaks_an_error(name: str, value: Any) -> None:
    """Numbers that are none, values that can't be hashed or walked, text that is not UTF-8."""
    check(e.CometError.from_dict({"type": "ServerError", name: value}))


def test_an_error_is_plain_json_whatever_it_holds() -> None:
    """A list of errors, notes and numbers that JSON has no form for stay out of an event."""
    error = e.PredictionListError.of([e.ServerError("a", retry_after=math.nan, status=10**9)], 2)
    error.add_note("a note")
    check(error)
    check(error.errors[0])
