"""The schedule keeps what is promised of it: ``benchmarks/simulate_polling.py`` with few samples, always the same."""

from __future__ import annotations

import random

import pytest

from benchmarks import simulate_polling
from benchmarks.simulate_polling import adaptive, best_fixed, report


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """The figures of the simulation."""
    return simulate_polling.run(samples=600)


@pytest.mark.parametrize(("duration", "bound"), [(8, 0.12), (60, 0.10), (300, 0.10), (1800, 0.03)])
def test_an_end_is_noticed_soon(figures: dict[str, float], duration: int, bound: float) -> None:
    """The mean delay is a small share of the time the prediction took, whether the wait starts with it or later."""
    assert 0 < figures[f"relative_delay_{duration}"] <= bound


@pytest.mark.parametrize(("start_age", "bound"), [(0, 0.25), (2, 0.5)])
def test_the_schedule_polls_less_than_any_fixed_interval(
    figures: dict[str, float], start_age: int, bound: float
) -> None:
    """No fixed interval that is as prompt over the whole mix of durations needs so few requests."""
    assert 0 < figures[f"requests_ratio_age_{start_age}"] <= bound


def test_the_report_names_missed_targets(figures: dict[str, float]) -> None:
    """Each target is in the report, and a figure above its target stands out."""
    assert "MISSED" not in report(figures)
    assert report(figures).count(" ok") == len(simulate_polling.TARGETS)
    assert report(figures | {"relative_delay_60": 0.11}).count("MISSED") == 1


def test_a_wait_polls_until_the_end() -> None:
    """After the end a wait polls once, without delay; before the end it is late by an interval at most."""
    assert adaptive(1.5, 2.0, random.Random(0)) == (1, 0)
    requests, relative_delay = adaptive(100.0, 0.0, random.Random(0))
    assert requests > 20
    assert 0 <= relative_delay <= 0.22


def test_the_fixed_interval_to_compare_with_is_the_best() -> None:
    """The best interval polls just after predictions that all take ten seconds, though shorter intervals are later."""
    cost = best_fixed([10.0] * 10, 0.0, 0.1)
    assert cost.requests == 1
    assert cost.relative_delay == pytest.approx(0.1, abs=0.001)
    assert best_fixed([10.0] * 10, 2.0, 0.1).requests == 2
