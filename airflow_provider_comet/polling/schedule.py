"""When to poll again. Pure functions of ages; all times are seconds.

The rule in two sentences: a prediction is polled when it is a second old, and then each time its age has grown by a
fifth, at least every minute. What the server asks for (``Retry-After``) comes before that.
"""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_comet.polling.backoff import JITTER

FIRST_POLL_AGE = 1.0
AGE_SHARE = 0.2
SHORTEST_DELAY = 0.5
LONGEST_DELAY = 60.0

NOT_FOUND_GRACE_SECONDS = 60.0
"""How long after its create a 404 is taken for an id that is not visible yet (CometAPI's Runway pages: "wait a few
seconds and poll again")."""

ODD_SECONDS = 60.0
ODD_POLLS = 3
"""An answer without a status ends the wait for a known prediction if all polls of so many seconds, at least so many,
had the same kind. A maintenance page, a redirect to a login page or a stray 404 comes and goes."""

MISSING_OUTPUT_SECONDS = 10.0
MISSING_OUTPUT_POLLS = 4
"""A task that says it has succeeded gets three more polls, over so many seconds, to bring its output."""

HEARTBEAT_SECONDS = 300.0
"""How often a wait without changes writes a line to the log."""


def next_delay(age: float, *, poke_interval: float | None, retry_after: float | None, chance: float) -> float:
    """Return the seconds until the next poll.

    :param age: of the prediction.
    :param poke_interval: a fixed interval instead of the adaptive one; less than half a second counts as that.
    :param retry_after: what the server asked for; never undercut.
    :param chance: 0 to 1, spreads waits that started together by up to ``JITTER`` to either side.
    """
    if poke_interval is not None:
        delay = poke_interval
    elif age < FIRST_POLL_AGE:
        delay = FIRST_POLL_AGE - age
    else:
        delay = min(LONGEST_DELAY, AGE_SHARE * age)
    delay = max(SHORTEST_DELAY, delay)
    delay *= 1 + JITTER * (2 * chance - 1)
    return max(delay, (retry_after or 0.0) * (1 + JITTER * chance))


def find_deadline(
    timeout: float, execution_timeout: timedelta | None, *, started_at: float = 0.0, attempt_started_at: float = 0.0
) -> tuple[float, bool]:
    """Return when a wait has to end, and whether that is its task's ``execution_timeout``, which Airflow retries.

    :param timeout: seconds from ``started_at``, when the wait began. If both end together, this timeout counts.
    :param execution_timeout: counts from ``attempt_started_at``; Airflow does not apply it while a task is deferred.
        Zero means none, as for Airflow.
    """
    wait_ends = started_at + timeout
    attempt_ends = float("inf")
    if execution_timeout:
        attempt_ends = attempt_started_at + execution_timeout.total_seconds()
    return min(wait_ends, attempt_ends), attempt_ends < wait_ends
