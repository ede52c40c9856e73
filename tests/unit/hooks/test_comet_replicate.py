"""`CometReplicateHook`: which key goes where, and what is said when it can't go anywhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag

SCHNELL = "black-forest-labs/flux-schnell"


def hook(conn_id: str = "cometapi_default") -> Any:
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    return CometReplicateHook(conn_id)


def test_get_conn_sends_the_key_home_only(comet: Emulator) -> None:
    """The session of `get_conn` sends the key to the connection's own origin, and to no other host."""
    with hook().get_conn() as session, Emulator() as other:
        assert session.get(f"{comet.base_url}/v1/models", timeout=5).status_code == 200
        assert session.get(f"{other.base_url}/v1/models", timeout=5).status_code == 401
        assert [entry["authorization"] for entry in comet.ledger()["requests"]] == [True]
        assert [entry["authorization"] for entry in other.ledger()["requests"]] == [False]


def test_hook_reads_its_connection_late_and_once(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a hook reads no connection; the first use reads it, and later uses do not."""
    late = hook("late")
    monkeypatch.setenv("AIRFLOW_CONN_LATE", comet.connection_json())
    assert late.test_connection()[0]
    monkeypatch.delenv("AIRFLOW_CONN_LATE")
    assert late.test_connection()[0]


def test_test_connection(comet: Emulator) -> None:
    """A usable connection is reported with the number of models, at no cost."""
    ok, message = hook().test_connection()
    assert (ok, message) == (True, "The key works; it can see 14 models.")
    assert comet.ledger()["accepted"] == 0


@pytest.fixture
def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_test_connection_says_what_is_wrong(comet: Emulator, connection: Callable[..., None], nowhere: str) -> None:
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
    assert [entry["id"] for entry in comet.ledger()["creates"]] == [made.id]
    comet.set_prediction(made.id, status="failed")
    assert hook().get_prediction(made.id).status == "failed"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, b"x", {1}, 1j], ids=repr)
def test_odd_input_is_refused_before_anything_is_sent(comet: Emulator, value: Any) -> None:
    """An input that JSON can't carry, or that was meant to be left out, is named and costs nothing."""
    with pytest.raises(e.InvalidInputError, match=r"^Not sent, nothing was paid: input\.strength "):
        hook().create_prediction(SCHNELL, {"prompt": "x", "strength": value})
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize("bad", [None, "", "a/b", "../v1/models", " x", 7, ["abc"]], ids=repr)
def test_odd_ids_are_refused_before_anything_is_sent(comet: Emulator, bad: Any) -> None:
    """A value that can't be an id never becomes a part of a URL."""
    for call in (hook().get_prediction, hook().wait_for_prediction):
        with pytest.raises(e.InvalidInputError, match="prediction_id must be the id that a create returned"):
            call(bad)
    assert comet.ledger()["requests"] == []


def test_wait_follows_the_schedule(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """The first poll comes after a second, the next after a fifth of the age, at most a minute, until the deadline."""
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
    """`poke_interval` sets the time between polls, give or take a tenth."""
    prediction = create(status="processing")
    with pytest.raises(e.PredictionTimeoutError):
        hook().wait_for_prediction(prediction, timeout=100, poke_interval=10)
    *intervals, _ = [seconds for seconds in clock.sleeps if seconds > 1e-6]  # rounding may leave a rest at the deadline
    assert all(9 <= seconds <= 11 for seconds in intervals)
    assert sum(clock.sleeps) == pytest.approx(100)


def test_wait_outlives_odd_answers_after_a_good_poll(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A web page ends a wait whose prediction nobody has seen, and only delays a wait that has polled it before."""
    prediction = create(status="processing")
    page = {"method": "GET", "status": 200, "body": "<html><title>Back soon</title></html>"}
    comet.fault(**page)
    with pytest.raises(e.WrongURLError):
        hook().wait_for_prediction(prediction)

    def break_then_finish(seconds: float) -> None:
        clock.on_sleep = lambda seconds: None
        comet.fault(**page, count=4)
        comet.set_prediction(prediction, status="succeeded")

    clock.on_sleep = break_then_finish
    assert hook().wait_for_prediction(prediction).succeeded


def test_wait_keeps_to_retry_after(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A `Retry-After` of the server comes before the hook's own schedule."""
    prediction = create()
    comet.fault(status=429, headers={"Retry-After": "40"}, count=1)
    hook().wait_for_prediction(prediction, poke_interval=1)
    assert len(clock.sleeps) == 1
    assert 40 <= clock.sleeps[0] <= 44


def test_wait_polls_before_it_checks_the_clock(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A finished prediction is returned even if there is no time to wait for it."""
    assert hook().wait_for_prediction(create(), timeout=0).succeeded
    assert clock.sleeps == []


def test_wait_names_the_prediction_in_errors_of_the_connection() -> None:
    """Each error of a wait names its prediction, even if no poll was sent."""
    with pytest.raises(e.ConfigurationError, match=r"^Prediction abc: .* does not exist"):
        hook("missing").wait_for_prediction("abc")


def test_the_end_of_a_task_ends_its_pauses(comet: Emulator, create: Callable[..., str]) -> None:
    """A task that ends while it polls a list waits for no pause of its threads, and they send nothing more."""
    prediction_id = create()
    comet.fault(method="GET", status=429, headers={"Retry-After": "100"}, count=1)
    ended_hook, was_sent = hook(), threading.Event()
    send = ended_hook.client.send

    def send_and_tell(request: Request) -> Any:
        try:
            return send(request)
        finally:
            was_sent.set()

    ended_hook.client.send = send_and_tell

    def read(number: int) -> Any:
        if number:
            return ended_hook.get_prediction(prediction_id)
        assert was_sent.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ended_hook._map_concurrently(read, [0, 1])
    assert [entry["status"] for entry in comet.ledger()["requests"] if entry["method"] == "GET"] == [429]


def test_wait_in_a_task(comet: Emulator, runner: TaskRunner) -> None:
    """The hook works in any `@task`."""
    from airflow.sdk import task

    with dag():

        @task
        def both() -> list[str]:
            made = hook().create_prediction(SCHNELL, {"prompt": "a lighthouse"})
            files: list[str] = hook().wait_for_prediction(made.id).files
            return files

        reference: Any = both()
    outcome = runner.run(reference.operator)
    assert outcome.state == "success"
    assert outcome.result[0].startswith(f"{comet.base_url}/delivery/")


def test_wait_logs_changes_only(
    comet: Emulator, clock: Clock, create: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    """An unknown status is one warning, however many polls return it."""
    prediction = create(status="warming_up")
    with pytest.raises(e.PredictionTimeoutError):
        hook().wait_for_prediction(prediction, timeout=60)
    said = capfd.readouterr()
    text = said.out + said.err
    assert text.count("is unknown here; it counts as still running") == 1
    assert len(clock.sleeps) > 5


def test_halt_reads_no_connection() -> None:
    """A task that is killed before its first request makes no call to Airflow: a signal handler must not."""
    unused = hook("not_there")
    unused.halt()
    assert "client" not in vars(unused)


def test_halt_ends_the_polls_of_the_client(comet: Emulator, create: Callable[..., str]) -> None:
    """After it, a poll ends at once, as trouble that says why."""
    used, prediction_id = hook(), create()
    assert used.get_prediction(prediction_id).id == prediction_id
    used.halt()
    with pytest.raises(e.TransportError, match="the task was ended"):
        used.get_prediction(prediction_id)
    assert [entry["method"] for entry in comet.ledger()["requests"]].count("GET") == 1


@pytest.mark.parametrize("mode", ["sensor", "create"])
def test_a_task_that_is_killed_halts_its_client(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's signal reaches the client of a sensor and of a create, also before anything was sent."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    halted: list[str] = []
    monkeypatch.setattr(CometReplicateHook, "halt", lambda hook: halted.append(hook.conn_id))
    task = (
        PredictionSensor(task_id="wait", prediction_id="abc", conn_id="mine")
        if mode == "sensor"
        else CreatePredictionOperator(task_id="create", model="a/b", input={"prompt": "x"}, conn_id="mine")
    )
    task.on_kill()
    assert halted == ["mine"]
