"""For the tests of DAG authors: `pytest_plugins = ["airflow_provider_comet.emulator.pytest_plugin"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_comet.emulator.runner import Emulator


@pytest.fixture
def comet_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A fresh emulator whose predictions take a fifth of a second, and `cometapi_default` pointing at it."""
    with Emulator(duration=0.2) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", emulator.connection_json())
        yield emulator
