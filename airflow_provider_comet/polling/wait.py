"""Many waits as one: who is due, how the others ended, and what of it is worth a line in the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from airflow_provider_comet.api.errors import AuthenticationError, CometError, PermissionDeniedError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.schedule import HEARTBEAT, Wait

PROGRESS = 10.0
"""Seconds that lie at least between two lines about what has changed."""

News = tuple[int, str]
"""Log level and words."""


class Waits:
    """The waits of one task on a worker.

    :param waits: one for each prediction.
    """

    def __init__(self, waits: Iterable[Wait]) -> None:
        self._pending = {wait.prediction_id: wait for wait in waits}
        self._refused: dict[str, Wait] = {}
        self._progress = Progress(self.pending)
        self.ended: dict[str, Prediction | CometError] = {}

    @property
    def pending(self) -> list[Wait]:
        """Those that go on."""
        return [*self._pending.values()]

    def due(self, now: float) -> list[Wait]:
        """Those to be looked at."""
        return [wait for wait in self._pending.values() if wait.due <= now]

    def take(
        self, looks: Iterable[tuple[Wait, tuple[Prediction | CometError, float]]], chance: Callable[[], float]
    ) -> list[News]:
        """Judge a round of looks, each with its time, and return what is worth saying about it.

        A look that was one too many speaks for all: nobody looks before it may be repeated.
        """
        news: list[News] = []
        limited: list[float] = []
        for wait, (look, now) in looks:
            news += self._progress.news(wait, look, now)
            result = wait.after(look, now=now, chance=chance())
            if isinstance(result, float):
                limited += [wait.due] if wait.is_limited else []
                continue
            self.ended[wait.prediction_id] = result
            del self._pending[wait.prediction_id]
            if isinstance(result, (AuthenticationError, PermissionDeniedError)):
                self._refused[wait.prediction_id] = wait
        if limited:
            for wait in self._pending.values():
                wait.hold(max(limited))
        return news

    def reopen(self) -> bool:
        """Let those go on that ended because the key was refused, for one who can wait until it is replaced; whether
        there are any."""
        refused, self._refused = self._refused, {}
        for prediction_id, wait in refused.items():
            del self.ended[prediction_id]
            self._pending[prediction_id] = wait
        return bool(refused)

    def delay(self, now: float) -> float | None:
        """Seconds until the next look; ``None``: all have ended."""
        return max(0.0, min(wait.due for wait in self._pending.values()) - now) if self._pending else None


class Progress:
    """What the log of a task says while it waits. One prediction has its own lines (``Wait.news``); of many it says how
    many have finished, and each kind of trouble once for all.

    :param waits: all of them, before the first look.
    """

    def __init__(self, waits: Iterable[Wait]) -> None:
        self._deadlines = [wait.deadline for wait in waits]
        self._seen: dict[str, str] = {}
        self._finished: set[str] = set()
        self._is_changed = False
        self._said_at: float | None = None
        self._told_at: dict[str, float] = {}

    def news(self, wait: Wait, look: Prediction | CometError, now: float) -> list[News]:
        """Lines for what a look, or news on the way to one, has changed."""
        if len(self._deadlines) == 1:
            return _lines(wait.news(look, now))
        return [*self._trouble(look, now), *self._counts(wait.prediction_id, look, now)]

    def sign_of_life(self, wait: Wait, now: float) -> list[News]:
        """Lines for a wait that goes on, if nothing was said for some minutes."""
        if len(self._deadlines) == 1:
            return _lines(wait.sign_of_life(now))
        return [] if self._said_at is None or now - self._said_at < HEARTBEAT else [self._say(now)]

    def _trouble(self, look: Prediction | CometError, now: float) -> Iterable[News]:
        if isinstance(look, Prediction):
            if look.has_known_status:
                return
            kind = look.status
            text = f"Prediction {look.id}: status {kind!r} is unknown here; it counts as still running"
        else:
            kind, text = f"{type(look).__name__} {look.status}", str(look)
        told_at = self._told_at.get(kind)
        if told_at is None or now - told_at >= HEARTBEAT:
            self._told_at[kind] = now
            yield logging.WARNING if told_at is None else logging.INFO, f"{text} (Others may have the same.)"

    def _counts(self, prediction_id: str, look: Prediction | CometError, now: float) -> list[News]:
        seen = look.status if isinstance(look, Prediction) else type(look).__name__
        self._is_changed |= self._seen.get(prediction_id) != seen
        self._seen[prediction_id] = seen
        if isinstance(look, Prediction) and look.is_terminal:
            self._finished.add(prediction_id)
        total = len(self._deadlines)
        if self._said_at is None or len(self._finished) == total:  # the first picture, and the last one, are whole
            is_due = len(self._seen) == total
        else:
            is_due = now - self._said_at >= (PROGRESS if self._is_changed else HEARTBEAT)
        return [self._say(now)] if is_due else []

    def _say(self, now: float) -> News:
        self._said_at, self._is_changed = now, False
        counts = ", ".join(f"{count:,} {one}" for one, count in Counter(self._seen.values()).most_common())
        return logging.INFO, (
            f"{len(self._finished):,} of {len(self._deadlines):,} predictions have finished ({counts}); the timeout "
            f"comes in {max(0.0, max(self._deadlines) - now):.0f} s"
        )


def _lines(one: News | None) -> list[News]:
    return [] if one is None else [one]
