"""An emulator and an S3 for all of these tests, and the connections that lead to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_comet.emulator import Emulator
    from tests.support.s3 import S3

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


@pytest.fixture(scope="session")
def s3_of_all() -> Iterator[S3]:
    """One S3 for all tests of the process: Airflow keeps the client of a connection, whatever becomes of its server."""
    from tests.support.s3 import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_of_all: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An empty bucket, and the connection `store` that leads to it."""
    s3_of_all.empty()
    monkeypatch.setenv("AIRFLOW_CONN_STORE", s3_of_all.connection)
    return s3_of_all
