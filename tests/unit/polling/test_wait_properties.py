"""``Wait`` and ``Waits``: what holds for any sequence of answers, restarts and clocks."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.backoff import JITTER
from airflow_provider_comet.polling.schedule import SHORTEST_DELAY, next_delay
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits
from tests.unit.polling.test_wait import FATAL, FINISHED, ID, RUNNING, TRANSIENT, Result

FLOOR = SHORTEST_DELAY * (1 - JITTER)
CHANCES = st.floats(0, 1)


def running(status: str = "processing", age: float | None = None) -> Prediction:
    """Return a running prediction; with an age, by the server's own clocks."""
    if age is None:
        return Prediction(ID, status)
    created = "2026-03-01T12:00:00.000Z"
    return Prediction(ID, status, created_at=created, seen_at=formatdate(1772366400 + age, usegmt=True))


RESULTS: st.SearchStrategy[Result] = st.one_of(
    st.sampled_from([running("starting"), running(), running("Teleporting")]),
    st.floats(0, 1e5).map(lambda age: running(age=round(age))),
    (st.none() | st.floats(0, 900)).map(lambda hint: e.RateLimitedError("slow", status=429, retry_after=hint)),
    st.sampled_from([500, 502, 503, 504, 524]).map(lambda status: e.ServerError(status=status)),
    st.just(e.TransportError("dropped")),
    st.just(e.PredictionNotFoundError(status=400)),
)
SCRIPTS = st.lists(st.tuples(RESULTS, st.floats(0, 20), CHANCES), min_size=1, max_size=12)


def follow(
    wait: Wait, script: list[tuple[Result, float, float]], begin: float, most: int = 3000
) -> tuple[list[float], Any]:
    """Poll as a client does, with the script's results, latencies and luck over and over.

    :returns: when each poll was sent, and how the wait ended.
    """
    now = begin + wait.first_delay(begin, script[0][2])
    sent: list[float] = []
    while len(sent) < most:
        result, latency, chance = script[len(sent) % len(script)]
        sent.append(now)
        now += latency
        outcome = wait.on_result(result, now=now, chance=chance)
        if not isinstance(outcome, float):
            return sent, outcome
        assert wait.due == pytest.approx(now + outcome)
        if isinstance(result, e.CometError) and result.retry_after and now + result.retry_after < wait.deadline:
            assert outcome >= result.retry_after
        now += outcome
    return sent, None


ANY_RESULT = st.sampled_from([*RUNNING, *TRANSIENT, e.PredictionNotFoundError(status=404), *FINISHED, *FATAL])


@given(st.lists(ANY_RESULT, min_size=1, max_size=6), st.floats(1, 100_000), CHANCES, st.floats(0.05, 100))
def test_every_wait_ends_after_a_bounded_number_of_polls(
    results: list[Result], timeout: float, chance: float, latency: float
) -> None:
    """Whatever the results, in any order, a wait ends soon after its deadline, and the number of polls is bounded."""
    wait = Wait(ID, 0.0, timeout)
    now, count = 0.0, 0
    while True:
        result = results[count % len(results)]
        count += 1
        now += latency
        outcome = wait.on_result(result, now=now, chance=chance)
        if not isinstance(outcome, float):
            break
        assert outcome > 0
        now += outcome
    assert now <= timeout + 2 * latency
    assert count <= 80 + timeout / 50
    assert wait.polls == count
    if isinstance(outcome, e.PredictionTimeoutError):
        assert now >= timeout
    else:
        assert outcome is result


@given(SCRIPTS, st.floats(1, 20_000), st.none() | st.floats(0, 120), st.floats(-5000, 100))
def test_never_more_requests_than_the_time_allows(
    script: list[tuple[Result, float, float]],
    timeout: float,
    interval: float | None,
    began: float,
) -> None:
    """Whatever the answers, a wait sends no more than its time divided by the shortest interval, and two: the first
    poll, and the poll at the deadline."""
    wait = Wait(ID, began, timeout, interval)
    sent, outcome = follow(wait, script, 0.0)
    floor = max(FLOOR, 0.9 * (interval or 0))
    assert len(sent) <= (sent[-1] - sent[0]) / floor + 2 + 1e-6
    for n in range(1, len(sent) - 1):  # in each prefix
        assert n <= (sent[n] - sent[0]) / floor + 1e-6
    if isinstance(outcome, e.PredictionTimeoutError):
        assert sent[-1] >= timeout - 1e-6 or sent[-1] + script[(len(sent) - 1) % len(script)][1] >= timeout
    elif outcome is not None:
        assert isinstance(outcome, e.PredictionNotFoundError)


@given(SCRIPTS, st.floats(1, 5000))
def test_the_last_poll_is_at_the_deadline(script: list[tuple[Result, float, float]], timeout: float) -> None:
    """No wait gives up before its deadline, and none sleeps past it: a poll starts at the deadline or ends after it."""
    wait = Wait(ID, 0.0, timeout)
    sent, outcome = follow(wait, [(running(), latency, chance) for _, latency, chance in script], 0.0)
    assert isinstance(outcome, e.PredictionTimeoutError)
    latency = script[(len(sent) - 1) % len(script)][1]
    assert sent[-1] <= timeout + 1e-6 <= sent[-1] + latency + 2e-6


