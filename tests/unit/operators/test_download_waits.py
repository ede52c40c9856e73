"""``DownloadPredictionOutputOperator`` with real tasks and triggers: how it waits, and what it remembers meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag, event_of


def store(prediction: Any, folder: Path, **options: Any) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        return DownloadPredictionOutputOperator(
            task_id="store",
            prediction=prediction,
            output_path=str(folder),
            **{"retries": 2, "defer_after": 0, **options},
        )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def resumed(runner: TaskRunner, task: Any, deferred: Outcome) -> Outcome:
    """Run the trigger of a deferred task, and resume the task with its event."""
    return runner.run(task, event=event_of(deferred.trigger()), next_kwargs=deferred.next_kwargs)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each result be handed over alone."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 1)
    monkeypatch.setattr(hand_over, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The manifests that were read, by prediction id."""
    from airflow_provider_comet.outputs.manifest_reader import ManifestReader

    found: list[str] = []
    original = ManifestReader._read
    monkeypatch.setattr(ManifestReader, "_read", lambda self, key: found.append(key) or original(self, key))
    return found


def test_an_attempt_reads_each_manifest_twice_at_most(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    one_by_one: None,
    reads: list[str],
) -> None:
    """Before its first poll, and at its end: not at each return to a worker."""
    ids = [create(status="processing") for _ in range(4)]
    task = store(ids, tmp_path)
    outcome = runner.run(task)
    assert sorted(reads) == sorted(ids)
    for prediction in ids:
        comet.set_prediction(prediction, status="succeeded")
        outcome = resumed(runner, task, outcome)
    assert (outcome.state, len(outcome.result)) == ("success", 4)
    assert {key: reads.count(key) for key in ids} == {**dict.fromkeys(ids, 2), ids[-1]: 1}


def test_what_goes_through_the_database(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, one_by_one: None
) -> None:
    """Ids of what is missing, times and bitmaps: no result, no link, no key."""
    ids = [create(status="processing") for _ in range(30)]
    task = store(ids, tmp_path, names=[f"SKU-{number}" for number in range(30)])
    first = runner.run(task)
    comet.set_prediction(ids[7], status="succeeded")
    event = event_of(first.trigger())
    assert event["outcomes"] == {ids[7]: {}}
    second = runner.run(task, event=event, next_kwargs=first.next_kwargs)
    assert second.state == "deferred"
    assert second.trigger().prediction_ids == [*ids[:7], *ids[8:]]
    assert second.next_kwargs["deadline"] == first.next_kwargs["deadline"]
    kept = {*second.next_kwargs} - {"started_at", "deadline", "key_from"}
    assert kept == {"list", "stored", "failed", "delayed", "unchecked", "output_path"}
    carried = json.dumps([event, second.next_kwargs, second.sent["trigger_kwargs"]])
    assert not [word for word in ("http", "SKU", "sha256", comet.api_key) if word in carried]
    assert len(json.dumps(second.next_kwargs)) < 400


def test_a_resume_without_an_event(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, reads: list[str]
) -> None:
    """It equals a retry, with the deadline of its attempt: manifests are read, and the wait continues."""
    ids = [create(status="processing"), create()]
    task = store(ids, tmp_path)
    deferred = runner.run(task)
    assert deferred.state == "deferred"
    reads.clear()
    again = runner.run(task, next_kwargs=deferred.next_kwargs)
    assert (again.state, sorted(reads)) == ("deferred", sorted(ids))
    assert {**again.next_kwargs, "started_at": 0} == {**deferred.next_kwargs, "started_at": 0}
    comet.set_prediction(ids[0], status="succeeded")
    assert resumed(runner, task, again).state == "success"


