"""An emulator for all of these tests, and the connection that leads to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_comet.emulator import Emulator

KEY = "sk-integration-0123456789"


@pytest.fixture(scope="session")
def shared_comet() -> Iterator[Emulator]:
    """One emulator for the tests that leave it as they found it."""
    from airflow_provider_comet.emulator import Emulator

    with Emulator(duration=0, api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
def point_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let `cometapi_default` lead to a URL: `point_to(url, read_timeout=0.1)`."""
    import json

    def point_to(url: str, **extra: float) -> None:
        fields = {"conn_type": "cometapi", "host": url, "password": KEY, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", json.dumps(fields))

    return point_to


@pytest.fixture
def comet(shared_comet: Emulator, point_to: Callable[..., None]) -> Iterator[Emulator]:
    """An emulator as freshly started, and the connection that leads to it."""
    shared_comet.reset()
    point_to(shared_comet.base_url)
    yield shared_comet
    shared_comet.reset()
