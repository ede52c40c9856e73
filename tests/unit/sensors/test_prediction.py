"""`PredictionSensor`: when it looks, what it returns, and how it ends, in each mode."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, dag, event_of, run_sensor

EACH_MODE = pytest.mark.parametrize("mode", MODES)
BACKSTOP = {"error": "Trigger timeout"}
"""What Airflow resumes a task with if its own timeout ends a deferral."""
KEYS = {
    *("id", "model", "version", "status", "files", "output", "error", "metrics"),
    *("created_at", "started_at", "completed_at", "data_removed"),
}


def sensor(prediction_id: Any = "abc", way: str | None = None, /, **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    options = {"retries": 2, **(MODES[way] if way else {}), **options}
    with dag():
        return PredictionSensor(task_id="wait", prediction_id=prediction_id, **options)


def looks(comet: Emulator) -> int:
    return sum(entry["method"] == "GET" for entry in comet.ledger()["requests"])


# Its parameters


def test_defaults() -> None:
    """An hour, deferred, by the adaptive schedule, with the default connection."""
    one = sensor()
    assert (one.timeout, one.deferrable, one.adaptive, one.mode) == (3600, True, True, "poke")
    assert (one.conn_id, one.allow_empty, one.soft_fail, one.reschedule) == ("cometapi_default", False, False, False)
    assert type(one).template_fields == ("prediction_id", "conn_id")


@pytest.mark.parametrize(
    ("options", "deferrable"),
    [
        ({}, True),
        ({"mode": "poke"}, True),
        ({"mode": "reschedule"}, False),
        ({"deferrable": True}, True),
        ({"deferrable": False}, False),
        ({"deferrable": False, "mode": "reschedule"}, False),
    ],
    ids=str,
)
def test_deferrable_unless_told_otherwise(options: dict[str, Any], deferrable: bool) -> None:
    """Only `deferrable=False` and `mode="reschedule"` turn deferring off."""
    assert sensor(**options).deferrable is deferrable


def test_default_deferrable_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's setting, off by default, does not make a wait hold a worker."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False")
    assert sensor().deferrable is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deferrable": True, "mode": "reschedule"}, "either deferrable=True or mode='reschedule'"),
        ({"mode": "sleep"}, "mode"),
        ({"timeout": -1}, "timeout"),
        ({"poke_interval": -1}, "poke_interval"),
        ({"soft_fail": True, "never_fail": True}, "mutually exclusive"),
    ],
    ids=str,
)
def test_contradictions_are_errors_while_parsing(options: dict[str, Any], words: str) -> None:
    """A wait that can't be meant is refused before any run."""
    with pytest.raises(ValueError, match=words):
        sensor(**options)


def test_timedeltas() -> None:
    """Both times may be given as a `timedelta`."""
    one = sensor(timeout=dt.timedelta(minutes=5), poke_interval=dt.timedelta(seconds=7))
    assert (one.timeout, one.poke_interval, one.adaptive) == (300, 7, False)


def test_default_args(comet: Emulator) -> None:
    """A DAG's `default_args` reach the sensor's own parameters."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(default_args={"timeout": 60, "conn_id": "mine", "mode": "reschedule"}):
        one = PredictionSensor(task_id="wait", prediction_id="abc")
    assert (one.timeout, one.conn_id, one.deferrable) == (60, "mine", False)


def test_templates(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Id and connection are rendered, before the deferral and again after it."""
    monkeypatch.setenv("AIRFLOW_CONN_FOR_RUN", comet.connection_json())
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    prediction = create(status="processing")
    task = sensor(prediction[:4] + "{{ '" + prediction[4:] + "' }}", conn_id="for_{{ run_id }}")
    outcome = runner.run(task)
    assert outcome.rendered == {"prediction_id": prediction, "conn_id": "for_run"}
    assert outcome.sent["trigger_kwargs"]["prediction_id"] == prediction
    assert outcome.sent["trigger_kwargs"]["conn_id"] == "for_run"
    comet.set_prediction(prediction, status="succeeded", output=["https://files.example/1.png"])
    resumed = runner.run(task, event={"prediction_id": prediction, "status": "succeeded"})
    assert resumed.result["id"] == prediction


# What it returns


@EACH_MODE
def test_result(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str) -> None:
    """Exactly twelve keys, `files` a list of URLs, no matter whether it had to wait."""
    done, running = create(), create(status="processing")
    clock.on_sleep = lambda seconds: comet.set_prediction(running, status="succeeded")
    for prediction in (done, running):
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


# Before and after a deferral


