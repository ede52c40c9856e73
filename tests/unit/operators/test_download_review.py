"""``DownloadPredictionOutputOperator`` between two hand-overs: trouble with some predictions is no harm to others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.operators.test_download_waits import names, resumed, store


@pytest.mark.parametrize(
    ("status", "body"), [(401, {}), (403, {}), (404, {}), (200, "<html>maintenance</html>")], ids=str
)
def test_a_stray_answer_at_a_hand_over_is_tried_again_at_the_end(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
) -> None:
    """The prediction has succeeded and is paid for: an answer that a retry may cure is not its end."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 1)
    ids = [create(status="processing") for _ in range(3)]
    task = store(ids, tmp_path)
    outcome = runner.run(task)
    comet.set_prediction(ids[0], status="succeeded")
    event = event_of(outcome.trigger())
    comet.fault(method="GET", path=f"/predictions/{ids[0]}", status=status, body=body)
    outcome = runner.run(task, event=event, next_kwargs=outcome.next_kwargs)
    assert (outcome.state, names(tmp_path)) == ("deferred", [])
    for prediction_id in ids[1:]:
        comet.set_prediction(prediction_id, status="succeeded")
        outcome = resumed(runner, task, outcome)
    assert outcome.state == "success", outcome.error
    assert [result["prediction_id"] for result in outcome.result] == ids


def test_a_prediction_that_cannot_be_read_holds_up_no_other(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hand-over is read in parts: trouble with the first prediction of the first part is none of the other parts."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 40)
    ids = [create(status="processing") for _ in range(40)]
    task = store([*ids, create(status="processing")], tmp_path)
    outcome = runner.run(task)
    for prediction_id in ids:
        comet.set_prediction(prediction_id, status="succeeded")
    event = event_of(outcome.trigger())
    comet.fault(method="GET", path=f"/predictions/{ids[0]}", status=500, body={}, count=None)
    outcome = runner.run(task, event=event, next_kwargs=outcome.next_kwargs)
    assert outcome.state == "deferred"
    assert {*ids} - {name.split(".")[0] for name in names(tmp_path) if name.endswith(".manifest.json")} == {ids[0]}


def test_a_trigger_keeps_no_outputs_for_a_store(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand pictures as data URIs would fill the triggerer, which others share: the store reads them itself."""
    from airflow_provider_comet.triggers import prediction as triggers

    kept: list[Any] = []
    original = triggers.make_event

    def make_event(outcomes: Any, **options: Any) -> Any:
        kept.extend(outcomes.values())
        return original(outcomes, **options)

    monkeypatch.setattr(triggers, "make_event", make_event)
    ids = [create(output=["data:text/plain;base64,QUJD"], logs="a long log") for _ in range(3)]
    task = store(ids, tmp_path)
    monkeypatch.setattr("airflow_provider_comet.triggers.task_wait.MAX_POLLED_ON_WORKER", 0)
    outcome = runner.run(task)
    event = event_of(outcome.trigger())
    assert sorted(prediction.id for prediction in kept) == sorted(ids)
    assert [(prediction.output, prediction.input, prediction.logs) for prediction in kept] == [(None, None, None)] * 3
    outcome = runner.run(task, event=event, next_kwargs=outcome.next_kwargs)
    assert [len(result["files"]) for result in outcome.result] == [1, 1, 1]
