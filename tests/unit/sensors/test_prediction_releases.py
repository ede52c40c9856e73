"""`PredictionSensor` and its trigger: rows that another release has stored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.sensors.helpers import ids_of, kind, sensor

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def place(comet: Emulator, create: Callable[..., str], *ids: str) -> None:
    """Let the emulator know succeeded predictions by these ids."""
    first = comet._store.predictions[create()]
    for one in ids:
        comet._store.predictions[one] = dataclasses.replace(first, id=one, pinned={"status": "succeeded"})


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("trigger-*.json")))
def test_stored_triggers_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """A wait that another release has stored starts, looks, and ends with a result for the task that waits."""
    from airflow.sdk.serde import deserialize

    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    trigger = PredictionTrigger(**deserialize(stored))
    _, kwargs = trigger.serialize()
    assert {key: value for key, value in kwargs.items() if key in stored} == {
        key: value for key, value in stored.items() if key in kwargs
    }
    outcome = runner.run(sensor(stored["prediction_id"]), event=event_of(trigger))
    assert outcome.state == "success"
    given = stored["prediction_id"]
    assert (ids_of(outcome.result) if isinstance(given, list) else outcome.result["id"]) == given


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("trigger-*.json")))
def test_stored_triggers_that_are_still_running(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """Long after its deadline such a wait ends as a timeout, not as a bug."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    for one in (GOLDEN_ID, f"{GOLDEN_ID}2"):
        comet.set_prediction(one, status="processing")
    outcome = runner.run(sensor(stored["prediction_id"]), event=event_of(PredictionTrigger(**stored)))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")


ENDS = {
    "event-past-summary": ("success", None),
    "event-past-status": ("success", None),
    "event-past-error": ("failed", "AirflowSensorTimeout"),
    "event-past-transient": ("up_for_retry", "AuthenticationError"),
    "event-past-failed": ("failed", "AirflowFailException"),
    "event-present-list": ("failed", "AirflowFailException"),
    "event-future-summary": ("success", None),
    "event-future-status": ("success", None),
    "event-future-error": ("up_for_retry", "CometError"),
    "event-future-list": ("success", None),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("event-*.json")))
def test_events_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """An event that another release has stored ends the wait as it says; what is not known here is left out."""
    from airflow_provider_comet.api.prediction import SUMMARY_KEYS

    place(comet, create, GOLDEN_ID, f"{GOLDEN_ID}2")
    is_list = name.endswith("-list")
    given = [GOLDEN_ID, f"{GOLDEN_ID}2"] if is_list else GOLDEN_ID
    outcome = runner.run(sensor(given), event=golden(name))
    state, error = ENDS[name]
    assert (outcome.state, outcome.error and kind(outcome)) == (state, error)
    if state == "success":
        for one in outcome.result if is_list else [outcome.result]:
            assert tuple(one) == SUMMARY_KEYS
    else:
        assert GOLDEN_ID in outcome.message


@pytest.mark.parametrize("name", ["event-past-summary", "event-past-status", "event-past-error"])
def test_an_event_of_one_for_a_task_that_waits_for_a_list_now(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """A DAG that was changed to a list while the task waited for one id: no success by mistake."""
    place(comet, create, GOLDEN_ID)
    outcome = runner.run(sensor([GOLDEN_ID]), event=golden(name))
    assert outcome.state in {"up_for_retry", "failed"}
