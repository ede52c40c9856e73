"""Loaded for the pure tests too, which run without Airflow: imports stand inside the fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.test_architecture import PACKAGE, ROOMS, is_pure

if TYPE_CHECKING:
    from airflow_provider_comet.emulator import Emulator

KEY = "sk-unit-0123456789"
UNIT = Path(__file__).parent

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # without time limits: a busy machine is no bug


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--pure`."""
    parser.addoption(
        "--pure", choices=("only", "no"), help="the tests of pure modules, which load no Airflow, or the others"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what `--pure` does not ask for."""
    wanted = config.getoption("--pure")
    if wanted is None or collection_path.suffix != ".py" or not collection_path.is_relative_to(UNIT):
        return None
    return (wanted == "only") != _tests_a_pure_module(collection_path.relative_to(UNIT)) or None


def _tests_a_pure_module(test: Path) -> bool:
    modules = [*(PACKAGE / test.parent).glob("*.py")] if test.parts[0] in ROOMS else []
    # The longest name wins: test_batch_submission.py belongs to batch_submission.py, not to batch.py.
    named = [path for path in modules if f"{test.stem}_".startswith(f"test_{path.stem}_")]
    return bool(named) and is_pure(max(named, key=lambda path: len(path.stem)))


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A fresh emulator whose predictions finish at once, and the connection that leads to it."""
    from airflow_provider_comet.emulator import Emulator

    with Emulator(duration=0, api_key=KEY) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", emulator.connection_json())
        yield emulator


@pytest.fixture
def create(comet: Emulator) -> Callable[..., str]:
    """Create a prediction at the emulator, without the package under test; returns its id."""
    import requests

    def create(**outcome: Any) -> str:
        if outcome:
            comet.next_outcome(**outcome)
        answer = requests.post(
            f"{comet.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions",
            json={"input": {"prompt": "a lighthouse"}},
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=5,
        )
        return str(answer.json()["id"])

    return create


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set a connection in the environment: `connection(id, host=..., extra={...})`."""

    def connection(conn_id: str = "cometapi_default", **fields: Any) -> None:
        fields = {"conn_type": "cometapi", "password": KEY, **fields}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return connection


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow before 3.3: tasks find no state store."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    original = RuntimeTaskInstance.get_template_context

    def without(ti: Any) -> Any:
        context = original(ti)
        context.pop("task_state_store")
        return context

    monkeypatch.setattr(RuntimeTaskInstance, "get_template_context", without)
