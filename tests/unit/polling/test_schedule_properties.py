"""``Wait`` and ``Waits``: what holds for any sequence of answers, restarts and clocks."""

from __future__ import annotations

import logging
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling import schedule as polling
from airflow_provider_comet.polling.schedule import HEARTBEAT, Wait, next_look
from airflow_provider_comet.polling.wait import Waits

ID = "abc"
FLOOR = polling.SHORTEST * (1 - polling.JITTER)
CHANCES = st.floats(0, 1)


def running(status: str = "processing", age: float | None = None) -> Prediction:
    """A look that saw it run; with an age, by the server's own clocks."""
    if age is None:
        return Prediction(ID, status)
    created = "2026-03-01T12:00:00.000Z"
    return Prediction(ID, status, created_at=created, seen_at=formatdate(1772366400 + age, usegmt=True))


LOOKS: st.SearchStrategy[Prediction | e.CometError] = st.one_of(
    st.sampled_from([running("starting"), running(), running("Teleporting")]),
    st.floats(0, 1e5).map(lambda age: running(age=round(age))),
    (st.none() | st.floats(0, 900)).map(lambda hint: e.RateLimitedError("slow", status=429, retry_after=hint)),
    st.sampled_from([500, 502, 503, 504, 524]).map(lambda status: e.ServerError(status=status)),
    st.just(e.TransportError("dropped")),
    st.just(e.PredictionNotFoundError(status=400)),
)
SCRIPTS = st.lists(st.tuples(LOOKS, st.floats(0, 20), CHANCES), min_size=1, max_size=12)


def follow(
    wait: Wait, script: list[tuple[Prediction | e.CometError, float, float]], begin: float, most: int = 3000
) -> tuple[list[float], Any]:
    """Look as a client does, with the script's answers, latencies and luck over and over: when, and how it ended."""
    now = begin + wait.first_delay(begin, script[0][2])
    sent: list[float] = []
    while len(sent) < most:
        look, latency, chance = script[len(sent) % len(script)]
        sent.append(now)
        now += latency
        ended = wait.after(look, now=now, chance=chance)
        if not isinstance(ended, float):
            return sent, ended
        assert wait.due == pytest.approx(now + ended)
        if isinstance(look, e.CometError) and look.retry_after and now + look.retry_after < wait.deadline:
            assert ended >= look.retry_after
        now += ended
    return sent, None


@given(SCRIPTS, st.floats(1, 20_000), st.none() | st.floats(0, 120), st.floats(-5000, 100))
def test_never_more_requests_than_the_time_allows(
    script: list[tuple[Prediction | e.CometError, float, float]],
    timeout: float,
    interval: float | None,
    began: float,
) -> None:
    """Whatever the answers, a wait sends no more than its time divided by the shortest interval, and two: the first
    look, and the one at the deadline."""
    wait = Wait(ID, began, timeout, interval)
    sent, ended = follow(wait, script, 0.0)
    floor = max(FLOOR, 0.9 * (interval or 0))
    assert len(sent) <= (sent[-1] - sent[0]) / floor + 2 + 1e-6
    for n in range(1, len(sent) - 1):  # in each prefix
        assert n <= (sent[n] - sent[0]) / floor + 1e-6
    if isinstance(ended, e.PredictionTimeoutError):
        assert sent[-1] >= timeout - 1e-6 or sent[-1] + script[(len(sent) - 1) % len(script)][1] >= timeout
    elif ended is not None:
        assert isinstance(ended, e.PredictionNotFoundError)


@given(SCRIPTS, st.floats(1, 5000))
def test_the_last_look_is_at_the_deadline(
    script: list[tuple[Prediction | e.CometError, float, float]], timeout: float
) -> None:
    """No wait gives up before its deadline, and none sleeps past it: a look leaves at the deadline or ends after it."""
    wait = Wait(ID, 0.0, timeout)
    sent, ended = follow(wait, [(running(), latency, chance) for _, latency, chance in script], 0.0)
    assert isinstance(ended, e.PredictionTimeoutError)
    latency = script[(len(sent) - 1) % len(script)][1]
    assert sent[-1] <= timeout + 1e-6 <= sent[-1] + latency + 2e-6


@given(
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.none() | st.floats(0, 900),
    CHANCES,
)
def test_whoever_takes_over_keeps_the_pace(
    age: float, away: float, remaining: float, interval: float | None, chance: float
) -> None:
    """The first delay after a restart is never longer than an interval of that age, never past the deadline, and
    within an interval that goes on, the rest of it."""
    looked_at = 1000.0 + age
    now = looked_at + away
    wait = Wait(ID, 1000.0, now + remaining, interval, looked_at)
    delay = wait.first_delay(now, chance)
    assert 0 <= delay <= remaining + 1e-9
    if remaining == 0:
        return
    usual = next_look(age, poke_interval=interval, retry_after=None, chance=chance)
    if away < usual - 1e-6:
        assert delay == pytest.approx(min(usual - away, remaining), abs=1e-6)
    else:
        assert delay <= next_look(age + away, poke_interval=interval, retry_after=None, chance=1.0)


@pytest.mark.parametrize(("interval", "width"), [(None, 60.0), (5.0, 5.0), (600.0, 600.0)])
def test_after_a_restart_first_looks_are_spread_over_one_interval(interval: float | None, width: float) -> None:
    """Waits whose interval is over when the triggerer comes back look at any time within one interval."""
    delays = [Wait(ID, 0.0, 1e6, interval, 10.0).first_delay(10_000.0, chance / 100) for chance in range(101)]
    assert delays[0] == 0
    assert delays[50] == pytest.approx(width / 2)
    assert delays[100] == pytest.approx(width)


