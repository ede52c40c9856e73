"""``polling/wait.py``: how one result moves a wait, and what it means for the other waits of a task."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.wait import Wait

ID = "abc"
Result = Prediction | e.CometError

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
NAMED: Any = {"ids": lambda result: result.status if isinstance(result, Prediction) else type(result).__name__}


def new_wait(**fields: Any) -> Wait:
    """Return a wait of an hour that began at 1000."""
    return Wait(**{"prediction_id": ID, "started_at": 1000.0, "deadline": 4600.0, **fields})


@pytest.mark.parametrize("result", FINISHED, **NAMED)
@pytest.mark.parametrize("now", [0.0, 1000.0, 4599.0, 4600.0, 1e9])
def test_a_finished_prediction_ends_the_wait_at_any_time(result: Prediction, now: float) -> None:
    """A finished result is never lost to the clock, not even long after the deadline."""
    assert new_wait().on_result(result, now=now, chance=0.5) is result


@pytest.mark.parametrize("result", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [900.0, 1000.0, 1100.0, 4599.9])
def test_trouble_that_may_pass_is_waited_out(result: Result, now: float) -> None:
    """A running prediction and transient trouble lead to another poll, at the deadline at the latest."""
    delay = new_wait().on_result(result, now=now, chance=0.5)
    assert isinstance(delay, float)
    assert 0 < delay <= 4600 - now


@pytest.mark.parametrize("result", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [4600.0, 4600.1, 9999.0])
def test_the_deadline_ends_the_wait(result: Result, now: float) -> None:
    """From the deadline on, anything unfinished is a timeout that names the last result and the prediction's age."""
    outcome = new_wait().on_result(result, now=now, chance=0.5)
    assert type(outcome) is e.PredictionTimeoutError
    assert outcome.prediction_id == ID
    assert f", {now - 1000:.0f} s after it was created" in str(outcome)
    words = repr(result.status) if isinstance(result, Prediction) else result.summary
    assert words in str(outcome)
    if isinstance(result, e.CometError):
        assert (outcome.status, outcome.request_id) == (result.status, result.request_id)


@pytest.mark.parametrize("result", FATAL, **NAMED)
@pytest.mark.parametrize("now", [1000.0, 1100.0, 9999.0])
def test_an_error_that_no_retry_cures_ends_the_wait_at_once(result: e.CometError, now: float) -> None:
    """An error that waiting does not change is returned as it is."""
    assert new_wait().on_result(result, now=now, chance=0.5) is result


@pytest.mark.parametrize(
    ("age", "ends"), [(0, False), (30, False), (59.9, False), (60, True), (61, True), (3599, True)]
)
def test_a_new_id_may_be_unknown_for_a_minute(age: float, ends: bool) -> None:
    """A prediction that is not found is waited for in its first minute, and given up afterwards."""
    result = e.PredictionNotFoundError("task_not_exist", status=400)
    outcome = new_wait().on_result(result, now=1000 + age, chance=0.5)
    assert (outcome is result) is ends
    assert isinstance(outcome, float) is not ends


def test_a_prediction_that_was_polled_before_is_not_unknown() -> None:
    """A stray "not found" about a prediction that was seen running, at any age and at any interval, is waited out for
    a minute from the first of them."""
    wait = new_wait()
    result = e.PredictionNotFoundError(status=404)
    assert isinstance(wait.on_result(RUNNING[0], now=2000, chance=0.5), float)
    assert isinstance(wait.on_result(result, now=2066, chance=0.5), float)
    assert isinstance(wait.on_result(RUNNING[0], now=2100, chance=0.5), float)
    assert isinstance(wait.on_result(result, now=2500, chance=0.5), float)
    assert isinstance(wait.on_result(result, now=2559.9, chance=0.5), float)
    assert wait.on_result(result, now=2560, chance=0.5) is result


def test_a_prediction_that_another_process_has_polled_is_not_unknown() -> None:
    """Whoever takes a wait over tries for another minute, also if the first poll came late."""
    wait = new_wait()
    wait.first_delay(2000, 0.5)
    result = e.PredictionNotFoundError(status=404)
    assert isinstance(wait.on_result(result, now=2100, chance=0.5), float)
    assert wait.on_result(result, now=2160, chance=0.5) is result


def test_an_old_prediction_that_is_unknown_later_ends_the_wait() -> None:
    """The minute of grace for a prediction that was seen counts from the first "not found"."""
    wait = new_wait()
    old = Prediction(ID, "processing", created_at="2026-03-01T12:00:00.000Z", seen_at="Sun, 01 Mar 2026 12:08:20 GMT")
    wait.on_result(old, now=1001.0, chance=0.5)
    assert wait.started_at == pytest.approx(501.0)
    not_found = e.PredictionNotFoundError(status=400)
    assert isinstance(wait.on_result(not_found, now=1010.0, chance=0.5), float)
    assert isinstance(wait.on_result(not_found, now=1069.0, chance=0.5), float)
    assert wait.on_result(not_found, now=1070.0, chance=0.5) is not_found


def test_a_rate_limits_hint_decides_about_the_next_poll() -> None:
    """After a 429 the next poll comes no sooner than the server asked, but not after the deadline."""
    result = e.RateLimitedError(status=429, retry_after=100)
    assert new_wait().on_result(result, now=1001, chance=0.0) == 100
    assert new_wait().on_result(result, now=4590, chance=0.0) == 10


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_wait_polls_rarely_in_its_first_second(chance: float) -> None:
    """With the least luck and no latency, the first minute still has a small number of polls."""
    now, count = 1000.0, 0
    while now < 1060:
        delay = new_wait().on_result(RUNNING[0], now=now, chance=chance)
        assert isinstance(delay, float)
        now += delay
        count += 1
    assert count <= 30


@pytest.mark.parametrize("interval", [0.0, 0, -5.0, 0.001])
def test_an_interval_of_zero_does_not_flood_the_api(interval: float) -> None:
    """A fixed interval below the shortest delay does not make a wait poll without a pause."""
    delay = new_wait(poke_interval=interval).on_result(RUNNING[0], now=1100, chance=0.5)
    assert isinstance(delay, float)
    assert delay >= 0.4


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    """Before its own beginning a wait behaves as at its beginning."""
    assert new_wait().on_result(RUNNING[0], now=0.0, chance=0.5) == pytest.approx(1)


@pytest.mark.parametrize("age", [0.5, 100.0, 4000.0])
def test_retry_after_is_taken_over(age: float) -> None:
    """Whoever takes a wait over does not poll before the server allowed it, but polls at the deadline."""
    wait = Wait("p0", 0.0, 3600.0, last_polled_at=age, not_before=age + 200.0)
    delay = wait.first_delay(age, chance=0.5)
    assert delay == pytest.approx(200.0 if age < 3600 else 0.0)
    assert Wait("p0", 0.0, age + 50.0, last_polled_at=age, not_before=age + 200.0).first_delay(age, 0.5) == 50.0
