"""When to ask again. Pure functions of ages and answers; all times are seconds.

The rule in two sentences: a prediction is looked at when it is a second old, and then each time its age has grown by a
fifth, at least every minute. What the server asks for (``Retry-After``) comes before that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from airflow_provider_comet.api.errors import CometError, PredictionNotFoundError, PredictionTimeoutError
from airflow_provider_comet.api.prediction import Prediction

FIRST_LOOK_AGE = 1.0
AGE_SHARE = 0.2
SHORTEST = 0.5
LONGEST = 60.0
JITTER = 0.1

NOT_FOUND_GRACE = 60.0
"""A new id may be unknown for a moment (CometAPI's Runway pages: "wait a few seconds and poll again")."""

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


@dataclass
class Wait:
    """One wait for one prediction: after each look, whether it has ended and how. The same in every mode.

    :param prediction_id: what is waited for.
    :param started_at: when the wait began, the nearest known time to the create; ages count from here.
    :param deadline: when to stop, after one more look.
    :param poke_interval: fixed seconds between looks; ``None``: adaptive.
    """

    prediction_id: str
    started_at: float
    deadline: float
    poke_interval: float | None = None
    _seen: str = field(default="", init=False)

    def after(self, look: Prediction | CometError, *, now: float, chance: float) -> Prediction | CometError | float:
        """Judge one look: the finished prediction, the error that ends the wait, or seconds until the next look.

        Trouble that may pass is waited out until the deadline: it says nothing about a prediction that is paid for. The
        clock comes last, so that a result which is there is never lost to a wait that was itself interrupted.
        """
        age = max(0.0, now - self.started_at)
        if isinstance(look, Prediction):
            if look.is_terminal:
                return look
            last_seen, retry_after = f"last status {look.status!r}", None
        elif look.retryable or (isinstance(look, PredictionNotFoundError) and age < NOT_FOUND_GRACE):
            last_seen, retry_after = f"last look: {look.summary}. {look.detail}", look.retry_after
        else:
            return look
        remaining = self.deadline - now
        if remaining <= 0:
            detail = f"{last_seen}; waited {age:.0f} s of {self.deadline - self.started_at:.0f} s"
            return PredictionTimeoutError(
                detail,
                prediction_id=self.prediction_id,
                status=None if isinstance(look, Prediction) else look.status,
                code=None if isinstance(look, Prediction) else look.code,
                request_id=None if isinstance(look, Prediction) else look.request_id,
            )
        delay = next_look(age, poke_interval=self.poke_interval, retry_after=retry_after, chance=chance)
        return min(delay, remaining)

    def news(self, look: Prediction | CometError) -> tuple[int, str] | None:
        """Log level and words for what changed since the last look; ``None`` if nothing did."""
        if isinstance(look, Prediction):
            seen, level = f"status {look.status!r}", logging.INFO
            text = f"Prediction {self.prediction_id}: {seen}"
            if not look.has_known_status:
                level, text = logging.WARNING, f"{text} is unknown here; it counts as still running"
        else:  # the request id in its words is another one each time
            seen, level, text = f"{type(look).__name__} {look.status}", logging.WARNING, str(look)
        if seen == self._seen:
            return None
        self._seen = seen
        return level, text
