"""`PredictionSensor`: when it polls, what it returns, and how it ends, in each mode."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, run_sensor
from tests.unit.sensors.helpers import EACH_MODE, ONE_OR_MANY, count_polls, event_about, kind, sensor

KEYS = {
    *("id", "model", "version", "status", "files", "output", "error", "metrics"),
    *("created_at", "started_at", "completed_at", "data_removed"),
}


# What it returns


@EACH_MODE
def test_result(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str) -> None:
    """Exactly twelve keys, `files` a list of URLs, no matter whether the sensor had to wait."""
    finished, running = create(), create(status="processing")
    clock.on_sleep = lambda seconds: comet.set_prediction(running, status="succeeded")
    for prediction in (finished, running):
        outcome = run_sensor(runner, sensor(prediction, mode), clock)
        assert (outcome.state, set(outcome.result)) == ("success", KEYS)
        assert outcome.result["files"] == [f"{comet.base_url}/delivery/{prediction}/0.webp"]
        assert set(outcome.xcoms) == {"return_value"}


@EACH_MODE
def test_large_and_inline_results(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """Data URIs and very long texts are replaced by how to get them; less long ones are complete in every mode."""
    values = {
        "uri": ["data:image/png;base64,iVBORw0KGgo="],
        "long": "x" * 60_000,
        "medium": "x" * 20_000,
    }
    for name, output in values.items():
        prediction = create(status="processing", output=output)
        clock.on_sleep = lambda seconds, prediction=prediction: comet.set_prediction(prediction, status="succeeded")
        result = run_sensor(runner, sensor(prediction, mode), clock).result
        assert set(result) == KEYS
        assert isinstance(result["files"], list)
        if name == "medium":
            assert result["output"] == output
        else:
            assert f"get_prediction({prediction!r}).output" in json.dumps(result["output"])
            assert "base64,iVBOR" not in json.dumps(result)


# How it ends


@pytest.mark.parametrize("when", ["at-once", "later"])
@EACH_MODE
def test_skip_says_why(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str, when: str
) -> None:
    """A task that is skipped by `soft_fail` gives the same reason as one that fails."""
    prediction = create(status="processing" if when == "later" else "failed", error="no such luck")
    clock.on_sleep = lambda seconds: comet.set_prediction(prediction, status="failed")
    outcome = run_sensor(runner, sensor(prediction, mode, soft_fail=True), clock)
    assert outcome.state == "skipped"
    assert outcome.message.startswith(f"Prediction {prediction}: it failed: no such luck. ")


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 200, "body": "<html></html>"}], ids=str)
@EACH_MODE
def test_never_fail(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    mode: str,
    fault: dict[str, Any],
) -> None:
    """`never_fail` skips for whatever happens, in every mode, with the reason."""
    prediction = create(status="processing")
    clock.on_sleep = lambda seconds: comet.fault(count=None, **fault)
    outcome = run_sensor(runner, sensor(prediction, mode, never_fail=True), clock)
    assert outcome.state == "skipped"
    assert outcome.message.startswith(f"Prediction {prediction}: ")


@EACH_MODE
@ONE_OR_MANY
def test_audit_line(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    mode: str,
    is_list: bool,
) -> None:
    """The log has a line of a fixed form for each prediction that has finished, well or badly; none for a prediction
    that is unknown."""
    good, bad = create(), create(status="failed")
    raw_ids: Any = [good, "unknown", bad, good] if is_list else good
    with caplog.at_level(logging.INFO, logger="airflow_provider_comet"):
        run_sensor(runner, sensor(raw_ids, mode), clock)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("comet.finished")]
    model = "black-forest-labs/flux-schnell"
    expected = [f"comet.finished id={good} model={model} status=succeeded"]
    expected += [f"comet.finished id={bad} model={model} status=failed"] if is_list else []
    assert sorted(lines) == sorted(expected)


@EACH_MODE
def test_a_wait_that_times_out_has_no_audit_line(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    create: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    """A prediction that is still running at the deadline has not finished."""
    with caplog.at_level(logging.INFO, logger="airflow_provider_comet"):
        run_sensor(runner, sensor(create(status="processing"), mode, timeout=100), clock)
    assert "comet.finished" not in caplog.text


def test_a_prediction_that_runs_again_has_no_audit_line(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """If the trigger saw the end, and the worker reads that the prediction is running, the wait continues."""
    prediction = create(status="processing")
    with caplog.at_level(logging.INFO, logger="airflow_provider_comet"):
        outcome = runner.run(sensor(prediction, defer_after=0), event=event_about({prediction: {}}))
    assert outcome.state == "deferred"
    assert outcome.trigger().prediction_ids == [prediction]
    assert "comet.finished" not in caplog.text


# Odd ids


@EACH_MODE
@pytest.mark.parametrize("value", [None, "", "a/b", 7, ["a/b"], ("abc", 7)], ids=repr)
def test_odd_id(comet: Emulator, clock: Clock, runner: TaskRunner, mode: str, value: Any) -> None:
    """A value that can't be an id, such as a skipped task's `None`, fails the task for good before anything is sent."""
    outcome = run_sensor(runner, sensor(value, mode), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowFailException")
    assert "prediction_id must be the id that a create returned" in outcome.message
    assert comet.ledger()["requests"] == []


def test_none_of_a_template(comet: Emulator, runner: TaskRunner) -> None:
    """A template over a missing XCom renders to the text "None", which is no id either: it fails without a poll."""
    outcome = runner.run(sensor("{{ ti.xcom_pull(task_ids='skipped') }}"))
    assert outcome.state == "failed"
    assert "prediction_id has rendered to the text None" in outcome.message
    assert count_polls(comet) == 0


def test_long_odd_id_stays_out_of_the_message(comet: Emulator, runner: TaskRunner) -> None:
    """A value in place of an id is not printed in full: it may be large, or hold a secret."""
    for value in ("x y" * 5000, "https://files.example/1?signature=abcdef", {"id": "abc", "input": "secret words"}):
        outcome = runner.run(sensor(value))
        assert outcome.state == "failed"
        assert len(outcome.message) < 400
        assert "signature=abcdef" not in outcome.message
        assert "secret words" not in outcome.message


# When it polls


def test_poke_follows_the_adaptive_schedule(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """On a worker it polls a second after the start, then ever more rarely, at most a minute apart."""
    prediction = create(status="processing")
    outcome = run_sensor(runner, sensor(prediction, "poke", timeout=1000), clock)
    assert kind(outcome) == "AirflowSensorTimeout"
    assert clock.sleeps[0] == pytest.approx(1.0, rel=0.11)
    assert 54 <= max(clock.sleeps) <= 66
    assert sum(clock.sleeps) == pytest.approx(1000, abs=1)


def test_reschedule_polls_once_a_minute(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Each poll costs a start of the task there, so the adaptive schedule polls once a minute at most."""
    prediction = create(status="processing")
    outcome = run_sensor(runner, sensor(prediction, "reschedule", timeout=600), clock)
    assert kind(outcome) == "AirflowSensorTimeout"
    assert all(54 <= seconds <= 67 for seconds in clock.sleeps[:-1])
    assert 8 <= count_polls(comet) <= 13


