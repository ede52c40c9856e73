"""How long to pause between two attempts of the same call. Pure: the caller brings the time and the chance."""

from __future__ import annotations

RETRY_BUDGET_SECONDS = 120.0
"""Seconds for which a failed request is repeated that had no effect. After that, Airflow's ``retries`` decide."""
FIRST_PAUSE_SECONDS = 1.0
JITTER = 0.1
"""A pause that a server asked for is prolonged by up to this share, so that many clients do not return together."""


class Backoff:
    """Decides when a failed call may be tried again, until a budget of time is used up.

    Pauses double from ``first_pause`` to ``longest_pause`` seconds. Each is shortened by up to half, by chance, so that
    clients that failed together do not return together. A pause that the server asked for is never undercut.

    :param budget: seconds in which the last attempt has to begin.
    :param first_pause: seconds after the first failure.
    :param longest_pause: seconds. Equal to ``first_pause``: all pauses are of this length.
    :param started_at: when the budget begins; by default at the first failure.
    """

    def __init__(
        self,
        budget: float,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = 30.0,
        started_at: float | None = None,
    ) -> None:
        self._budget = budget
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._started_at = started_at
        self._failures = 0

    def next_pause(self, now: float, *, chance: float = 1.0, retry_after: float | None = None) -> float | None:
        """Count a failure, and return the seconds before the next attempt; ``None``: the budget is used up.

        :param now: the time of the failure, by the clock of ``started_at``.
        :param chance: 0 to 1; 1 shortens nothing.
        :param retry_after: seconds that the server asked for.
        """
        if self._started_at is None:
            self._started_at = now
        # The exponent is bounded: a call that is repeated for days must not overflow a float.
        pause = min(self._longest_pause, self._first_pause * 2.0 ** min(self._failures, 16)) * (0.5 + chance / 2)
        pause = max(pause, (retry_after or 0.0) * (1 + JITTER * chance))
        self._failures += 1
        return pause if now - self._started_at + pause <= self._budget else None

    def reset(self) -> None:
        """Begin anew, because there was progress: the next failure counts as the first."""
        self._failures, self._started_at = 0, None
