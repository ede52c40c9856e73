"""`CometReplicateHook`: which key goes where, and what is said when it can't go anywhere."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag
from tests.unit.conftest import KEY

SCHNELL = "black-forest-labs/flux-schnell"


def hook(conn_id: str = "cometapi_default") -> Any:
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    return CometReplicateHook(conn_id)


def blocking(conn_id: str) -> Config:
    config: Config = hook(conn_id).config
    return config


def asynchronous(conn_id: str) -> Config:
    from airflow_provider_comet.hooks.connection import aget_config

    return asyncio.run(aget_config(conn_id))


# Workers and triggerers read connections by different calls; what they find has to be the same.
READERS = pytest.mark.parametrize("read", [blocking, asynchronous], ids=["worker", "triggerer"])
Read = Callable[[str], Config]


@READERS
def test_connection_with_all_fields(read: Read, connection: Callable[..., None]) -> None:
    """Key, base URL and both timeouts come from the connection."""
    connection(host="https://gateway.example/v1/", extra={"connect_timeout": 3, "read_timeout": "90.5", "other": 1})
    assert read("cometapi_default") == Config(KEY, "https://gateway.example", 3.0, 90.5)


@READERS
def test_an_extra_that_is_no_object(read: Read, connection: Callable[..., None]) -> None:
    """JSON of another kind in the extra is told in words."""
    connection(extra="[1, 2]")
    with pytest.raises(e.ConfigurationError, match="'cometapi_default': its extra must be a JSON object, not a list"):
        read("cometapi_default")


@pytest.mark.parametrize("is_silent", [False, True], ids=["raises", "gives no answer"])
def test_a_lookup_that_fails_in_the_triggerer(monkeypatch: pytest.MonkeyPatch, is_silent: bool) -> None:
    """Whatever keeps Airflow from giving a connection is this package's error, which other waits outlast."""
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
        asynchronous("mine")


@READERS
def test_connection_with_a_key_only(read: Read, connection: Callable[..., None]) -> None:
    """Everything but the key has a default."""
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
    """Airflow's URI form works too, with its port."""
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
    """A connection that can't be right is named in the error, and the environment's key does not step in for it."""
    connection(**{"conn_type": "cometapi", **fields})
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    with pytest.raises(e.ConfigurationError) as caught:
        read("cometapi_default")
    assert "'cometapi_default'" in str(caught.value)
    assert words in str(caught.value)
    assert KEY not in str(caught.value)
    assert not caught.value.retryable


@READERS
def test_missing_connection_tells_how_to_create_it(read: Read) -> None:
    """The error for a missing connection is the command that makes one."""
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
    """Key and URL come from the environment together, cleaned of what copying adds."""
    monkeypatch.setenv("COMETAPI_KEY", f" {KEY}\n")
    assert read("cometapi_default") == Config(KEY, is_from_environment=True)
    monkeypatch.setenv("COMETAPI_BASE_URL", "https://gateway.example/v1 ")
    assert read("cometapi_default") == Config(KEY, "https://gateway.example", is_from_environment=True)


