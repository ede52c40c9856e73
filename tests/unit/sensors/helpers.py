"""What the tests of ``PredictionSensor`` share."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Outcome, dag

EACH_MODE = pytest.mark.parametrize("mode", MODES)
ONE_OR_MANY = pytest.mark.parametrize("is_list", [False, True], ids=["id", "list"])
AIRFLOWS_TIMEOUT: dict[str, Any] = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger timeout"}}
"""How Airflow resumes a task if its own timeout ended the deferral."""


def sensor(prediction_id: Any = "abc", mode: str | None = None, /, **options: Any) -> Any:
    """Return a sensor that may be retried.

    :param mode: a key of ``MODES``; by default the sensor's own.
    """
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    options = {"retries": 2, **(MODES[mode] if mode else {}), **options}
    with dag():
        return PredictionSensor(task_id="wait", prediction_id=prediction_id, **options)


def count_polls(comet: Emulator) -> int:
    """Return how many polls the emulator has received."""
    return sum(request["method"] == "GET" for request in comet.ledger()["requests"])


def polls_by_id(comet: Emulator) -> Counter[str]:
    """Return how often each prediction was polled."""
    requests = comet.ledger()["requests"]
    return Counter(request["path"].split("/")[-1] for request in requests if request["method"] == "GET")


def copies(comet: Emulator, first: str, count: int, **pins: Any) -> list[str]:
    """Make so many predictions like an existing one, in one step, and return their ids."""

    def copy() -> list[str]:
        known = comet._store.predictions
        made = [
            dataclasses.replace(known[first], id=f"{first}-{n:04}", pinned={**known[first].pinned, **pins})
            for n in range(count)
        ]
        known.update({prediction.id: prediction for prediction in made})
        return [prediction.id for prediction in made]

    return comet._on_loop(copy)


def kind(outcome: Outcome) -> str:
    """Return the name of the error's class."""
    return type(outcome.error).__name__


def ids_of(results: Any) -> list[Any]:
    """Return the ids of a list of results; null stays null."""
    return [None if result is None else result["id"] for result in results]


def statuses_of(results: Any) -> list[Any]:
    """Return the statuses of a list of results; null stays null."""
    return [None if result is None else result["status"] for result in results]


def event_about(outcomes: dict[str, Any], *, errors: int = 0, unfinished: int = 0) -> dict[str, Any]:
    """Return a trigger's event with these outcomes, by prediction id."""
    return {"count": len(outcomes), "errors": errors, "unfinished": unfinished, "outcomes": outcomes}