def test_finished_prediction_needs_no_triggerer(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """It looks once on the worker: what is done is returned at once."""
    outcome = runner.run(sensor(create()))
    assert outcome.state == "success"
    assert looks(comet) == 1


def test_deferral(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]) -> None:
    """The trigger gets the wait's clock and deadline, and Airflow's own timeout comes later than ours."""
    prediction = create(status="processing")
    outcome = runner.run(sensor(prediction, timeout=600, poke_interval=20))
    assert (outcome.state, looks(comet), clock.sleeps) == ("deferred", 1, [])
    kwargs = outcome.trigger().serialize()[1]
    assert kwargs == {
        "prediction_id": prediction,
        "conn_id": "cometapi_default",
        # The server's own clocks may set it back: an age from whole seconds in `Date` is up to a second off.
        "started_at": pytest.approx(clock.time(), abs=1),
        "deadline": pytest.approx(clock.time() + 600, abs=0.001),
        "poke_interval": 20.0,
        "looked_at": pytest.approx(clock.time(), abs=0.001),
    }
    assert outcome.sent["next_method"] == "execute_complete"
    backstop = re.fullmatch(r"PT(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", outcome.sent["trigger_timeout"])
    assert backstop is not None
    assert int(backstop[1] or 0) * 60 + float(backstop[2] or 0) == pytest.approx(900, abs=1)


def test_adaptive_deferral_has_no_interval(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """`poke_interval=None` stays none: the trigger uses the adaptive schedule."""
    assert runner.run(sensor(create(status="processing"))).trigger().poke_interval is None


def resumed(runner: TaskRunner, prediction: str, event: object, **options: Any) -> Outcome:
    return runner.run(sensor(prediction, **options), event=event)


@pytest.mark.parametrize("event", [None, "done", [], {}, {"prediction_id": "abc"}, {"summary": {}}], ids=str)
@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
def test_unreadable_event(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], event: object, soft_fail: bool
) -> None:
    """An event that can't be read is neither success nor skip: the next try looks again."""
    prediction = create()
    outcome = resumed(runner, prediction, event, soft_fail=soft_fail)
    assert outcome.state == "up_for_retry"
    assert isinstance(outcome.error, e.CometError)
    assert outcome.message.startswith(f"Prediction {prediction}: ")


def test_event_of_a_later_release(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """Keys that this release does not know, in event and summary, do not get into the result."""
    prediction = create()
    event = event_of_finished(prediction)
    known = dict(event["summary"])
    event["summary"]["cost"] = 0.03
    event["format"] = 2
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result) == ("success", known)


def event_of_finished(prediction: str) -> Any:
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    return event_of(PredictionTrigger(prediction))


