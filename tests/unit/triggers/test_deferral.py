"""``triggers/deferral.py``: what a deferral stores, and how a deferred task resumes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.polling.wait import Wait
from tests.support.task_runner import Clock, TaskRunner, dag


def task_that_defers(waits: list[Wait], **kwargs: Any) -> Any:
    """Return a task that does nothing but defer for these waits."""
    from airflow.sdk import BaseOperator

    from airflow_provider_comet.triggers.deferral import defer

    class Deferring(BaseOperator):
        def execute(self, context: Any) -> None:
            defer(self, waits, "mine", kwargs=kwargs)

    with dag():
        return Deferring(task_id="wait")


def wait_at(clock: Clock, prediction_id: str = "abc", **options: Any) -> Wait:
    return Wait(**{
        "prediction_id": prediction_id,
        "started_at": clock.time(),
        "deadline": clock.time() + 600,
        "poke_interval": 20.0,
        **options,
    })


def test_the_trigger_gets_the_wait(clock: Clock, runner: TaskRunner) -> None:
    """The trigger gets the ids, the connection and the times of the wait, and the task resumes in one method."""
    outcome = runner.run(task_that_defers([wait_at(clock, last_polled_at=clock.time() - 5)]))
    kwargs = outcome.trigger().serialize()[1]
    assert kwargs == {
        "prediction_ids": ["abc"],
        "conn_id": "mine",
        "started_at": pytest.approx(clock.time()),
        "deadline": pytest.approx(clock.time() + 600),
        "poke_interval": 20.0,
        "last_polled_at": pytest.approx(clock.time() - 5),
    }
    assert outcome.sent["next_method"] == "execute_complete"


def test_a_task_gets_its_own_kwargs_back(clock: Clock, runner: TaskRunner) -> None:
    """Whatever resumes the task gets the kwargs of the deferral, and the times of the wait: Airflow keeps no others."""
    wait = wait_at(clock)
    outcome = runner.run(task_that_defers([wait], prediction_id="abc"))
    assert outcome.next_kwargs == {"prediction_id": "abc", "started_at": wait.started_at, "deadline": wait.deadline}


def test_the_key_stays_with_its_connection(
    clock: Clock,
    runner: TaskRunner,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The trigger, and the process that resumes the task, know that the connection was used: a key of the environment
    does not take its place while Airflow calls the connection missing."""
    from airflow_provider_comet.hooks import connection as module

    connection("mine")
    module.get_config("mine")
    outcome = runner.run(task_that_defers([wait_at(clock)], prediction_id="abc"))
    assert outcome.next_kwargs["key_from"] == "connection"
    assert outcome.trigger().serialize()[1]["key_from"] == "connection"
    module._found.clear()  # another process
    monkeypatch.delenv("AIRFLOW_CONN_MINE")
    assert not module.was_read("mine")
    resume(None, caplog, **outcome.next_kwargs)
    assert module.was_read("mine")
    with pytest.raises(e.ConnectionLookupError, match="was there before"):
        module.get_config("mine")


@pytest.mark.parametrize("seconds_late", [0.0, 1000.0])
def test_airflows_own_timeout_comes_later(clock: Clock, runner: TaskRunner, seconds_late: float) -> None:
    """Airflow's timeout would end the task without a last poll, so it comes five minutes after the deadline, or after
    the deferral if the deadline has passed."""
    outcome = runner.run(task_that_defers([wait_at(clock, deadline=clock.time() - seconds_late)]))
    assert outcome.sent["trigger_timeout"] in {"PT300S", "PT5M"}


def test_many_waits_share_one_trigger(clock: Clock, runner: TaskRunner) -> None:
    """The trigger takes the youngest age, which a poll corrects; a pause holds only if it held all waits."""
    now = clock.time()
    waits = [
        wait_at(clock, "abc", started_at=now - 500, not_before=now + 30),
        wait_at(clock, "def", started_at=now, not_before=now + 20),
    ]
    trigger = runner.run(task_that_defers(waits)).trigger()
    assert trigger.prediction_ids == ["abc", "def"]
    assert trigger.started_at == pytest.approx(now)
    assert trigger.not_before == pytest.approx(now + 20)
    waits[0].not_before = None
    assert runner.run(task_that_defers(waits)).trigger().not_before is None