@pytest.mark.parametrize("timeout", [10, 90])
def test_reschedule_ends_at_the_timeout(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], timeout: float
) -> None:
    """A wait never takes longer than `timeout`, also where polls are a minute apart."""
    prediction = create(status="processing")
    began = clock.time()
    run_sensor(runner, sensor(prediction, "reschedule", timeout=timeout), clock)
    assert clock.time() - began <= timeout + 5


@EACH_MODE
def test_poke_interval(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """A fixed interval is kept in every mode, give or take a tenth."""
    prediction = create(status="processing")
    run_sensor(runner, sensor(prediction, mode, timeout=500, poke_interval=40), clock)
    assert len(clock.sleeps) >= 12
    assert all(36 <= seconds <= 44.2 for seconds in clock.sleeps[:-1])


@EACH_MODE
def test_retry_after(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str) -> None:
    """`Retry-After` takes precedence over the interval, in every mode."""
    prediction = create()
    comet.fault(status=429, headers={"Retry-After": "200"}, count=1)
    outcome = run_sensor(runner, sensor(prediction, mode, poke_interval=5), clock)
    assert outcome.state == "success"
    assert max(clock.sleeps) >= 200
    assert count_polls(comet) == 2


@EACH_MODE
def test_timeout_is_kept(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The wait ends at its timeout over any number of reschedules, with id, last status, times and what to do."""
    prediction = create(status="processing")
    began = clock.time()
    outcome = run_sensor(runner, sensor(prediction, mode, timeout=300, poke_interval=50), clock)
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert 300 <= clock.time() - began + 0.01 <= 310
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert re.search(r"last status 'processing', 30\d s after it was created", outcome.message)
    assert e.PredictionTimeoutError.next_step in outcome.message


@pytest.mark.parametrize("jump", [-86_400.0, -100.0, 3600.0])
@pytest.mark.parametrize("where", ["poke", "on the worker before it defers"])
def test_a_clock_that_is_set_changes_nothing(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], jump: float, where: str
) -> None:
    """The machine's clock is set while a worker waits: it polls as before and ends at its deadline."""
    prediction = create(status="processing")

    def set_clock(seconds: float) -> None:
        clock.jump = jump if len(clock.sleeps) > 3 else 0.0

    clock.on_sleep = set_clock
    options: dict[str, Any] = {"deferrable": False} if where == "poke" else {"defer_after": 3600}
    outcome = runner.run(sensor(prediction, timeout=300, poke_interval=20, **options))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert sum(clock.sleeps) == pytest.approx(300, abs=1)
    # The rest before the deadline is one sleep; now and then a rounding makes another poll of it, which gets its slot.
    between = [seconds for seconds in clock.sleeps if seconds > 0.1][:-1]
    assert all(17.9 <= seconds <= 22.1 for seconds in between)


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "up_for_retry"), (True, "skipped")])
@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_airflows_execution_timeout_during_a_poll(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], mode: str, soft_fail: bool, state: str
) -> None:
    """If Airflow's own signal interrupts a poll, the task ends as at any other deadline: with the prediction's id."""
    prediction = create(status="processing")
    comet.fault(method="GET", delay=5, count=None)
    task = sensor(prediction, mode, execution_timeout=dt.timedelta(seconds=0.3), soft_fail=soft_fail)
    outcome = runner.run(task)
    assert outcome.state == state
    assert outcome.message.startswith(f"Prediction {prediction}: it was not finished when the timeout ended")
    if not soft_fail:
        assert kind(outcome) == "AirflowTaskTimeout"


