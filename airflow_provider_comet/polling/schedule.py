"""When to ask again. Pure functions of ages and answers; all times are seconds.

The rule in two sentences: a prediction is looked at when it is a second old, and then each time its age has grown by a
fifth, at least every minute. What the server asks for (``Retry-After``) comes before that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_provider_comet.api.errors import (
    CometError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    RateLimitedError,
)
from airflow_provider_comet.api.prediction import Prediction

FIRST_LOOK_AGE = 1.0
AGE_SHARE = 0.2
SHORTEST = 0.5
LONGEST = 60.0
JITTER = 0.1

NOT_FOUND_GRACE = 60.0
"""A new id may be unknown for a moment (CometAPI's Runway pages: "wait a few seconds and poll again"): the time counts
from its create. One that was seen is not unknown because of a single answer: it counts from the first of them."""

HEARTBEAT = 300.0
"""How often a wait without news says that it is alive."""

PATIENCE = 120.0
"""How long one call repeats a request that certainly had no effect, before it leaves the rest to Airflow's retries."""


def next_look(age: float, *, poke_interval: float | None, retry_after: float | None, chance: float) -> float:
    """Seconds until the next look.

    :param age: of the prediction.
    :param poke_interval: a fixed interval instead of the adaptive one; under half a second counts as that.
    :param retry_after: what the server asked for; never undercut.
    :param chance: 0 to 1, spreads waits that started together by up to ``JITTER`` to either side.
    """
    if poke_interval is not None:
        delay = poke_interval
    elif age < FIRST_LOOK_AGE:
        delay = FIRST_LOOK_AGE - age
    else:
        delay = min(LONGEST, AGE_SHARE * age)
    delay = max(SHORTEST, delay)
    delay *= 1 + JITTER * (2 * chance - 1)
    return max(delay, (retry_after or 0.0) * (1 + JITTER * chance))


def retry_delay(error: CometError, *, attempt: int, elapsed: float, chance: float) -> float | None:
    """Seconds before the same request may be sent again; ``None``: give up.

    A create is repeated by the same rule as a look: after an answer that leaves open whether it was accepted the error
    is an ``AmbiguousSubmissionError``, which is not retryable.

    :param attempt: 1 after the first failure.
    :param elapsed: since the first attempt.
    """
    if not error.retryable:
        return None
    delay = min(30.0, 2.0 ** min(attempt - 1, 5)) * (0.5 + chance / 2)
    delay = max(delay, (error.retry_after or 0.0) * (1 + JITTER * chance))
    return delay if elapsed + delay <= PATIENCE else None


def find_deadline(
    timeout: float, execution_timeout: timedelta | None, *, started_at: float = 0.0, attempt_started_at: float = 0.0
) -> tuple[float, bool]:
    """Return when a wait has to end, and whether that is its task's ``execution_timeout``, which Airflow retries.

    :param timeout: seconds from ``started_at``, when the wait began. It decides if both end together.
    :param execution_timeout: from ``attempt_started_at``. Airflow does not heed it while a task is deferred. One of
        zero is none, as for Airflow.
    """
    wait_ends = started_at + timeout
    attempt_ends = float("inf")
    if execution_timeout:
        attempt_ends = attempt_started_at + execution_timeout.total_seconds()
    return min(wait_ends, attempt_ends), attempt_ends < wait_ends


@dataclass
class Wait:
    """One wait for one prediction: after each look, whether it has ended and how. The same in every mode.

    :param prediction_id: what is waited for.
    :param started_at: when the prediction was created, as far as known: ages count from here. A look that tells its age
        by the server's own clocks sets it back.
    :param deadline: when to stop, after one more look.
    :param poke_interval: fixed seconds between looks; ``None``: adaptive.
    :param looked_at: when somebody else looked last, before this wait was taken over.
    :param not_before: until when the server asked for no look.
    :ivar is_limited: whether the last look was one too many (429), which counts for all looks with this key.
    """

    prediction_id: str
    started_at: float
    deadline: float
    poke_interval: float | None = None
    looked_at: float | None = None
    not_before: float | None = None
    is_limited: bool = field(default=False, init=False)
    due: float = field(default=0.0, init=False)
    _seen: str = field(default="", init=False)
    _said_at: float = field(default=0.0, init=False)
    _looks: int = field(default=0, init=False)
    _is_aged: bool = field(default=False, init=False)
    _is_known: bool = field(default=False, init=False)
    _unknown_since: float | None = field(default=None, init=False)

    def first_delay(self, now: float, chance: float) -> float:
        """Seconds until the first look of whoever takes this wait over.

        The interval that was going on is kept. If it is over (the triggerer was away), the first looks are spread over
        one interval: thousands of waits start together then. Past the deadline there is no reason to wait any more.
        """
        age = now - self.started_at
        usual = {"poke_interval": self.poke_interval, "retry_after": None}
        delay = 0.0 if self.looked_at is None and age < FIRST_LOOK_AGE else -1.0
        if self.looked_at is not None:
            delay = self.looked_at + next_look(self.looked_at - self.started_at, **usual, chance=chance) - now
        if delay < 0:
            delay = chance * next_look(age, **usual, chance=0.5)
        if self.not_before is not None:
            delay = max(delay, self.not_before - now)
        self._is_known = True  # somebody has seen it
        return max(0.0, min(delay, self.deadline - now))

    def after(self, look: Prediction | CometError, *, now: float, chance: float) -> Prediction | CometError | float:
        """Judge one look: the finished prediction, the error that ends the wait, or seconds until the next look.

        Trouble that may pass is waited out until the deadline: it says nothing about a prediction that is paid for. The
        clock comes last, so that a result which is there is never lost to a wait that was itself interrupted.
        """
        self._looks += 1
        if isinstance(look, Prediction):
            if look.is_terminal:
                return look
            if not self._is_aged and (known := look.age) is not None:
                self._is_aged, self.started_at = True, min(self.started_at, now - known)
            self._is_known, self._unknown_since = True, None
            last_seen, retry_after = f"last status {look.status!r}", None
        elif look.retryable or (isinstance(look, PredictionNotFoundError) and self._may_be_known(now)):
            last_seen, retry_after = f"last look: {look.summary}. {look.detail}", look.retry_after
        else:
            return look
        age = max(0.0, now - self.started_at)
        remaining = self.deadline - now
        if remaining <= 0:
            return PredictionTimeoutError(
                f"{last_seen}, {age:.0f} s after it was created",
                prediction_id=self.prediction_id,
                status=None if isinstance(look, Prediction) else look.status,
                code=None if isinstance(look, Prediction) else look.code,
                request_id=None if isinstance(look, Prediction) else look.request_id,
            )
        delay = next_look(age, poke_interval=self.poke_interval, retry_after=retry_after, chance=chance)
        delay = min(delay, remaining)
        self.looked_at, self.due = now, now + delay
        self.is_limited = isinstance(look, RateLimitedError)
        self.not_before = self.due if retry_after or self.is_limited else None
        return delay

    def hold(self, until: float) -> None:
        """Do not look before that, because another look was one too many; but at the deadline."""
        self.not_before = max(until, self.not_before or until)
        self.due = max(self.due, min(until, self.deadline))

    def _may_be_known(self, now: float) -> bool:
        if self._unknown_since is None:
            self._unknown_since = now if self._is_known else self.started_at
        return now - self._unknown_since < NOT_FOUND_GRACE

    def news(self, look: Prediction | CometError, now: float) -> tuple[int, str] | None:
        """Log level and words for what changed since the last look, or a sign of life every few minutes."""
        if isinstance(look, Prediction):
            seen, level = f"status {look.status!r}", logging.INFO
            text = f"Prediction {self.prediction_id}: {seen}"
            if not look.has_known_status:
                level, text = logging.WARNING, f"{text} is unknown here; it counts as still running"
        else:  # the request id in its words is another one each time
            seen, level, text = f"{type(look).__name__} {look.status}", logging.WARNING, str(look)
        if seen == self._seen:
            return self.sign_of_life(now)
        self._seen, self._said_at = seen, now
        return level, text

    def sign_of_life(self, now: float) -> tuple[int, str] | None:
        """What a wait says that goes on without news, if it has said nothing for some minutes."""
        if now - self._said_at < HEARTBEAT:
            return None
        self._said_at = now
        return logging.INFO, (
            f"Prediction {self.prediction_id}: still {self._seen} after {now - self.started_at:.0f} s and "
            f"{self._looks} looks; the timeout comes in {max(0.0, self.deadline - now):.0f} s"
        )
