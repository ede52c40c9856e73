"""Checks of what a DAG author gives an operator. They raise ``ValueError``, because they run while DAGs are parsed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

MAX_SECONDS: Final = timedelta(days=366).total_seconds()
"""Infinity, or ``timedelta.max``, would fail where a date is computed from it: after the prediction was paid for."""


def check_choice(name: str, value: object, *choices: str) -> None:
    """Refuse a value that is not one of the choices.

    :raises ValueError: names the parameter, the choices and the value.
    """
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")


def positive_seconds(name: str, value: timedelta | float) -> float:
    """Return a time span in seconds.

    :raises ValueError: it is not a positive number or ``timedelta`` of at most a year.
    """
    return _seconds(name, value, is_zero_allowed=False)


def non_negative_seconds(name: str, value: timedelta | float) -> float:
    """Return a time span in seconds, which may be zero.

    :raises ValueError: it is not a number or ``timedelta`` from zero to a year.
    """
    return _seconds(name, value, is_zero_allowed=True)


def _seconds(name: str, value: timedelta | float, *, is_zero_allowed: bool) -> float:
    seconds: Any = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    # NaN is refused, too: neither comparison is true.
    if is_number and (0 < seconds <= MAX_SECONDS or (is_zero_allowed and seconds == 0)):
        return float(seconds)
    kind = "number" if is_zero_allowed else "positive number"
    raise ValueError(f"{name} must be a {kind} of seconds or a timedelta, at most a year, not {value!r}")
