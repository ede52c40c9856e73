"""What the log of a task says while it waits. Pure: it returns lines, and whoever has a logger writes them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.redaction import WORD_CHARACTERS, excerpt
from airflow_provider_comet.polling.schedule import HEARTBEAT_SECONDS
from airflow_provider_comet.polling.wait import Wait, is_odd

MIN_SECONDS_BETWEEN_COUNTS = 10.0
"""Between two lines that count how many of a list have finished."""

SHOWN_STATES = 10
"""In such a line: a server may have more words for a status than a line has room for."""

LogLine: TypeAlias = tuple[int, str]
"""A log level and a text."""


class Progress:
    """Decides what to log about the waits of one task.

    For one prediction: each change of its status. For many: how many have finished, and each kind of trouble once for
    all of them. In both cases a line every few minutes if nothing changes.

    :param waits: all of them, before the first poll.
    :param ended_before: how many predictions of the same task have ended before.
    """

    def __init__(self, waits: Iterable[Wait], ended_before: int = 0) -> None:
        deadlines = [wait.deadline for wait in waits]
        self._waits, self._ended_before = len(deadlines), ended_before
        self._total, self._last_deadline = ended_before + len(deadlines), max(deadlines, default=0.0)
        self._words = "unknown"
        self._states: dict[str, str] = {}
        self._finished: set[str] = set()
        self._has_changed = False
        self._logged_at: float | None = None
        self._trouble_logged_at: dict[str, float] = {}

    def on_result(self, wait: Wait, result: Prediction | CometError, now: float) -> list[LogLine]:
        """Return the lines for what a poll has changed, or for an error that says why a poll takes longer."""
        words, line = _describe(wait, result)
        if self._total > 1:
            return [*self._trouble(words, line, now), *self._counts(wait.prediction_id, result, now)]
        if words == self._words:
            return self.heartbeat(wait, now)
        self._words, self._logged_at = words, now
        return [line]

    def heartbeat(self, wait: Wait, now: float) -> list[LogLine]:
        """Return a line for a wait that has not ended, if nothing was logged for some minutes."""
        if now - (self._logged_at or 0.0) < HEARTBEAT_SECONDS or (self._total > 1 and self._logged_at is None):
            return []
        if self._total > 1:
            return [self._counts_line(now)]
        self._logged_at = now
        text = (
            f"Prediction {wait.prediction_id}: still {self._words} after {now - wait.started_at:.0f} s and "
            f"{wait.polls} polls; the timeout comes in {max(0.0, wait.deadline - now):.0f} s"
        )
        return [(logging.INFO, text)]

    def _trouble(self, words: str, line: LogLine, now: float) -> list[LogLine]:
        level, text = line
        logged_at = self._trouble_logged_at.get(words)
        if level == logging.INFO or (logged_at is not None and now - logged_at < HEARTBEAT_SECONDS):
            return []
        self._trouble_logged_at[words] = now
        return [(level if logged_at is None else logging.INFO, f"{text} (Others may have the same.)")]

    def _counts(self, prediction_id: str, result: Prediction | CometError, now: float) -> list[LogLine]:
        state = _status(result) if isinstance(result, Prediction) else type(result).__name__
        self._has_changed |= self._states.get(prediction_id) != state
        self._states[prediction_id] = state
        if isinstance(result, Prediction) and result.is_terminal:
            self._finished.add(prediction_id)
        if self._logged_at is None or len(self._finished) == self._waits:  # the first and the last line count all
            is_due = len(self._states) == self._waits
        else:
            is_due = now - self._logged_at >= (MIN_SECONDS_BETWEEN_COUNTS if self._has_changed else HEARTBEAT_SECONDS)
        return [self._counts_line(now)] if is_due else []

    def _counts_line(self, now: float) -> LogLine:
        self._logged_at, self._has_changed = now, False
        states = Counter(self._states.values()).most_common()
        finished = self._ended_before + len(self._finished)
        counts = ", ".join(f"{count:,} {state}" for state, count in states[:SHOWN_STATES])
        counts += f", {self._ended_before:,} before" if self._ended_before else ""
        counts += f", {len(states) - SHOWN_STATES} more states" if len(states) > SHOWN_STATES else ""
        return logging.INFO, (
            f"{finished:,} of {self._total:,} predictions have finished ({counts}); the timeout "
            f"comes in {max(0.0, self._last_deadline - now):.0f} s"
        )


def _status(prediction: Prediction) -> str:
    """Return a status for the log: a word that is not in the table is the server's own."""
    return excerpt(prediction.status, WORD_CHARACTERS)


def _describe(wait: Wait, result: Prediction | CometError) -> tuple[str, LogLine]:
    """Return a few words that stay the same while nothing changes, and the line for the log."""
    if isinstance(result, CometError):  # the request id in its text is another one each time
        is_alone = wait.is_known and is_odd(result)
        hint = " The prediction is known: such an answer alone does not end the wait." if is_alone else ""
        return f"{type(result).__name__} {result.status}", (logging.WARNING, f"{result}{hint}")
    words = f"status {_status(result)!r}"
    text = f"Prediction {wait.prediction_id}: {words}"
    if result.missing_output:
        return words + " without output", (logging.WARNING, f"{text}: {result.missing_output}; its output may be late")
    if result.has_known_status:
        return words, (logging.INFO, text)
    return words, (logging.WARNING, f"{text} is unknown here; it counts as still running")
