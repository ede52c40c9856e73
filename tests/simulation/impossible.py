"""Which pairs of an event and the state of a record can't happen, and why."""

from __future__ import annotations

RULES: list[tuple[str, str, str]] = []
"""A pattern of the event's name, columns, and the reason."""
