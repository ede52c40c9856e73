"""A pytest fixture for the tests of DAG authors.

Enable it by `pytest_plugins = ["airflow_provider_comet.emulator.pytest_plugin"]`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_comet.emulator.runner import Emulator


@pytest.fixture
def comet_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run a fresh emulator whose predictions take 0.2 seconds, and point `cometapi_default` at it."""
    with Emulator(duration=0.2) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", emulator.connection_json())
        yield emulator
