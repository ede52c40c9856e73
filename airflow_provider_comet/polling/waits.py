"""``Waits``: the waits of one task on a worker, polled together. Pure: results and times come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.progress import LogLine, Progress
from airflow_provider_comet.polling.wait import Wait


class Waits:
    """The waits of one task on a worker, for one prediction or for many.

    :param waits: one for each prediction. Their deadline is the same.
    :param ended_before: how many predictions of the same task have ended before, for the log.
    :ivar deadline: when they have to end.
    :ivar outcomes: how waits have ended, by prediction id.
    """

    def __init__(self, waits: Iterable[Wait], ended_before: int = 0) -> None:
        self._pending = {wait.prediction_id: wait for wait in waits}
        self._total = ended_before + len(self._pending)
        self._failed: dict[str, Wait] = {}
        self._progress = Progress(self.pending, ended_before)
        self.deadline = max((wait.deadline for wait in self.pending), default=float("-inf"))
        self.outcomes: dict[str, Prediction | CometError] = {}

    @property
    def pending(self) -> list[Wait]:
        """The waits that have not ended."""
        return [*self._pending.values()]

    @property
    def ended(self) -> int:
        """How many predictions of the task have ended, also before these waits began."""
        return self._total - len(self._pending)

    @property
    def are_missing(self) -> bool:
        """Whether all that is left are predictions that the API does not know, and that nobody has seen before."""
        return all(wait.is_missing for wait in self._pending.values())

    @property
    def errors(self) -> dict[str, CometError]:
        """The waits that have ended without a prediction, by prediction id."""
        return {key: outcome for key, outcome in self.outcomes.items() if isinstance(outcome, CometError)}

    def due(self, now: float) -> list[Wait]:
        """Return the waits whose predictions are to be polled now."""
        return [wait for wait in self._pending.values() if wait.due <= now]

    def on_results(
        self, results: Iterable[tuple[Wait, tuple[Prediction | CometError, float, float]]], chance: Callable[[], float]
    ) -> list[LogLine]:
        """Judge a round of polls, each with the times when it was sent and answered; return what to log about them.

        After a 429 all of them pause, because it counts for every poll with this key.
        """
        lines: list[LogLine] = []
        resume_at: list[float] = []
        for wait, (result, sent_at, now) in results:
            lines += self._progress.on_result(wait, result, now)
            outcome = wait.on_result(result, now=now, chance=chance(), sent_at=sent_at)
            if isinstance(outcome, float):
                resume_at += [wait.due] if wait.is_rate_limited else []
                continue
            self.outcomes[wait.prediction_id] = outcome
            del self._pending[wait.prediction_id]
            if isinstance(outcome, CometError):
                self._failed[wait.prediction_id] = wait
        if resume_at:
            for wait in self._pending.values():
                wait.hold(max(resume_at))
        return lines

    def take_outcomes(self) -> dict[str, Prediction | CometError]:
        """Return how waits have ended, by prediction id, and forget it."""
        outcomes, self.outcomes, self._failed = self.outcomes, {}, {}
        return outcomes

    def reopen(self, *kinds: type[CometError]) -> bool:
        """Continue waits that ended with such errors, and return whether there are any.

        For a trigger: it can wait until a key is replaced, and polls again where a process has forgotten what was seen.
        """
        reopened = {key: wait for key, wait in self._failed.items() if isinstance(self.outcomes[key], kinds)}
        for prediction_id, wait in reopened.items():
            del self.outcomes[prediction_id], self._failed[prediction_id]
            self._pending[prediction_id] = wait
        return bool(reopened)

    def delay(self, now: float) -> float | None:
        """Return the seconds until the next poll; ``None``: all waits have ended."""
        return max(0.0, min(wait.due for wait in self._pending.values()) - now) if self._pending else None
