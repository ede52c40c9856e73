"""The sensor's tables for a store that waits: the same next state and errors, whatever happens to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from tests.integration import test_parity as single
from tests.integration import test_parity_lists as lists
from tests.support.task_runner import Clock, TaskRunner, dag, run_sensor

WAYS: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "deferrable": {"defer_after": 0},
    "default": {},
    "on the worker first": {"defer_after": 100},
}
OF_SENSORS = {"allow_empty", "soft_fail", "never_fail"}
"""Options that a store does not have."""
ROWS = [row for row in single.ROWS if not OF_SENSORS & dict(row.options).keys()]
LISTS = [row for row in lists.ROWS if not OF_SENSORS & dict(row.options).keys()]


@pytest.fixture
def slow_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The injected clock, which the emulator's delays go by as well."""
    return clock.slow_answers(monkeypatch)


def store_of(prediction: Any, folder: Path, **options: Any) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        return DownloadPredictionOutputOperator(
            task_id="store", prediction=prediction, output_path=str(folder), **{"retries": 2, **options}
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_one_prediction(
    comet: Emulator, slow_clock: Clock, runner: TaskRunner, tmp_path: Path, row: single.Row, way: str
) -> None:
    """What ends a sensor's wait ends a store's: a success with its file, a failure with the same error."""
    prediction = single.new_prediction(comet)
    task = store_of(prediction, tmp_path, timeout=single.TIMEOUT, **dict(row.options), **WAYS[way])
    row.happens(comet, prediction, slow_clock)
    outcome = run_sensor(runner, task, slow_clock)
    error = "" if outcome.error is None else type(outcome.error).__name__
    assert (outcome.state, error) == (row.state, row.raises), outcome.message
    stored = sorted(path.name for path in tmp_path.iterdir())
    if row.error is None:
        assert outcome.result["prediction_id"] == prediction
        assert stored == [f"{prediction}-0.webp", f"{prediction}.manifest.json"]
    else:
        assert (outcome.xcoms, stored) == ({}, [])
        assert [type(one) for one in outcome.chain if isinstance(one, e.CometError)] == [row.error]
        assert outcome.message.startswith(f"Prediction {prediction}: ")


@pytest.mark.parametrize("count", [1, hand_over.HAND_OVER_COUNT], ids=["each alone", "together"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
@pytest.mark.parametrize("row", LISTS, ids=lambda row: row.name)
def test_a_list_that_straddles_the_deadline(
    comet: Emulator,
    slow_clock: Clock,
    runner: TaskRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: lists.Row,
    on_item_error: str,
    way: str,
    count: int,
) -> None:
    """What a sensor would return is stored, in its place, and the others are null: also if each is stored alone."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", count)
    monkeypatch.setattr(hand_over, "PAUSE_SECONDS", 0.0)
    ids = lists.prepare(comet, row.items)
    options = {"timeout": lists.TIMEOUT, "poke_interval": lists.INTERVAL, **dict(row.options), **WAYS[way]}
    task = store_of(ids, tmp_path, on_item_error=on_item_error, **options)
    outcome = run_sensor(runner, task, slow_clock)
    kept = on_item_error == "keep" and row.kept == "success"
    expected = ("success", "") if kept else (row.state, row.raises)
    assert (outcome.state, "" if outcome.error is None else type(outcome.error).__name__) == expected, outcome.message
    assert set(outcome.xcoms) == {"return_value" if kept else "stored"}
    (results,) = outcome.xcoms.values()
    has_result = [result == lists.OK for result in row.results]
    assert [result and result["prediction_id"] for result in results] == [
        prediction if is_stored else None for prediction, is_stored in zip(ids, has_result, strict=True)
    ]
    stored = {path.name for path in tmp_path.iterdir()}
    assert stored == {
        name
        for prediction, is_stored in zip(ids, has_result, strict=True)
        if is_stored
        for name in (f"{prediction}-0.webp", f"{prediction}.manifest.json")
    }
