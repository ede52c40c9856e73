"""``CreatePredictionOperator``: its arguments."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import TaskRunner
from tests.unit.submissions.creates import operator, waiting


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_ambiguous_submit": "again"}, "on_ambiguous_submit must be 'fail' or 'retry', not 'again'"),
        ({"timeout": 0}, "timeout must be a positive number of seconds"),
        ({"timeout": True}, "timeout must be"),
        ({"poke_interval": -1}, "poke_interval must be"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    """They are refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=words):
        operator(**options)


def test_timedeltas(comet: Emulator, runner: TaskRunner) -> None:
    """Times may be given as timedelta."""
    kwargs = runner.run(waiting(poke_interval=dt.timedelta(seconds=3), timeout=dt.timedelta(minutes=2))).sent[
        "trigger_kwargs"
    ]
    assert (kwargs["poke_interval"], kwargs["deadline"] - kwargs["started_at"]) == (3, 120)
