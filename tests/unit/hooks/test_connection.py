"""``hooks/connection.py``: which key goes to which host, on a worker and in a triggerer."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import TaskRunner, dag
from tests.unit.conftest import KEY

SCHNELL = "black-forest-labs/flux-schnell"


def read_on_worker(conn_id: str) -> Config:
    from airflow_provider_comet.hooks.connection import get_config

    return get_config(conn_id)


def read_in_triggerer(conn_id: str) -> Config:
    from airflow_provider_comet.hooks.connection import aget_config

    return asyncio.run(aget_config(conn_id))


# Workers and triggerers read connections by different calls of Airflow, and must get the same settings.
READERS = pytest.mark.parametrize("read", [read_on_worker, read_in_triggerer], ids=["worker", "triggerer"])
Read = Callable[[str], Config]


@READERS
def test_connection_with_all_fields(read: Read, connection: Callable[..., None]) -> None:
    """Key, base URL and both timeouts come from the connection."""
    connection(host="https://gateway.example/v1/", extra={"connect_timeout": 3, "read_timeout": "90.5", "other": 1})
    assert read("cometapi_default") == Config(KEY, "https://gateway.example", 3.0, 90.5)


@READERS
def test_an_extra_that_is_no_object(read: Read, connection: Callable[..., None]) -> None:
    """An extra that holds JSON, but no object, is refused with a clear error."""
    connection(extra="[1, 2]")
    with pytest.raises(e.ConfigurationError, match="'cometapi_default': its extra must be a JSON object, not a list"):
        read("cometapi_default")


@pytest.mark.parametrize("is_silent", [False, True], ids=["raises", "gives no answer"])
def test_a_lookup_that_fails_in_the_triggerer(monkeypatch: pytest.MonkeyPatch, is_silent: bool) -> None:
    """If Airflow can't return a connection, for any reason, the error is a kind that does not end running waits."""
    from airflow.providers.common.compat import connection as compat

    from airflow_provider_comet.hooks import connection

    async def look_up(conn_id: str) -> Any:
        if is_silent:
            await asyncio.sleep(3600)
        raise PermissionError("the vault is sealed")

    monkeypatch.setattr(compat, "get_async_connection", look_up)
    monkeypatch.setattr(connection, "LOOKUP_SECONDS", 0.01)
    words = "Airflow gave no answer in 0.01 s" if is_silent else "PermissionError: the vault is sealed"
    with pytest.raises(e.ConnectionLookupError, match=f"connection 'mine'.* ?{words}"):
        read_in_triggerer("mine")


@READERS
def test_connection_with_a_key_only(read: Read, connection: Callable[..., None]) -> None:
    """Every setting but the key has a default."""
    connection("other", extra={"connect_timeout": None, "read_timeout": ""})
    assert read("other") == Config(KEY, "https://api.cometapi.com", 10.0, 75.0)


@READERS
@pytest.mark.parametrize(
    ("uri", "base_url"),
    [
        (f"cometapi://:{KEY}@api.cometapi.com", "https://api.cometapi.com"),
        (f"cometapi://:{KEY}@gateway.example:8443", "https://gateway.example:8443"),
        (f"cometapi://http://:{KEY}@127.0.0.1:8765", "http://127.0.0.1:8765"),
        (f"cometapi://:{KEY}@http%3A%2F%2F127.0.0.1:8765", "http://127.0.0.1:8765"),
        (f"cometapi://:{KEY}@/?read_timeout=90", "https://api.cometapi.com"),
    ],
)
def test_connection_as_uri(read: Read, monkeypatch: pytest.MonkeyPatch, uri: str, base_url: str) -> None:
    """A connection can be written as a URI, with a port."""
    monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", uri)
    config = read("cometapi_default")
    assert (config.base_url, config.api_key) == (base_url, KEY)
    assert config.read_timeout == (90.0 if "read_timeout" in uri else 75.0)


