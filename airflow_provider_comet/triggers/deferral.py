"""Leaving the worker, to a trigger or until the next poll, and resuming afterwards: for operators and sensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.0 has them elsewhere, and common-compat does not offer them
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]

from airflow_provider_comet.airflow_errors import AirflowRescheduleException
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.hooks.connection import remember_read, was_read
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.wait import Wait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKSTOP_SECONDS = 300
"""Airflow's own timeout is set this much later than our deadline. If it came first, the task would end without the last
poll."""


def defer(
    task: BaseOperator,
    waits: Sequence[Wait],
    conn_id: str,
    *,
    kwargs: Mapping[str, Any],
    hands_over: bool = False,
    ended_before: int = 0,
) -> NoReturn:
    """Leave the worker; the task's ``execute_complete`` gets the event.

    :param waits: what to wait for, and until when. Deadline and interval are the same for all.
    :param kwargs: what ``execute_complete`` gets besides the event, ``started_at`` and ``deadline``.
    :param hands_over: whether the event comes when some have ended, while others run (``HandOver``).
    :param ended_before: how many predictions of the task have ended before, for the log.
    """
    # Airflow's trigger classes cost a DAG file as much as all of ours: they load when a task defers.
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    first = waits[0]
    started_at = max(wait.started_at for wait in waits)  # a poll tells which of them are older
    key_from = "connection" if was_read(conn_id) else None
    task.defer(
        trigger=PredictionTrigger(
            [wait.prediction_id for wait in waits],
            conn_id,
            started_at,
            first.deadline,
            first.poke_interval,
            first.last_polled_at,
            not_before=min(wait.not_before or 0.0 for wait in waits) or None,
            key_from=key_from,
            is_known=any(wait.is_known for wait in waits) or None,  # of a list: the base URL is right for all of them
            hands_over=hands_over or None,
            ended_before=ended_before or None,
        ),
        method_name="execute_complete",
        kwargs={
            **kwargs,
            "started_at": started_at,  # for a task that is resumed without an event
            "deadline": first.deadline,
            **({"key_from": key_from} if key_from else {}),
        },
        timeout=timedelta(seconds=max(0.0, first.deadline - clock.now()) + BACKSTOP_SECONDS),
    )


def reschedule(delay: float) -> NoReturn:
    """Leave the worker for some seconds; then the task starts again."""
    raise AirflowRescheduleException(datetime.fromtimestamp(clock.now() + delay, UTC))  # type: ignore[no-untyped-call]


def resume(
    conn_id: str,
    next_kwargs: Mapping[str, Any] | None,
    resume_task: Callable[[], T],
    last_poll: Callable[[], T],
    wait_again: Callable[[float | None, float | None], T] | None,
) -> T:
    """Resume a deferred task, also if its wait did not end by an event.

    Airflow's own timeout comes if the triggerer was away. A prediction that has finished meanwhile is a result all the
    same: it is polled once more, as at any deadline. Airflow also loses events: then the wait continues.

    :param next_kwargs: what ``defer`` left for the task. If the connection was used then, ``COMETAPI_KEY`` does not
        take its place now.
    :param resume_task: what Airflow does to resume the task.
    :param last_poll: is called if no event came, and the time is up.
    :param wait_again: is called with ``started_at`` and ``deadline``, as far as they are known, if no event came before
        the deadline. ``None``: the task does not know what it waited for.
    :raises CometError: the trigger failed.
    """
    kwargs = next_kwargs or {}
    if kwargs.get("key_from") == "connection":
        remember_read(conn_id)
    try:
        if kwargs.get("event") is not None or "error" in kwargs:  # the latter is a failure of the trigger, or a timeout
            return resume_task()
    except TaskDeferralTimeout:
        log.warning("Airflow's own timeout ended the deferral, no trigger: polling once more")
        return last_poll()
    except TaskDeferralError as error:
        raise CometError(f"the trigger failed: {error}") from None
    log.warning("Airflow has resumed this task without its trigger's event (apache/airflow#65248): polling")
    started_at, deadline = kwargs.get("started_at"), kwargs.get("deadline")
    if wait_again is None or (deadline is not None and clock.now() >= deadline):
        return last_poll()
    return wait_again(started_at, deadline)
