"""Leaving the worker while a trigger waits, and coming back: what a task needs of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.0 has them elsewhere, and common-compat does not offer them
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]

from airflow_provider_comet.api.errors import CometError, PredictionTimeoutError
from airflow_provider_comet.api.polling import Wait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

BACKSTOP_SECONDS = 300
"""How much later than ours Airflow's own timeout comes: it would end the task without the last look."""


def defer(task: BaseOperator, waits: Sequence[Wait], conn_id: str, *, is_list: bool = False) -> NoReturn:
    """Leave the worker; the task's ``execute_complete`` gets the event.

    :param waits: what to wait for, and until when; of many, the deadline and the interval are the same.
    :param is_list: the event is to be one of a list, however many there are.
    """
    # Airflow's trigger classes cost a DAG file as much as all of ours: they load when a task defers.
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    first = waits[0]
    task.defer(
        trigger=PredictionTrigger(
            [wait.prediction_id for wait in waits] if is_list else first.prediction_id,
            conn_id,
            min(wait.started_at for wait in waits),
            first.deadline,
            first.poke_interval,
            first.looked_at,
        ),
        method_name="execute_complete",
        timeout=timedelta(seconds=max(0.0, first.deadline - time.time()) + BACKSTOP_SECONDS),
    )


@contextlib.contextmanager
def resumed() -> Iterator[None]:
    """Raise what Airflow says of a wait that did not end by an event as an error of this package."""
    try:
        yield
    except TaskDeferralTimeout:  # our own timeout should have come before: the triggerer was away
        raise PredictionTimeoutError("Airflow's backstop ended the wait") from None
    except TaskDeferralError as error:
        raise CometError(f"the trigger failed: {error}") from None
