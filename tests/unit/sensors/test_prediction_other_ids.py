"""``sensors/prediction.py``: a wait that resumes with other ids than its trigger has waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag, event_of


def sensor(prediction_id: Any, **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag():
        return PredictionSensor(task_id="wait", prediction_id=prediction_id, defer_after=0, retries=0, **options)


@pytest.mark.parametrize("as_list", [False, True], ids=["one id", "a list"])
def test_the_create_was_cleared_meanwhile(
    comet: Emulator, runner: TaskRunner, clock: Clock, create: Callable[..., str], as_list: bool
) -> None:
    """Airflow renders the id anew when the task resumes: the wait continues for the new prediction, in the same try."""
    old, new = create(status="processing"), create(status="processing")
    deferred = runner.run(sensor([old] if as_list else old))
    comet.set_prediction(old, status="succeeded")
    event = event_of(deferred.trigger())
    resumed = runner.run(sensor([new] if as_list else new), event=event, next_kwargs=deferred.next_kwargs)
    assert resumed.state == "deferred", resumed.error
    assert resumed.trigger().prediction_ids == [new]
    assert resumed.trigger().deadline == deferred.trigger().deadline
    comet.set_prediction(new, status="succeeded")
    event = event_of(resumed.trigger())
    ended = runner.run(sensor([new] if as_list else new), event=event, next_kwargs=resumed.next_kwargs)
    assert ended.error is None
    assert (ended.result[0] if as_list else ended.result)["id"] == new


def test_a_new_prediction_that_has_finished(
    comet: Emulator, runner: TaskRunner, clock: Clock, create: Callable[..., str]
) -> None:
    """It is handed over at once."""
    old, new = create(status="processing"), create(status="processing")
    deferred = runner.run(sensor(old))
    comet.set_prediction(old, status="succeeded")
    comet.set_prediction(new, status="succeeded")
    event = event_of(deferred.trigger())
    resumed = runner.run(sensor(new), event=event, next_kwargs=deferred.next_kwargs)
    assert resumed.result["id"] == new