@given(
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.none() | st.floats(0, 900),
    CHANCES,
)
def test_whoever_takes_over_keeps_the_interval(
    age: float, away: float, remaining: float, interval: float | None, chance: float
) -> None:
    """The first delay after a restart is never longer than an interval of that age, and never past the deadline. If an
    interval is running, the delay is the rest of it."""
    last_polled_at = 1000.0 + age
    now = last_polled_at + away
    wait = Wait(ID, 1000.0, now + remaining, interval, last_polled_at)
    delay = wait.first_delay(now, chance)
    assert 0 <= delay <= remaining + 1e-9
    if remaining == 0:
        return
    usual = next_delay(age, poke_interval=interval, retry_after=None, chance=chance)
    if away < usual - 1e-6:
        assert delay == pytest.approx(min(usual - away, remaining), abs=1e-6)
    else:
        assert delay <= next_delay(age + away, poke_interval=interval, retry_after=None, chance=1.0)


@pytest.mark.parametrize(("interval", "width"), [(None, 60.0), (5.0, 5.0), (600.0, 600.0)])
def test_after_a_restart_first_polls_are_spread_over_one_interval(interval: float | None, width: float) -> None:
    """Waits whose interval is over when the triggerer returns poll at any time within one interval."""
    delays = [Wait(ID, 0.0, 1e6, interval, 10.0).first_delay(10_000.0, chance / 100) for chance in range(101)]
    assert delays[0] == 0
    assert delays[50] == pytest.approx(width / 2)
    assert delays[100] == pytest.approx(width)


@pytest.mark.parametrize("seconds_late", [0.0, 1.0, 1e6])
def test_past_the_deadline_the_first_poll_is_at_once(seconds_late: float) -> None:
    """After the deadline no delay is left."""
    assert Wait(ID, 0.0, 1000.0, None, 10.0).first_delay(1000.0 + seconds_late, 1.0) == 0


def test_a_wait_that_begins_in_the_triggerer_polls_at_once() -> None:
    """Without a poll on a worker, the first poll comes when the wait begins."""
    assert Wait(ID, 1000.0, 4600.0).first_delay(1000.5, 1.0) == 0


@pytest.mark.parametrize("away", [600.0, 10_000.0])
def test_an_old_wait_without_a_recorded_poll_is_spread_too(away: float) -> None:
    """A stored wait of a former release, or of a long list, says not when it polled last; after a restart it must not
    poll together with all others."""
    delays = [Wait(ID, 0.0, 1e6).first_delay(away, chance) for chance in (0.0, 0.5, 1.0)]
    assert delays == [0.0, pytest.approx(30), pytest.approx(60)]


@given(st.lists(st.floats(0, 600), min_size=1, max_size=30), CHANCES)
def test_restarts_cost_one_poll_each(lives: list[float], chance: float) -> None:
    """A triggerer that dies over and over polls no more than the time allows, and once for each life."""
    now, sent, last_polled_at = 10.0, 0, 10.0
    for seconds in lives:
        wait = Wait(ID, 0.0, 1e9, None, last_polled_at)  # as stored: the polls of a former life are not known
        end = now + seconds
        moment = now + wait.first_delay(now, chance)
        while moment < end:
            sent += 1
            delay = wait.on_result(running(), now=moment, chance=chance)
            assert isinstance(delay, float)
            moment += delay
        now = end
    assert sent <= (now - 10.0) / FLOOR + len(lives)
    assert sent <= len(lives) + 60 + now / 50


@pytest.mark.parametrize("age", [100.0, 1000.0])
def test_ages_count_from_the_create(age: float) -> None:
    """A wait that begins late for a prediction that is old already polls as the prediction's age demands."""
    wait = Wait(ID, 5000.0, 8600.0)
    assert wait.on_result(running(age=age), now=5001.0, chance=0.5) == pytest.approx(min(60.0, 0.2 * age))
    assert wait.started_at == pytest.approx(5001.0 - age)
    assert wait.on_result(running(age=age + 1), now=5002.0, chance=0.5) == pytest.approx(min(60.0, 0.2 * (age + 1)))


def test_a_younger_age_by_the_server_changes_nothing() -> None:
    """The server's clock moves the beginning back, never forward: a wait of a minute proves a higher age."""
    wait = Wait(ID, 0.0, 3600.0)
    wait.on_result(running(age=5.0), now=100.0, chance=0.5)
    assert wait.started_at == 0.0


@given(st.floats(0, 1e7))
def test_an_age_does_not_move_the_deadline(age: float) -> None:
    """However old the prediction is, the task keeps all of its own time."""
    wait = Wait(ID, 5000.0, 8600.0)
    delay = wait.on_result(running(age=round(age)), now=5001.0, chance=0.5)
    assert isinstance(delay, float)
    assert wait.deadline == 8600.0


@given(st.lists(st.floats(0.5, 100), min_size=1, max_size=20), CHANCES)
def test_many_waits_in_one_task(durations: list[float], chance: float) -> None:
    """Of many waits only those that are due are polled, each ends once, and nothing is due when all have ended."""
    waits = Waits(Wait(f"p{n}", 0.0, 1000.0) for n in range(len(durations)))
    now = 0.0
    for _ in range(5000):
        for wait in waits.due(now):
            assert wait.prediction_id not in waits.outcomes
            is_done = now >= durations[int(wait.prediction_id[1:])]
            result = Prediction(wait.prediction_id, "succeeded" if is_done else "processing")
            waits.on_results([(wait, (result, now, now))], chance=lambda: chance)
        delay = waits.delay(now)
        if delay is None:
            break
        assert delay > 0
        assert len(waits.outcomes) + len(waits.pending) == len(durations)
        now += delay
    assert len(waits.outcomes) == len(durations)
    assert now <= 1.4 * max(durations) + 2
    assert waits.due(now) == waits.pending == []
