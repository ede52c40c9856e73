"""What the log of a task that stores a list says when it returns to a worker."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag, run_sensor


def test_each_return_says_how_far_it_is(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A line says how many are stored, how many could not be, how many still run, and when the timeout comes: Airflow
    keeps the triggerer's lines only of the last deferral."""
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    caplog.set_level(logging.INFO)
    ids = [create(), create(status="failed", error="out of memory"), create(status="processing")]
    clock.on_sleep = lambda seconds: comet.set_prediction(ids[2], status="succeeded") if clock.sleeps[2:] else None
    with dag():
        task = DownloadPredictionOutputOperator(
            task_id="store", prediction=ids, output_path=str(tmp_path), defer_after=0, timeout=1200, poke_interval=30
        )
    run_sensor(runner, task, clock)
    said = caplog.text + "".join(capfd.readouterr())
    assert "1 of 3 predictions are stored, 1 could not be, 1 are waited for; the timeout comes in 1200 s" in said
    assert re.search(r"2 of 3 predictions are stored, 1 could not be(?!, )", said)
