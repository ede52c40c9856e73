"""``api/polling.py``: when to look again, when a request may be repeated, and how a wait ends."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling import schedule as polling
from airflow_provider_comet.polling.schedule import Wait, find_deadline, next_look, retry_delay

ID = "abc"
CHANCES = st.floats(0, 1)
AGES = st.floats(0, 1e6)
HINTS = st.none() | st.floats(0, 86_400)

RUNNING = [Prediction(ID, "starting"), Prediction(ID, "processing", output=["half"]), Prediction(ID, "Teleporting")]
FINISHED = [Prediction(ID, status) for status in ("succeeded", "failed", "canceled", "aborted")]
TRANSIENT: list[e.CometError] = [
    e.RateLimitedError("slow", status=429, retry_after=3),
    e.ServerError("502", status=502, request_id="r1"),
    e.TransportError("reset"),
]
FATAL: list[e.CometError] = [
    e.AuthenticationError(status=401),
    e.PermissionDeniedError(status=403),
    e.WrongURLError(status=301),
    e.BadRequestError(status=400),
    e.BalanceExhaustedError(status=402),
    e.ConfigurationError("x"),
    e.InvalidInputError("x"),
    e.CometError("x"),
]
NAMED: Any = {"ids": lambda look: look.status if isinstance(look, Prediction) else type(look).__name__}


def wait(**fields: Any) -> Wait:
    """A wait of an hour that began at 1000."""
    return Wait(**{"prediction_id": ID, "started_at": 1000.0, "deadline": 4600.0, **fields})


@given(AGES, CHANCES)
def test_the_adaptive_delay_is_bounded(age: float, chance: float) -> None:
    """The delay follows the age by a fifth, is at most a minute, and differs from that by a tenth at most."""
    delay = next_look(age, poke_interval=None, retry_after=None, chance=chance)
    plain = min(60.0, max(0.5, 1 - age if age < 1 else 0.2 * age))
    assert delay <= 1.1 * plain + 1e-9
    assert delay >= 0.9 * plain - 1e-9 or age < 1


@pytest.mark.parametrize(
    ("age", "delay"), [(0, 1), (0.25, 0.75), (1, 0.5), (2.5, 0.5), (10, 2), (100, 20), (300, 60), (1e6, 60)]
)
def test_the_adaptive_schedule(age: float, delay: float) -> None:
    """The first look comes at a second of age, then each time the age has grown by a fifth, at least every minute."""
    assert next_look(age, poke_interval=None, retry_after=None, chance=0.5) == pytest.approx(delay)


@given(AGES, st.floats(0.5, 1e4), CHANCES)
def test_a_fixed_interval_is_kept(age: float, interval: float, chance: float) -> None:
    """A given interval replaces the adaptive one, whatever the age, spread by a tenth at most."""
    delay = next_look(age, poke_interval=interval, retry_after=None, chance=chance)
    assert 0.9 * interval - 1e-9 <= delay <= 1.1 * interval + 1e-9


@given(AGES, st.none() | st.floats(0, 1e4), st.floats(0, 86_400), CHANCES)
def test_the_servers_hint_is_never_undercut(age: float, interval: float | None, hint: float, chance: float) -> None:
    """No look comes before the server allows one, and a hint adds at most a tenth."""
    delay = next_look(age, poke_interval=interval, retry_after=hint, chance=chance)
    without = next_look(age, poke_interval=interval, retry_after=None, chance=chance)
    assert hint <= delay <= max(without, hint * 1.1) + 1e-9


@given(st.floats(0, 1), st.none() | st.just(0.0))
def test_waits_that_began_together_spread(chance: float, hint: float | None) -> None:
    """Two waits of one age ask at different times: the chance moves the delay in one direction."""
    low = next_look(50, poke_interval=None, retry_after=hint, chance=0)
    high = next_look(50, poke_interval=None, retry_after=hint, chance=1)
    assert low == pytest.approx(9)
    assert high == pytest.approx(11)
    assert low <= next_look(50, poke_interval=None, retry_after=hint, chance=chance) <= high


@pytest.mark.parametrize("look", FINISHED, **NAMED)
@pytest.mark.parametrize("now", [0.0, 1000.0, 4599.0, 4600.0, 1e9])
def test_a_finished_prediction_ends_the_wait_at_any_time(look: Prediction, now: float) -> None:
    """A result that is there is never lost to the clock, not even long after the deadline."""
    assert wait().after(look, now=now, chance=0.5) is look


@pytest.mark.parametrize("look", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [900.0, 1000.0, 1100.0, 4599.9])
def test_what_may_pass_is_waited_out(look: Prediction | e.CometError, now: float) -> None:
    """A running prediction and transient trouble lead to another look, at the deadline at the latest."""
    delay = wait().after(look, now=now, chance=0.5)
    assert isinstance(delay, float)
    assert 0 < delay <= 4600 - now


@pytest.mark.parametrize("look", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [4600.0, 4600.1, 9999.0])
def test_the_deadline_ends_the_wait(look: Prediction | e.CometError, now: float) -> None:
    """From the deadline on, anything unfinished is a timeout that names what was last seen and how long was waited."""
    ended = wait().after(look, now=now, chance=0.5)
    assert type(ended) is e.PredictionTimeoutError
    assert ended.prediction_id == ID
    assert f", {now - 1000:.0f} s after it was created" in str(ended)
    seen = repr(look.status) if isinstance(look, Prediction) else look.summary
    assert seen in str(ended)
    if isinstance(look, e.CometError):
        assert (ended.status, ended.request_id) == (look.status, look.request_id)


@pytest.mark.parametrize("look", FATAL, **NAMED)
@pytest.mark.parametrize("now", [1000.0, 1100.0, 9999.0])
def test_what_no_retry_helps_ends_the_wait_at_once(look: e.CometError, now: float) -> None:
    """An error that waiting does not change is returned as it is."""
    assert wait().after(look, now=now, chance=0.5) is look


@pytest.mark.parametrize(
    ("age", "ends"), [(0, False), (30, False), (59.9, False), (60, True), (61, True), (3599, True)]
)
def test_a_new_id_may_be_unknown_for_a_minute(age: float, ends: bool) -> None:
    """A prediction that is not found is waited for in its first minute, and given up afterwards."""
    look = e.PredictionNotFoundError("task_not_exist", status=400)
    ended = wait().after(look, now=1000 + age, chance=0.5)
    assert (ended is look) is ends
    assert isinstance(ended, float) is not ends


def test_a_prediction_that_was_seen_is_not_unknown() -> None:
    """A stray "not found" about a prediction that was seen running, at any age and at whatever pace, is waited out for
    a minute from the first of them."""
    waiting = wait()
    look = e.PredictionNotFoundError(status=404)
    assert isinstance(waiting.after(RUNNING[0], now=2000, chance=0.5), float)
    assert isinstance(waiting.after(look, now=2066, chance=0.5), float)
    assert isinstance(waiting.after(RUNNING[0], now=2100, chance=0.5), float)
    assert isinstance(waiting.after(look, now=2500, chance=0.5), float)
    assert isinstance(waiting.after(look, now=2559.9, chance=0.5), float)
    assert waiting.after(look, now=2560, chance=0.5) is look


def test_a_prediction_that_another_process_has_seen_is_not_unknown() -> None:
    """Whoever takes a wait over asks for it again, also if the first turn came late."""
    waiting = wait()
    waiting.first_delay(2000, 0.5)
    look = e.PredictionNotFoundError(status=404)
    assert isinstance(waiting.after(look, now=2100, chance=0.5), float)
    assert waiting.after(look, now=2160, chance=0.5) is look


def test_a_rate_limits_hint_decides_about_the_next_look() -> None:
    """After a 429 the next look comes no sooner than the server asked, but not after the deadline."""
    look = e.RateLimitedError(status=429, retry_after=100)
    assert wait().after(look, now=1001, chance=0.0) == 100
    assert wait().after(look, now=4590, chance=0.0) == 10


LOOKS = st.sampled_from([*RUNNING, *TRANSIENT, e.PredictionNotFoundError(status=404), *FINISHED, *FATAL])


@given(st.lists(LOOKS, min_size=1, max_size=6), st.floats(1, 100_000), CHANCES, st.floats(0.05, 100))
def test_every_wait_ends_after_a_bounded_number_of_looks(
    looks: list[Prediction | e.CometError], timeout: float, chance: float, latency: float
) -> None:
    """Whatever is seen, in any order, a wait ends soon after its deadline, and the number of looks is bounded."""
    waiting = Wait(ID, 0.0, timeout)
    now, count = 0.0, 0
    while True:
        look = looks[count % len(looks)]
        count += 1
        now += latency
        ended = waiting.after(look, now=now, chance=chance)
        if not isinstance(ended, float):
            break
        assert ended > 0
        now += ended
    assert now <= timeout + 2 * latency
    assert count <= 80 + timeout / 50
    if isinstance(ended, e.PredictionTimeoutError):
        assert now >= timeout
    else:
        assert ended is look


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_wait_does_not_ask_over_and_over_in_its_first_second(chance: float) -> None:
    """With the least luck and no latency, the first minute still sees a small number of looks."""
    now, count = 1000.0, 0
    while now < 1060:
        delay = wait().after(RUNNING[0], now=now, chance=chance)
        assert isinstance(delay, float)
        now += delay
        count += 1
    assert count <= 30


@pytest.mark.parametrize("interval", [0.0, 0, -5.0, 0.001])
def test_an_interval_of_nothing_does_not_flood_the_api(interval: float) -> None:
    """A fixed interval below the shortest one does not make a wait ask without a pause."""
    delay = wait(poke_interval=interval).after(RUNNING[0], now=1100, chance=0.5)
    assert isinstance(delay, float)
    assert delay >= 0.4


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    """Before its own beginning a wait behaves as at its beginning."""
    assert wait().after(RUNNING[0], now=0.0, chance=0.5) == pytest.approx(1)


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "attempt_started_at", "ends"),
    [
        pytest.param(60, None, 0, (160.0, False), id="no execution_timeout"),
        pytest.param(60, timedelta(seconds=30), 100, (130.0, True), id="execution_timeout first"),
        pytest.param(60, timedelta(seconds=90), 100, (160.0, False), id="timeout first"),
        pytest.param(60, timedelta(seconds=60), 100, (160.0, False), id="together: no retry"),
        pytest.param(60, timedelta(seconds=90), 50, (140.0, True), id="the attempt began before the wait"),
        pytest.param(60, timedelta(0), 100, (160.0, False), id="one of zero is none"),
    ],
)
def test_the_earlier_of_both_timeouts_ends_a_wait(
    timeout: float, execution_timeout: timedelta | None, attempt_started_at: float, ends: tuple[float, bool]
) -> None:
    """``timeout`` counts from the wait's start, ``execution_timeout`` from the attempt's; a tie is not retried."""
    found = find_deadline(timeout, execution_timeout, started_at=100, attempt_started_at=attempt_started_at)
    assert found == ends


def test_news_is_said_once() -> None:
    """Each change of status is news once, and a status that stays is none."""
    waiting = wait()
    looks = [RUNNING[0], RUNNING[0], RUNNING[1], RUNNING[1], FINISHED[0], RUNNING[0]]
    assert [waiting.news(look, 1000.0) for look in looks] == [
        (logging.INFO, f"Prediction {ID}: status 'starting'"),
        None,
        (logging.INFO, f"Prediction {ID}: status 'processing'"),
        None,
        (logging.INFO, f"Prediction {ID}: status 'succeeded'"),
        (logging.INFO, f"Prediction {ID}: status 'starting'"),
    ]


def test_trouble_is_news_once() -> None:
    """An error is said when it begins and when it is over, not at every look; its request id is no news."""
    waiting = wait()
    first = e.ServerError("bad gateway", status=502, request_id="r1", prediction_id=ID)
    second = e.ServerError("bad gateway", status=502, request_id="r2", prediction_id=ID)
    for error in (first, second):
        news = waiting.news(error, 1000.0)
        assert news is not None
        level, words = news
        assert level == logging.WARNING
        assert str(error) in words
        assert waiting.news(first, 1000.0) is None
        assert waiting.news(second, 1000.0) is None
        assert waiting.news(RUNNING[0], 1000.0) == (logging.INFO, f"Prediction {ID}: status 'starting'")


def test_an_unknown_status_is_said() -> None:
    """A status that is not known is news that says so, once."""
    waiting = wait()
    news = waiting.news(Prediction(ID, "Teleporting"), 1000.0)
    assert news is not None
    level, words = news
    assert level == logging.WARNING
    assert "'Teleporting'" in words
    assert "unknown" in words
    assert waiting.news(Prediction(ID, "Teleporting"), 1000.0) is None


@pytest.mark.parametrize(
    "error",
    [*FATAL, e.AmbiguousSubmissionError("x", status=502), e.PredictionNotFoundError(), e.ModelNotFoundError()],
    **NAMED,
)
@pytest.mark.parametrize("attempt", [1, 2, 10**9])
def test_what_is_not_retryable_is_never_sent_again(error: e.CometError, attempt: int) -> None:
    """No delay for an error that a repetition can't help, above all not for a create without a clear answer."""
    assert retry_delay(error, attempt=attempt, elapsed=0, chance=0) is None


