"""Leaving the worker while a trigger waits, and resuming afterwards: what operators and sensors need for both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.0 has them elsewhere, and common-compat does not offer them
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]

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


def defer(task: BaseOperator, waits: Sequence[Wait], conn_id: str, *, kwargs: dict[str, Any] | None = None) -> NoReturn:
    """Leave the worker; the task's ``execute_complete`` gets the event.

    :param waits: what to wait for, and until when. Deadline and interval are the same for all.
    :param kwargs: what ``execute_complete`` gets besides.
    """
    # Airflow's trigger classes cost a DAG file as much as all of ours: they load when a task defers.
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    first = waits[0]
    key_from = "connection" if was_read(conn_id) else None
    task.defer(
        trigger=PredictionTrigger(
            [wait.prediction_id for wait in waits],
            conn_id,
            max(wait.started_at for wait in waits),  # a poll tells which of them are older
            first.deadline,
            first.poke_interval,
            first.last_polled_at,
            not_before=min(wait.not_before or 0.0 for wait in waits) or None,
            key_from=key_from,
            is_known=any(wait.is_known for wait in waits) or None,  # of a list: the base URL is right for all of them
        ),
        method_name="execute_complete",
        kwargs={**(kwargs or {}), **({"key_from": key_from} if key_from else {})},
        timeout=timedelta(seconds=max(0.0, first.deadline - clock.now()) + BACKSTOP_SECONDS),
    )


def resume(
    conn_id: str, next_kwargs: Mapping[str, Any] | None, resume_task: Callable[[], T], without_event: Callable[[], T]
) -> T:
    """Resume a deferred task, also if its wait did not end by an event.

    Airflow's own timeout comes if the triggerer was away. A prediction that has finished meanwhile is a result all the
    same: it is polled once more, as at any deadline.

    :param next_kwargs: what ``defer`` left for the task. If the connection was used then, ``COMETAPI_KEY`` does not
        take its place now.
    :param resume_task: what Airflow does to resume the task.
    :param without_event: is called if no event came.
    :raises CometError: the trigger failed.
    """
    if (next_kwargs or {}).get("key_from") == "connection":
        remember_read(conn_id)
    try:
        return resume_task()
    except TaskDeferralTimeout:
        log.warning("Airflow's own timeout ended the deferral, no trigger: polling once more")
    except TaskDeferralError as error:
        raise CometError(f"the trigger failed: {error}") from None
    return without_event()