def test_event_without_summary_is_read_again(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A result too large for an event is fetched by the worker."""
    text = "word " * 4000
    prediction = create(status="succeeded", output=text)
    event = event_of_finished(prediction)
    assert "summary" not in event
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result["output"], looks(comet)) == ("success", text, 2)


def test_seen_result_is_not_lost(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A result in the event needs no look: it holds although the API is away or has removed it since."""
    prediction = create()
    event = event_of_finished(prediction)
    comet.set_prediction(prediction, output=None, data_removed=True)
    comet.fault(status=503, count=None)
    outcome = resumed(runner, prediction, event)
    assert (outcome.state, outcome.result["files"]) == ("success", event["summary"]["files"])
    assert looks(comet) == 1


def test_fetch_after_event_can_be_retried(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If the API is away when a large result is fetched, the task is retried and nothing is lost."""
    prediction = create()
    comet.fault(status=503, count=None)
    outcome = resumed(runner, prediction, {"prediction_id": prediction, "status": "succeeded"}, soft_fail=True)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.ServerError)
    comet.clear_faults()
    assert runner.run(sensor(prediction), try_number=2).result["id"] == prediction


@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
def test_failed_trigger_is_retried(runner: TaskRunner, soft_fail: bool) -> None:
    """A triggerer that can't run the trigger says nothing about the prediction: retried, never skipped."""
    task = sensor(soft_fail=soft_fail)
    outcome = runner.run(task, next_method="__fail__", next_kwargs={"error": "Trigger failure", "traceback": ["boom"]})
    assert outcome.state == "up_for_retry"


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
def test_backstop_names_the_prediction(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], soft_fail: bool, state: str
) -> None:
    """Also the timeout that Airflow itself ends a deferral by is a sensor's timeout with the prediction's id."""
    prediction = create(status="processing")
    task = sensor(prediction, soft_fail=soft_fail)
    outcome = runner.run(task, next_method="__fail__", next_kwargs=BACKSTOP)
    assert outcome.state == state
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert "last status 'processing'" in outcome.message
    assert looks(comet) == 1


def test_backstop_looks_before_it_gives_up(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """A prediction that finished while the triggerer was away is a result, or the failure that it is."""
    good, bad = create(), create(status="failed", error="no such luck")
    outcome = runner.run(sensor(good), next_method="__fail__", next_kwargs=BACKSTOP)
    assert (outcome.state, outcome.result["id"], outcome.result["status"]) == ("success", good, "succeeded")
    outcome = runner.run(sensor(bad), next_method="__fail__", next_kwargs=BACKSTOP)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "it failed: no such luck" in outcome.message


def test_backstop_without_the_api_is_retried(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """If that look gets no answer, nobody knows whether there is a result: the next try looks again."""
    prediction = create()
    comet.fault(status=503, count=None)
    outcome = runner.run(sensor(prediction), next_method="__fail__", next_kwargs=BACKSTOP)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.ServerError)


def test_a_last_look_that_had_no_turn(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """If a pause has kept the trigger from it, the worker looks: at a result, or at what runs on and is late."""
    done, running = create(), create(status="processing")
    outcome = runner.run(sensor(done), event={"prediction_id": done, "status": "unknown", "late": 1})
    assert (outcome.state, outcome.result["id"]) == ("success", done)
    outcome = runner.run(sensor(running), event={"prediction_id": running, "status": "unknown", "late": 1})
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowSensorTimeout")


@pytest.mark.parametrize("is_list", [False, True])
def test_a_result_that_is_unknown_to_one_look(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], is_list: bool
) -> None:
    """What the trigger has seen at its end is not unknown because the worker's own look says so: the next try looks
    again."""
    one = create()
    comet.fault(method="GET", path=one, status=404, count=1)
    event = {"count": 1, "errors": 0, "late": 0, "ended": {}} if is_list else {}
    event |= {} if is_list else {"prediction_id": one, "status": "succeeded"}
    outcome = runner.run(sensor([one] if is_list else one), event=event)
    assert outcome.state == "up_for_retry"
    assert "it was seen, and is unknown now" in outcome.message


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


# Odd ids


@EACH_MODE
@pytest.mark.parametrize("value", [None, "", "a/b", 7, ["a/b"], ("abc", 7)], ids=repr)
def test_odd_id(comet: Emulator, clock: Clock, runner: TaskRunner, mode: str, value: Any) -> None:
    """What can't be an id, such as a skipped task's `None`, fails for good and before anything is sent."""
    outcome = run_sensor(runner, sensor(value, mode), clock)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "prediction_id must be the id that a create returned" in outcome.message
    assert comet.ledger()["requests"] == []


def test_none_of_a_template(comet: Emulator, runner: TaskRunner) -> None:
    """A template over a missing XCom renders to the text "None", which is no id either: told at once, not searched."""
    outcome = runner.run(sensor("{{ ti.xcom_pull(task_ids='skipped') }}"))
    assert outcome.state == "failed"
    assert "prediction_id must be the id that a create returned" in outcome.message
    assert looks(comet) == 0


def test_long_odd_id_stays_out_of_the_message(comet: Emulator, runner: TaskRunner) -> None:
    """Whatever somebody passes in place of an id is not printed in full: it may be large, or hold a secret."""
    for value in ("x y" * 5000, "https://files.example/1?signature=abcdef", {"id": "abc", "input": "secret words"}):
        outcome = runner.run(sensor(value))
        assert outcome.state == "failed"
        assert len(outcome.message) < 400
        assert "signature=abcdef" not in outcome.message
        assert "secret words" not in outcome.message


# When it looks


def test_poke_follows_the_adaptive_schedule(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """On a worker it looks a second after the start, then ever more rarely, at most a minute apart."""
    prediction = create(status="processing")
    outcome = run_sensor(runner, sensor(prediction, "poke", timeout=1000), clock)
    assert type(outcome.error).__name__ == "AirflowSensorTimeout"
    assert clock.sleeps[0] == pytest.approx(1.0, rel=0.11)
    assert 54 <= max(clock.sleeps) <= 66
    assert sum(clock.sleeps) == pytest.approx(1000, abs=1)


def test_reschedule_keeps_to_a_minute(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """Each look costs a start of the task there, so the adaptive schedule keeps to a minute."""
    prediction = create(status="processing")
    outcome = run_sensor(runner, sensor(prediction, "reschedule", timeout=600), clock)
    assert type(outcome.error).__name__ == "AirflowSensorTimeout"
    assert all(54 <= seconds <= 67 for seconds in clock.sleeps[:-1])
    assert 8 <= looks(comet) <= 13


@pytest.mark.parametrize("timeout", [10, 90])
def test_reschedule_ends_at_the_timeout(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], timeout: float
) -> None:
    """`timeout` is the most that a wait takes, also where looks are a minute apart."""
    prediction = create(status="processing")
    began = clock.time()
    run_sensor(runner, sensor(prediction, "reschedule", timeout=timeout), clock)
    assert clock.time() - began <= timeout + 5


@EACH_MODE
def test_poke_interval(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """A given interval is kept in every mode, give or take a tenth."""
    prediction = create(status="processing")
    run_sensor(runner, sensor(prediction, mode, timeout=500, poke_interval=40), clock)
    assert len(clock.sleeps) >= 12
    assert all(36 <= seconds <= 44.2 for seconds in clock.sleeps[:-1])


@EACH_MODE
def test_retry_after(comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str) -> None:
    """What the server asks for comes before the interval, in every mode."""
    prediction = create()
    comet.fault(status=429, headers={"Retry-After": "200"}, count=1)
    outcome = run_sensor(runner, sensor(prediction, mode, poke_interval=5), clock)
    assert outcome.state == "success"
    assert max(clock.sleeps) >= 200
    assert looks(comet) == 2


@EACH_MODE
def test_timeout_is_kept(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """The wait ends at its timeout over any number of reschedules, with id, last status, times and what to do."""
    prediction = create(status="processing")
    began = clock.time()
    outcome = run_sensor(runner, sensor(prediction, mode, timeout=300, poke_interval=50), clock)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowSensorTimeout")
    assert 300 <= clock.time() - began + 0.01 <= 310
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert re.search(r"last status 'processing', 30\d s after it was created", outcome.message)
    assert e.PredictionTimeoutError.next_step in outcome.message


@pytest.mark.parametrize("jump", [-86_400.0, -100.0, 3600.0])
@pytest.mark.parametrize("where", ["poke", "on the worker before it defers"])
def test_a_clock_that_is_set_changes_nothing(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], jump: float, where: str
) -> None:
    """The machine's clock is set while a worker waits: it looks as before and ends at its deadline."""
    prediction = create(status="processing")

    def set_clock(seconds: float) -> None:
        clock.jump = jump if len(clock.sleeps) > 3 else 0.0

    clock.on_sleep = set_clock
    options: dict[str, Any] = {"deferrable": False} if where == "poke" else {"defer_after": 3600}
    outcome = runner.run(sensor(prediction, timeout=300, poke_interval=20, **options))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowSensorTimeout")
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert sum(clock.sleeps) == pytest.approx(300, abs=1)
    # What is left at the deadline is one sleep; now and then a rounding makes one more look of it, which has its turn.
    between = [seconds for seconds in clock.sleeps if seconds > 0.1][:-1]
    assert all(17.9 <= seconds <= 22.1 for seconds in between)


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "up_for_retry"), (True, "skipped")])
@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_airflows_execution_timeout_amid_a_look(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], mode: str, soft_fail: bool, state: str
) -> None:
    """If Airflow's own signal interrupts a look, the task ends as at any other deadline: with the prediction's id."""
    prediction = create(status="processing")
    comet.fault(method="GET", delay=5, count=None)
    task = sensor(prediction, mode, execution_timeout=dt.timedelta(seconds=0.3), soft_fail=soft_fail)
    outcome = runner.run(task)
    assert outcome.state == state
    assert outcome.message.startswith(f"Prediction {prediction}: it was not finished when the timeout ended")
    if not soft_fail:
        assert type(outcome.error).__name__ == "AirflowTaskTimeout"


