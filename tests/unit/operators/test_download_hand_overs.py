"""``DownloadPredictionOutputOperator`` over several hand-overs: bad items of each kind, and a list of a thousand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from tests.support.task_runner import Clock, TaskRunner, dag, event_of

UNKNOWN = "z" * 26


def store(prediction: Any, folder: Path, **options: Any) -> Any:
    from airflow.sdk import Asset

    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        return DownloadPredictionOutputOperator(
            task_id="store",
            prediction=prediction,
            output_path=str(folder),
            outlets=[Asset("s3://bucket/pictures")],
            **{"retries": 2, "defer_after": 0, **options},
        )


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
def test_bad_items_of_each_kind(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_item_error: str,
) -> None:
    """A prediction that failed, that is unknown, and that does not finish in time: the others are stored at each
    hand-over, and the task says everything at once, at its end."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 1)
    monkeypatch.setattr(hand_over, "PAUSE_SECONDS", 0.0)
    failed, unfinished = create(status="failed"), create(status="processing")
    good = [create(status="processing") for _ in range(3)]
    ids = [failed, good[0], UNKNOWN, good[1], unfinished, good[2]]
    task = store(ids, tmp_path, on_item_error=on_item_error, timeout=1200, poke_interval=20)
    outcome, left, hand_overs = runner.run(task), [*good], 0
    while outcome.state == "deferred":
        assert (outcome.xcoms, outcome.sent.get("outlet_events")) == ({}, None)
        stored = {prediction for prediction in good if (tmp_path / f"{prediction}.manifest.json").exists()}
        assert stored == {*good} - {*left}, "what has finished is stored while the others run"
        if left:
            comet.set_prediction(left.pop(0), status="succeeded")
        event = event_of(outcome.trigger())
        hand_overs += 1
        outcome = runner.run(task, event=event, next_kwargs=outcome.next_kwargs)
    assert hand_overs >= len(good)
    kept = on_item_error == "keep"
    assert (outcome.state, [*outcome.xcoms]) == (("success", ["return_value"]) if kept else ("failed", ["stored"]))
    (results,) = outcome.xcoms.values()
    assert [result and result["prediction_id"] for result in results] == [
        prediction if prediction in good else None for prediction in ids
    ]
    events = outcome.sent.get("outlet_events") or []
    if kept:
        assert [event["extra"]["prediction_ids"] for event in events] == [good]
    else:
        assert events == []
        assert "3 of 6" in outcome.message
        assert all(prediction in outcome.message for prediction in (failed, UNKNOWN, unfinished))


def test_a_thousand_ids_go_through_the_database(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """The trigger's kwargs are the ids that are missing and times; the task's are bitmaps and times, in less than a
    kilobyte, however many are stored."""
    ids = [*(create() for _ in range(hand_over.HAND_OVER_COUNT)), *(f"{number:026d}" for number in range(950))]
    task = store(ids, tmp_path)
    first = runner.run(task)
    assert first.trigger().prediction_ids == ids
    ended = ids[: hand_over.HAND_OVER_COUNT]
    event = {"count": len(ended), "errors": 0, "unfinished": 0, "pending": 950, "outcomes": {key: {} for key in ended}}
    second = runner.run(task, event=event, next_kwargs=first.next_kwargs)
    assert second.trigger().prediction_ids == ids[len(ended) :]
    for deferred in (first, second):
        assert {*deferred.next_kwargs} == {
            "list",
            "stored",
            "failed",
            "delayed",
            "unchecked",
            "output_path",
            "started_at",
            "deadline",
            "key_from",
        }
        kwargs = deferred.trigger().serialize()[1]
        assert {name for name, value in kwargs.items() if isinstance(value, (list, dict))} == {"prediction_ids"}
        assert len(json.dumps(deferred.next_kwargs)) < 1_000
        assert len(json.dumps(kwargs)) < 32 * len(ids)
