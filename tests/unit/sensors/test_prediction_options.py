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


# Options that it refuses

UNSUPPORTED = [{"silent_fail": True}, {"exponential_backoff": True}, {"max_wait": dt.timedelta(minutes=1)}]


@pytest.mark.parametrize("options", [*UNSUPPORTED, {"max_wait": 60}], ids=str)
@pytest.mark.parametrize("mode", [None, *MODES])
def test_options_of_airflow_without_effect_are_refused(options: dict[str, Any], mode: str | None) -> None:
    """An option that a deferred wait would silently ignore is refused while parsing."""
    (name,) = options
    reason = "it waits out trouble, its interval grows anyway"
    with pytest.raises(ValueError, match=f"PredictionSensor has no {name}: {reason}"):
        sensor("abc", mode, **options)


def test_an_unknown_on_item_error_is_refused() -> None:
    """A value that does not exist is refused while parsing, with the values that do."""
    with pytest.raises(ValueError, match="on_item_error must be 'fail' or 'keep', not 'all_done'"):
        sensor(["abc"], on_item_error="all_done")


WRONG = pytest.mark.parametrize(
    ("options", "words"),
    [
        *[(options, f"PredictionSensor has no {name}") for options in UNSUPPORTED for name in options],
        ({"on_item_error": "nonsense"}, "on_item_error must be"),
    ],
    ids=str,
)


@WRONG
def test_refused_in_default_args(options: dict[str, Any], words: str) -> None:
    """The same option is refused in a DAG's `default_args`."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(default_args=options), pytest.raises(ValueError, match=words):
        PredictionSensor(task_id="wait", prediction_id="abc")


@pytest.mark.parametrize("place", ["partial", "default_args", "expand_kwargs"])
@WRONG
def test_a_mapped_sensor_refuses_them_when_it_runs(
    comet: Emulator, runner: TaskRunner, options: dict[str, Any], words: str, place: str
) -> None:
    """Airflow makes the instances of a mapped sensor on a worker: the task fails there, before anything is sent."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    partial: dict[str, Any] = {"task_id": "wait", "retries": 2}
    with dag(default_args=options if place == "default_args" else {}):
        if place == "expand_kwargs":
            task = PredictionSensor.partial(**partial).expand_kwargs([{"prediction_id": "abc", **options}])
        else:
            partial |= options if place == "partial" else {}
            task = PredictionSensor.partial(**partial).expand(prediction_id=["abc"])
    outcome = runner.run(task, map_index=0)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", ValueError)
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize(
    "options", [{"silent_fail": False}, {"exponential_backoff": False}, {"max_wait": None}], ids=str
)
def test_the_default_values_are_accepted(options: dict[str, Any]) -> None:
    """To say explicitly that such an option is off is no error."""
    assert sensor("abc", **options).deferrable
