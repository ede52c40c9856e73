"""``Wait``: when the wait for one prediction ends, and how. Pure: results and times come in."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_comet.api.errors import (
    APIError,
    AuthenticationError,
    CometError,
    PermissionDeniedError,
    PredictionNotFoundError,
    PredictionTimeoutError,
    RateLimitedError,
)
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.schedule import (
    FIRST_POLL_AGE,
    MISSING_OUTPUT_POLLS,
    MISSING_OUTPUT_SECONDS,
    NOT_FOUND_GRACE_SECONDS,
    ODD_POLLS,
    ODD_SECONDS,
    next_delay,
)


def is_odd(result: Prediction | CometError) -> bool:
    """Return whether a poll was answered without a status, and not by "later" or by a refusal of the key.

    A web page, a redirect, a 400 or a 404: of a prediction that exists it says nothing.
    """
    is_answer = isinstance(result, APIError) and not result.retryable
    return is_answer and not isinstance(result, (AuthenticationError, PermissionDeniedError))


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
    :param is_known: whether the API is known to have this prediction: it has named the id, or described it to whoever
        polled before. Then a single odd answer does not end the wait.
    :ivar due: when the next poll is due.
    :ivar polls: how many polls were made.
    :ivar is_missing: whether the last poll did not find the prediction, which nobody has seen before.
    :ivar is_rate_limited: whether the last poll was answered by 429, which counts for all polls with this key.
    """

    prediction_id: str
    started_at: float
    deadline: float
    poke_interval: float | None = None
    last_polled_at: float | None = None
    not_before: float | None = None
    is_known: bool = False
    is_missing: bool = field(default=False, init=False)
    is_rate_limited: bool = field(default=False, init=False)
    due: float = field(default=0.0, init=False)
    polls: int = field(default=0, init=False)
    _has_server_age: bool = field(default=False, init=False)
    _kind: object = field(default=None, init=False)
    _kind_since: float = field(default=0.0, init=False)
    _kind_polls: int = field(default=0, init=False)

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
        # A triggerer that has stopped has polled it before; and if not, an error is only noticed a minute later.
        self.is_known = self.is_known or age >= ODD_SECONDS
        return max(0.0, min(delay, self.deadline - now))

    def on_result(
        self, result: Prediction | CometError, *, now: float, chance: float, sent_at: float | None = None
    ) -> Prediction | CometError | float:
        """Judge one poll: return the finished prediction, the error that ends the wait, or seconds until the next poll.

        Trouble that may pass does not end the wait before its deadline: it says nothing about a prediction that is paid
        for. Nor does an odd answer about a known prediction, unless all polls of a minute had the same. The clock is
        checked last, so that no result is lost to a wait that was itself interrupted. A poll that failed for now is no
        last poll if it was sent before the deadline.

        :param result: what the poll returned, or the error that it raised.
        :param sent_at: when the poll was sent; default: now.
        :param chance: 0 to 1, spreads polls.
        """
        self.polls += 1
        retry_after, self.is_missing = None, False
        if isinstance(result, Prediction):
            if result.is_terminal:
                return result
            if not self._has_server_age and (age := result.age) is not None:
                self._has_server_age, self.started_at = True, min(self.started_at, now - age)
            self.is_known = True
            if result.missing_output is None:
                self._kind = None
            elif self._stays("missing output", now, MISSING_OUTPUT_POLLS, MISSING_OUTPUT_SECONDS, now >= self.deadline):
                return result.without_output()
        elif self._is_waited_out(result, now):
            retry_after = result.retry_after
        else:
            return result
        age = max(0.0, now - self.started_at)
        remaining = self.deadline - now
        if remaining <= 0:
            is_last = isinstance(result, Prediction) or sent_at is None or sent_at >= self.deadline
            if is_last:
                return self._timeout_error(result, age)
        delay = max(0.0, min(self._delay(age, retry_after, chance), remaining))
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

    def _is_waited_out(self, error: CometError, now: float) -> bool:
        if error.retryable:
            self._kind = None
            return True
        if not is_odd(error):
            return False
        if not self.is_known:
            self.is_missing = isinstance(error, PredictionNotFoundError)
            return self.is_missing and now - self.started_at < NOT_FOUND_GRACE_SECONDS
        return not self._stays((type(error), error.status), now, ODD_POLLS, ODD_SECONDS)

    def _stays(self, kind: object, now: float, polls: int, seconds: float, is_over: bool = False) -> bool:
        """Return whether so many polls in a row had this kind of answer, over so many seconds or until the end."""
        if kind != self._kind:
            self._kind, self._kind_since, self._kind_polls = kind, now, 0
        self._kind_polls += 1
        return self._kind_polls >= polls and (is_over or now - self._kind_since >= seconds)

    def _timeout_error(self, result: Prediction | CometError, age: float) -> PredictionTimeoutError:
        error = result if isinstance(result, CometError) else CometError()
        last = f"last poll: {error.summary}. {error.detail}"
        if isinstance(result, Prediction):
            last = result.described_status
        return PredictionTimeoutError(
            f"{last}, {age:.0f} s after it was created",
            prediction_id=self.prediction_id,
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        )
