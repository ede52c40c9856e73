"""`PredictionSensor`: its parameters, and options that it refuses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, TaskRunner, dag
from tests.unit.sensors.helpers import event_about, sensor


# Its parameters


def test_defaults() -> None:
    """An hour, deferred, by the adaptive schedule, with the default connection."""
    task = sensor()
    assert (task.timeout, task.deferrable, task.is_adaptive, task.mode) == (3600, True, True, "poke")
    assert (task.conn_id, task.allow_empty, task.soft_fail, task.reschedule) == (
        "cometapi_default",
        False,
        False,
        False,
    )
    assert task.on_item_error == "fail"
    assert type(task).template_fields == ("prediction_id", "conn_id")


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
def test_deferrable_by_default(options: dict[str, Any], deferrable: bool) -> None:
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
    """A contradictory wait is refused before any run."""
    with pytest.raises(ValueError, match=words):
        sensor(**options)


def test_timedeltas() -> None:
    """Both times may be given as a `timedelta`."""
    task = sensor(timeout=dt.timedelta(minutes=5), poke_interval=dt.timedelta(seconds=7))
    assert (task.timeout, task.poke_interval, task.is_adaptive) == (300, 7, False)


def test_default_args(comet: Emulator) -> None:
    """A DAG's `default_args` reach the sensor's own parameters."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(default_args={"timeout": 60, "conn_id": "mine", "mode": "reschedule"}):
        task = PredictionSensor(task_id="wait", prediction_id="abc")
    assert (task.timeout, task.conn_id, task.deferrable) == (60, "mine", False)


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
    assert outcome.trigger().prediction_ids == [prediction]
    assert outcome.trigger().conn_id == "for_run"
    comet.set_prediction(prediction, status="succeeded", output=["https://files.example/1.png"])
    resumed = runner.run(task, event=event_about({prediction: {}}))
    assert resumed.result["id"] == prediction


# Options of Airflow that it does not have


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"silent_fail": True}, "no silent_fail: trouble that may pass is waited out"),
        ({"exponential_backoff": True}, "no exponential_backoff: by default the interval grows"),
        ({"max_wait": dt.timedelta(minutes=1)}, "no max_wait: by default the interval grows to a minute"),
        ({"max_wait": 60}, "no max_wait"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [None, *MODES])
def test_options_of_airflow_that_do_nothing_are_refused(options: dict[str, Any], words: str, mode: str | None) -> None:
    """An option that a deferred wait would silently ignore is refused while parsing, with what happens instead."""
    with pytest.raises(ValueError, match=words):
        sensor("abc", mode, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exponential_backoff": True}, "no exponential_backoff"),
        ({"silent_fail": True}, "no silent_fail"),
        ({"max_wait": dt.timedelta(minutes=1)}, "no max_wait"),
        ({"wait_rule": "nonsense"}, "wait_rule must be"),
    ],
    ids=str,
)
def test_refused_wherever_they_are_given(options: dict[str, Any], words: str) -> None:
    """The same in a DAG's `default_args`, and for a sensor that is mapped."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(default_args=options), pytest.raises(ValueError, match=words):
        PredictionSensor(task_id="wait", prediction_id="abc")
    with dag(default_args=options), pytest.raises(ValueError, match=words):
        PredictionSensor.partial(task_id="wait").expand(prediction_id=["abc"])
    with dag(), pytest.raises(ValueError, match=words):
        PredictionSensor.partial(task_id="wait", **options).expand(prediction_id=["abc"])


@pytest.mark.parametrize(
    "options", [{"silent_fail": False}, {"exponential_backoff": False}, {"max_wait": None}], ids=str
)
def test_their_defaults_are_accepted(options: dict[str, Any]) -> None:
    """Whoever says explicitly that such an option is off is right."""
    assert sensor("abc", **options).deferrable
