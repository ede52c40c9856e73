"""``polling/rate_limiter.py``: how fast all requests over one connection follow each other. Time is a number here."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.polling.rate_limiter import DEFAULT_PAUSE_SECONDS, RateLimiter

CAPS = st.floats(0.1, 1000)
MOMENTS = st.floats(0, 1e5)
CHANCES = st.floats(0, 1)
HINTS = st.none() | st.floats(0, 3600)


def refuse(
    limiter: RateLimiter, now: float, *, sent_at: float | None = None, hint: float | None = None, chance: float = 0.0
) -> None:
    """Report a 429 to the limiter."""
    limiter.on_rate_limited(sent_at=now if sent_at is None else sent_at, now=now, retry_after=hint, chance=chance)


def send(limiter: RateLimiter, now: float) -> float:
    """Wait for a slot as a client does, and return its time: a slot that falls into a pause is void."""
    while True:
        slot_at = limiter.acquire(now)
        assert slot_at >= now
        if limiter.paused_until <= slot_at:
            return slot_at
        now = slot_at


def test_the_first_request_is_sent_at_once() -> None:
    """Without a queue there is no delay."""
    assert RateLimiter(50).acquire(1000.0) == 1000.0


def test_slots_are_evenly_spread() -> None:
    """A hundred requests that are due together leave one after the other, at the cap."""
    limiter = RateLimiter(50)
    slots = [limiter.acquire(7.0) for _ in range(101)]
    assert slots[0] == 7.0
    assert slots[-1] == pytest.approx(9.0)
    assert all(later - earlier == pytest.approx(0.02) for earlier, later in itertools.pairwise(slots))


def test_a_slot_that_comes_too_late_is_not_taken() -> None:
    """A request that can't use its slot leaves the queue as it was: no other request waits behind it."""
    limiter = RateLimiter(2)
    assert [limiter.acquire(0.0, latest=0.5) for _ in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert limiter.acquire(0.0) == 1.0
    limiter.pause(0.0, until=100.0)
    assert [limiter.acquire(0.0, latest=99.0) for _ in range(5)] == [100.0] * 5
    assert limiter.acquire(0.0) == 100.0


def test_idle_time_is_not_saved_up() -> None:
    """After an hour without requests the cap is the same: no burst makes up for it."""
    limiter = RateLimiter(10)
    limiter.acquire(0.0)
    slots = [limiter.acquire(3600.0) for _ in range(11)]
    assert slots[-1] - slots[0] == pytest.approx(1.0)


@given(CAPS, st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_never_more_than_the_cap(cap: float, arrivals: list[float]) -> None:
    """However requests arrive, the cap's interval lies between any two of them, and none leaves before its time."""
    limiter, now, last = RateLimiter(cap), 0.0, float("-inf")
    for after in arrivals:
        now += after
        slot_at = limiter.acquire(now)
        assert slot_at >= now
        assert slot_at >= last + 1 / cap - 1e-9
        last = slot_at


def test_a_cap_may_change() -> None:
    """A changed connection counts from the next slot on, also if no request was ever refused."""
    limiter = RateLimiter(50)
    limiter.acquire(0.0)
    limiter.per_second = 2.0
    slots = [limiter.acquire(1.0) for _ in range(3)]
    assert slots[2] - slots[1] == pytest.approx(0.5)
    limiter.per_second = 100.0
    assert limiter.rate(1.0) == 100.0


# A 429


@given(MOMENTS, st.floats(0, 3600), CHANCES)
def test_nothing_leaves_before_the_hint_has_passed(now: float, hint: float, chance: float) -> None:
    """All requests pause for as long as the server says, and a tenth longer at most."""
    limiter = RateLimiter(50)
    refuse(limiter, now, hint=hint, chance=chance)
    sent_at = send(limiter, now)
    assert now + hint <= sent_at <= now + hint * 1.1 + 0.05  # and the interval to the next slot


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_429_without_a_hint_pauses_for_some_seconds(chance: float) -> None:
    """Without ``Retry-After`` the pause is five seconds."""
    limiter = RateLimiter(50)
    refuse(limiter, 100.0, chance=chance)
    assert 105.0 <= send(limiter, 100.0) <= 105.51


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Of two hints the hint that ends later counts."""
    limiter = RateLimiter(50)
    refuse(limiter, 0.0, hint=60)
    refuse(limiter, 1.0, hint=1)
    assert send(limiter, 1.0) >= 60.0


def test_after_a_pause_requests_are_spread() -> None:
    """Hundreds of stopped requests do not return in one moment, but at half the rate that was too much."""
    limiter = RateLimiter(50)
    refuse(limiter, 0.0, hint=60)
    slots = [send(limiter, 0.0) for _ in range(100)]
    assert all(later - earlier >= 1 / 26 for earlier, later in itertools.pairwise(slots[:20]))


def test_a_429_that_asks_for_no_pause_slows_down_at_once() -> None:
    """Also the first request after it keeps the distance of half the rate."""
    limiter = RateLimiter(50)
    limiter.acquire(0.0)
    refuse(limiter, 0.01, hint=0.001)
    assert send(limiter, 0.01) >= 0.05 - 1e-9


def test_each_429_halves_the_rate() -> None:
    """Four in a row leave a sixteenth."""
    limiter = RateLimiter(48)
    for moment, rate in ((0.0, 24), (0.1, 12), (0.2, 6), (0.3, 3)):
        refuse(limiter, moment)
        assert limiter.rate(moment) == pytest.approx(rate, abs=0.1)


def test_429s_of_requests_that_were_sent_together_count_once() -> None:
    """Ten refusals of requests that left before the first 429 came halve the rate once."""
    limiter = RateLimiter(48)
    for n in range(10):
        refuse(limiter, 10.0 + n / 10, sent_at=9.5)
    assert limiter.rate(10.9) == pytest.approx(24, abs=0.2)
    refuse(limiter, 30.0, sent_at=29.0)
    assert limiter.rate(30.0) < 15


def test_the_rate_grows_back_slowly() -> None:
    """Within five minutes without a 429, the rate is back at the cap, and never above it."""
    limiter = RateLimiter(50)
    refuse(limiter, 0.0, hint=0)
    rates = [limiter.rate(float(moment)) for moment in range(0, 700, 10)]
    assert rates[0] == 25
    assert all(later >= earlier for earlier, later in itertools.pairwise(rates))
    assert all(later - earlier <= 50 * 10 / 300 + 1e-9 for earlier, later in itertools.pairwise(rates))
    assert rates[10] < 50
    assert rates[31] == rates[-1] == 50


@pytest.mark.parametrize("hint", [10.0, 60.0, 299.0])
def test_the_rate_does_not_grow_while_nothing_is_sent(hint: float) -> None:
    """A pause is no proof that more is allowed: after it the rate starts at half of the rate that was too much."""
    limiter = RateLimiter(50)
    refuse(limiter, 0.0, hint=hint)
    assert limiter.rate(limiter.paused_until) <= 25.5


@given(CAPS, st.lists(st.tuples(st.floats(0, 100), HINTS, CHANCES), max_size=60))
def test_the_rate_never_dies(cap: float, refusals: list[tuple[float, float | None, float]]) -> None:
    """No number of refusals leaves less than a request every two seconds (or the cap if that is less), or more than the
    cap."""
    limiter, now = RateLimiter(cap), 0.0
    for after, hint, chance in refusals:
        now += after
        refuse(limiter, now, hint=hint, chance=chance)
        assert min(cap, 0.5) - 1e-9 <= limiter.rate(now) <= cap


@pytest.mark.parametrize("minute", range(3))
def test_a_pause_of_another_reason_leaves_the_rate(minute: int) -> None:
    """A refused key stops all requests for a while, and says nothing about how fast they may follow each other."""
    limiter = RateLimiter(50)
    limiter.pause(0.0, 60.0 * minute)
    assert limiter.rate(60.0 * minute) == 50
    assert send(limiter, 0.0) == 60.0 * minute


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
    """Many waits poll again at once, whatever the answers: no prefix holds more requests than its time times the cap,
    and one, and none leaves while a pause is known."""
    limiter = RateLimiter(cap)
    script = itertools.cycle(answers)
    order = itertools.count()
    events: list[tuple[float, int, str, Any]] = [(0.0, next(order), "due", None) for _ in range(waiting)]
    sent: list[float] = []
    pauses: list[tuple[float, float]] = []
    queue = 0  # only the request at its head waits for a slot
    while len(sent) < 200:
        now, _, kind, detail = heapq.heappop(events)
        if kind == "due":
            queue += 1
            if queue == 1:
                heapq.heappush(events, (limiter.acquire(now), next(order), "slot", len(pauses)))
        elif kind == "slot" and detail != len(pauses):  # there was a pause since the slot was acquired
            heapq.heappush(events, (limiter.acquire(now), next(order), "slot", len(pauses)))
        elif kind == "slot":
            assert not any(begin < now < end - 1e-9 for begin, end in pauses)
            sent.append(now)
            queue -= 1
            if queue:
                heapq.heappush(events, (limiter.acquire(now), next(order), "slot", len(pauses)))
            answer = next(script)
            heapq.heappush(events, (now + answer[0], next(order), "answer", (now, *answer)))
        else:
            sent_at, _, what, hint, chance = detail
            if what == "429":
                limiter.on_rate_limited(sent_at=sent_at, now=now, retry_after=hint, chance=chance)
                pauses.append((now, now + (DEFAULT_PAUSE_SECONDS if hint is None else hint)))
            elif what == "401":
                limiter.pause(now, now + 60)
                pauses.append((now, now + 60))
            heapq.heappush(events, (now, next(order), "due", None))
    for earlier, later in itertools.pairwise(sent):
        assert later - earlier >= 1 / cap - 1e-6
    assert len(sent) <= (sent[-1] - sent[0]) * cap + 1 + 1e-6


# Several processes, one limit


class Limit:
    """A server that accepts so many requests in each second, and refuses the others."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._accepted_at: deque[float] = deque()

    def accepts(self, now: float) -> bool:
        while self._accepted_at and self._accepted_at[0] <= now - 1:
            self._accepted_at.popleft()
        if len(self._accepted_at) < self.per_second:
            self._accepted_at.append(now)
            return True
        return False


@pytest.mark.parametrize("hint", [None, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_three_processes_come_to_share_a_limit(hint: float | None, seed: int) -> None:
    """Three processes that always poll, under a limit of ten requests a second: a few percent of their requests are
    refused, together they use about half of the limit or more, each gets its part, and none starves."""
    luck, limit = random.Random(seed), Limit(10)
    limiters = [RateLimiter(50) for _ in range(3)]
    order = itertools.count()
    latency, seconds, settled = 0.2, 4000, 600
    events: list[tuple[float, int, str, int, Any]] = [(luck.random(), next(order), "slot", n, 0) for n in range(3)]
    heapq.heapify(events)
    good: list[list[float]] = [[], [], []]
    bad, refusals = 0, [0, 0, 0]
    while events[0][0] < seconds:
        now, _, kind, n, detail = heapq.heappop(events)
        limiter = limiters[n]
        if kind == "slot":
            if detail != refusals[n]:  # there was a 429 since this slot was acquired
                heapq.heappush(events, (limiter.acquire(now), next(order), "slot", n, refusals[n]))
                continue
            is_good = limit.accepts(now)
            heapq.heappush(events, (now + latency, next(order), "answer", n, (now, is_good)))
            heapq.heappush(events, (limiter.acquire(now), next(order), "slot", n, refusals[n]))
        else:
            sent, is_good = detail
            if is_good:
                good[n].append(now)
            else:
                bad += now > settled
                refusals[n] += 1
                limiter.on_rate_limited(sent_at=sent, now=now, retry_after=hint, chance=luck.random())
    late = [moment for moments in good for moment in moments if moment > settled]
    assert bad / (bad + len(late)) <= 0.06
    assert len(late) / (seconds - settled) >= 4.5
    assert min(map(len, good)) >= max(map(len, good)) / 2
    for moments in good:
        assert max(later - earlier for earlier, later in itertools.pairwise(moments)) <= 200
