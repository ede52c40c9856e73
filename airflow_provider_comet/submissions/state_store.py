"""Airflow's task state store (3.3 and later), asked until it answers: an API server that restarts must not cost a paid
id."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_comet.api.errors import SubmissionRecordError
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.polling import clock

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
"""How long a write or read is repeated."""
PAUSE_SECONDS = 5.0

_STORE = threading.Lock()
"""Airflow's channel for such requests is used by one thread at a time; that of ``dag.test()`` does not see to it."""

OFFLOADING, RECORD_BYTES = ".StateStoreObjectStorageBackend", 65_536
"""Airflow's backend that moves values out of the database, and what no record is larger than."""
_NO_ROW: Any = object()

_Result = TypeVar("_Result")


def recall(store: Any, key: str) -> Any:
    """Read a value of Airflow's task state store; ``None`` if there is none.

    :raises SubmissionRecordError: it can't be read.
    """
    _warn_of_offloading()
    value = patiently(lambda: store.get(key, default=_NO_ROW))
    if value is None:  # it was moved out of the database, and is lost there: not the same as no record
        raise SubmissionRecordError(f"{key!r} is in the database, but its value is gone from the state_store_backend")
    return None if value is _NO_ROW else value


def keep(store: Any, key: str, value: dict[str, Any], patience: float = PATIENCE_SECONDS) -> None:
    """Write a value into Airflow's task state store.

    :raises SubmissionRecordError: it can't be written.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE  # exists where the store does

    # The default retention of 30 days would make an old task forget what it paid; the row goes with its DAG run.
    patiently(lambda: store.set(key, value, retention=NEVER_EXPIRE), patience)


def patiently(call: Callable[[], _Result], patience: float = PATIENCE_SECONDS) -> _Result:
    """Repeat a call of the store until it answers.

    :param patience: seconds.
    :raises SubmissionRecordError: it does not.
    """
    started = clock.monotonic()
    while True:
        try:
            with _STORE:
                return call()
        except Exception as error:  # whatever it is: an unreadable record must never look like no record
            if clock.monotonic() - started >= patience:
                raise SubmissionRecordError(f"{type(error).__name__}: {error}") from error
            log.warning("Airflow's task state store does not answer, trying again: %s", excerpt(str(error)))
        clock.sleep(PAUSE_SECONDS)


@functools.cache  # a task is a process: it says so once
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
