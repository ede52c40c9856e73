"""``api/pacing.py``: how fast all looks over one connection follow each other. Time is a number here."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.polling import rate_limiter as pacing
from airflow_provider_comet.polling.rate_limiter import Pace

CAPS = st.floats(0.1, 1000)
MOMENTS = st.floats(0, 1e5)
CHANCES = st.floats(0, 1)
HINTS = st.none() | st.floats(0, 3600)


def refuse(
    pace: Pace, now: float, *, sent: float | None = None, hint: float | None = None, chance: float = 0.0
) -> None:
    """A 429 has come."""
    pace.limited(sent=now if sent is None else sent, now=now, retry_after=hint, chance=chance)


def send(pace: Pace, now: float) -> float:
    """Wait for a turn as a client does, and return when it is: a turn that falls into a pause is void."""
    while True:
        at = pace.turn(now)
        assert at >= now
        if pace.paused_until <= at:
            return at
        now = at


def test_the_first_look_goes_at_once() -> None:
    """Without a queue there is no waiting."""
    assert Pace(50).turn(1000.0) == 1000.0


def test_turns_are_evenly_spread() -> None:
    """A hundred looks that are due together leave one after the other, at the cap."""
    pace = Pace(50)
    turns = [pace.turn(7.0) for _ in range(101)]
    assert turns[0] == 7.0
    assert turns[-1] == pytest.approx(9.0)
    assert all(later - earlier == pytest.approx(0.02) for earlier, later in itertools.pairwise(turns))


def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    """Who can't use its turn leaves the queue as it was: nobody waits for it."""
    pace = Pace(2)
    assert [pace.turn(0.0, latest=0.5) for _ in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert pace.turn(0.0) == 1.0
    pace.pause(0.0, until=100.0)
    assert [pace.turn(0.0, latest=99.0) for _ in range(5)] == [100.0] * 5
    assert pace.turn(0.0) == 100.0


def test_idle_time_is_not_saved_up() -> None:
    """After an hour of silence the cap is what it was: no burst makes up for it."""
    pace = Pace(10)
    pace.turn(0.0)
    turns = [pace.turn(3600.0) for _ in range(11)]
    assert turns[-1] - turns[0] == pytest.approx(1.0)


@given(CAPS, st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_never_more_than_the_cap(cap: float, arrivals: list[float]) -> None:
    """However looks arrive, there is at least the cap's interval between two of them, and none goes before its time."""
    pace, now, last = Pace(cap), 0.0, float("-inf")
    for after in arrivals:
        now += after
        at = pace.turn(now)
        assert at >= now
        assert at >= last + 1 / cap - 1e-9
        last = at


def test_a_cap_may_change() -> None:
    """A connection that was changed is heeded from the next turn on, also if nobody was ever refused."""
    pace = Pace(50)
    pace.turn(0.0)
    pace.per_second = 2.0
    turns = [pace.turn(1.0) for _ in range(3)]
    assert turns[2] - turns[1] == pytest.approx(0.5)
    pace.per_second = 100.0
    assert pace.rate(1.0) == 100.0


# A 429


@given(MOMENTS, st.floats(0, 3600), CHANCES)
def test_nothing_leaves_before_the_hint_has_passed(now: float, hint: float, chance: float) -> None:
    """All looks pause for as long as the server says, and a tenth longer at most."""
    pace = Pace(50)
    refuse(pace, now, hint=hint, chance=chance)
    at = send(pace, now)
    assert now + hint <= at <= now + hint * 1.1 + 0.05  # and the interval to the next turn


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_429_without_a_hint_pauses_for_some_seconds(chance: float) -> None:
    """A server that gives no time gets five seconds."""
    pace = Pace(50)
    refuse(pace, 100.0, chance=chance)
    assert 105.0 <= send(pace, 100.0) <= 105.51


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Of two hints the later end counts."""
    pace = Pace(50)
    refuse(pace, 0.0, hint=60)
    refuse(pace, 1.0, hint=1)
    assert send(pace, 1.0) >= 60.0


def test_after_a_pause_looks_come_spread_out() -> None:
    """Hundreds that were stopped do not come back in one moment, but at half the rate that was too much."""
    pace = Pace(50)
    refuse(pace, 0.0, hint=60)
    turns = [send(pace, 0.0) for _ in range(100)]
    assert all(later - earlier >= 1 / 26 for earlier, later in itertools.pairwise(turns[:20]))


def test_a_429_that_asks_for_no_pause_slows_down_at_once() -> None:
    """Also the first look after it keeps the distance of half the rate."""
    pace = Pace(50)
    pace.turn(0.0)
    refuse(pace, 0.01, hint=0.001)
    assert send(pace, 0.01) >= 0.05 - 1e-9


def test_each_429_halves_the_rate() -> None:
    """Four in a row leave a sixteenth."""
    pace = Pace(48)
    for moment, rate in ((0.0, 24), (0.1, 12), (0.2, 6), (0.3, 3)):
        refuse(pace, moment)
        assert pace.rate(moment) == pytest.approx(rate, abs=0.1)


def test_429s_of_looks_that_were_under_way_together_count_once() -> None:
    """Ten answers to looks that left before the first 429 came are one piece of news."""
    pace = Pace(48)
    for n in range(10):
        refuse(pace, 10.0 + n / 10, sent=9.5)
    assert pace.rate(10.9) == pytest.approx(24, abs=0.2)
    refuse(pace, 30.0, sent=29.0)
    assert pace.rate(30.0) < 15


def test_the_rate_grows_back_slowly() -> None:
    """Within five minutes of undisturbed looks, all of the cap is there again, and never more."""
    pace = Pace(50)
    refuse(pace, 0.0, hint=0)
    rates = [pace.rate(float(moment)) for moment in range(0, 700, 10)]
    assert rates[0] == 25
    assert all(later >= earlier for earlier, later in itertools.pairwise(rates))
    assert all(later - earlier <= 50 * 10 / 300 + 1e-9 for earlier, later in itertools.pairwise(rates))
    assert rates[10] < 50
    assert rates[31] == rates[-1] == 50


@pytest.mark.parametrize("hint", [10.0, 60.0, 299.0])
def test_the_rate_does_not_grow_while_nothing_is_sent(hint: float) -> None:
    """A pause is no proof that more is allowed: what follows it starts at half of what was too much."""
    pace = Pace(50)
    refuse(pace, 0.0, hint=hint)
    assert pace.rate(pace.paused_until) <= 25.5


@given(CAPS, st.lists(st.tuples(st.floats(0, 100), HINTS, CHANCES), max_size=60))
def test_the_rate_never_dies(cap: float, refusals: list[tuple[float, float | None, float]]) -> None:
    """No number of refusals leaves less than a look every two seconds, or the cap if that is less, or more than it."""
    pace, now = Pace(cap), 0.0
    for after, hint, chance in refusals:
        now += after
        refuse(pace, now, hint=hint, chance=chance)
        assert min(cap, 0.5) - 1e-9 <= pace.rate(now) <= cap


@pytest.mark.parametrize("minute", range(3))
def test_a_pause_of_another_reason_leaves_the_rate(minute: int) -> None:
    """A refused key stops everything for a while, and says nothing about how fast looks may come."""
    pace = Pace(50)
    pace.pause(0.0, 60.0 * minute)
    assert pace.rate(60.0 * minute) == 50
    assert send(pace, 0.0) == 60.0 * minute


ANSWERS = st.tuples(
    st.floats(0.001, 30),  # latency
    st.sampled_from(["running", "429", "5xx", "401", "not found", "dropped"]),
    HINTS,
    CHANCES,
)


@given(st.lists(ANSWERS, min_size=1, max_size=40), st.integers(1, 40), st.floats(0.5, 100))
def test_never_more_requests_than_the_time_allows(
    answers: list[tuple[float, str, float | None, float]], waiting: int, cap: float
) -> None:
    """Many waits that ask again at once, whatever the answers: no prefix holds more looks than its time times the cap
    and one, and none leaves while a pause is known."""
    pace = Pace(cap)
    script = itertools.cycle(answers)
    order = itertools.count()
    events: list[tuple[float, int, str, Any]] = [(0.0, next(order), "due", None) for _ in range(waiting)]
    sent: list[float] = []
    pauses: list[tuple[float, float]] = []
    queue = 0  # whoever is at its head takes turns
    while len(sent) < 200:
        now, _, kind, detail = heapq.heappop(events)
        if kind == "due":
            queue += 1
            if queue == 1:
                heapq.heappush(events, (pace.turn(now), next(order), "turn", len(pauses)))
        elif kind == "turn" and detail != len(pauses):  # there was news since it was taken
            heapq.heappush(events, (pace.turn(now), next(order), "turn", len(pauses)))
        elif kind == "turn":
            assert not any(begin < now < end - 1e-9 for begin, end in pauses)
            sent.append(now)
            queue -= 1
            if queue:
                heapq.heappush(events, (pace.turn(now), next(order), "turn", len(pauses)))
            answer = next(script)
            heapq.heappush(events, (now + answer[0], next(order), "answer", (now, *answer)))
        else:
            left, _, what, hint, chance = detail
            if what == "429":
                pace.limited(sent=left, now=now, retry_after=hint, chance=chance)
                pauses.append((now, now + (pacing.PAUSE if hint is None else hint)))
            elif what == "401":
                pace.pause(now, now + 60)
                pauses.append((now, now + 60))
            heapq.heappush(events, (now, next(order), "due", None))
    for earlier, later in itertools.pairwise(sent):
        assert later - earlier >= 1 / cap - 1e-6
    assert len(sent) <= (sent[-1] - sent[0]) * cap + 1 + 1e-6


# Several processes, one limit


class Limit:
    """A server that takes so many requests in each second, and refuses the others."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._taken: deque[float] = deque()

    def takes(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - 1:
            self._taken.popleft()
        if len(self._taken) < self.per_second:
            self._taken.append(now)
            return True
        return False


@pytest.mark.parametrize("hint", [None, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_three_processes_come_to_share_a_limit(hint: float | None, seed: int) -> None:
    """Three that always have something to ask, under a limit of ten a second: a few percent of their looks are refused,
    together they use about half of the limit or more, each gets its part, and none is without an answer for long."""
    luck, limit = random.Random(seed), Limit(10)
    paces = [Pace(50) for _ in range(3)]
    order = itertools.count()
    latency, seconds, settled = 0.2, 4000, 600
    events: list[tuple[float, int, str, int, Any]] = [(luck.random(), next(order), "turn", n, 0) for n in range(3)]
    heapq.heapify(events)
    good: list[list[float]] = [[], [], []]
    bad, news = 0, [0, 0, 0]
    while events[0][0] < seconds:
        now, _, kind, n, detail = heapq.heappop(events)
        pace = paces[n]
        if kind == "turn":
            if detail != news[n]:  # there was a 429 since this turn was taken
                heapq.heappush(events, (pace.turn(now), next(order), "turn", n, news[n]))
                continue
            is_good = limit.takes(now)
            heapq.heappush(events, (now + latency, next(order), "answer", n, (now, is_good)))
            heapq.heappush(events, (pace.turn(now), next(order), "turn", n, news[n]))
        else:
            sent, is_good = detail
            if is_good:
                good[n].append(now)
            else:
                bad += now > settled
                news[n] += 1
                pace.limited(sent=sent, now=now, retry_after=hint, chance=luck.random())
    late = [moment for one in good for moment in one if moment > settled]
    assert bad / (bad + len(late)) <= 0.06
    assert len(late) / (seconds - settled) >= 4.5
    assert min(map(len, good)) >= max(map(len, good)) / 2
    for one in good:
        assert max(later - earlier for earlier, later in itertools.pairwise(one)) <= 200
