"""How fast all requests over one connection may follow each other. Pure: times come in and go out, in seconds.

Additive increase, multiplicative decrease (AIMD), as in TCP: a 429 halves the rate, and time lets it grow again.
"""

from __future__ import annotations

CONCURRENT_POLLS = 16
"""Requests that one task on a worker sends at the same time, at most."""
CREATES_PER_SECOND = 50.0
"""Creates that one task sends at most. CometAPI names no limit: after a 429 the limiter finds the limit by itself."""
MIN_PER_SECOND = 0.5
"""Requests a second that no number of 429s undercuts: a rate that halves for ever would end in silence."""
RECOVERY_SECONDS = 300.0
"""In which the rate grows from nothing to the cap: slowly, so that several triggerers come to share one limit, and by a
fixed amount, so that rare 429s for another reason (CometAPI: "temporary saturation") do not wear it down."""
DEFAULT_PAUSE_SECONDS = 5.0
"""How long a 429 without ``Retry-After`` stops all requests."""


class RateLimiter:
    """Gives every request its slot: evenly spread, and none during a pause.

    One limit counts for all requests with one key, so one 429 speaks for all of them.

    :param per_second: the cap.
    :ivar paused_until: when the newest pause ends.
    :ivar pauses: how many pauses there were. A slot that was acquired before a pause is void.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.paused_until = 0.0
        self.pauses = 0
        self._next_slot_at = 0.0
        self._reduced_to = per_second
        self._reduced_at = float("-inf")
        self._grows_from = float("-inf")

    def rate(self, now: float) -> float:
        """Return the requests per second that pass at present. The rate does not grow in a pause: it proves nothing."""
        grown = self.per_second * max(0.0, now - self._grows_from) / RECOVERY_SECONDS
        return min(self.per_second, self._reduced_to + grown)

    def acquire(self, now: float, latest: float = float("inf")) -> float:
        """Take the next slot, and return its time. It is void if ``pauses`` has changed by then: acquire again.

        :param latest: a slot after this time is of no use. It is not taken, so that nobody waits behind it.
        """
        slot_at = max(now, self._next_slot_at, self.paused_until)
        if slot_at <= latest:
            self._next_slot_at = slot_at + 1 / self.rate(slot_at)
        return slot_at

    def pause(self, now: float, until: float) -> None:
        """Let nothing through before ``until``; from then on slots are spread again."""
        if until > max(now, self.paused_until):
            self.paused_until = until
            self.pauses += 1
            self._next_slot_at = max(until, now + 1 / self.rate(now))

    def on_rate_limited(self, *, sent_at: float, now: float, retry_after: float | None, chance: float) -> None:
        """Pause after a 429 for as long as it says, and continue at half the rate.

        :param sent_at: when the request left. Of many that were sent together only the first halves the rate.
        :param retry_after: seconds that the server asked for.
        :param chance: 0 to 1, prolongs the pause, so that several triggerers do not return together.
        """
        self._reduced_to = self.rate(now)  # what the rate has grown to; it grows on from there
        if sent_at >= self._reduced_at:
            self._reduced_to = max(min(MIN_PER_SECOND, self.per_second), self._reduced_to / 2)
            self._reduced_at = now
        until = now + (DEFAULT_PAUSE_SECONDS if retry_after is None else retry_after) * (1 + 0.1 * chance)
        self._grows_from = max(self._grows_from, until, self.paused_until)  # first: the pause's end goes by the rate
        self.pause(now, until)
