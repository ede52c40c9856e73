"""The record of a batch: that of each input, by what the input is, and one that says which there are.

A read or write takes Airflow some 10 ms (one after the other), so that the inputs of a first attempt are not looked up
one by one, and are handed over by one write for all.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.batch import Batch, Item, record_key
from airflow_provider_comet.api.record import BATCH_KEY, BatchRecord
from airflow_provider_comet.submission import Submission, keep, patiently, warn_without_record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


class BatchSubmission:
    """The creates of one task instance that makes many.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    """

    def __init__(self, context: Context, model: str, on_ambiguous_submit: str) -> None:
        self._context = context
        self._model = model
        self._on_ambiguous_submit = on_ambiguous_submit
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._record = BatchRecord()
        self._creates: dict[str, _ItemSubmission] = {}

    @property
    def is_kept(self) -> bool:
        """Whether there is a store: Airflow 3.3 and later."""
        return self._store is not None

    @property
    def is_under_way(self) -> bool:
        """Whether a create may have been sent whose answer is not there."""
        return any(create.is_under_way for create in self._creates.values())

    def of(self, item: Item) -> Submission:
        """The create of an input."""
        return self._creates[item.key]

    def resume(self, batch: Batch) -> None:
        """Give each item the id that an earlier attempt has paid for, or the error that keeps it from being sent.

        :raises SubmissionRecordError: that can't be read.
        """
        for item in batch.items:
            self._creates[item.key] = self._create(item.key, item.input)
        if not self.is_kept:
            warn_without_record(self._ti)
            return
        value = patiently(lambda: self._store.get(BATCH_KEY))
        if value is None:
            return
        self._record = BatchRecord.from_json(value)
        for create in self._creates.values():
            create.batch = self._record
        for item in batch.items:
            if item.key in self._record.items:
                try:
                    item.id = self._creates[item.key].recorded_id()
                except e.AmbiguousSubmissionError as error:
                    item.error = error
        self._say(batch)

    def begin(self, batch: Batch) -> None:
        """Write down what may have a record from now on.

        :raises SubmissionRecordError: it can't be written; nothing must be sent then.
        """
        items = self._record.items | {item.key for item in batch.missing}
        if items != self._record.items:
            self._write(dataclasses.replace(self._record, items=items))

    def delivered(self) -> None:
        """Write down that the task hands the list over, in this cycle."""
        self._write(dataclasses.replace(self._record, delivered=self._ti.max_tries))

    def kill(self) -> None:
        """Buy nothing from now on."""
        for create in self._creates.values():
            create.killed = True

    def _create(self, key: str, input: object) -> _ItemSubmission:
        return _ItemSubmission(self._context, self._model, input, self._on_ambiguous_submit, record_key(key))

    def _write(self, record: BatchRecord) -> None:
        if self.is_kept:
            keep(self._store, BATCH_KEY, record.to_json())
        self._record = record

    def _say(self, batch: Batch) -> None:
        """What earlier attempts have left, for all at once."""
        known = sum(item.id is not None for item in batch.items)
        again = sum(create.record is not None and create.record.id is not None for create in self._creates.values())
        log.info("Going on with %s predictions that an earlier attempt has paid for: they are not bought again", known)
        if again > known:
            log.warning(
                "Buying %s predictions again: the task was cleared after it had handed them over", again - known
            )
        for key in sorted(self._record.items - self._creates.keys()):
            create = self._create(key, None)
            create.batch = self._record
            create.read()
            if create.record is not None and create.record.state == "accepted":
                log.warning(
                    "Prediction %s was paid for and never handed over: its input is not in the list any more. A "
                    "PredictionSensor with this id gets it at no cost",
                    create.record.id,
                )


class _ItemSubmission(Submission):
    """The create of one input. It keeps what it knows to itself: a line for each would be a thousand at each retry."""

    batch = BatchRecord()

    def read(self) -> None:
        super().read()
        self.record = self.record and self.batch.of(self.record)

    def _tell(self, message: str, *args: object, level: int = logging.DEBUG) -> None:
        log.debug(message, *args)
