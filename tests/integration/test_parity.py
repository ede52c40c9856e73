"""One table for all modes of `PredictionSensor`: the same result, error, next state and XCom, however it waits."""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import SUMMARY_KEYS
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, dag, event_of, run_sensor

TIMEOUT = 600
WAYS: dict[str, dict[str, Any]] = {**MODES, "default": {}, "start_from_trigger": {"start_from_trigger": True}}
FLAGS: dict[str, dict[str, bool]] = {"": {}, "soft_fail": {"soft_fail": True}, "never_fail": {"never_fail": True}}
MODEL = "/replicate/v1/models/black-forest-labs/flux-schnell/predictions"

World = Callable[[Emulator, str, Clock], None]


@dataclass(frozen=True)
class Row:
    """What happens to a prediction while a task waits for it, and what becomes of the task.

    :param happens: called before the first poll, with the emulator, the prediction's id and the clock.
    :param state: the task's next state: success, failed (for good) or up_for_retry.
    :param raises: what Airflow gets.
    :param error: our error behind it.
    :param is_fact: `soft_fail` skips for it.
    :param options: of the sensor.
    :param takes_polls: it ends after several polls that say the same: `reschedule`, which forgets its polls, waits
        for a status until its timeout.
    """

    name: str
    happens: World
    state: str = "success"
    raises: str = ""
    error: type[e.CometError] | None = None
    is_fact: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    takes_polls: bool = False

    def by(self, way: str) -> Row:
        is_timeout = self.takes_polls and way == "reschedule"
        timeout = {"state": "failed", "raises": TIMED_OUT, "error": e.PredictionTimeoutError, "is_fact": True}
        return dataclasses.replace(self, **timeout) if is_timeout else self

    def expected(self, flags: dict[str, bool]) -> tuple[str, str]:
        is_skipped = self.error and (flags.get("never_fail") or (flags.get("soft_fail") and self.is_fact))
        return ("skipped", "AirflowSkipException") if is_skipped else (self.state, self.raises)


def later(change: World) -> World:
    """Let something happen while the task sleeps for the first time."""

    def happens(comet: Emulator, prediction: str, clock: Clock) -> None:
        def on_sleep(seconds: float) -> None:
            clock.on_sleep = lambda seconds: None
            change(comet, prediction, clock)

        clock.on_sleep = on_sleep

    return happens


def ends(**fields: Any) -> World:
    """The prediction gets these fields during the wait."""
    return later(lambda comet, prediction, clock: comet.set_prediction(prediction, **fields))


def fault(then: World | None = None, **fields: Any) -> World:
    """From the second poll on something goes wrong, by default for ever."""

    def change(comet: Emulator, prediction: str, clock: Clock) -> None:
        comet.fault(method="GET", **{"count": None, **fields})
        if then:
            then(comet, prediction, clock)

    return later(change)


def passing(**fields: Any) -> World:
    """Something goes wrong three times, and the prediction succeeds meanwhile."""
    return fault(ends(status="succeeded"), **{"count": 3, **fields})


def error_of(status: int, code: str = "", **headers: str) -> dict[str, Any]:
    """An answer in CometAPI's error envelope."""
    return {"status": status, "body": {"error": {"message": "no", "code": code}}, "headers": headers}


def unknown_at_first(comet: Emulator, prediction: str, clock: Clock) -> None:
    """Its status is a word that nobody knows, until it succeeds."""
    comet.set_prediction(prediction, status="warming_up")
    ends(status="succeeded")(comet, prediction, clock)


def not_found_at_first(comet: Emulator, prediction: str, clock: Clock) -> None:
    """The first poll comes too early: the server does not know the prediction yet."""
    comet.fault(method="GET", **error_of(404))
    ends(status="succeeded")(comet, prediction, clock)


PAGE = {"status": 200, "body": "<!doctype html><html><title>Welcome</title></html>", "headers": {}}
ODD: dict[str, dict[str, Any]] = {
    "html": PAGE,
    "302": {"status": 302, "headers": {"location": "https://login.example.com/"}},
    "404-page": {**PAGE, "status": 404},
    "404": error_of(404),
    "400": error_of(400),
    "400-task-not-exist": {"status": 400, "body": {"code": "task_not_exist", "message": "no", "data": None}},
    "402": error_of(402),
    "503-model-not-found": error_of(503, "model_not_found"),
}


def claim(*data: Any) -> dict[str, Any]:
    """An answer in the task envelope that says SUCCESS, with this in place of a prediction, or nothing."""
    task = {"task_id": "x", "status": "SUCCESS", **({"data": data[0]} if data else {})}
    return {"status": 200, "body": {"code": "success", "message": "", "data": task}}


CLAIMS = {
    "missing": claim(),
    "null": claim(None),
    "text": claim("done"),
    "without-output": claim({"id": "x", "status": "processing", "output": None}),
}
FAIL, TIMED_OUT, KILLED = "AirflowFailException", "AirflowSensorTimeout", "AirflowTaskTimeout"
EXECUTION = (("execution_timeout", dt.timedelta(seconds=120)),)

