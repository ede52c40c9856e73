"""For all tests. `tests/unit/api` runs without Airflow, so imports of it stand inside the fixtures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import private_airflow

if TYPE_CHECKING:
    from tests.support.task_runner import Clock, TaskRunner

private_airflow()  # before the first import of Airflow, which reads its environment


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Each test begins as a process does that has read no connection yet."""
    if module := sys.modules.get("airflow_provider_comet.hooks.connection"):
        module._found.clear()
        module._warn_once.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only while somebody sleeps."""
    from tests.support.task_runner import Clock

    return Clock().install(monkeypatch)


@pytest.fixture
def runner() -> TaskRunner:
    """Airflow's task runner, without a database."""
    from tests.support.task_runner import TaskRunner

    return TaskRunner()