@pytest.mark.parametrize("error", [e.ServerError(), e.RateLimitedError(), e.TransportError()], **NAMED)
@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (10**9, 30)]
)
def test_the_delay_doubles_up_to_half_a_minute(error: e.CometError, attempt: int, longest: float) -> None:
    """Delays double from a second to thirty, each between a half and the whole, for any number of attempts."""
    assert retry_delay(error, attempt=attempt, elapsed=0, chance=1) == longest
    assert retry_delay(error, attempt=attempt, elapsed=0, chance=0) == longest / 2


@given(st.integers(1, 10**12), st.floats(0, 1000), CHANCES, HINTS)
def test_one_call_stays_within_its_patience(attempt: int, elapsed: float, chance: float, hint: float | None) -> None:
    """A delay is never shorter than the hint and never ends after 120 seconds: rather none at all."""
    delay = retry_delay(e.RateLimitedError(retry_after=hint), attempt=attempt, elapsed=elapsed, chance=chance)
    if delay is None:
        assert elapsed + max(30, (hint or 0) * 1.1) > polling.PATIENCE
    else:
        assert delay >= max(0.5, hint or 0)
        assert elapsed + delay <= polling.PATIENCE == 120


def test_a_hint_beyond_the_patience_gives_up_at_once() -> None:
    """If the server asks for more than two minutes, the rest is left to Airflow's retries."""
    assert retry_delay(e.RateLimitedError(retry_after=121), attempt=1, elapsed=0, chance=0) is None
    assert retry_delay(e.RateLimitedError(retry_after=119), attempt=1, elapsed=0, chance=0) == 119
    assert retry_delay(e.RateLimitedError(retry_after=119), attempt=1, elapsed=2, chance=0) is None


@given(CHANCES)
def test_the_number_of_attempts_is_bounded(chance: float) -> None:
    """One call repeats a request at most a dozen times, even if every answer comes at once."""
    elapsed, attempts = 0.0, 1
    while (delay := retry_delay(e.ServerError(), attempt=attempts, elapsed=elapsed, chance=chance)) is not None:
        elapsed, attempts = elapsed + delay, attempts + 1
    assert 7 <= attempts <= 14
