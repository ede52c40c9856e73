"""``api/list_error.py``: the error of a list."""

from __future__ import annotations

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.list_error import SHOWN_ERRORS, PredictionListError


def test_it_names_each_error() -> None:
    """How many of how many, then a line for each; the longest pause that a server has asked for is the list's."""
    errors = [e.ServerError("down", prediction_id="a", retry_after=5), e.RateLimitedError("slow", retry_after=9)]
    error = PredictionListError.of(errors, 7)
    assert str(error).split("\n") == ["Some predictions have no result: 2 of 7.", str(errors[0]), str(errors[1])]
    assert (error.retry_after, error.errors) == (9, errors)


def test_a_long_list_is_cut() -> None:
    """Thousands of lines fit neither into a log line nor into the database."""
    error = PredictionListError.of([e.ServerError()] * (SHOWN_ERRORS + 3), 100)
    lines = str(error).split("\n")
    assert len(lines) == SHOWN_ERRORS + 2
    assert lines[-1] == "... and 3 more: all of them are in the log."
    assert len(error.reasons) == SHOWN_ERRORS + 3
