"""Checks of what a DAG author gives an operator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_comet.api.options import check_choice, non_negative_seconds, positive_seconds


def test_a_choice_is_one_of_the_choices() -> None:
    """Any other value is named together with the choices."""
    check_choice("on_item_error", "keep", "fail", "keep")
    with pytest.raises(ValueError, match="on_item_error must be 'fail' or 'keep', not 'skip'"):
        check_choice("on_item_error", "skip", "fail", "keep")


@pytest.mark.parametrize(("value", "seconds"), [(7, 7.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)], ids=repr)
def test_seconds_may_be_a_timedelta(value: timedelta | float, seconds: float) -> None:
    """A number or a ``timedelta`` becomes seconds."""
    assert positive_seconds("timeout", value) == seconds


NEVER = [-1, float("nan"), float("inf"), float("-inf"), True, "60", None, timedelta.max, 10**12, 10**400]


@pytest.mark.parametrize("value", [0, timedelta(0), *NEVER], ids=repr)
def test_no_other_time_span_is_accepted(value: Any) -> None:
    """Zero, less, NaN, a bool, text and what no date can be computed from are refused with the parameter's name."""
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds or a timedelta, at most a year"):
        positive_seconds("timeout", value)


@pytest.mark.parametrize("value", NEVER, ids=repr)
def test_a_time_span_may_be_zero_where_that_has_a_meaning(value: Any) -> None:
    """Zero is accepted, and nothing else that is not positive."""
    assert non_negative_seconds("defer_after", 0) == 0.0
    assert non_negative_seconds("defer_after", timedelta(minutes=1)) == 60.0
    with pytest.raises(ValueError, match="defer_after must be a number of seconds or a timedelta, at most a year"):
        non_negative_seconds("defer_after", value)
