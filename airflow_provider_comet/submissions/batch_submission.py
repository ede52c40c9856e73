"""The record of a batch: that of each input, by what the input is, and one that says which there are.

A read or write takes Airflow some 10 ms (one after the other), so that the inputs of a first attempt are not looked up
one by one, and are handed over by one write for all.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.submissions.batch import Batch, Item, Known, record_key
from airflow_provider_comet.submissions.record import BATCH_KEY, BatchRecord, Record
from airflow_provider_comet.submissions.state_store import keep, recall
from airflow_provider_comet.submissions.submission import Submission, warn_without_record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


class BatchStopped(Exception):
    """Nothing more of this batch is sent; what was about to be is left as it is."""


class BatchSubmission:
    """The creates of one task instance that makes many.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    """

    def __init__(self, context: Context, model: str, on_ambiguous_submit: str) -> None:
        self.killed = False
        self.batch = Batch([])
        self.record = BatchRecord()
        self._context = context
        self._model = model
        self._on_ambiguous_submit = on_ambiguous_submit
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
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
        return self._create(item.key, item.input)

    def resume(self, batch: Batch) -> None:
        """Give each item its key, the id that an earlier attempt has paid for, or the error that keeps it from being
        sent.

        :raises SubmissionRecordError: that can't be read.
        :raises InvalidInputError: the inputs are others at each try.
        """
        self.batch = batch
        if not self.is_kept:
            warn_without_record(self._ti)
        value = recall(self._store, BATCH_KEY) if self.is_kept else None
        if value is not None:
            self.record = BatchRecord.from_json(value)
        known: dict[str, list[Known]] = {}
        inputs = {item.content: item.input for item in batch.items}
        for key in sorted(self.record.items, key=lambda one: int(one.rpartition("-")[2])):
            content = key.rpartition("-")[0]
            if content in inputs:
                known.setdefault(content, []).append(self._known(key, inputs[content]))
        batch.place(known)
        for item in batch.items:
            if item.id is not None:
                self._creates[item.key].take()
        if value is not None:
            self._tell_of_known()
            self._check_gone()

    def begin(self) -> None:
        """Write down what may have a record from now on.

        :raises SubmissionRecordError: it can't be written; nothing must be sent then.
        """
        items = {**dict.fromkeys(item.key for item in self.batch.missing), **self.record.items}
        self._write(BatchRecord(items, self._ti.max_tries))

    def delivered(self) -> None:
        """Write down that the task hands these predictions over."""
        self._write(self.record.with_delivered({item.key: item.id for item in self.batch.items if item.id is not None}))

    def _known(self, key: str, input: object) -> Known:
        try:
            return Known(key, self._create(key, input).recorded_id())
        except e.AmbiguousSubmissionError as error:
            return Known(key, error=error)

    def _create(self, key: str, input: object) -> _ItemSubmission:
        if key not in self._creates:
            self._creates[key] = _ItemSubmission(self, key, input)
        return self._creates[key]

    def _write(self, record: BatchRecord) -> None:
        if self.is_kept and record != self.record:
            keep(self._store, BATCH_KEY, record.to_json())
        self.record = record

    def _tell_of_known(self) -> None:
        if known := sum(item.id is not None for item in self.batch.items):
            log.info(
                "Going on with %s predictions that an earlier attempt has paid for: nothing is bought again", known
            )
        again = [create for item in self.batch.missing if (create := self._creates.get(item.key)) and create.has_id]
        if again:
            log.warning("Buying %s predictions again: the task was cleared after it had handed them over", len(again))

    def _check_gone(self) -> None:
        """Name what was paid for and is not in the list any more.

        What this cycle has paid for, or handed over before it was killed, can't have been dropped by a user: the list
        is another one at each try (a random seed, the number of the try), and to go on would buy all of it each time.
        """
        used = {item.key for item in self.batch.items}
        gone_in_cycle = 0
        for key in self.record.items.keys() - used:
            create = self._create(key, None)
            try:
                if create.record is None:
                    create.read()
            except e.SubmissionRecordError as error:
                log.warning("%s", error)
                continue
            record = create.record
            if record is None or record.state == "rejected":
                continue
            is_of_cycle = record.max_tries == self._ti.max_tries
            gone_in_cycle += is_of_cycle
            if record.state == "delivered":
                if is_of_cycle:
                    log.warning(
                        "Prediction %s was handed over (record %s): its input is gone", record.id, record_key(key)
                    )
            else:
                log.warning(
                    "Prediction %s was paid for and never handed over, or may be (record %s, %s): its input is not in "
                    "the list any more, or not so often. A PredictionSensor with its id gets it at no cost",
                    record.id,
                    record_key(key),
                    record.state,
                )
        if gone_in_cycle and self.batch.missing and self.record.max_tries == self._ti.max_tries:
            raise e.InvalidInputError(
                f"{gone_in_cycle} inputs that an earlier try has paid for, or may have, are not in the list any more, "
                f"and {len(self.batch.missing)} are new: do they render differently at each try (a random seed, the "
                "date)? The log names the predictions. Let the inputs stay the same; clear the task to buy the new ones"
            )


class _ItemSubmission(Submission):
    """The create of one input. It keeps what it knows to itself: a line for each would be a thousand at each retry."""

    def __init__(self, owner: BatchSubmission, key: str, input: object) -> None:
        super().__init__(owner._context, owner._model, input, owner._on_ambiguous_submit, record_key(key))
        self._owner = owner
        self._item_key = key

    @property
    def has_id(self) -> bool:
        """Whether a prediction is on record."""
        return self.record is not None and self.record.id is not None

    def read(self) -> None:
        super().read()
        if self.record is not None and self._owner.record.has_delivered(self._item_key, self.record.id):
            self.record = dataclasses.replace(self.record, state="delivered")

    def take(self) -> None:
        """Go on with what is on record."""
        if self.record is not None:
            super()._reattach(self.record)

    def _reattach(self, record: Record) -> None:
        """Not before the input has its place: of more equal ones than are in the list, some are not used."""

    def sending(self) -> None:
        if self._owner.batch.stopped and not self._owner.killed:
            raise BatchStopped
        super().sending()

    @property
    def _is_killed(self) -> bool:
        return self._owner.killed

    def _tell(self, message: str, *args: object, level: int = logging.DEBUG) -> None:
        log.debug(message, *args)
