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
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_comet import metrics
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import excerpt, log_value
from airflow_provider_comet.api.validation import is_prediction_id
from airflow_provider_comet.polling import clock
from airflow_provider_comet.submissions import state_store
from airflow_provider_comet.submissions.record import KEY, Record, decide, digest, stored_id
from airflow_provider_comet.submissions.stop_flag import BatchStopped, StopFlag

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

# From 3.4 on a clear empties the store unless the user asks to keep it: a record that is still there is to be used.
CLEAR_EMPTIES_STORE = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 4)


class Submission:
    """The create of one task instance: reads and writes its record, as the client's journal, and counts what was paid.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param input: the rendered input; ``None`` until it is known.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :param key: the record's key in the store.
    :param stop: shared by all creates of a task; once it is set, nothing more is sent.
    :param max_log_level: the highest level of the log lines about a record that was found.
    :ivar record: what is known of the newest create; ``None``: there is none, or it was not read yet.
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
        self.record: Record | None = None
        self.input = input
        self.stop = stop or StopFlag()
        self._key = key
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._model = model
        self._on_ambiguous_submit = on_ambiguous_submit
        self._max_log_level = max_log_level
        self._reason = "first"

    @property
    def has_store(self) -> bool:
        """Whether Airflow has a task state store: from 3.3 on."""
        return self._store is not None

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
        return prediction_id

    def read(self) -> None:
        """Read the record.

        :raises SubmissionRecordError: it can't be read.
        """
        value = state_store.read(self._store, self._key) if self.has_store else None
        self.record = None if value is None else Record.from_json(value, self._key)

    def decide(self) -> str | None:
        """Return the id of the recorded prediction that this attempt uses, or ``None`` if it may create one.

        ``read`` comes first: this method neither reads nor writes.

        :raises CometError: this attempt may do neither.
        """
        reason = decide(self.record, cleared=self._was_cleared, on_ambiguous_submit=self._on_ambiguous_submit)
        if reason is None and self.record is not None:
            return self.record.id
        self._reason = reason or "first"
        level = min(logging.WARNING, self._max_log_level)
        if (record := self.record) is not None and record.id:
            known = log_value(record.id), log_value(record.reported_error or record.state)
            log.log(level, "Prediction %s came before (%s); buying a new one: %s", *known, reason)
        if reason == "retry_ambiguous":
            log.log(level, "The fate of the last create is unknown; on_ambiguous_submit='retry' submits again")
        return None

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
        if changed := record.changes(self._model, self.input):
            log.warning(
                f"The task renders differently now than when prediction {log_value(record.id)} was created; changed: "
                f"{excerpt(', '.join(changed))}. The prediction is used all the same."
            )
        if record.state == "accepted" and record.max_tries != self._ti.max_tries:
            self._update(max_tries=self._ti.max_tries)  # a retry of this cycle must not be taken for a clear
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
            input=digest(self.input),
            max_tries=self._ti.max_tries,
            at=_now(),
            key_from=key_from,
            earlier=() if before is None else (*before.earlier, *([before.id] if before.id else ())),
        )
        try:
            self._write(intent)
            self.raise_if_stopped()  # the store may have been away for minutes
        except BaseException:
            # The store may have taken it and not said so. Nothing is sent, so the next attempt must not find a create
            # of unknown fate.
            with contextlib.suppress(e.SubmissionRecordError):
                self._write(dataclasses.replace(intent, state="rejected"), budget=0.0)
            raise

    def rejected(self) -> None:
        """Record that the POST was certainly not accepted."""
        try:
            self._update(state="rejected", at=_now())
        except e.SubmissionRecordError as error:  # the reason of the rejection is the better error
            log.warning("%s", error)

    def unclear(self, error: e.CometError) -> None:
        """Add to the record, which says ``sending``, what came instead of an answer."""
        answer = f"HTTP {error.status}" if error.status else error.detail  # a body may hold the prompt
        try:
            self._update(0.0, answer=answer, request_id=error.request_id)
        except e.SubmissionRecordError as trouble:
            log.warning("%s", trouble)
        metrics.count("comet.ambiguous", model=self._model)

    def accepted(self, prediction_id: str) -> None:
        """Log, record and count a prediction that was paid for.

        :raises CometError: the id can't be recorded, or no request can name it; the error carries the id.
        """
        ti = self._ti
        # It comes first: if all else fails, the id is here. Spending is counted by it (it has no key and no prompt).
        task = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, "map": ti.map_index, "try": ti.try_number}
        metrics.audit("comet.created", {"id": prediction_id, "model": self._model, **task, "reason": self._reason})
        fields = {"state": "accepted", "id": stored_id(prediction_id), "at": _now(), "answer": None, "request_id": None}
        try:
            try:
                self._update(**fields)
            except e.SubmissionRecordError:
                raise
            except BaseException:  # for example the task's timeout: one more attempt, then it may end the task
                self._update(0.0, **fields)
                raise
        except e.SubmissionRecordError as error:
            raise e.UnrecordedPredictionError(error.detail, prediction_id=prediction_id) from error
        finally:
            metrics.count("comet.created", model=self._model, reason=self._reason)
        if not is_prediction_id(prediction_id):
            raise e.UnusableIdError(prediction_id=prediction_id)

    def reported(self, error: e.PredictionError) -> None:
        """Record that this attempt reports why the prediction has no result."""
        if self._is_about(error.prediction_id):
            self._update(reported_error=type(error).__name__, max_tries=self._ti.max_tries)

    def delivered(self, prediction_id: str) -> None:
        """Record that this attempt hands the prediction over."""
        if self._is_about(prediction_id):
            self._update(state="delivered", at=_now(), max_tries=self._ti.max_tries, reported_error=None)

    def _is_about(self, prediction_id: str | None) -> bool:
        """Whether the record is this prediction's: a user may have written another one meanwhile."""
        return self.record is not None and self.record.id == prediction_id

    @property
    def _was_cleared(self) -> bool:
        """Whether a user cleared the task since. If this is not known: no, because that never pays."""
        recorded = None if self.record is None else self.record.max_tries
        return not CLEAR_EMPTIES_STORE and recorded not in (None, self._ti.max_tries)

    def _update(self, budget: float = state_store.STORE_BUDGET_SECONDS, /, **fields: Any) -> None:
        if self.record is not None:
            self._write(dataclasses.replace(self.record, **fields), budget)

    def _write(self, record: Record, budget: float = state_store.STORE_BUDGET_SECONDS) -> None:
        if self.has_store:
            state_store.write(self._store, self._key, record.to_json(), budget)
        self.record = record


def _now() -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
