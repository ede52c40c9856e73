"""``operators/prediction.py``: a create that waits reads the result that its trigger's event did not carry."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.sensors.helpers import event_about
from tests.unit.submissions.creates import waiting


def test_an_api_in_trouble_is_waited_out(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The task defers again, to the same deadline, and loses no try."""
    deferred = runner.run(waiting())
    (made,) = comet.ledger()["creates"]
    comet.fault(method="GET", status=503, count=None)
    again = runner.run(waiting(), event=event_about({made["id"]: {}}), next_kwargs=deferred.next_kwargs)
    assert again.state == "deferred", again.error
    assert again.trigger().deadline == deferred.trigger().deadline
    comet.clear_faults()
    ended = runner.run(waiting(), event=event_of(again.trigger()), next_kwargs=again.next_kwargs)
    assert (ended.state, ended.result) == ("success", made["id"])
    assert len(comet.ledger()["creates"]) == 1


def test_after_the_deadline_the_next_try_continues(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Then the task fails for now, and its retry pays nothing."""
    deferred = runner.run(waiting(timeout=60))
    (made,) = comet.ledger()["creates"]
    comet.fault(method="GET", status=503, count=None)
    outcome = runner.run(waiting(timeout=60), event=event_about({made["id"]: {}}), next_kwargs=deferred.next_kwargs)
    assert (outcome.state, type(outcome.error)) == ("up_for_retry", e.ServerError)
    comet.clear_faults()
    again = runner.run(waiting(timeout=60), try_number=2)
    assert again.result == made["id"]
    assert len(comet.ledger()["creates"]) == 1


def test_another_input_at_the_resume_is_a_warning(
    comet: Emulator, runner: TaskRunner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A DAG may change while its task is deferred: the prediction is handed over, and the log names what changed."""
    deferred = runner.run(waiting())
    event = event_of(deferred.trigger())
    other = waiting(input={"prompt": "a harbour"})
    outcome = runner.run(other, event=event, next_kwargs=deferred.next_kwargs)
    assert outcome.state == "success"
    assert "renders differently" in caplog.text
    assert "input.prompt" in caplog.text
    assert "harbour" not in caplog.text


def test_an_event_about_another_prediction_is_not_used(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Whatever Airflow resumes the task with, it hands over what is on record as paid."""
    other = waiting(task_id="other")
    event = event_of(runner.run(other).trigger())
    deferred = runner.run(waiting())
    _, made = comet.ledger()["creates"]
    comet.set_prediction(made["id"], status="processing")
    again = runner.run(waiting(), event=event, next_kwargs=deferred.next_kwargs)
    assert (again.state, again.trigger().prediction_ids) == ("deferred", [made["id"]])
    comet.set_prediction(made["id"], status="succeeded")
    assert runner.run(waiting(), event=event, next_kwargs=again.next_kwargs).result == made["id"]