@EACH_MODE
def test_polls_before_it_checks_the_clock(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """A finished result is returned even if the time is up."""
    assert run_sensor(runner, sensor(create(), mode, timeout=0), clock).state == "success"


def test_reschedule_counts_from_the_first_start(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A rescheduled wait continues: its timeout does not start again."""
    prediction = create(status="processing")
    task = sensor(prediction, "reschedule", timeout=600)
    long_ago = clock.utcnow() - dt.timedelta(seconds=601)
    assert kind(runner.run(task, rescheduled_since=long_ago)) == "AirflowSensorTimeout"


def test_reschedule_finds_an_unknown_id_in_its_first_poke(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """An id that nobody has seen is polled on the worker for its minute: a later poke could not tell it from a stray
    "not found". An id that becomes visible meanwhile leaves the worker."""
    outcome = runner.run(sensor("unknown", "reschedule", timeout=600))
    assert (outcome.state, type(outcome.chain[1])) == ("failed", e.PredictionNotFoundError)
    assert 60 <= sum(clock.sleeps) <= 75
    prediction = create(status="processing")
    comet.fault(method="GET", path=prediction, status=404, count=2)
    assert runner.run(sensor(prediction, "reschedule", timeout=600)).state == "up_for_reschedule"
    assert sum(clock.sleeps) <= 80


@pytest.mark.parametrize("status", [200, 302, 400, 404, 503])
def test_reschedule_waits_out_odd_answers_until_the_deadline(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], status: int
) -> None:
    """A poke can't know how long the API has answered so: it leaves the end to the deadline, or to a status."""
    prediction = create(status="processing")
    task = sensor(prediction, "reschedule", timeout=600, poke_interval=10)
    assert runner.run(task).state == "up_for_reschedule"
    comet.fault(method="GET", status=status, body="<html>Back soon" if status == 200 else None, count=None)
    for seconds in (10, 100, 590):
        earlier = clock.utcnow() - dt.timedelta(seconds=seconds)
        assert runner.run(task, rescheduled_since=earlier).state == "up_for_reschedule"
    outcome = runner.run(task, rescheduled_since=clock.utcnow() - dt.timedelta(seconds=601))
    assert (outcome.state, kind(outcome)) == ("failed", "AirflowSensorTimeout")
    assert "last poll: " in outcome.message
    comet.clear_faults()
    comet.set_prediction(prediction, status="succeeded")
    late = clock.utcnow() - dt.timedelta(seconds=601)
    assert runner.run(task, rescheduled_since=late).state == "success"


def test_a_refused_key_on_the_worker_is_left_to_the_triggerer(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A refused key ends no wait that may defer: the triggerer waits until the key is replaced."""
    prediction = create()
    comet.fault(method="GET", status=401, body={"error": {"message": "Invalid token", "code": ""}}, count=3)
    outcome = run_sensor(runner, sensor(prediction), clock)
    assert (outcome.state, outcome.result["id"]) == ("success", prediction)
    assert 100 <= sum(clock.sleeps) <= 150
    comet.fault(method="GET", status=401, count=None)
    outcome = run_sensor(runner, sensor(prediction), clock)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.AuthenticationError)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_retry_waits_for_the_same_prediction(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """After the key is replaced, the next try finds the result that was paid for."""
    prediction = create()
    task = sensor(prediction, mode)
    comet.fault(status=401, body={"error": {"message": "Invalid token", "code": ""}})
    assert run_sensor(runner, task, clock).state == "up_for_retry"
    outcome = run_sensor(runner, task, clock, try_number=2)
    assert (outcome.state, outcome.result["id"], comet.ledger()["accepted"]) == ("success", prediction, 1)
