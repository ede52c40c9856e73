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
