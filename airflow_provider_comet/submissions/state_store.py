"""Reads and writes Airflow's task state store (Airflow 3.3 and later), and repeats what fails.

An API server that restarts must not cost the id of a paid prediction.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_comet.api.errors import SubmissionRecordError
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.polling import clock, threads
from airflow_provider_comet.polling.backoff import Backoff

log = logging.getLogger(__name__)

STORE_BUDGET_SECONDS = 300.0
"""How long a failed read or write is repeated."""
PAUSE_SECONDS = 5.0

_LOCK = threads.Lock()
"""Airflow's channel for these requests takes one at a time, and that of ``dag.test()`` does not lock."""

OFFLOADING, RECORD_BYTES = ".StateStoreObjectStorageBackend", 65_536
"""The name of Airflow's backend that moves values out of the database, and a size that no record exceeds."""
_NO_ROW: Any = object()

_Result = TypeVar("_Result")


def read(store: Any, key: str) -> Any:
    """Return a value of Airflow's task state store, or ``None`` if there is none.

    :raises SubmissionRecordError: the store does not answer, or has lost the value.
    """
    _warn_of_offloading()
    value = _with_retries(lambda: store.get(key, default=_NO_ROW))
    if value is None:  # the backend moved it out of the database and lost it there: not the same as no record
        raise SubmissionRecordError(f"{key!r} is in the database, but its value is gone from the state_store_backend")
    return None if value is _NO_ROW else value


def write(
    store: Any,
    key: str,
    value: dict[str, Any],
    budget: float = STORE_BUDGET_SECONDS,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Write a value into Airflow's task state store.

    :param budget: seconds for which a failed write is repeated; 0: never.
    :param is_stopped: whether a failed write is of no use any more.
    :raises SubmissionRecordError: the store does not take it.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE  # exists where the store does

    # The default retention of 30 days would make an old task forget what it paid. The row goes with its DAG run.
    _with_retries(lambda: store.set(key, value, retention=NEVER_EXPIRE), budget, is_stopped)


def warn_of_no_store(try_number: int) -> None:
    """Warn a retry in an Airflow without a store that nothing is known of the attempts before it."""
    if try_number > 1:
        log.warning(
            "Airflow before 3.3 keeps no record of paid creates: this try submits again. If a try before it was "
            "killed after it had submitted, a prediction may be paid twice."
        )


def _with_retries(
    call: Callable[[], _Result], budget: float = STORE_BUDGET_SECONDS, is_stopped: Callable[[], bool] = lambda: False
) -> _Result:
    backoff = Backoff(budget, first_pause=PAUSE_SECONDS, longest_pause=PAUSE_SECONDS, started_at=clock.monotonic())
    while True:
        try:
            with _LOCK:
                return call()
        except Exception as error:  # of any kind: a record that can't be read must never look like no record
            if (pause := backoff.next_pause(clock.monotonic())) is None or is_stopped():
                raise SubmissionRecordError(f"{type(error).__name__}: {error}") from error
            log.warning("Airflow's task state store does not answer, trying again: %s", excerpt(str(error)))
        clock.sleep(pause)


@functools.cache  # a task is a process: one warning for each
def _warn_of_offloading() -> None:
    if conf.get("workers", "state_store_backend", fallback="").endswith(OFFLOADING) and (
        conf.getint("common.io", "state_store_objectstorage_threshold", fallback=0) < RECORD_BYTES
    ):
        log.warning(
            "Airflow's state_store_backend moves the record of paid predictions out of the database, where an attempt "
            "that was given up can overwrite that of its successor. Set [common.io] "
            "state_store_objectstorage_threshold to %s at least.",
            RECORD_BYTES,
        )