@pytest.mark.parametrize("late", [0.0, 1.0, 1e6])
def test_past_the_deadline_the_first_look_is_at_once(late: float) -> None:
    """There is nothing to wait for any more."""
    assert Wait(ID, 0.0, 1000.0, None, 10.0).first_delay(1000.0 + late, 1.0) == 0


def test_a_first_look_that_was_never_taken_is_at_once() -> None:
    """A wait that begins in the triggerer looks when it begins."""
    assert Wait(ID, 1000.0, 4600.0).first_delay(1000.5, 1.0) == 0


@pytest.mark.parametrize("away", [600.0, 10_000.0])
def test_an_old_wait_without_a_look_on_record_is_spread_too(away: float) -> None:
    """A stored wait of a former release, or of a long list, says not when it was looked at; after a restart it must not
    come back together with all others."""
    delays = [Wait(ID, 0.0, 1e6).first_delay(away, chance) for chance in (0.0, 0.5, 1.0)]
    assert delays == [0.0, pytest.approx(30), pytest.approx(60)]


@given(st.lists(st.floats(0, 600), min_size=1, max_size=30), CHANCES)
def test_restarts_cost_one_look_each(lives: list[float], chance: float) -> None:
    """A triggerer that dies over and over asks no more than the time allows, and once for each life."""
    now, sent, looked_at = 10.0, 0, 10.0
    for seconds in lives:
        wait = Wait(ID, 0.0, 1e9, None, looked_at)  # as stored: what a former life saw is not known
        end = now + seconds
        moment = now + wait.first_delay(now, chance)
        while moment < end:
            sent += 1
            delay = wait.after(running(), now=moment, chance=chance)
            assert isinstance(delay, float)
            moment += delay
        now = end
    assert sent <= (now - 10.0) / FLOOR + len(lives)
    assert sent <= len(lives) + 60 + now / 50


@pytest.mark.parametrize("age", [100.0, 1000.0])
def test_ages_count_from_the_create(age: float) -> None:
    """A wait that begins late for a prediction that is old already looks as often as the prediction's age deserves."""
    wait = Wait(ID, 5000.0, 8600.0)
    assert wait.after(running(age=age), now=5001.0, chance=0.5) == pytest.approx(min(60.0, 0.2 * age))
    assert wait.started_at == pytest.approx(5001.0 - age)
    assert wait.after(running(age=age + 1), now=5002.0, chance=0.5) == pytest.approx(min(60.0, 0.2 * (age + 1)))


def test_a_younger_age_by_the_server_is_no_news() -> None:
    """The server's clock sets the beginning back, never forth: who has waited for a minute knows that it is older."""
    wait = Wait(ID, 0.0, 3600.0)
    wait.after(running(age=5.0), now=100.0, chance=0.5)
    assert wait.started_at == 0.0


@given(st.floats(0, 1e7))
def test_an_age_does_not_move_the_deadline(age: float) -> None:
    """However old the prediction is, the time that the task was given is the task's."""
    wait = Wait(ID, 5000.0, 8600.0)
    delay = wait.after(running(age=round(age)), now=5001.0, chance=0.5)
    assert isinstance(delay, float)
    assert wait.deadline == 8600.0


def test_an_old_prediction_that_is_unknown_later_ends_the_wait() -> None:
    """The grace for one that was seen counts from the first such answer."""
    wait = Wait(ID, 5000.0, 8600.0)
    wait.after(running(age=500.0), now=5001.0, chance=0.5)
    lost = e.PredictionNotFoundError(status=400)
    assert isinstance(wait.after(lost, now=5010.0, chance=0.5), float)
    assert isinstance(wait.after(lost, now=5069.0, chance=0.5), float)
    assert wait.after(lost, now=5070.0, chance=0.5) is lost


def test_a_sign_of_life_every_five_minutes() -> None:
    """A day without news is a line each five minutes, with what was seen, how long, and how long it may still take."""
    wait = Wait(ID, 0.0, 86_400.0)
    said = [(now, news) for now in range(0, 86_400, 60) if (news := wait.news(running(), float(now)))]
    assert [now for now, _ in said] == list(range(0, 86_400, int(HEARTBEAT)))
    assert {level for _, (level, _) in said} == {logging.INFO}
    now, (_, words) = said[2]
    assert "still status 'processing'" in words
    assert f"after {now} s" in words
    assert f"the timeout comes in {86_400 - now} s" in words


def test_trouble_that_stays_is_one_warning() -> None:
    """The first is a warning, the signs of life after it are not."""
    wait = Wait(ID, 0.0, 3600.0)
    said = [news for now in range(0, 1200, 10) if (news := wait.news(e.ServerError(status=502), float(now)))]
    assert [level for level, _ in said] == [logging.WARNING, *[logging.INFO] * 3]


@given(st.lists(st.floats(0.5, 100), min_size=1, max_size=20), CHANCES)
def test_many_waits_as_one(durations: list[float], chance: float) -> None:
    """Of many waits only those that are due are looked at, each ends once, and nothing is due when all have ended."""
    waits = Waits(Wait(f"p{n}", 0.0, 1000.0) for n in range(len(durations)))
    now = 0.0
    for _ in range(5000):
        for wait in waits.due(now):
            assert wait.prediction_id not in waits.ended
            done = now >= durations[int(wait.prediction_id[1:])]
            look = Prediction(wait.prediction_id, "succeeded" if done else "processing")
            waits.take([(wait, (look, now))], chance=lambda: chance)
        delay = waits.delay(now)
        if delay is None:
            break
        assert delay > 0
        assert len(waits.ended) + len(waits.pending) == len(durations)
        now += delay
    assert len(waits.ended) == len(durations)
    assert now <= 1.4 * max(durations) + 2
    assert waits.due(now) == waits.pending == []
