"""``polling/schedule.py``: when to poll again, and when a wait has to end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.polling.schedule import find_deadline, next_delay

CHANCES = st.floats(0, 1)
AGES = st.floats(0, 1e6)


@given(AGES, CHANCES)
def test_the_adaptive_delay_is_bounded(age: float, chance: float) -> None:
    """The delay is a fifth of the age, at most a minute, and differs from that by a tenth at most."""
    delay = next_delay(age, poke_interval=None, retry_after=None, chance=chance)
    plain = min(60.0, max(0.5, 1 - age if age < 1 else 0.2 * age))
    assert delay <= 1.1 * plain + 1e-9
    assert delay >= 0.9 * plain - 1e-9 or age < 1


@pytest.mark.parametrize(
    ("age", "delay"), [(0, 1), (0.25, 0.75), (1, 0.5), (2.5, 0.5), (10, 2), (100, 20), (300, 60), (1e6, 60)]
)
def test_the_adaptive_schedule(age: float, delay: float) -> None:
    """The first poll comes at a second of age, then each time the age has grown by a fifth, at least every minute."""
    assert next_delay(age, poke_interval=None, retry_after=None, chance=0.5) == pytest.approx(delay)


@given(AGES, st.floats(0.5, 1e4), CHANCES)
def test_a_fixed_interval_is_kept(age: float, interval: float, chance: float) -> None:
    """A fixed interval replaces the adaptive one, whatever the age, spread by a tenth at most."""
    delay = next_delay(age, poke_interval=interval, retry_after=None, chance=chance)
    assert 0.9 * interval - 1e-9 <= delay <= 1.1 * interval + 1e-9


@given(AGES, st.none() | st.floats(0, 1e4), st.floats(0, 86_400), CHANCES)
def test_retry_after_is_never_undercut(age: float, interval: float | None, hint: float, chance: float) -> None:
    """No poll comes before the server allows one, and a hint adds at most a tenth."""
    delay = next_delay(age, poke_interval=interval, retry_after=hint, chance=chance)
    without = next_delay(age, poke_interval=interval, retry_after=None, chance=chance)
    assert hint <= delay <= max(without, hint * 1.1) + 1e-9


@given(st.floats(0, 1), st.none() | st.just(0.0))
def test_waits_that_began_together_spread(chance: float, hint: float | None) -> None:
    """Two waits of the same age poll at different times: a higher chance gives a longer delay."""
    low = next_delay(50, poke_interval=None, retry_after=hint, chance=0)
    high = next_delay(50, poke_interval=None, retry_after=hint, chance=1)
    assert low == pytest.approx(9)
    assert high == pytest.approx(11)
    assert low <= next_delay(50, poke_interval=None, retry_after=hint, chance=chance) <= high


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "attempt_started_at", "deadline"),
    [
        pytest.param(60, None, 0, (160.0, False), id="no execution_timeout"),
        pytest.param(60, timedelta(seconds=30), 100, (130.0, True), id="execution_timeout first"),
        pytest.param(60, timedelta(seconds=90), 100, (160.0, False), id="timeout first"),
        pytest.param(60, timedelta(seconds=60), 100, (160.0, False), id="together: no retry"),
        pytest.param(60, timedelta(seconds=90), 50, (140.0, True), id="the attempt began before the wait"),
        pytest.param(60, timedelta(0), 100, (160.0, False), id="zero means none"),
    ],
)
def test_the_earlier_of_both_timeouts_ends_a_wait(
    timeout: float, execution_timeout: timedelta | None, attempt_started_at: float, deadline: tuple[float, bool]
) -> None:
    """``timeout`` counts from the wait's start, ``execution_timeout`` from the attempt's; a tie is not retried."""
    found = find_deadline(timeout, execution_timeout, started_at=100, attempt_started_at=attempt_started_at)
    assert found == deadline
