"""``CometError``: its message, and its way through JSON."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e

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