@READERS
def test_environment_serves_no_other_connection(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a connection means that one."""
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    with pytest.raises(e.ConfigurationError, match="'mine' does not exist"):
        read("mine")


@READERS
def test_environments_url_is_never_mixed_with_a_connections_key(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key goes to the host of its own source only: a URL without a key counts for nothing."""
    monkeypatch.setenv("COMETAPI_BASE_URL", "https://elsewhere.example")
    with pytest.raises(e.ConfigurationError, match="does not exist"):
        read("cometapi_default")
    connection()
    assert read("cometapi_default") == Config(KEY)
    monkeypatch.setenv("COMETAPI_KEY", "sk-environment-0123456789")
    assert read("cometapi_default") == Config(KEY)


@READERS
def test_use_of_the_environment_is_said_once(
    read: Read, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells that the environment's key is in use, once per process and without the key."""
    from airflow_provider_comet.hooks import connection

    connection._log_once.cache_clear()
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setattr(connection.log, "propagate", True)
    with caplog.at_level(logging.INFO, connection.log.name):
        for _ in range(3):
            read("cometapi_default")
    said = [record.getMessage() for record in caplog.records if "COMETAPI_KEY" in record.getMessage()]
    assert said == ["Connection 'cometapi_default' does not exist: using COMETAPI_KEY and COMETAPI_BASE_URL instead"]


@READERS
@pytest.mark.parametrize("source", ["connection", "environment"])
def test_key_is_masked(
    read: Read, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Whatever logs the key later shows asterisks in its place."""
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
    """A task whose connection comes from Airflow's database creates with that key; a missing one is told as such."""
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


def test_get_conn_sends_the_key_home_only(comet: Emulator) -> None:
    """The session of `get_conn` is authorised at the connection's own origin, and a stranger anywhere else."""
    with hook().get_conn() as session, Emulator() as other:
        assert session.get(f"{comet.base_url}/v1/models", timeout=5).status_code == 200
        assert session.get(f"{other.base_url}/v1/models", timeout=5).status_code == 401
        assert [entry["authorization"] for entry in comet.ledger()["requests"]] == [True]
        assert [entry["authorization"] for entry in other.ledger()["requests"]] == [False]


def test_hook_reads_its_connection_late_and_once(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a hook asks for nothing; the first use reads the connection, the following ones don't."""
    late = hook("late")
    monkeypatch.setenv("AIRFLOW_CONN_LATE", comet.connection_json())
    assert late.test_connection()[0]
    monkeypatch.delenv("AIRFLOW_CONN_LATE")
    assert late.test_connection()[0]


def test_test_connection(comet: Emulator) -> None:
    """A right connection is reported with the number of models, at no cost."""
    ok, message = hook().test_connection()
    assert (ok, message) == (True, "The key works; it can see 14 models.")
    assert comet.ledger()["accepted"] == 0


@pytest.fixture
def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_test_connection_tells_what_is_wrong(comet: Emulator, connection: Callable[..., None], nowhere: str) -> None:
    """A wrong key, a wrong URL, an unreachable host and a missing connection read differently, and quote no key."""
    messages = {}
    connection("wrong_key", host=comet.base_url, password="sk-wrong-0123456789")
    connection("wrong_url", host=f"{comet.base_url}/somewhere")
    connection("unreachable", host=nowhere)
    for name in ("wrong_key", "wrong_url", "unreachable", "missing"):
        ok, messages[name] = hook(name).test_connection()
        assert not ok
    assert messages["wrong_key"].startswith(f"{e.AuthenticationError.summary} (HTTP 401, request id ")
    assert messages["wrong_url"].startswith(f"{e.WrongURLError.summary} (HTTP 200, request id ")
    assert messages["unreachable"].startswith(f"{e.TransportError.summary}: {nowhere}: ConnectionRefusedError")
    assert "connection 'missing' does not exist" in messages["missing"]
    assert not any("0123456789" in message for message in messages.values())


def test_create_and_get(comet: Emulator) -> None:
    """`create_prediction` pays once and returns the prediction, `get_prediction` reads it whatever its status."""
    made = hook().create_prediction(SCHNELL, {"prompt": "a lighthouse"})
    assert (made.status, made.model) == ("starting", SCHNELL)
    assert [one["id"] for one in comet.ledger()["creates"]] == [made.id]
    comet.set_prediction(made.id, status="failed")
    assert hook().get_prediction(made.id).status == "failed"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, b"x", {1}, 1j], ids=repr)
def test_odd_input_is_refused_before_anything_is_sent(comet: Emulator, value: Any) -> None:
    """What JSON can't carry, or what was meant to be left out, is named and costs nothing."""
    with pytest.raises(e.InvalidInputError, match=r"^Not sent, nothing was paid: input\.strength "):
        hook().create_prediction(SCHNELL, {"prompt": "x", "strength": value})
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize("bad", [None, "", "a/b", "../v1/models", " x", 7, ["abc"]], ids=repr)
def test_odd_ids_are_refused_before_anything_is_sent(comet: Emulator, bad: Any) -> None:
    """What can't be an id never becomes a part of a URL."""
    for call in (hook().get_prediction, hook().wait_for_prediction):
        with pytest.raises(e.InvalidInputError, match="prediction_id must be the id that a create returned"):
            call(bad)
    assert comet.ledger()["requests"] == []


def test_wait_follows_the_schedule(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """Looks come a second after the start, then a fifth of the age apart, at most a minute, until the deadline."""
    prediction = create(status="processing")
    with pytest.raises(e.PredictionTimeoutError) as caught:
        hook().wait_for_prediction(prediction, timeout=1000)
    assert str(caught.value).startswith(f"Prediction {prediction}: ")
    assert "last status 'processing', 1000 s after it was created" in str(caught.value)
    assert clock.sleeps[0] == pytest.approx(1.0, rel=0.11)
    assert max(clock.sleeps) <= 66
    assert sum(clock.sleeps) == pytest.approx(1000)
    assert len(clock.sleeps) < 50


def test_wait_keeps_to_a_fixed_interval(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """`poke_interval` sets the time between looks, give or take a tenth."""
    prediction = create(status="processing")
    with pytest.raises(e.PredictionTimeoutError):
        hook().wait_for_prediction(prediction, timeout=100, poke_interval=10)
    assert all(9 <= seconds <= 11 for seconds in clock.sleeps[:-1])
    assert sum(clock.sleeps) == pytest.approx(100)


def test_wait_heeds_retry_after(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """What the server asks for comes before the own schedule."""
    prediction = create()
    comet.fault(status=429, headers={"Retry-After": "40"}, count=1)
    hook().wait_for_prediction(prediction, poke_interval=1)
    assert len(clock.sleeps) == 1
    assert 40 <= clock.sleeps[0] <= 44


def test_wait_looks_before_the_clock(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A result that is there is returned even if there is no time to wait for it."""
    assert hook().wait_for_prediction(create(), timeout=0).succeeded
    assert clock.sleeps == []


def test_wait_names_the_prediction_in_errors_of_the_connection() -> None:
    """Each error of a wait says which prediction it is about, also if it never got to asking."""
    with pytest.raises(e.ConfigurationError, match=r"^Prediction abc: .* does not exist"):
        hook("missing").wait_for_prediction("abc")


def test_the_end_of_a_task_ends_its_pauses(comet: Emulator, create: Callable[..., str]) -> None:
    """A task that is ended amid a list does not wait for the rate limit that one of its threads waits for."""
    prediction = create()
    comet.fault(method="GET", status=429, headers={"Retry-After": "100"}, count=1)
    one, asked = hook(), threading.Event()
    look = one.client.look

    def seen(prediction_id: object) -> Any:
        try:
            return look(prediction_id)
        finally:
            asked.set()

    one.client.look = seen  # type: ignore[method-assign]

    def read(number: int) -> Any:
        if number:
            return one.get_prediction(prediction)
        assert asked.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one._at_once(read, [0, 1])
    assert [entry["status"] for entry in comet.ledger()["requests"] if entry["method"] == "GET"] == [429, 200]


def test_wait_in_a_task(comet: Emulator, runner: TaskRunner) -> None:
    """The hook works in any `@task`."""
    from airflow.sdk import task

    with dag():

        @task
        def both() -> list[str]:
            made = hook().create_prediction(SCHNELL, {"prompt": "a lighthouse"})
            files: list[str] = hook().wait_for_prediction(made.id).files
            return files

        reference = both()
    outcome = runner.run(reference.operator)
    assert outcome.state == "success"
    assert outcome.result[0].startswith(f"{comet.base_url}/delivery/")


def test_wait_logs_changes_only(
    comet: Emulator, clock: Clock, create: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    """An unknown status is a warning said once, however often it is seen."""
    prediction = create(status="warming_up")
    with pytest.raises(e.PredictionTimeoutError):
        hook().wait_for_prediction(prediction, timeout=60)
    said = capfd.readouterr()
    text = said.out + said.err
    assert text.count("is unknown here; it counts as still running") == 1
    assert len(clock.sleeps) > 5


def test_environment_of_the_tests_is_clean() -> None:
    """No setting or key of whoever runs the tests takes part in them."""
    assert not [name for name in os.environ if name.startswith(("COMETAPI_", "AIRFLOW_CONN_"))]
