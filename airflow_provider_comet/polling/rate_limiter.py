"""How fast all looks over one connection may follow each other. Pure: times come in and go out, in seconds."""

from __future__ import annotations

LOOKS_AT_ONCE = 16
"""Requests that one task on a worker has on their way, at most."""
CREATES_PER_SECOND = 50.0
"""Creates that one task sends at most: CometAPI tells no limit. After a 429 it finds one by itself."""
SLOWEST = 0.5
"""Looks a second that no number of 429s undercuts: a cap that halves for ever would end in silence."""
RECOVERY = 300.0
"""Seconds in which the rate grows from nothing to the cap: slowly, so that several triggerers come to share one limit,
and by a fixed amount, so that rare 429s for another reason (CometAPI: "temporary saturation") do not wear it down."""
PAUSE = 5.0
"""How long a 429 without a hint stops all looks."""


class Pace:
    """Give every look its turn: evenly spread, none during a pause.

    One limit counts for all looks with one key, so one 429 speaks for all of them.

    :param per_second: the cap.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.paused_until = 0.0
        self.pauses = 0
        self._next = 0.0
        self._reduced_to = per_second
        self._reduced_at = float("-inf")
        self._grows_from = float("-inf")

    def rate(self, now: float) -> float:
        """Looks per second that are let through at present. It does not grow in a pause, which proves nothing."""
        grown = self.per_second * max(0.0, now - self._grows_from) / RECOVERY
        return min(self.per_second, self._reduced_to + grown)

    def turn(self, now: float, latest: float = float("inf")) -> float:
        """Take the next turn: when it is. If ``pauses`` has changed by then it is void: another one is to be taken.

        :param latest: a turn after that is of no use, so it is not taken: others would wait for nobody.
        """
        at = max(now, self._next, self.paused_until)
        if at <= latest:
            self._next = at + 1 / self.rate(at)
        return at

    def pause(self, now: float, until: float) -> None:
        """Let nothing through before ``until``; afterwards turns are spread again, those of the queue anew."""
        if until > max(now, self.paused_until):
            self.paused_until = until
            self.pauses += 1
            self._next = max(until, now + 1 / self.rate(now))

    def limited(self, *, sent: float, now: float, retry_after: float | None, chance: float) -> None:
        """Heed a 429: pause for as long as it says, and go on at half the rate.

        :param sent: when the look left. Of many that were on their way together, only the first one halves the rate.
        :param chance: 0 to 1; several triggerers that were stopped together do not come back together.
        """
        self._reduced_to = self.rate(now)  # what it has grown to; it grows on from there
        if sent >= self._reduced_at:
            self._reduced_to = max(min(SLOWEST, self.per_second), self._reduced_to / 2)
            self._reduced_at = now
        until = now + (PAUSE if retry_after is None else retry_after) * (1 + 0.1 * chance)
        self._grows_from = max(self._grows_from, until, self.paused_until)  # first: the pause's end goes by the rate
        self.pause(now, until)
