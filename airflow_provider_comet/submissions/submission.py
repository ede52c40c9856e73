"""The create of one task instance and its record in the task state store: no attempt pays twice for one result.

The store keeps the record through a killed process, a retry and, in Airflow 3.3, a clear; XCom does not. Once the next
attempt exists, the API server refuses what the old one writes, because the task instance has a new id. ``sending`` is
written before each POST, so an attempt that was given up can't send. docs/paid-once.md has the user's side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_comet import metrics
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import excerpt, log_value
from airflow_provider_comet.api.validation import is_prediction_id
from airflow_provider_comet.polling import clock
from airflow_provider_comet.submissions import state_store
from airflow_provider_comet.submissions.digests import digest_of_input
from airflow_provider_comet.submissions.record import KEY, Record, decide, stored_id
from airflow_provider_comet.submissions.stop_flag import BatchStopped, StopFlag
from airflow_provider_comet.submissions.stored_record import StoredRecord

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

ID_XCOM_KEY = "prediction_id"
"""Where the id is until the next try begins, as soon as it is known; docs/paid-once.md."""


class Submission(StoredRecord):
    """The create of one task instance: reads and writes its record, as the client's journal, and counts what was paid.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param input: the rendered input, or what it is made of: its digest tells whether a retry renders the same.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :param key: the record's key in the store.
    :param stop: shared by all creates of a task; once it is set, nothing more is sent.
    :param max_log_level: the highest level of the log lines about a record that was found.
    :ivar paid_id: the id of the prediction that this attempt continues with, or has paid for.
    """

    def __init__(
        self,
        context: Context,
        model: str,
        input: object,
        on_ambiguous_submit: str,
        *,
        key: str = KEY,
        stop: StopFlag | None = None,
        max_log_level: int = logging.WARNING,
    ) -> None:
        super().__init__(context, key)
        self.paid_id: str | None = None
        self.stop = stop or StopFlag()
        self._model = model
        self._input = None if input is None else digest_of_input(input)  # before a function changes its arguments
        self._on_ambiguous_submit = on_ambiguous_submit
        self._max_log_level = max_log_level
        self._reason = "first"

    @property
    def is_under_way(self) -> bool:
        """Whether a create may have been sent whose answer is not known."""
        return self.record is not None and self.record.state == "sending"

    def resume(self) -> str | None:
        """Return the id of the paid prediction that this attempt uses, or ``None`` if it may create one.

        :raises CometError: this attempt may do neither.
        """
        self.read()
        if (prediction_id := self.decide()) is not None:
            self.reattach()
        elif not self.has_store:
            state_store.warn_of_no_store(self._ti.try_number)
        self.paid_id = prediction_id
        return prediction_id

    def decide(self) -> str | None:
        """Return the id of the recorded prediction that this attempt uses, or ``None`` if it may create one.

        ``read`` comes first: this method neither reads nor writes.

        :raises CometError: this attempt may do neither.
        """
        reason = decide(self.record, cleared=self.was_cleared, on_ambiguous_submit=self._on_ambiguous_submit)
        if reason is None and self.record is not None:
            self.check_unchanged(after_clear=self.was_cleared)
            return self.record.id
        self._reason = reason or "first"
        level = min(logging.WARNING, self._max_log_level)
        if (record := self.record) is not None and record.id:
            known = log_value(record.id), log_value(record.reported_error or record.state)
            log.log(level, "Prediction %s came before (%s); buying a new one: %s", *known, reason)
        if reason == "retry_ambiguous":
            log.log(level, "The fate of the last create is unknown; on_ambiguous_submit='retry' submits again")
        return None

    def check_unchanged(self, *, after_clear: bool = False) -> None:
        """Check that the recorded prediction is of this task's model and input; a warning if it is used all the same.

        The store keeps the record of a mapped task by its position. If the list begins with another item now, the
        record is of another item, and nobody can always tell a clear from a retry.

        :raises ChangedInputError: it is not, and it must not be handed over.
        """
        if self.record is None or not (changed := ", ".join(self._changed)):
            return
        is_mapped = self._ti.map_index not in (None, -1)
        if after_clear or is_mapped:
            raise e.ChangedInputError(f"changed: {changed}", prediction_id=self.record.id)
        log.warning(
            f"The task renders differently now than when prediction {log_value(self.record.id)} was created; changed: "
            f"{excerpt(changed)}. The prediction is used all the same."
        )

    def reattach(self) -> None:
        """Continue with the recorded prediction, which an earlier attempt paid for.

        :raises SubmissionRecordError: the record can't be updated.
        """
        if (record := self.record) is None:
            return
        once_more = "clear the task once more; if that does not help, " if record.state == "delivered" else ""
        log.log(
            min(logging.INFO, self._max_log_level),
            f"Continuing with prediction {log_value(record.id)}, which an earlier attempt paid for ({record.state} at "
            f"{log_value(record.at)}): nothing is sent. To buy a new one all the same, {once_more}delete {self._key} "
            "from the task's state store and clear the task.",
        )
        if record.state == "accepted" and record.max_tries != self._ti.max_tries:
            failures = () if self.was_cleared else record.failures
            self.update(max_tries=self._ti.max_tries, failures=failures)  # a retry of this cycle is no clear
        metrics.count("comet.reattached", model=record.model or self._model)

    def raise_if_stopped(self) -> None:
        """Raise if the task was killed, after which it still runs for some seconds, or if its batch was stopped."""
        if self.stop.killed:
            raise AirflowException("The task was killed before the prediction was submitted: nothing was sent")
        if self.stop.stopped:
            raise BatchStopped

    def sending(self, key_from: str) -> None:
        """Record that a POST is about to be sent, with the key of the ``connection`` or of the ``environment``.

        :raises SubmissionRecordError: the record can't be written; the POST must not be sent then.
        """
        self.raise_if_stopped()
        before = self.record
        intent = Record(
            "sending",
            reason=self._reason,
            model=self._model,
            input=self._input or {},
            max_tries=self._ti.max_tries,
            at=_now(),
            key_from=key_from,
            failures=() if before is None or self.was_cleared else before.failures,
            earlier=() if before is None else (*before.earlier, *([before.id] if before.id else ())),
        )
        try:
            self.write(intent, is_stopped=lambda: self.stop.killed)
            self.raise_if_stopped()  # the store may have been away for minutes
        except BaseException:
            # The store may have taken it and not said so. Nothing is sent, so the next attempt must not find a create
            # of unknown fate.
            with contextlib.suppress(e.SubmissionRecordError):
                self.write(dataclasses.replace(intent, state="rejected"), budget=0.0)
            raise

    def rejected(self) -> None:
        """Record that the POST was certainly not accepted."""
        try:
            self.update(state="rejected", at=_now())
        except e.SubmissionRecordError as error:  # the reason of the rejection is the better error
            log.warning("%s", error)

    def unclear(self, error: e.CometError) -> None:
        """Add to the record, which says ``sending``, what came instead of an answer."""
        answer = f"HTTP {error.status}" if error.status else error.detail  # a body may hold the prompt
        try:
            self.update(0.0, answer=answer, request_id=error.request_id)
        except e.SubmissionRecordError as trouble:
            log.warning("%s", trouble)
        metrics.count("comet.ambiguous", model=self._model)

    def accepted(self, prediction_id: str) -> None:
        """Log, record and count a prediction that was paid for.

        :raises CometError: the id can't be recorded, or no request can name it; the error carries the id.
        """
        self.paid_id = prediction_id
        fields = {"state": "accepted", "id": stored_id(prediction_id), "at": _now(), "answer": None, "request_id": None}
        try:
            try:
                # It comes first: if all else fails, the id is here.
                metrics.created(prediction_id, self._model, self._reason, self._ti)
                self.update(**fields)
            except e.SubmissionRecordError:
                raise
            except BaseException:  # whatever it is: one more attempt, then it may end the task
                self.update(0.0, **fields)
                raise
        except e.SubmissionRecordError as error:
            raise e.UnrecordedPredictionError(error.detail, prediction_id=prediction_id) from error
        finally:
            self._push_id(prediction_id)
            metrics.count("comet.created", model=self._model, reason=self._reason)
        if not is_prediction_id(prediction_id):
            raise e.UnusableIdError(prediction_id=prediction_id)

    def interrupted(self) -> None:
        """Send nothing more: the task was interrupted."""
        self.stop.killed = True

    def reported(self, error: e.PredictionError) -> e.PredictionError:
        """Record that this attempt reports why the prediction has no result, and return the error to raise."""
        if self.record is not None and self.is_about(error.prediction_id):
            record, error = self.record.with_report(error)
            self.write(dataclasses.replace(record, max_tries=self._ti.max_tries))
        return error

    def delivered(self, prediction_id: str) -> None:
        """Record that this attempt hands the prediction over."""
        if self.is_about(prediction_id):
            self.update(state="delivered", at=_now(), max_tries=self._ti.max_tries, reported_error=None)

    def _push_id(self, prediction_id: str) -> None:
        """Put the id where it outlives a worker whose log is lost with it, until the next try begins."""
        if self._key == KEY:  # a batch has too many
            with contextlib.suppress(Exception):
                self._ti.xcom_push(key=ID_XCOM_KEY, value=stored_id(prediction_id))

    @property
    def _changed(self) -> list[str]:
        return [] if self.record is None else self.record.changes(self._model, self._input)


def _now() -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