ROWS = [
    Row("succeeded", ends(status="succeeded")),
    Row("succeeded-at-once", lambda comet, prediction, clock: comet.set_prediction(prediction, status="succeeded")),
    Row("failed", ends(status="failed", error="out of memory"), "failed", FAIL, e.PredictionFailedError),
    Row("refused", ends(status="failed", error="NSFW content"), "failed", FAIL, e.PredictionRefusedError),
    Row("canceled", ends(status="canceled"), "failed", FAIL, e.PredictionCanceledError),
    Row("aborted", ends(status="aborted"), "failed", FAIL, e.PredictionAbortedError),
    Row("empty", ends(status="succeeded", output=[]), "failed", FAIL, e.EmptyOutputError),
    Row("empty-allowed", ends(status="succeeded", output=[]), options=(("allow_empty", True),)),
    Row(
        "expired",
        ends(status="succeeded", output=None, data_removed=True),
        "failed",
        FAIL,
        e.PredictionExpiredError,
    ),
    Row("unknown-then-done", unknown_at_first),
    Row("unknown-for-ever", ends(status="warming_up"), "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("running-for-ever", lambda *world: None, "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("not-found-then-done", not_found_at_first),
    Row("not-found", fault(**error_of(404)), "failed", FAIL, e.PredictionNotFoundError, takes_polls=True),
    Row("401", fault(**error_of(401)), "up_for_retry", "AuthenticationError", e.AuthenticationError, is_fact=False),
    Row("403", fault(**error_of(403)), "up_for_retry", "PermissionDeniedError", e.PermissionDeniedError, is_fact=False),
    Row(
        "html",
        fault(**PAGE),
        "up_for_retry",
        "WrongURLError",
        e.WrongURLError,
        is_fact=False,
        takes_polls=True,
    ),
    *[Row(f"{name}-then-done", passing(**answer)) for name, answer in ODD.items()],
    *[Row(f"success-{name}-then-done", passing(**answer)) for name, answer in CLAIMS.items()],
    *[
        Row(f"success-{name}", fault(**answer), "failed", FAIL, e.EmptyOutputError, takes_polls=True)
        for name, answer in CLAIMS.items()
    ],
    Row("429-then-done", passing(**error_of(429, **{"Retry-After": "7"}))),
    Row("503-then-done", passing(**error_of(503))),
    Row("dropped-then-done", passing(drop="before")),
    Row("slow-then-done", passing(delay=40)),
    Row("slow-for-ever", fault(delay=150), "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("503-for-ever", fault(**error_of(503)), "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("429-for-ever", fault(**error_of(429)), "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("dropped-for-ever", fault(drop="before"), "failed", TIMED_OUT, e.PredictionTimeoutError),
    Row("execution-timeout", lambda *world: None, "up_for_retry", KILLED, e.PredictionTimeoutError, options=EXECUTION),
    Row("done-before-execution-timeout", ends(status="succeeded"), options=EXECUTION),
]


def start_in_the_triggerer(runner: TaskRunner, task: Any, clock: Clock) -> Outcome:
    """Do what Airflow's scheduler and triggerer do with `start_from_trigger` (`TaskInstance.defer_task`)."""
    from airflow.sdk._shared.module_loading import import_string

    args = task.start_trigger_args
    ends = clock.utcnow() + args.timeout
    if task.execution_timeout:
        ends = min(ends, clock.utcnow() + task.execution_timeout)
    trigger = import_string(args.trigger_cls)(**args.trigger_kwargs)
    trigger.timeout_after = ends
    trigger.task_instance = types.SimpleNamespace(task_id=task.task_id, dag_id="dag", run_id="run")
    try:
        return runner.run(task, event=event_of(trigger))
    finally:
        assert clock.utcnow() < ends + dt.timedelta(seconds=1), "Airflow would have killed the trigger"


def run(runner: TaskRunner, task: Any, clock: Clock, way: str) -> Outcome:
    if way == "start_from_trigger":
        return start_in_the_triggerer(runner, task, clock)
    return run_sensor(runner, task, clock)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_same_in_every_mode(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
    flags: str,
    way: str,
) -> None:
    """What happens to the prediction decides, not the way of waiting for it."""
    row = row.by(way)
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    clock.slow_answers(monkeypatch)
    prediction = new_prediction(comet)
    with dag():
        options = {**WAYS[way], **FLAGS[flags], **dict(row.options)}
        task = PredictionSensor(task_id="wait", prediction_id=prediction, timeout=TIMEOUT, retries=2, **options)
    row.happens(comet, prediction, clock)
    outcome = run(runner, task, clock, way)
    error = "" if outcome.error is None else type(outcome.error).__name__
    assert (outcome.state, error) == row.expected(FLAGS[flags]), outcome.message
    if row.error is None:
        assert set(outcome.xcoms) == {"return_value"}
        assert list(outcome.result) == list(SUMMARY_KEYS)
        assert (outcome.result["id"], outcome.result["status"]) == (prediction, "succeeded")
        assert outcome.result == Prediction.from_body(read(comet, prediction)).summary()
    else:
        assert outcome.xcoms == {}
        assert [type(one) for one in outcome.chain if isinstance(one, e.CometError)] == [row.error]
        assert outcome.message.startswith(f"Prediction {prediction}: ")


def read(comet: Emulator, prediction: str) -> Any:
    """What the API says of a prediction, without the package under test."""
    import requests

    headers = {"Authorization": f"Bearer {comet.api_key}"}
    return requests.get(f"{comet.base_url}/replicate/v1/predictions/{prediction}", headers=headers, timeout=5).json()


def new_prediction(comet: Emulator) -> str:
    """Create one that runs until it is told to end, without the package under test."""
    import requests

    comet.next_outcome(status="processing")
    answer = requests.post(
        comet.base_url + MODEL,
        json={"input": {"prompt": "a lighthouse"}},
        headers={"Authorization": f"Bearer {comet.api_key}"},
        timeout=5,
    )
    return str(answer.json()["id"])
