"""What a trigger does that starts when many predictions have ended long ago."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from airflow_provider_comet.triggers.prediction import PredictionTrigger
from tests.support.task_runner import Clock, event_of


def test_old_results_come_together(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """After an outage of the triggerer one event names all results that its first round of polls finds: an event for
    the first alone would let the task store one result per start, while the links of the others expire."""
    age = 3 * hand_over.HAND_OVER_SECONDS
    running, *ended = [create(status="processing"), *(create() for _ in range(20))]
    for prediction_id in ended:
        prediction = comet._store.predictions[prediction_id]
        prediction.created, prediction.started, prediction.completed = (prediction.created - age,) * 3
    now = clock.time()
    trigger = PredictionTrigger([running, *ended], started_at=now - age, deadline=now + 3600, hands_over=True)
    event = event_of(trigger)
    assert sorted(event["outcomes"]) == sorted(ended)
    assert clock.time() - now <= hand_over.FIRST_ROUND_SECONDS + 1
