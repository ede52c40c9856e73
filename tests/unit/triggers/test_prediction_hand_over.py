"""When a trigger that hands over sends its event: the rule itself is in ``test_hand_over.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from airflow_provider_comet.triggers.prediction import PredictionTrigger
from tests.support.task_runner import Clock, event_of

TIMEOUT = 60.0
"""Of the wait that comes to its deadline: its polls take real time."""


def wait_for(clock: Clock, ids: list[str], **options: Any) -> tuple[Any, float]:
    """Run a trigger that hands over, and return its event and the seconds that it took."""
    began = clock.time()
    times = {"started_at": began, "deadline": began + 3600, "poke_interval": 20.0}
    event = event_of(PredictionTrigger(ids, hands_over=True, **{**times, **options}))
    return event, clock.time() - began


def test_at_the_count(
    comet: Emulator, clock: Clock, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as enough have ended, failures among them; the event names these, and counts the others."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 3)
    ended = [create(), create(status="failed"), create()]
    event, seconds = wait_for(clock, [*ended, create(status="processing")])
    assert (sorted(event["outcomes"]), event["pending"]) == (sorted(ended), 1)
    assert hand_over.PAUSE_SECONDS <= seconds < hand_over.HAND_OVER_SECONDS / 2


def test_at_the_age(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """Too few for the count, but the oldest is ten minutes old."""
    ended = [create(), create()]
    event, seconds = wait_for(clock, [*ended, create(status="processing")])
    assert (sorted(event["outcomes"]), event["pending"]) == (sorted(ended), 1)
    assert hand_over.HAND_OVER_SECONDS - 5 <= seconds <= hand_over.HAND_OVER_SECONDS + hand_over.FIRST_ROUND_SECONDS


def test_at_the_end(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """When the last of a list has ended there is nothing to wait for: neither the count nor the age matters."""
    last = create()
    event, seconds = wait_for(clock, [last], ended_before=4)
    assert ([*event["outcomes"]], event.get("pending")) == ([last], None)
    assert seconds < hand_over.HAND_OVER_SECONDS / 2


def test_once_at_the_deadline(
    comet: Emulator, clock: Clock, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each timeout: what has not finished ends together, although the last answers come one after the other."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 1)
    clock.slow_answers(monkeypatch)
    ids = [create(status="processing") for _ in range(3)]
    for number, prediction in enumerate(ids):
        comet.fault(method="GET", path=prediction, count=None, delay=1.0 + 2.0 * number)
    event, seconds = wait_for(clock, ids, deadline=clock.time() + TIMEOUT)
    assert (sorted(event["outcomes"]), event["unfinished"], event.get("pending")) == (sorted(ids), 3, None)
    assert TIMEOUT <= seconds < TIMEOUT + 60
