"""``Waits``: the waits of one task on a worker, polled together. Pure: results and times come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_provider_comet.api.errors import AuthenticationError, CometError, PermissionDeniedError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.progress import LogLine, Progress
from airflow_provider_comet.polling.wait import Wait


class Waits:
    """The waits of one task on a worker, for one prediction or for many.

    :param waits: one for each prediction.
    :ivar outcomes: how waits have ended, by prediction id.
    """

    def __init__(self, waits: Iterable[Wait]) -> None:
        self._pending = {wait.prediction_id: wait for wait in waits}
        self._refused: dict[str, Wait] = {}
        self._progress = Progress(self.pending)
        self.outcomes: dict[str, Prediction | CometError] = {}

    @property
    def pending(self) -> list[Wait]:
        """The waits that have not ended."""
        return [*self._pending.values()]

    @property
    def are_missing(self) -> bool:
        """Whether all that is left are predictions that the API does not know, and that nobody has seen before."""
        return all(wait.is_missing for wait in self._pending.values())

    def due(self, now: float) -> list[Wait]:
        """Return the waits whose predictions are to be polled now."""
        return [wait for wait in self._pending.values() if wait.due <= now]

    def on_results(
        self, results: Iterable[tuple[Wait, tuple[Prediction | CometError, float]]], chance: Callable[[], float]
    ) -> list[LogLine]:
        """Judge a round of polls, each with its time, and return what to log about them.

        After a 429 all of them pause, because it counts for every poll with this key.
        """
        lines: list[LogLine] = []
        resume_at: list[float] = []
        for wait, (result, now) in results:
            lines += self._progress.on_result(wait, result, now)
            outcome = wait.on_result(result, now=now, chance=chance())
            if isinstance(outcome, float):
                resume_at += [wait.due] if wait.is_rate_limited else []
                continue
            self.outcomes[wait.prediction_id] = outcome
            del self._pending[wait.prediction_id]
            if isinstance(outcome, (AuthenticationError, PermissionDeniedError)):
                self._refused[wait.prediction_id] = wait
        if resume_at:
            for wait in self._pending.values():
                wait.hold(max(resume_at))
        return lines

    def reopen_refused(self) -> bool:
        """Continue waits that ended because the key was refused, and return whether there are any.

        For a trigger, which can wait until the key is replaced.
        """
        refused, self._refused = self._refused, {}
        for prediction_id, wait in refused.items():
            del self.outcomes[prediction_id]
            self._pending[prediction_id] = wait
        return bool(refused)

    def delay(self, now: float) -> float | None:
        """Return the seconds until the next poll; ``None``: all waits have ended."""
        return max(0.0, min(wait.due for wait in self._pending.values()) - now) if self._pending else None
