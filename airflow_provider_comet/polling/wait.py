"""``Wait``: when the wait for one prediction ends, and how. Pure: results and times come in."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_comet.api.errors import (
    CometError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    RateLimitedError,
)
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.redaction import WORD_CHARACTERS, excerpt
from airflow_provider_comet.polling.schedule import FIRST_POLL_AGE, NOT_FOUND_GRACE_SECONDS, next_delay


@dataclass
class Wait:
    """The wait for one prediction: decides after each poll whether it has ended, and how. The same in every mode.

    :param prediction_id: what is waited for.
    :param started_at: when the prediction was created, as far as known: ages count from here. An answer that tells the
        age by the server's own clocks moves this back.
    :param deadline: when to stop, after one more poll.
    :param poke_interval: fixed seconds between polls; ``None``: adaptive.
    :param last_polled_at: when the prediction was polled last, before this wait was taken over.
    :param not_before: until when the server asked for no poll.
    :ivar due: when the next poll is due.
    :ivar polls: how many polls were made.
    :ivar is_rate_limited: whether the last poll was answered by 429, which counts for all polls with this key.
    """

    prediction_id: str
    started_at: float
    deadline: float
    poke_interval: float | None = None
    last_polled_at: float | None = None
    not_before: float | None = None
    is_rate_limited: bool = field(default=False, init=False)
    due: float = field(default=0.0, init=False)
    polls: int = field(default=0, init=False)
    _has_server_age: bool = field(default=False, init=False)
    _is_known: bool = field(default=False, init=False)
    _unknown_since: float | None = field(default=None, init=False)

    def first_delay(self, now: float, chance: float) -> float:
        """Return the seconds until the first poll of whoever takes this wait over.

        The interval that was running is kept. If it is over (the triggerer was away), first polls are spread over one
        interval, because thousands of waits start together then. After the deadline there is no delay.
        """
        age = now - self.started_at
        delay = 0.0 if self.last_polled_at is None and age < FIRST_POLL_AGE else -1.0
        if self.last_polled_at is not None:
            delay = self.last_polled_at + self._delay(self.last_polled_at - self.started_at, None, chance) - now
        if delay < 0:
            delay = chance * self._delay(age, None, chance=0.5)
        if self.not_before is not None:
            delay = max(delay, self.not_before - now)
        self._is_known = True  # whoever handed it over has seen it
        return max(0.0, min(delay, self.deadline - now))

    def on_result(
        self, result: Prediction | CometError, *, now: float, chance: float
    ) -> Prediction | CometError | float:
        """Judge one poll: return the finished prediction, the error that ends the wait, or seconds until the next poll.

        Trouble that may pass does not end the wait before its deadline: it says nothing about a prediction that is paid
        for. The clock is checked last, so that no result is lost to a wait that was itself interrupted.

        :param result: what the poll returned, or the error that it raised.
        :param chance: 0 to 1, spreads polls.
        """
        self.polls += 1
        retry_after = None
        if isinstance(result, Prediction):
            if result.is_terminal:
                return result
            if not self._has_server_age and (age := result.age) is not None:
                self._has_server_age, self.started_at = True, min(self.started_at, now - age)
            self._is_known, self._unknown_since = True, None
        elif result.retryable or (isinstance(result, PredictionNotFoundError) and self._may_become_visible(now)):
            retry_after = result.retry_after
        else:
            return result
        age = max(0.0, now - self.started_at)
        remaining = self.deadline - now
        if remaining <= 0:
            return self._timeout_error(result, age)
        delay = min(self._delay(age, retry_after, chance), remaining)
        self.last_polled_at, self.due = now, now + delay
        self.is_rate_limited = isinstance(result, RateLimitedError)
        self.not_before = self.due if retry_after or self.is_rate_limited else None
        return delay

    def hold(self, until: float) -> None:
        """Do not poll before ``until``, because another poll was answered by 429; but poll at the deadline."""
        self.not_before = max(until, self.not_before or until)
        self.due = max(self.due, min(until, self.deadline))

    def _delay(self, age: float, retry_after: float | None, chance: float) -> float:
        return next_delay(age, poke_interval=self.poke_interval, retry_after=retry_after, chance=chance)

    def _may_become_visible(self, now: float) -> bool:
        if self._unknown_since is None:
            self._unknown_since = now if self._is_known else self.started_at
        return now - self._unknown_since < NOT_FOUND_GRACE_SECONDS

    def _timeout_error(self, result: Prediction | CometError, age: float) -> PredictionTimeoutError:
        error = result if isinstance(result, CometError) else CometError()
        last = f"last poll: {error.summary}. {error.detail}"
        if isinstance(result, Prediction):
            last = f"last status {excerpt(result.status, WORD_CHARACTERS)!r}"
        return PredictionTimeoutError(
            f"{last}, {age:.0f} s after it was created",
            prediction_id=self.prediction_id,
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