@READERS
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"conn_type": "http"}, "is of type 'http', not 'cometapi'"),
        ({"password": None}, "the API key is missing"),
        ({"password": "  "}, "the API key is missing"),
        ({"host": "http://gateway.example"}, "must use https"),
        ({"host": "https://me:secret@gateway.example"}, "a user name or a password"),
        ({"extra": {"read_timeout": "long"}}, "'read_timeout' must be a number of seconds"),
        ({"extra": {"connect_timeout": -1}}, "'connect_timeout' must be a number of seconds"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_unusable_connections_are_refused(
    read: Read,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    words: str,
) -> None:
    """An unusable connection is named in the error, and is not replaced by the key of the environment."""
    connection(**{"conn_type": "cometapi", **fields})
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    with pytest.raises(e.ConfigurationError) as caught:
        read("cometapi_default")
    assert "'cometapi_default'" in str(caught.value)
    assert words in str(caught.value)
    assert KEY not in str(caught.value)
    assert not caught.value.retryable


@READERS
def test_missing_connection_error_shows_how_to_create_it(read: Read) -> None:
    """The error for a missing connection shows the command that creates it."""
    with pytest.raises(e.ConfigurationError) as caught:
        read("mine")
    assert "connection 'mine' does not exist" in str(caught.value)
    assert "airflow connections add mine --conn-type cometapi --conn-password" in str(caught.value)
    assert "COMETAPI_KEY" not in str(caught.value)
    with pytest.raises(e.ConfigurationError, match="or set COMETAPI_KEY"):
        read("cometapi_default")


@READERS
def test_environment_serves_where_the_default_connection_is_missing(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and URL come from the environment together, without the blanks and line ends that copying adds."""
    monkeypatch.setenv("COMETAPI_KEY", f" {KEY}\n")
    assert read("cometapi_default") == Config(KEY, is_from_environment=True)
    monkeypatch.setenv("COMETAPI_BASE_URL", "https://gateway.example/v1 ")
    assert read("cometapi_default") == Config(KEY, "https://gateway.example", is_from_environment=True)


@READERS
def test_environment_serves_no_other_connection(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's key does not replace a missing connection of another name than the default."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    with pytest.raises(e.ConfigurationError, match="'mine' does not exist"):
        read("mine")


@READERS
def test_environments_url_is_never_mixed_with_a_connections_key(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is sent only to the host of its own source: a URL in the environment without a key is ignored."""
    monkeypatch.setenv("COMETAPI_BASE_URL", "https://elsewhere.example")
    with pytest.raises(e.ConfigurationError, match="does not exist"):
        read("cometapi_default")
    connection()
    assert read("cometapi_default") == Config(KEY)
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    assert read("cometapi_default") == Config(KEY)


@READERS
def test_use_of_the_environment_is_logged_once(
    read: Read, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once per process that the environment's key is used, and does not show the key."""
    from airflow_provider_comet.hooks import connection

    connection._log_once.cache_clear()
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setattr(connection.log, "propagate", True)
    with caplog.at_level(logging.INFO, connection.log.name):
        for _ in range(3):
            read("cometapi_default")
    messages = [record.getMessage() for record in caplog.records if "COMETAPI_KEY" in record.getMessage()]
    assert messages == [
        "Connection 'cometapi_default' does not exist: using COMETAPI_KEY and COMETAPI_BASE_URL instead"
    ]


@READERS
@pytest.mark.parametrize("source", ["connection", "environment"])
def test_key_is_masked(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Airflow masks the key in everything that is logged after the connection was read."""
    from airflow.sdk._shared.secrets_masker import redact

    key = f"sk-{source}-{read.__name__}-0123456789"
    if source == "connection":
        connection("masked", password=key)
        read("masked")
    else:
        monkeypatch.setenv("COMETAPI_KEY", key)
        read("cometapi_default")
    assert redact(f"a {key} b") == "a *** b"


def test_key_of_the_execution_api_is_masked_and_used(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task uses the key of a connection in Airflow's database, and names a connection that does not exist."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    stored = {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}
    with dag():
        tasks = [
            CreatePredictionOperator(task_id=name, conn_id=name, model=SCHNELL, input={"prompt": "x"}, retries=2)
            for name in ("stored", "missing")
        ]
    runner = TaskRunner({"stored": stored})
    assert runner.run(tasks[0]).state == "success"
    outcome = runner.run(tasks[1])
    assert outcome.state == "up_for_retry"
    assert "connection 'missing' does not exist" in outcome.message
    assert comet.ledger()["accepted"] == 1


def test_environment_of_the_tests_is_clean() -> None:
    """No setting or key of whoever runs the tests takes part in them."""
    assert not [name for name in os.environ if name.startswith(("COMETAPI_", "AIRFLOW_CONN_"))]