@EACH_MODE
def test_looks_before_the_clock(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str], mode: str
) -> None:
    """A result that is there is returned even if the time is up."""
    assert run_sensor(runner, sensor(create(), mode, timeout=0), clock).state == "success"


def test_reschedule_counts_from_the_first_one(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A rescheduled wait goes on where it was: neither its timeout nor its grace for unknown ids starts again."""
    prediction = create(status="processing")
    task = sensor(prediction, "reschedule", timeout=600)
    long_ago = clock.utcnow() - dt.timedelta(seconds=601)
    assert type(runner.run(task, rescheduled_since=long_ago).error).__name__ == "AirflowSensorTimeout"
    unknown = sensor("unknown", "reschedule", timeout=600)
    assert runner.run(unknown).state == "up_for_reschedule"
    outcome = runner.run(unknown, rescheduled_since=clock.utcnow() - dt.timedelta(seconds=61))
    assert (outcome.state, type(outcome.chain[1])) == ("failed", e.PredictionNotFoundError)


def test_a_refused_key_on_the_worker_is_left_to_the_triggerer(
    comet: Emulator, clock: Clock, runner: TaskRunner, create: Callable[..., str]
) -> None:
    """A key that is just being replaced ends no wait that may defer: the triggerer waits until it is."""
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
    """After a key was replaced the next try finds the result that was paid for."""
    prediction = create()
    task = sensor(prediction, mode)
    comet.fault(status=401, body={"error": {"message": "Invalid token", "code": ""}})
    assert run_sensor(runner, task, clock).state == "up_for_retry"
    outcome = run_sensor(runner, task, clock, try_number=2)
    assert (outcome.state, outcome.result["id"], comet.ledger()["accepted"]) == ("success", prediction, 1)
