"""Leaving the worker while a trigger waits, and coming back: what a task needs of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.0 has them elsewhere, and common-compat does not offer them
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.polling import events
from airflow_provider_comet.polling.schedule import Wait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKSTOP_SECONDS = 300
"""How much later than ours Airflow's own timeout comes: it would end the task without the last look."""


def defer(
    task: BaseOperator,
    waits: Sequence[Wait],
    conn_id: str,
    *,
    is_list: bool = False,
    kwargs: dict[str, Any] | None = None,
) -> NoReturn:
    """Leave the worker; the task's ``execute_complete`` gets the event.

    :param waits: what to wait for, and until when; of many, the deadline and the interval are the same.
    :param is_list: the event is to be one of a list, however many there are.
    :param kwargs: what ``execute_complete`` gets besides.
    """
    # Airflow's trigger classes cost a DAG file as much as all of ours: they load when a task defers.
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    first = waits[0]
    task.defer(
        trigger=PredictionTrigger(
            [wait.prediction_id for wait in waits] if is_list else first.prediction_id,
            conn_id,
            max(wait.started_at for wait in waits),  # a look tells which of them are older
            first.deadline,
            first.poke_interval,
            first.looked_at,
            not_before=min(wait.not_before or 0.0 for wait in waits) or None,
        ),
        method_name="execute_complete",
        kwargs=kwargs,
        timeout=timedelta(seconds=max(0.0, first.deadline - time.time()) + BACKSTOP_SECONDS),
    )


def resumed(go_on: Callable[[], T], execute_complete: Callable[[Any], T]) -> T:
    """Come back from the triggerer, also from a wait that did not end by an event.

    Airflow's own timeout comes when the triggerer was away. A prediction that has finished meanwhile is a result all
    the same, so it is looked at, as at any deadline.

    :param go_on: what Airflow does to resume the task.
    :param execute_complete: takes the event that never came.
    """
    try:
        return go_on()
    except TaskDeferralTimeout:
        log.warning("Airflow's own timeout ended the deferral, no trigger: looking once more")
    except TaskDeferralError as error:
        raise CometError(f"the trigger failed: {error}") from None
    return execute_complete(events.UNSEEN)
