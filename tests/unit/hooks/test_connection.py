"""``hooks/connection.py``: which key goes to which host, on a worker and in a triggerer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag, event_of
from tests.unit.conftest import KEY

pytestmark = pytest.mark.usefixtures("clock")  # a missing connection is looked up again after pauses

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
    """Each field of a connection takes part in the settings."""
    extra = {
        "connect_timeout": 3,
        "read_timeout": "90.5",
        "max_polls_per_second": 7,
        "output_hosts": "http://minio:9000, 10.0.0.5",
        "allow_insecure_http": "true",
    }
    connection(host="gateway.example/v1/", port=8443, schema="http", login="", description="ours", extra=extra)
    hosts = ("http://minio:9000", "10.0.0.5")
    assert read("cometapi_default") == Config(KEY, "http://gateway.example:8443", 3.0, 90.5, 7.0, hosts, True)


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
        (f"cometapi://:{KEY}@/?__extra__=%7B%22read_timeout%22%3A+90%7D", "https://api.cometapi.com"),
        (f"cometapi://:{KEY}@127.0.0.1:8765/http", "http://127.0.0.1:8765"),
        (f"cometapi://:{KEY}@[::1]:8765/http", "http://[::1]:8765"),
        (f"cometapi://http://:{KEY}@[::1]:8765", "http://[::1]:8765"),
        (f"cometapi://:{KEY}@[2001:db8::1]", "https://[2001:db8::1]"),
        (f"cometapi://:{KEY}@gateway.example%2Fcomet%2F:8443", "https://gateway.example:8443/comet"),
        (f"cometapi://:{KEY}@http%3A%2F%2Femulator:8765/?allow_insecure_http=true", "http://emulator:8765"),
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
        ({"extra": {"timeout": 5}}, "its extra 'timeout' is not known; known are connect_timeout, read_timeout,"),
        ({"extra": {"extra__cometapi__read_timeout": 5}}, "its extra 'extra__cometapi__read_timeout' is not known"),
        ({"extra": {"__extra__": "{}"}}, "its extra '__extra__' is not known"),
        ({"extra": {"timeout": None}}, "its extra 'timeout' is not known"),
        ({"extra": "{no JSON"}, "its extra is no JSON"),
        ({"extra": "read_timeout=5"}, "its extra is no JSON"),
        ({"extra": '"text"'}, "its extra must be a JSON object, not a str"),
        ({"extra": {"allow_insecure_http": "yes"}}, "'allow_insecure_http' must be true or false"),
        ({"extra": {"allow_insecure_http": False}, "host": "http://emulator"}, "must use https"),
        ({"login": "me"}, "it has a login, which is not used; the API key belongs in the password field"),
        ({"login": KEY, "password": None}, "the API key belongs in the password field"),
        ({"schema": "v1"}, "a path belongs to the host"),
        ({"schema": "http"}, "must use https"),
        ({"host": "https://gateway.example", "schema": "http"}, "contradicts the host"),
        ({"host": "https://gateway.example:8443", "port": 9443}, "names port 8443, the port field 9443"),
        ({"port": -1}, "the port must be a number from 1 to 65535"),
        ({"port": 65536}, "the port must be a number from 1 to 65535"),
        ({"host": "https://a..b"}, "is not a base URL"),
        ({"password": "sk-a b"}, "characters that a key can't have"),
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
    """The error for a missing connection says what else it may be, and shows the command that creates it."""
    with pytest.raises(e.ConfigurationError) as caught:
        read("mine")
    assert "connection 'mine' does not exist, or Airflow can't read it now" in str(caught.value)
    assert "airflow connections add mine --conn-type cometapi --conn-password" in str(caught.value)
    assert "COMETAPI_KEY" not in str(caught.value)
    with pytest.raises(e.ConfigurationError, match="or set COMETAPI_KEY"):
        read("cometapi_default")


@READERS
@pytest.mark.parametrize(
    "text", [f"cometapi://:{KEY}@gateway.example:99999", f"cometapi://a://b://:{KEY}@c", '{"port": "x"}']
)
def test_a_connection_that_airflow_can_not_parse(read: Read, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Airflow calls a connection missing whose environment variable it can't parse: that is no reason to let the
    environment's key pay."""
    monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", text)
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    with pytest.raises(e.ConfigurationError, match="AIRFLOW_CONN_COMETAPI_DEFAULT is set, but") as caught:
        read("cometapi_default")
    assert KEY not in str(caught.value)


