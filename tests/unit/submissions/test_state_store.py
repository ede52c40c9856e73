"""Airflow's task state store with values that a backend has moved out of the database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions import state_store
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions import batches, creates

WARNING = "state_store_objectstorage_threshold to 65536 at least"


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Airflow's backend for object storage puts all values."""
    from airflow.providers.common.io.state_store import backend
    from airflow.sdk.execution_time import context

    name = f"{backend.__name__}.StateStoreObjectStorageBackend"
    folder = tmp_path / "objects"
    monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", name)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__STATE_STORE_OBJECTSTORAGE_PATH", f"file://{folder}")
    cached = (context._get_worker_state_store_backend, backend._get_base_path, backend._get_threshold)
    for function in (*cached, state_store._warn_of_offloading):
        function.cache_clear()
    yield folder
    monkeypatch.undo()
    for function in (*cached, state_store._warn_of_offloading):
        function.cache_clear()


@pytest.mark.parametrize(
    "task", [creates.operator, lambda: batches.operator(batches.inputs("a"))], ids=["single", "batch"]
)
def test_a_lost_object_is_not_no_record(
    comet: Emulator, runner: TaskRunner, clock: Clock, objects: Path, task: Any
) -> None:
    """The row is in the database, so something was paid: nothing is sent, and the error names the record."""
    assert runner.run(task()).state == "success"
    assert runner.run(task(), try_number=2).state == "success"
    shutil.rmtree(objects)
    lost = runner.run(task(), try_number=3)
    assert (lost.state, type(lost.error).__name__) == ("up_for_retry", "SubmissionRecordError")
    assert "'comet_" in lost.message
    assert "gone from the state_store_backend" in lost.message
    assert comet.ledger()["accepted"] == 1


@pytest.mark.parametrize("threshold", [None, 65536])
def test_records_outside_the_database_are_warned_of(
    comet: Emulator,
    runner: TaskRunner,
    clock: Clock,
    objects: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    threshold: int | None,
) -> None:
    """Once in a task's log, unless Airflow is set up to leave what is small in the database, where it is read too."""
    if threshold:
        monkeypatch.setenv("AIRFLOW__COMMON_IO__STATE_STORE_OBJECTSTORAGE_THRESHOLD", str(threshold))
    task = batches.operator(batches.inputs("a", "b"))
    with caplog.at_level("WARNING", state_store.__name__):
        made = runner.run(task).result
        assert runner.run(task, try_number=2).result == made
    assert caplog.text.count(WARNING) == (0 if threshold else 1)
    assert objects.exists() is (threshold is None)


def test_airflows_own_store_is_not_warned_of(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing to set where nothing is moved."""
    state_store._warn_of_offloading.cache_clear()
    with caplog.at_level("WARNING", state_store.__name__):
        assert runner.run(creates.operator()).state == "success"
    assert WARNING not in caplog.text