def resume(
    raised: BaseException | None, caplog: pytest.LogCaptureFixture, /, *, knows_what: bool = True, **next_kwargs: Any
) -> Any:
    from airflow_provider_comet.triggers.deferral import resume

    def resume_task() -> Any:
        if raised is not None:
            raise raised
        return "resumed"

    def wait_again(started_at: float | None, deadline: float | None) -> Any:
        return started_at, deadline

    with caplog.at_level(logging.WARNING):
        return resume("mine", next_kwargs or None, resume_task, lambda: "last poll", wait_again if knows_what else None)


EVENT = {"event": {"outcomes": {}}}
TIMED_OUT, FAILED = {"error": "Trigger timeout"}, {"error": "Trigger failure"}


def test_an_event_resumes_the_task(caplog: pytest.LogCaptureFixture) -> None:
    """With an event the task's own method decides, and nothing is logged."""
    assert resume(None, caplog, **EVENT) == "resumed"
    assert caplog.records == []


def test_airflows_timeout_is_a_last_poll(caplog: pytest.LogCaptureFixture) -> None:
    """If the triggerer was away until Airflow's own timeout, the task polls once more, and the log says so."""
    from airflow_provider_comet.triggers.deferral import TaskDeferralTimeout

    assert resume(TaskDeferralTimeout("Trigger timeout"), caplog, **TIMED_OUT) == "last poll"
    assert "no trigger: polling once more" in caplog.text


@pytest.mark.parametrize("event", [{}, {"event": None}], ids=str)
def test_a_lost_event(clock: Clock, caplog: pytest.LogCaptureFixture, event: dict[str, Any]) -> None:
    """If Airflow has lost the event, the task waits again with the times that it had, and the log says so; after its
    deadline, or if it does not know what it waited for, it polls for the last time."""
    times = {"started_at": clock.time() - 10, "deadline": clock.time() + 10}
    assert resume(None, caplog, **event, **times) == (times["started_at"], times["deadline"])
    assert "resumed this task without its trigger's event" in caplog.text
    assert resume(None, caplog, **event) == (None, None)
    assert resume(None, caplog, knows_what=False, **event, **times) == "last poll"
    clock.sleep(10)
    assert resume(None, caplog, **event, **times) == "last poll"


def test_a_reschedule_goes_by_the_clock(clock: Clock) -> None:
    """The task starts again after so many seconds."""
    from airflow_provider_comet.airflow_errors import AirflowRescheduleException
    from airflow_provider_comet.triggers.deferral import reschedule

    with pytest.raises(AirflowRescheduleException) as caught:
        reschedule(90.0)
    assert caught.value.reschedule_date.timestamp() == pytest.approx(clock.time() + 90)


def test_a_failed_trigger_is_an_error_of_this_package(caplog: pytest.LogCaptureFixture) -> None:
    """A trigger that could not run says nothing about the prediction: a plain error, which may be retried."""
    from airflow_provider_comet.triggers.deferral import TaskDeferralError

    with pytest.raises(e.CometError, match="the trigger failed: boom") as caught:
        resume(TaskDeferralError("boom"), caplog, **FAILED)
    assert type(caught.value) is e.CometError


def test_other_errors_are_raised_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """The task's own error is not changed."""
    with pytest.raises(ZeroDivisionError):
        resume(ZeroDivisionError("by zero"), caplog, **EVENT)


def test_the_backstop_outlasts_the_last_poll() -> None:
    """The time for the last poll's slot and for its answer is less than the time until Airflow's own timeout."""
    from airflow_provider_comet.api.config import Config
    from airflow_provider_comet.triggers.deferral import BACKSTOP_SECONDS
    from airflow_provider_comet.triggers.prediction import LAST_POLL_SECONDS

    read_timeout = Config.__dataclass_fields__["read_timeout"].default
    assert LAST_POLL_SECONDS + read_timeout < BACKSTOP_SECONDS
