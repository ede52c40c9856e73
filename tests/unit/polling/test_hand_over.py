"""``polling/hand_over.py``: when what has finished is handed over while the rest runs."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate

import pytest

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.hand_over import (
    FIRST_ROUND_SECONDS,
    HAND_OVER_COUNT,
    HAND_OVER_SECONDS,
    PAUSE_SECONDS,
    HandOver,
)

NOW = 1_773_314_838.0


def ended_ago(seconds: float) -> Prediction:
    """A prediction that has ended so long ago by the server's clocks."""
    completed_at = datetime.fromtimestamp(NOW - seconds, UTC).isoformat()
    return Prediction(id="a" * 26, status="succeeded", completed_at=completed_at, seen_at=formatdate(NOW, usegmt=True))


@pytest.mark.parametrize("age", [HAND_OVER_SECONDS, 50 * 60])
def test_old_results_wait_for_the_first_round(age: float) -> None:
    """What has ended long before a trigger starts is handed over with all that its first round of polls finds, and
    not the first of it alone."""
    hand_over = HandOver(NOW)
    assert hand_over.add(ended_ago(age), NOW + 1) == FIRST_ROUND_SECONDS - 1
    assert hand_over.add(ended_ago(age), NOW + 21) == FIRST_ROUND_SECONDS - 21
    assert hand_over.add(ended_ago(age), NOW + FIRST_ROUND_SECONDS) == 0


def test_without_a_first_round_old_results_are_due_at_once() -> None:
    """A worker polls everything that is due in one round, so it waits for no more."""
    assert HandOver().add(ended_ago(HAND_OVER_SECONDS), NOW) == 0


def test_many_results_do_not_wait_for_the_first_round() -> None:
    """So many are worth a start of the task, although others may be found a moment later."""
    hand_over = HandOver(NOW)
    delays = [hand_over.add(ended_ago(HAND_OVER_SECONDS), NOW) for _ in range(HAND_OVER_COUNT)]
    assert delays == [FIRST_ROUND_SECONDS] * (HAND_OVER_COUNT - 1) + [PAUSE_SECONDS]


def test_a_result_is_handed_over_when_it_is_ten_minutes_old() -> None:
    """Its age counts by the server's clocks, from its end: a triggerer that starts anew sees the same age."""
    hand_over = HandOver(NOW - 300)
    assert hand_over.delay(NOW) == float("inf")
    assert hand_over.add(ended_ago(200), NOW) == HAND_OVER_SECONDS - 200
    assert hand_over.add(ended_ago(100), NOW) == HAND_OVER_SECONDS - 200, "the oldest decides"
    assert hand_over.delay(NOW + HAND_OVER_SECONDS) == 0


def test_an_outcome_without_a_time_counts_from_now() -> None:
    """An error, or a server that names no times."""
    for outcome in (CometError("no"), Prediction(id="a", status="succeeded")):
        assert HandOver().add(outcome, NOW) == HAND_OVER_SECONDS


def test_a_pause_after_a_start() -> None:
    """However much has ended, a trigger hands over some seconds after its start at the earliest, and a worker at
    once."""
    hand_over = HandOver(NOW)
    assert [hand_over.pause(NOW + seconds) for seconds in (0, PAUSE_SECONDS - 1, PAUSE_SECONDS + 5)] == [
        PAUSE_SECONDS,
        1,
        0,
    ]
    assert HandOver().pause(NOW) == 0
    for _ in range(2 * HAND_OVER_COUNT):
        hand_over.add(ended_ago(0), NOW)
    assert hand_over.delay(NOW + 3) == PAUSE_SECONDS - 3


def test_tests_may_shorten_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants are read when they are used, so that a run of minutes can show what else takes hours."""
    for name, value in {
        "HAND_OVER_COUNT": 2,
        "HAND_OVER_SECONDS": 5.0,
        "PAUSE_SECONDS": 0.0,
        "FIRST_ROUND_SECONDS": 1.0,
    }.items():
        monkeypatch.setattr(f"airflow_provider_comet.polling.hand_over.{name}", value)
    hand_over = HandOver(NOW)
    assert hand_over.add(ended_ago(0), NOW) == 5
    assert hand_over.add(ended_ago(0), NOW + 1) == 0
    hand_over = HandOver(NOW)
    assert hand_over.add(ended_ago(60), NOW) == 1


def test_a_hand_over_is_due_once_it_was() -> None:
    """More results, or more time, never put it off."""
    hand_over = HandOver(NOW - FIRST_ROUND_SECONDS)
    hand_over.add(ended_ago(HAND_OVER_SECONDS), NOW)
    assert [hand_over.delay(NOW + seconds) for seconds in (0, 1, 3600)] == [0, 0, 0]
    assert hand_over.add(ended_ago(0), NOW) == 0