@READERS
def test_an_empty_variable_is_no_connection(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Airflow: a compose file that passes a variable on has an empty one where there is none."""
    monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", "")
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    assert read("cometapi_default") == Config(KEY, is_from_environment=True)


def test_a_secrets_backend_that_denies_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look-up raises on a worker is an error of this package, which Airflow retries."""
    from airflow.providers.common.compat.sdk import BaseHook

    def deny(conn_id: str) -> Any:
        raise PermissionError("denied")

    monkeypatch.setattr(BaseHook, "get_connection", deny)
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    with pytest.raises(e.ConnectionLookupError, match="'cometapi_default': PermissionError: denied"):
        read_on_worker("cometapi_default")


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
    """A warning says once per process that the environment's key is used and whose account pays, without the key."""
    from airflow_provider_comet.hooks import connection

    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setattr(connection.log, "propagate", True)
    with caplog.at_level(logging.INFO, connection.log.name):
        for _ in range(3):
            read("cometapi_default")
    lines = [(line.levelname, line.getMessage()) for line in caplog.records if "COMETAPI_KEY" in line.getMessage()]
    assert lines == [
        (
            "WARNING",
            "Connection 'cometapi_default' does not exist, or Airflow can't read it now: using COMETAPI_KEY and "
            "COMETAPI_BASE_URL of the environment instead. The account of COMETAPI_KEY pays, at "
            "https://api.cometapi.com",
        )
    ]
    assert KEY not in caplog.text


@READERS
@pytest.mark.parametrize(("name", "value"), [("COMETAPI_BASE_URL", "http://gateway.example"), ("COMETAPI_KEY", "a b")])
def test_an_unusable_environment(read: Read, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The error names the variables, not a connection that does not exist."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setenv(name, value)
    with pytest.raises(e.ConfigurationError, match="COMETAPI_KEY or COMETAPI_BASE_URL: "):
        read("cometapi_default")


@READERS
def test_a_missing_connection_is_looked_up_again(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Airflow calls each connection missing while its database is away: two more look-ups within two seconds find one
    that is there, and its key is used."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    clock.on_sleep = lambda _: connection() if len(clock.sleeps) == 2 else None
    assert read("cometapi_default") == Config(KEY)
    assert clock.sleeps == [0.5, 1.5]


@READERS
def test_a_laptop_does_not_wait_at_each_task(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Who has only ``COMETAPI_KEY`` waits two seconds once in a process; a connection that is made later is found."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    for _ in range(3):
        assert read("cometapi_default").is_from_environment
    connection()
    assert not read("cometapi_default").is_from_environment
    assert clock.sleeps == [0.5, 1.5]


@READERS
def test_a_connection_that_was_read_is_not_replaced(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a process has read the connection, no key of the environment takes its place: not while it is missing, and
    not if it can't be used. When it is back, it is used."""
    connection(password="", host="https://gateway.example")
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    with pytest.raises(e.ConfigurationError, match="the API key is missing"):
        read("cometapi_default")
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    for _ in range(2):
        with pytest.raises(e.ConnectionLookupError, match="was there before and is missing now") as caught:
            read("cometapi_default")
        assert caught.value.retryable
    connection()
    assert read("cometapi_default") == Config(KEY)


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


@READERS
@pytest.mark.parametrize("source", ["connection", "environment"])
@pytest.mark.parametrize("text", ["{}\n", "\ufeff{}", "\u200b{} ", "Bearer {}", '"{}"', "' {}\u00a0'"], ids=ascii)
def test_a_cleaned_key_is_masked(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, source: str, text: str
) -> None:
    """Airflow masks the password as it is stored; the key that is used, without what was copied with it, is masked
    too."""
    from airflow.sdk._shared.secrets_masker import redact

    key = f"sk-{source}-{read.__name__}-{text.encode().hex()}"
    if source == "connection":
        connection("masked", password=text.format(key))
        config = read("masked")
    else:
        monkeypatch.setenv("COMETAPI_KEY", text.format(key))
        config = read("cometapi_default")
    assert config.api_key == key
    assert redact(f"a {key} b") == "a *** b"


@READERS
def test_a_key_that_travels_in_the_clear_is_reported(
    read: Read,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where http is allowed and used, a warning says so, once per process; https and this machine give none."""
    from airflow_provider_comet.hooks.connection import log

    monkeypatch.setattr(log, "propagate", True)
    for host in ("https://gateway.example", "http://127.0.0.1:8765", "http://emulator:8765", "http://emulator:8765"):
        connection(host=host, extra={"allow_insecure_http": True})
        assert read("cometapi_default").base_url == host
    lines = [(line.levelname, line.getMessage()) for line in caplog.records if line.name == log.name]
    text = "Connection 'cometapi_default': the API key travels in the clear to http://emulator:8765, over http"
    assert lines == [("WARNING", text)]


def test_an_emulator_in_another_container(
    comet: Emulator,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    runner: TaskRunner,
    tmp_path: Path,
) -> None:
    """With ``allow_insecure_http`` a worker creates, a triggerer polls and a worker downloads, all over http to a name
    that is not this machine's; without it nothing is sent."""
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    original = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        return original("127.0.0.1" if host in ("comet-emulator", b"comet-emulator") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    host = comet.base_url.replace("127.0.0.1", "comet-emulator")
    with dag():
        create = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "x"})
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, defer_after=0)
        store = DownloadPredictionOutputOperator(
            task_id="store", prediction=wait.output, output_path=f"file://{tmp_path}"
        )
    connection(host=host)
    assert "must use https" in runner.run(create).message
    connection(host=host, extra={"allow_insecure_http": True})
    comet.next_outcome(status="processing")
    made = runner.run(create).result
    deferred = runner.run(wait)
    comet.set_prediction(made, status="succeeded")
    event = event_of(deferred.trigger())
    assert runner.run(wait, event=event, next_kwargs=deferred.next_kwargs).state == "success"
    (file,) = runner.run(store).result["files"]
    assert file["content_type"].startswith("image/")
    requests = comet.ledger()["requests"]
    assert [request["method"] for request in requests].count("POST") == 1
    assert {request["status"] for request in requests} == {200, 201}


@pytest.fixture
def other_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Another account, whose key and URL are in the environment."""
    with Emulator(duration=0, api_key="sk-other-account") as emulator:
        monkeypatch.setenv("COMETAPI_KEY", emulator.api_key)
        monkeypatch.setenv("COMETAPI_BASE_URL", emulator.base_url)
        yield emulator


def new_process() -> None:
    """Forget what this process knows of connections, as the process of the next try does."""
    from airflow_provider_comet.hooks import connection

    connection._found.clear()


def test_a_database_that_is_away_for_a_moment(
    comet: Emulator, other_account: Emulator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create is billed to the account of the connection, in the first try, if Airflow finds the connection again
    within two seconds; the environment's account is not used."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    with dag():
        create = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "x"})
    runner = TaskRunner()
    stored = {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}
    clock.on_sleep = lambda _: runner.connections.update(cometapi_default=stored)
    assert runner.run(create).state == "success"
    assert (comet.ledger()["accepted"], other_account.ledger()["requests"]) == (1, [])
    assert runner.record()["key_from"] == "connection"
    assert clock.sleeps[0] == 0.5


@pytest.mark.parametrize("is_batch", [False, True], ids=["create", "batch"])
def test_an_account_that_was_used_is_not_replaced_at_the_next_try(
    comet: Emulator, other_account: Emulator, monkeypatch: pytest.MonkeyPatch, is_batch: bool
) -> None:
    """A try whose record says that the connection's key was used sends nothing with the environment's key, also for an
    input that no try has sent before. A try that finds the connection again continues."""
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    with dag():
        create: Any = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "x"}, retries=2)
        if is_batch:
            inputs = [{"prompt": "x"}, {"prompt": "y"}]
            create = CreatePredictionBatchOperator(
                task_id="batch", model=SCHNELL, inputs=inputs, max_in_flight=1, retries=2
            )
    runner = TaskRunner({"cometapi_default": {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}})
    comet.fault(method="POST", status=429, headers={"Retry-After": "121"}, count=None)
    assert runner.run(create).state == "up_for_retry"
    stored, runner.connections = runner.connections, {}
    comet.clear_faults()
    new_process()
    outcome = runner.run(create, try_number=2)
    assert outcome.state == "up_for_retry"
    assert "COMETAPI_KEY, which may belong to another account, does not take its place" in outcome.message
    runner.connections = stored
    new_process()
    assert runner.run(create, try_number=3).state == "success"
    assert (comet.ledger()["accepted"], other_account.ledger()["requests"]) == (1 + is_batch, [])


@pytest.mark.parametrize("is_create", [False, True], ids=["sensor", "create that waits"])
def test_an_account_that_was_used_is_not_replaced_in_the_triggerer(
    comet: Emulator, other_account: Emulator, monkeypatch: pytest.MonkeyPatch, is_create: bool
) -> None:
    """A triggerer that can't read the connection which the worker has used does not ask another account, which would
    not know the prediction: it reads the connection again, and ends with an error that a retry may cure."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    runner = TaskRunner({"cometapi_default": {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}})
    comet.next_outcome(status="processing", count=2)
    with dag():
        create = CreatePredictionOperator(
            task_id="create", model=SCHNELL, input={"prompt": "x"}, wait_for_completion=is_create
        )
        wait = PredictionSensor(task_id="wait", prediction_id=create.output, defer_after=0)
    deferred = runner.run(create)
    if not is_create:
        deferred = runner.run(wait)
    new_process()
    trigger = deferred.trigger()
    assert trigger.serialize()[1]["key_from"] == "connection"
    event = event_of(trigger)
    assert event["error"]["type"] == "ConnectionLookupError"
    assert other_account.ledger()["requests"] == []


def test_a_create_that_waits_is_polled_with_the_key_that_has_paid(
    comet: Emulator, other_account: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that resumes such a create, and can't read the connection, does not ask another account for the
    prediction: it would call a paid prediction unknown."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    runner = TaskRunner({"cometapi_default": {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}})
    comet.next_outcome(status="processing")
    with dag():
        create = CreatePredictionOperator(
            task_id="create", model=SCHNELL, input={"prompt": "x"}, wait_for_completion=True, retries=2
        )
    deferred = runner.run(create)
    made = runner.record()["id"]
    stored, runner.connections = runner.connections, {}
    new_process()
    empty = {"count": 1, "errors": 0, "unfinished": 0, "outcomes": {made: {}}}
    outcome = runner.run(create, event=empty, next_kwargs=deferred.next_kwargs)
    assert outcome.state == "deferred"  # the trigger waits for the connection
    assert other_account.ledger()["requests"] == []
    comet.set_prediction(made, status="succeeded")
    runner.connections = stored
    new_process()
    assert runner.run(create, try_number=2).result == made
    assert comet.ledger()["accepted"] == 1


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
    assert "connection 'missing' does not exist, or Airflow can't read it now" in outcome.message
    assert comet.ledger()["accepted"] == 1


def test_environment_of_the_tests_is_clean() -> None:
    """No setting or key of whoever runs the tests takes part in them."""
    assert not [name for name in os.environ if name.startswith(("COMETAPI_", "AIRFLOW_CONN_"))]
