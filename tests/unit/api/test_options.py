"""Checks of what a DAG author gives an operator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_comet.api.options import check_choice, positive_seconds


def test_a_choice_is_one_of_the_choices() -> None:
    """Any other value is named together with the choices."""
    check_choice("on_item_error", "keep", "fail", "keep")
    with pytest.raises(ValueError, match="on_item_error must be 'fail' or 'keep', not 'skip'"):
        check_choice("on_item_error", "skip", "fail", "keep")


@pytest.mark.parametrize(("value", "seconds"), [(7, 7.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)], ids=repr)
def test_seconds_may_be_a_timedelta(value: timedelta | float, seconds: float) -> None:
    """A number or a ``timedelta`` becomes seconds."""
    assert positive_seconds("timeout", value) == seconds


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, timedelta(0)], ids=repr)
def test_no_other_time_span_is_accepted(value: Any) -> None:
    """Zero, less, NaN and a bool are refused with the parameter's name."""
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds or a timedelta"):
        positive_seconds("timeout", value)
