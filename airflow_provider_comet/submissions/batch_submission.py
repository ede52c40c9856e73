"""The records of a batch: one for each input, and one that lists them.

A read or write takes Airflow some 10 ms, one after the other. So a first attempt does not read each input's record, and
one write marks all inputs as handed over.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import log_value
from airflow_provider_comet.polling import clock, threads
from airflow_provider_comet.submissions import state_store
from airflow_provider_comet.submissions.batch import Batch, Item, RecordedCreate, record_key
from airflow_provider_comet.submissions.record import BATCH_KEY, BatchRecord, Record
from airflow_provider_comet.submissions.stop_flag import BatchStopped, StopFlag
from airflow_provider_comet.submissions.submission import Submission

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_comet.api.journal import Journal
    from airflow_provider_comet.api.prediction import Prediction

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 15.0
"""Seconds between two log lines about a batch's progress."""


class CreatePrediction(Protocol):
    """Submits one input and returns its prediction."""

    def __call__(self, input: Any, *, journal: Journal) -> Prediction:
        """Submit an input."""


class BatchSubmission:
    """The creates of one task instance that makes many.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :ivar stop: shared by all creates of the batch.
    :ivar record: the record that lists those of the inputs.
    """

    def __init__(self, context: Context, model: str, on_ambiguous_submit: str) -> None:
        self.stop = StopFlag()
        self.batch = Batch([], self.stop)
        self.record = BatchRecord()
        self._context = context
        self._model = model
        self._on_ambiguous_submit = on_ambiguous_submit
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._creates: dict[str, Submission] = {}
        self._halt: Callable[[], object] = lambda: None

    @property
    def has_store(self) -> bool:
        """Whether Airflow has a task state store: from 3.3 on."""
        return self._store is not None

    @property
    def is_under_way(self) -> bool:
        """Whether a create may have been sent whose answer is not known."""
        return any(create.is_under_way for create in [*self._creates.values()])  # threads add to it

    @property
    def records(self) -> list[Record | None]:
        """The records of the inputs, as far as they were read."""
        return [create.record for create in self._creates.values()]

    def resume(self, batch: Batch) -> None:
        """Give each item its key, and the id that an earlier attempt paid for or the error that prevents sending it.

        :raises SubmissionRecordError: a record can't be read.
        :raises InvalidInputError: the inputs are different at each try.
        """
        self.batch = batch
        if not self.has_store:
            state_store.warn_of_no_store(self._ti.try_number)
        value = state_store.read(self._store, BATCH_KEY) if self.has_store else None
        if value is not None:
            self.record = BatchRecord.from_json(value)
        recorded: dict[str, list[RecordedCreate]] = {}
        inputs = {item.digest: item.input for item in batch.items}
        for key in sorted(self.record.items, key=lambda key: int(key.rpartition("-")[2])):
            digest = key.rpartition("-")[0]
            if digest in inputs:
                recorded.setdefault(digest, []).append(self._find(key, inputs[digest]))
        batch.assign_records(recorded)
        # Only what is used: there may be more records of equal inputs than the list has of them.
        for item in batch.items:
            if item.id is not None:
                self._creates[item.key].reattach()
        if value is not None:
            self._log_reuse()
            self._check_dropped_inputs()

    def submit(self, create: CreatePrediction, halt: Callable[[], object], max_in_flight: int) -> None:
        """Submit the inputs that have neither an id nor an error, several at the same time.

        :param create: submits an input, with a journal, and returns the prediction.
        :param halt: ends the pauses of all creates.
        :raises SubmissionRecordError: the list of records can't be written; nothing was sent.
        """
        self._halt = halt
        missing, started = self.batch.missing, clock.monotonic()
        keys = dict.fromkeys(item.key for item in missing)
        self._write(BatchRecord({**keys, **self.record.items}, self._ti.max_tries))
        lock = threads.Lock()
        with threads.Pool(max_in_flight, "comet-create") as pool:
            try:
                pending = {pool.submit(self._submit, item, create, lock) for item in missing}
                while pending:
                    done, pending = threads.wait(pending, PROGRESS_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    sent = sum(item.id is not None for item in missing)
                    failed = sum(item.error is not None for item in missing)
                    rate = sent / max(clock.monotonic() - started, 0.001)
                    log.info(
                        f"{sent} of {len(missing)} inputs submitted ({rate:.1f} a second), {failed} not accepted, "
                        f"{len(pending)} to go"
                    )
            except BaseException:  # for example the task's timeout
                self.kill()
                raise

    def kill(self) -> None:
        """Send nothing more. The answers to creates that were already sent are still read and recorded."""
        self.stop.killed = True
        self._halt()

    def delivered(self) -> None:
        """Record that the task hands over the predictions of the batch."""
        self._write(self.record.with_delivered({item.key: item.id for item in self.batch.items if item.id is not None}))

    def _submit(self, item: Item, create: CreatePrediction, lock: AbstractContextManager[object]) -> None:
        submission, accepted_before = self._create(item.key, item.input), self.batch.accepted_count
        try:
            submission.raise_if_stopped()  # before its files are read, which would hold up the end of the task
            item.id = create(item.input, journal=submission).id
        except BatchStopped:
            return
        except e.CometError as error:
            if isinstance(error, e.RateLimitedError) and self.batch.accepted_count > accepted_before:
                self._submit(item, create, lock)  # the limit is slow, but lets creates through
                return
            log.warning("%s: %s", item, error)
            with lock:
                self.batch.failed(item, error)
            if self.stop.stopped:
                self._halt()
        else:
            with lock:
                self.batch.accepted()

    def _create(self, key: str, input: object) -> Submission:
        if key not in self._creates:
            self._creates[key] = Submission(
                self._context,
                self._model,
                input,
                self._on_ambiguous_submit,
                key=record_key(key),
                stop=self.stop,
                max_log_level=logging.DEBUG,  # a line for each input would be a thousand lines at each retry
            )
        return self._creates[key]

    def _read(self, key: str, input: object) -> Submission:
        create = self._create(key, input)
        create.read()
        if create.record is not None and self.record.has_delivered(key, create.record.id):
            create.record = dataclasses.replace(create.record, state="delivered")
        return create

    def _find(self, key: str, input: object) -> RecordedCreate:
        create = self._read(key, input)
        try:
            return RecordedCreate(key, create.decide())
        except (e.AmbiguousSubmissionError, e.UnusableIdError) as error:
            return RecordedCreate(key, error=error)

    def _write(self, record: BatchRecord) -> None:
        if self.has_store and record != self.record:
            state_store.write(self._store, BATCH_KEY, record.to_json())
        self.record = record

    def _log_reuse(self) -> None:
        if reused := sum(item.id is not None for item in self.batch.items):
            log.info(
                "Continuing with %s predictions that an earlier attempt has paid for: nothing is bought again", reused
            )
        creates = [self._creates[item.key] for item in self.batch.missing if item.key in self._creates]
        if again := sum(create.record is not None and create.record.id is not None for create in creates):
            log.warning("Buying %s predictions again: the task was cleared after it had handed them over", again)

    def _check_dropped_inputs(self) -> None:
        """Log the predictions that were paid for and whose inputs are not in the list any more.

        A user can drop an input only with a clear. If this cycle has paid for an input that is gone, or handed it over
        before it was killed, then the list is different at each try (a random seed, the number of the try). To continue
        would buy all of it at each try.
        """
        used = {item.key for item in self.batch.items}
        is_same_cycle = self.record.max_tries == self._ti.max_tries
        dropped_in_cycle = 0
        for key in self.record.items.keys() - used:
            record = self._create(key, None).record
            try:
                record = record or self._read(key, None).record
            except e.SubmissionRecordError as error:
                log.warning("%s", error)
                continue
            if record is None or record.state == "rejected":
                continue
            is_of_cycle = record.max_tries == self._ti.max_tries
            dropped_in_cycle += is_of_cycle
            if record.state != "delivered":
                log.warning(
                    "Prediction %s was paid for and never handed over, or may be (record %s, %s): its input is not in "
                    "the list any more, or not so often. A PredictionSensor with its id gets it at no cost",
                    *(log_value(record.id), record_key(key), record.state),
                )
            elif is_of_cycle:
                shown = log_value(record.id), record_key(key)
                log.warning("Prediction %s was handed over (record %s): its input is gone", *shown)
        if dropped_in_cycle and self.batch.missing and is_same_cycle:
            raise e.InvalidInputError(
                f"{dropped_in_cycle} inputs that an earlier try has paid for, or may have, are not in the list any "
                f"more, and {len(self.batch.missing)} are new: do they render differently at each try (a random seed, "
                "the date)? The log names the predictions. Let the inputs stay the same; clear the task to buy the new "
                "ones"
            )
