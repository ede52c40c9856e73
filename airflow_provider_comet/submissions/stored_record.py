"""The record of one create as it stands in Airflow's task state store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version

from airflow_provider_comet.submissions import state_store
from airflow_provider_comet.submissions.record import KEY, Record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# From 3.4 on a clear empties the store unless the user asks to keep it: a record that is still there is to be used.
CLEAR_EMPTIES_STORE = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 4)


class StoredRecord:
    """Reads and writes the record of one create of a task instance.

    :param context: Airflow's context of the attempt.
    :param key: the record's key in the store.
    :ivar record: what is known of the newest create; ``None``: there is none, or it was not read yet.
    """

    def __init__(self, context: Context, key: str = KEY) -> None:
        self.record: Record | None = None
        self._key = key
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")

    @property
    def has_store(self) -> bool:
        """Whether Airflow has a task state store: from 3.3 on."""
        return self._store is not None

    @property
    def was_cleared(self) -> bool:
        """Whether a user cleared the task since. If this is not known: no, because that never pays."""
        recorded = None if self.record is None else self.record.max_tries
        return not CLEAR_EMPTIES_STORE and recorded not in (None, self._ti.max_tries)

    def read(self) -> None:
        """Read the record.

        :raises SubmissionRecordError: it can't be read.
        """
        value = state_store.read(self._store, self._key) if self.has_store else None
        self.record = None if value is None else Record.from_json(value, self._key)

    def is_about(self, prediction_id: str | None) -> bool:
        """Return whether the record is this prediction's: a user may have written another one meanwhile."""
        return self.record is not None and self.record.id == prediction_id

    def update(self, budget: float = state_store.STORE_BUDGET_SECONDS, /, **fields: Any) -> None:
        """Write the record with other values in some fields; nothing, if there is none.

        :param budget: seconds for which a failed write is repeated; 0: never.
        :raises SubmissionRecordError: the store does not take it.
        """
        if self.record is not None:
            self.write(dataclasses.replace(self.record, **fields), budget)

    def write(
        self,
        record: Record,
        budget: float = state_store.STORE_BUDGET_SECONDS,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write a record, where Airflow has a store.

        :param budget: as for ``update``.
        :param is_stopped: whether a failed write is of no use any more.
        :raises SubmissionRecordError: the store does not take it.
        """
        if self.has_store:
            state_store.write(self._store, self._key, record.to_json(), budget, is_stopped)
        self.record = record
