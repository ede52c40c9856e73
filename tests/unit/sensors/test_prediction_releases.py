"""`PredictionSensor` and its trigger: rows that another release has stored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.summary import SUMMARY_KEYS
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.sensors.helpers import ONE_OR_MANY, ids_of, kind, sensor

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"
GOLDEN_IDS = [GOLDEN_ID, f"{GOLDEN_ID}2"]


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def names(kind: str) -> list[str]:
    """Return the names of the golden files of a kind."""
    found = sorted(path.stem for path in GOLDEN.glob(f"{kind}-*.json"))
    assert found
    return found


def add_predictions(comet: Emulator, create: Callable[..., str], status: str = "succeeded") -> None:
    """Let the emulator know predictions by the ids of the golden files."""
    first = comet._store.predictions[create()]
    for prediction_id in GOLDEN_IDS:
        prediction = dataclasses.replace(first, id=prediction_id, pinned={"status": status})
        comet._store.predictions[prediction_id] = prediction


@pytest.mark.parametrize("name", names("trigger"))
@ONE_OR_MANY
def test_stored_triggers_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str, is_list: bool
) -> None:
    """A wait that another release has stored starts, polls, and ends with a result for the task that waits."""
    from airflow.sdk.serde import deserialize

    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    ids = stored["prediction_ids"]
    add_predictions(comet, create)
    trigger = PredictionTrigger(**deserialize(stored))
    _, kwargs = trigger.serialize()
    assert {key: value for key, value in kwargs.items() if key in stored} == {
        key: value for key, value in stored.items() if key in kwargs
    }
    outcome = runner.run(sensor(ids if is_list else ids[0]), event=event_of(trigger))
    assert outcome.state == "success"
    assert (ids_of(outcome.result) if is_list else outcome.result["id"]) == (ids if is_list else ids[0])


@pytest.mark.parametrize("name", names("trigger"))
def test_stored_triggers_that_are_still_running(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """Long after its deadline such a wait ends as a timeout, not as a bug."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    stored = golden(name)
    add_predictions(comet, create, status="processing")
    outcome = runner.run(sensor(stored["prediction_ids"]), event=event_of(PredictionTrigger(**stored)))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")


def test_the_present_form_is_what_this_release_stores(clock: Clock) -> None:
    """The golden file of the present has exactly the kwargs that a trigger of this release is stored with."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    for name in ("trigger-present", "trigger-present-list"):
        stored = golden(name)
        assert PredictionTrigger(**stored).serialize()[1] == stored


ENDS = {
    "event-past-summary": ("success", None),
    "event-past-status": ("success", None),
    "event-past-error": ("failed", "AirflowSensorTimeout"),
    "event-past-error-of-all": ("failed", "AirflowFailException"),
    "event-past-transient": ("up_for_retry", "AuthenticationError"),
    "event-past-failed": ("failed", "AirflowFailException"),
    "event-present-summary": ("success", None),
    "event-present-not-polled": ("success", None),
    "event-present-list": ("failed", "AirflowFailException"),
    "event-future-summary": ("success", None),
    "event-future-status": ("success", None),
    "event-future-error": ("up_for_retry", "CometError"),
    "event-future-list": ("success", None),
}


def test_every_golden_event_has_an_expected_end() -> None:
    """A new golden file does not go untested."""
    assert {*ENDS} == {*names("event")}


@pytest.mark.parametrize("name", ENDS)
def test_events_of_other_releases(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], name: str
) -> None:
    """An event that another release has stored ends the wait as it says; unknown keys are left out of the result."""
    add_predictions(comet, create)
    is_list = name.endswith("-list")
    outcome = runner.run(sensor(GOLDEN_IDS if is_list else GOLDEN_ID), event=golden(name))
    state, error = ENDS[name]
    assert (outcome.state, outcome.error and kind(outcome)) == (state, error)
    if state == "success":
        for result in outcome.result if is_list else [outcome.result]:
            assert tuple(result) == SUMMARY_KEYS
    else:
        assert GOLDEN_ID in outcome.message


@pytest.mark.parametrize(
    ("name", "state"),
    [("event-past-summary", "success"), ("event-past-status", "success"), ("event-past-error", "failed")],
)
def test_an_event_about_an_id_for_a_task_that_waits_for_a_list_now(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], name: str, state: str
) -> None:
    """A DAG that was changed to a list while the task waited for one id: the result is a list, with the items that the
    event does not know read by the worker."""
    add_predictions(comet, create)
    outcome = runner.run(sensor(GOLDEN_IDS), event=golden(name))
    assert outcome.state == state
    if state == "success":
        assert [tuple(result) for result in outcome.result] == [SUMMARY_KEYS, SUMMARY_KEYS]
        assert ids_of(outcome.result) == GOLDEN_IDS
    else:
        assert kind(outcome) == "AirflowSensorTimeout"
        assert ids_of(outcome.xcoms["predictions"]) == [None, GOLDEN_IDS[1]]


def test_an_event_about_a_list_for_a_task_that_waits_for_an_id_now(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A DAG that was changed to an id while the task waited for a list: the result is that prediction's alone."""
    add_predictions(comet, create)
    outcome = runner.run(sensor(GOLDEN_ID), event=golden("event-present-list"))
    assert (outcome.state, outcome.result["id"]) == ("success", GOLDEN_ID)