def test_a_create_that_was_cleared_meanwhile(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """The list holds other ids when the task resumes: it stores these, and nothing of what it was told is misread."""
    old, kept, new = create(status="processing"), create(), create(status="processing")
    deferred = runner.run(store([old, kept], tmp_path))
    comet.set_prediction(old, status="succeeded")
    event = event_of(deferred.trigger())
    task = store([new, kept], tmp_path)
    outcome = runner.run(task, event=event, next_kwargs=deferred.next_kwargs)
    assert (outcome.state, outcome.trigger().prediction_ids) == ("deferred", [new])
    comet.set_prediction(new, status="succeeded")
    outcome = resumed(runner, task, outcome)
    assert [result["prediction_id"] for result in outcome.result] == [new, kept]
    assert old not in str(names(tmp_path))


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
def test_bad_items_are_reported_at_the_end(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    one_by_one: None,
    on_item_error: str,
) -> None:
    """A failure that was seen early does not keep the others from being stored, and sends no event before the end."""
    from airflow.sdk import Asset

    failed, first, last = create(status="failed"), create(status="processing"), create(status="processing")
    task = store(
        [failed, 7, first, None, last], tmp_path, on_item_error=on_item_error, outlets=[Asset("s3://bucket/pictures")]
    )
    outcome = runner.run(task)
    for prediction in (first, last):
        assert (outcome.state, outcome.xcoms) == ("deferred", {})
        comet.set_prediction(prediction, status="succeeded")
        outcome = resumed(runner, task, outcome)
    kept = on_item_error == "keep"
    assert outcome.state == ("success" if kept else "failed")
    (results,) = outcome.xcoms.values()
    assert [result and result["prediction_id"] for result in results] == [None, None, first, None, last]
    if kept:
        (event,) = outcome.sent["outlet_events"]
        assert event["extra"]["prediction_ids"] == [first, last]
    else:
        assert f"Prediction {failed}: it failed" in outcome.message
        assert "prediction[1] must be what PredictionSensor has returned" in outcome.message
        assert "2 of 4" in outcome.message


def test_names_of_a_mapped_task(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """Names may come in lists of lists, as predictions do; each is in the manifest and in the result."""
    ids = [create() for _ in range(3)]
    outcome = runner.run(store([ids[:2], ids[2:]], tmp_path, names=[["a", None], ["c"]]))
    assert [(result["prediction_id"], result["name"]) for result in outcome.result] == [
        (ids[0], "a"),
        (ids[1], None),
        (ids[2], "c"),
    ]
    found = [json.loads((tmp_path / f"{key}.manifest.json").read_text())["name"] for key in ids]
    assert found == ["a", None, "c"]


def test_names_that_do_not_fit(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """The task fails for good before anything is stored, and says what is wrong."""
    outcome = runner.run(store([create(), create()], tmp_path, names=["a"]))
    assert (outcome.state, names(tmp_path)) == ("failed", [])
    assert "names has 1 items, and prediction has 2" in outcome.message


def test_a_prediction_that_is_in_the_list_twice(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """It is stored once. Its first name is in the manifest and in the event; in the result each place has its own."""
    from airflow.sdk import Asset

    twice, other = create(), create()
    task = store([twice, other, twice], tmp_path, names=["a", "b", "c"], outlets=[Asset("s3://bucket/pictures")])
    outcome = runner.run(task)
    assert [result["name"] for result in outcome.result] == ["a", "b", "c"]
    (event,) = outcome.sent["outlet_events"]
    assert (event["extra"]["prediction_ids"], event["extra"]["names"]) == ([twice, other], ["a", "b"])
    assert json.loads((tmp_path / f"{twice}.manifest.json").read_text())["name"] == "a"


@pytest.mark.parametrize("is_over", [False, True])
def test_an_api_in_trouble_is_waited_for_once(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, is_over: bool
) -> None:
    """A long list of results can't be read when the task resumes: before the deadline the trigger waits for all of them
    again, and after it the task fails for a retry, without two minutes of patience for each part of the list."""
    from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

    ids = [create() for _ in range(100)]
    task = store(ids, tmp_path, timeout=7200)
    deferred = runner.run(task)
    event = event_of(deferred.trigger())
    comet.fault(method="GET", path="/predictions/", status=503, count=None)
    clock.now += 7300 if is_over else 0
    began = clock.now
    outcome = runner.run(task, event={**event, "pending": 0}, next_kwargs=deferred.next_kwargs)
    assert clock.now - began < 2 * RETRY_BUDGET_SECONDS
    if is_over:
        assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionListError")
    else:
        assert (outcome.state, sorted(outcome.trigger().prediction_ids)) == ("deferred", sorted(ids))
