"""Checks of what a DAG author gives an operator. They raise ``ValueError``, because they run while DAGs are parsed."""

from __future__ import annotations

from datetime import timedelta


def check_choice(name: str, value: object, *choices: str) -> None:
    """Refuse a value that is not one of the choices.

    :raises ValueError: names the parameter, the choices and the value.
    """
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")


def positive_seconds(name: str, value: timedelta | float) -> float:
    """Return a time span in seconds.

    :raises ValueError: it is not a positive number or ``timedelta``.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not seconds > 0:
        raise ValueError(f"{name} must be a positive number of seconds or a timedelta, not {value!r}")
    return float(seconds)
