"""`PredictionSensor`: the deadlines, for one prediction and for a list, in each mode."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.sockets import raw_server
from tests.support.task_runner import MODES, Clock, TaskRunner, run_sensor
from tests.unit.sensors.helpers import AIRFLOWS_TIMEOUT, EACH_MODE, ONE_OR_MANY, ids_of, kind, sensor


@EACH_MODE
@ONE_OR_MANY
@pytest.mark.parametrize(
    ("options", "state", "error"),
    [
        ({"timeout": 300, "execution_timeout": dt.timedelta(seconds=120)}, "up_for_retry", "AirflowTaskTimeout"),
        ({"timeout": 120, "execution_timeout": dt.timedelta(seconds=300)}, "failed", "AirflowSensorTimeout"),
        ({"timeout": 120}, "failed", "AirflowSensorTimeout"),
    ],
    ids=["execution_timeout", "timeout", "timeout alone"],
)
def test_the_earlier_deadline_decides(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    is_list: bool,
    options: dict[str, Any],
    state: str,
    error: str,
) -> None:
    """`execution_timeout` is a task's timeout, which Airflow retries; `timeout` a sensor's, which Airflow does not
    retry; in every mode, on time."""
    prediction = create(status="processing")
    raw_ids = [prediction] if is_list else prediction
    began = clock.time()
    outcome = run_sensor(runner, sensor(raw_ids, mode, **options), clock)
    assert (outcome.state, kind(outcome)) == (state, error)
    assert 120 <= clock.time() - began + 0.01 <= 125
    assert f"Prediction {prediction}: " in outcome.message
    comet.set_prediction(prediction, status="succeeded")
    assert run_sensor(runner, sensor(raw_ids, mode, **options), clock).state == "success"


@EACH_MODE
@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
@ONE_OR_MANY
def test_a_last_poll_at_the_deadline(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    limit: str,
    is_list: bool,
) -> None:
    """A prediction that finishes in the last moment is returned."""
    prediction = create(status="processing")
    deadline = clock.time() + 100

    def finish(seconds: float) -> None:
        if clock.time() + seconds >= deadline - 0.01:
            comet.set_prediction(prediction, status="succeeded")

    clock.on_sleep = finish
    options: dict[str, Any] = {limit: dt.timedelta(seconds=100), "poke_interval": 35}
    outcome = run_sensor(runner, sensor([prediction] if is_list else prediction, mode, **options), clock)
    assert outcome.state == "success"
    assert clock.time() >= deadline - 0.01


@pytest.mark.parametrize("soft_fail", [False, True])
def test_execution_timeout_with_soft_fail(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], soft_fail: bool
) -> None:
    """`soft_fail` skips at both deadlines, in every mode."""
    for mode in MODES:
        task = sensor(
            create(status="processing"), mode, execution_timeout=dt.timedelta(seconds=60), soft_fail=soft_fail
        )
        assert run_sensor(runner, task, clock).state == ("skipped" if soft_fail else "up_for_retry")


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_airflows_execution_timeout_during_a_round(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], mode: str, on_item_error: str
) -> None:
    """If Airflow's own signal interrupts a round of polls, the results that have come by then are kept in XCom, the
    error names the others, and nothing is taken for the end of the wait: a retry may find more."""
    good, slow = create(), create(status="processing")
    comet.fault(method="GET", path=slow, delay=5, count=None)
    timeout = dt.timedelta(seconds=0.5)
    outcome = runner.run(sensor([slow, good], mode, execution_timeout=timeout, on_item_error=on_item_error))
    assert (outcome.state, kind(outcome)) == ("up_for_retry", "AirflowTaskTimeout")
    assert f"Prediction {slow}: it was not finished when the timeout ended" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == [None, good]


def test_airflows_timeout_keeps_the_results_that_were_paid_for(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the triggerer was away until Airflow's own timeout, finished predictions are results, and only the others are
    a timeout."""
    good, slow = create(), create(status="processing")
    outcome = runner.run(sensor([good, slow]), **AIRFLOWS_TIMEOUT)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert "1 of 2" in outcome.message
    assert f"Prediction {slow}: it was not finished when the timeout ended" in outcome.message
    assert ids_of(outcome.xcoms["predictions"]) == [good, None]
    comet.set_prediction(slow, status="succeeded")
    outcome = runner.run(sensor([good, slow]), **AIRFLOWS_TIMEOUT)
    assert (outcome.state, ids_of(outcome.result)) == ("success", [good, slow])


def test_airflows_timeout_after_an_execution_timeout(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the triggerer was away and Airflow's own timeout ended the deferral, it is the same kind of timeout."""
    prediction = create(status="processing")
    for is_list in (False, True):
        task = sensor([prediction] if is_list else prediction, execution_timeout=dt.timedelta(seconds=60))
        outcome = runner.run(task, **AIRFLOWS_TIMEOUT)
        assert (outcome.state, kind(outcome)) == ("up_for_retry", "AirflowTaskTimeout")


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n "]
)
def test_a_server_that_trickles_holds_no_worker(
    connection: Callable[..., None], runner: TaskRunner, mode: str, start: bytes
) -> None:
    """A server that sends a byte now and then, in real time: each poll on the worker ends at the read timeout, the next
    follows, and the wait ends at its own timeout, or defers."""
    is_over = threading.Event()

    def serve(line: socket.socket) -> None:
        with suppress(OSError):
            line.sendall(start)
            while not is_over.wait(0.05):
                line.sendall(b" ")

    def talk(line: socket.socket) -> None:
        threading.Thread(target=serve, args=(line,), daemon=True).start()

    with raw_server(talk) as (port, accepted):
        connection(host=f"http://127.0.0.1:{port}", extra={"read_timeout": 0.3})
        options = {"deferrable": False, "timeout": 1.5} if mode == "poke" else {"defer_after": 1.5, "timeout": 600}
        outcome = runner.run(sensor(poke_interval=0.5, **options))
        is_over.set()
    if mode == "poke":  # by its own words: on a busy machine the timeout may be over after one poll
        assert kind(outcome) == "AirflowSensorTimeout"
        assert "no answer within 0.3 s" in str(outcome.error)
    else:
        assert len(accepted) > 1
        assert outcome.state == "deferred"
