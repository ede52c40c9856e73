"""``triggers/task_wait.py``: how a task waits. The tables of whole tasks are in ``test_parity*.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from airflow_provider_comet.polling.events import WaitResult
from tests.support.task_runner import Clock


class Deferred(Exception):
    """Raised in place of Airflow's own."""


class Task:
    """A task that notes how it left the worker."""

    def defer(self, **kwargs: Any) -> None:
        self.deferred = kwargs
        raise Deferred


def wait_of(task: Task, **options: Any) -> Any:
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.triggers.task_wait import TaskWait

    return TaskWait(task, CometReplicateHook(), **{"poke_interval": None, "deferrable": True, **options})


def begin(wait: Any, clock: Clock, ids: list[str], **options: Any) -> Any:
    return wait.begin(ids, clock.time(), clock.time() + 600, **options)


def test_what_has_finished_needs_no_trigger(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """It is polled once, on the worker."""
    wait, prediction = wait_of(Task()), create()
    outcomes = wait.wait(begin(wait, clock, [prediction]))
    assert outcomes[prediction].succeeded


@pytest.mark.parametrize(("polls_first", "polls"), [(True, 1), (False, 0)])
def test_what_runs_is_left_to_a_trigger(
    comet: Emulator, clock: Clock, create: Callable[..., str], polls_first: bool, polls: int
) -> None:
    """After a poll, or without one: what was created a moment ago is not finished."""
    task, prediction = Task(), create(status="processing")
    wait = wait_of(task, kwargs=lambda: {"mine": 1})
    with pytest.raises(Deferred):
        wait.wait(begin(wait, clock, [prediction], ended_before=3), polls_first=polls_first)
    assert sum(prediction in request["path"] for request in comet.ledger()["requests"]) == polls
    kwargs = task.deferred["trigger"].serialize()[1]
    assert (kwargs["prediction_ids"], kwargs["ended_before"], "hands_over" in kwargs) == ([prediction], 3, False)
    assert task.deferred["kwargs"]["mine"] == 1


def test_a_long_list_is_left_to_a_trigger_at_once(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A round of polls would hold the worker."""
    from airflow_provider_comet.triggers.task_wait import MAX_POLLED_ON_WORKER

    task = Task()
    wait = wait_of(task, defer_after=60)
    with pytest.raises(Deferred):
        wait.wait(begin(wait, clock, [f"id{number}" for number in range(MAX_POLLED_ON_WORKER + 1)]))
    assert comet.ledger()["requests"] == []


def test_an_error_that_a_trigger_waits_out(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """A key that is being replaced does not end the wait; another error does, and is kept for the end of the task."""
    from airflow_provider_comet.triggers.task_wait import WORTH_A_TRIGGER

    refused, unknown = create(status="processing"), "unknown"
    comet.fault(method="GET", path=refused, status=401, count=None)
    comet.fault(method="GET", path=unknown, status=400, count=None)
    task = Task()
    wait = wait_of(task, defer_after=60)
    with pytest.raises(Deferred):
        wait.wait(begin(wait, clock, [refused, unknown]), *WORTH_A_TRIGGER)
    assert task.deferred["trigger"].prediction_ids == [refused]
    again = wait_of(Task())
    again.resume(task.deferred["kwargs"])
    assert [*again.errors] == [unknown]
    assert [wait.prediction_id for wait in begin(again, clock, [refused, unknown]).pending] == [refused]


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_has_ended_is_handed_over_while_the_rest_runs(
    comet: Emulator, clock: Clock, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    """On the worker when there is enough of it, and before the task leaves the worker in any case."""
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", 2)
    ids = [create(), create(), create(status="processing")]
    given: list[list[str]] = []

    def on_ended(outcomes: Mapping[str, Any]) -> None:
        given.append([*outcomes])
        if not deferrable:
            comet.set_prediction(ids[2], status="succeeded")

    task = Task()
    wait = wait_of(task, deferrable=deferrable, on_ended=on_ended)
    if deferrable:
        with pytest.raises(Deferred):
            wait.wait(begin(wait, clock, ids))
        assert task.deferred["trigger"].hands_over
        assert task.deferred["trigger"].prediction_ids == ids[2:]
    else:
        assert [*wait.wait(begin(wait, clock, ids))] == ids[2:]
    assert [sorted(part) for part in given] == [sorted(ids[:2])]


def test_what_an_event_does_not_carry_is_read(comet: Emulator, clock: Clock, create: Callable[..., str]) -> None:
    """What still runs, before the deadline, is to be waited for again; after it, it has not finished in time."""
    done, runs, failed = create(), create(status="processing"), e.CometError("no")
    wait = wait_of(Task())
    result = WaitResult({"bad": failed})
    outcomes, again = wait.read(result, ["bad", done, runs], clock.time() + 60)
    assert ([*outcomes], outcomes["bad"], outcomes[done].succeeded, [*again]) == (["bad", done], failed, True, [runs])
    outcomes, again = wait.read(result, [runs], clock.time() - 1)
    assert ([*outcomes], [*again]) == ([runs], [])
