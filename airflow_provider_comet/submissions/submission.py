"""The record of a paid create, in Airflow's task state store (3.3 and later): no attempt pays twice for one result.

The rule: a paid result that has not been handed over is never bought again; one that was handed over is bought again
only by a user's clear. ``docs/paid-once.md`` tells it from the user's side.

What is recorded, and what an attempt may do by it, stands in ``api/record.py``. The store keeps it through a killed
process, a retry and, in Airflow 3.3, a clear; XCom does not. What an attempt writes is refused by the API server once
the next attempt exists (the task instance has another id then), so the last word before a POST, ``sending``, can't come
from an attempt that was given up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_comet import metrics
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.polling import clock
from airflow_provider_comet.submissions.record import KEY, Record, decide, digest
from airflow_provider_comet.submissions.state_store import PATIENCE_SECONDS, keep, recall

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

# From 3.4 on a clear of the task empties the store unless the user asks to keep it: a record that is there is meant.
CLEAR_EMPTIES_STORE = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 4)


class Submission:
    """The create of one task instance: reads and writes its record, and counts what was paid.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param input: the rendered input; ``None`` until it is known.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :param key: under which it is on record.
    """

    def __init__(self, context: Context, model: str, input: object, on_ambiguous_submit: str, key: str = KEY) -> None:
        self.record: Record | None = None
        self.killed = False
        self._key = key
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._model = model
        self.input = input
        self._on_ambiguous_submit = on_ambiguous_submit
        self._reason = "first"

    @property
    def is_kept(self) -> bool:
        """Whether there is a store: Airflow 3.3 and later."""
        return self._store is not None

    @property
    def is_under_way(self) -> bool:
        """Whether a create may have been sent whose answer is not there."""
        return self.record is not None and self.record.state == "sending"

    def recorded_id(self) -> str | None:
        """Return the id of the prediction that this attempt goes on with, or ``None`` if it may create one.

        :raises CometError: neither may happen.
        """
        self.read()
        reason = decide(self.record, cleared=self._cleared, on_ambiguous_submit=self._on_ambiguous_submit)
        if reason is None and self.record is not None:
            self._reattach(self.record)
            return self.record.id
        self._reason = reason or "first"
        if self.record is not None and self.record.id:
            known = self.record.ended or self.record.state
            self._tell("Prediction %s came before (%s); buying a new one: %s", self.record.id, known, reason)
        if reason == "retry_ambiguous":
            self._tell("The fate of the last create is unknown; on_ambiguous_submit='retry' submits again")
        if not self.is_kept:
            warn_without_record(self._ti)
        return None

    def read(self) -> None:
        """Read the record.

        :raises SubmissionRecordError: it can't be read.
        """
        value = recall(self._store, self._key) if self.is_kept else None
        self.record = None if value is None else Record.from_json(value, self._key)

    def sending(self) -> None:
        """Write down that a POST is about to go out.

        :raises SubmissionRecordError: it can't be written; the POST must not go out then.
        """
        self.refuse_if_killed()
        before = self.record
        intent = Record(
            "sending",
            reason=self._reason,
            model=self._model,
            input=digest(self.input),
            max_tries=self._ti.max_tries,
            at=_now(),
            earlier=() if before is None else (*before.earlier, *([before.id] if before.id else ())),
        )
        try:
            self._write(intent)
            self.refuse_if_killed()  # the store may have been away for minutes
        except BaseException:
            # It may be on record although nobody said so, and nothing is sent: the next attempt must not take it for a
            # create of unknown fate.
            with contextlib.suppress(e.SubmissionRecordError):
                self._write(dataclasses.replace(intent, state="rejected"), patience=0.0)
            raise

    def rejected(self) -> None:
        """Write down that the POST was certainly not accepted."""
        try:
            self._change({"state": "rejected", "at": _now()})
        except e.SubmissionRecordError as trouble:  # why it was rejected is the better error
            log.warning("%s", trouble)

    def unclear(self, error: e.CometError) -> None:
        """Keep what came back in place of an answer; the record says ``sending`` already."""
        came = f"HTTP {error.status} came back" if error.status else error.detail  # words may hold the prompt
        try:
            self._change({"answer": came, "request_id": error.request_id}, patience=0.0)
        except e.SubmissionRecordError as trouble:
            log.warning("%s", trouble)
        metrics.count("comet.ambiguous", model=self._model)

    def accepted(self, prediction_id: str) -> None:
        """Log, write down and count an id that was paid for.

        :raises UnrecordedPredictionError: it can't be written; the error carries the id.
        """
        ti = self._ti
        # One line per accepted create, always of this form: spending is counted by it (never key or prompt). It comes
        # first: if everything else fails, it is what is left of the id.
        log.info(
            "comet.create id=%s model=%s dag=%s run=%s task=%s map=%s try=%s reason=%s",
            prediction_id,
            self._model,
            ti.dag_id,
            ti.run_id,
            ti.task_id,
            ti.map_index,
            ti.try_number,
            self._reason,
        )
        accepted = {"state": "accepted", "id": prediction_id, "at": _now(), "answer": None, "request_id": None}
        try:
            try:
                self._change(accepted)
            except e.SubmissionRecordError:
                raise
            except BaseException:  # the task's timeout, say: once more, then it may go on
                self._change(accepted, patience=0.0)
                raise
        except e.SubmissionRecordError as error:
            raise e.UnrecordedPredictionError(error.detail, prediction_id=prediction_id) from error
        finally:
            metrics.count("comet.creates", model=self._model, reason=self._reason)

    def ended(self, error: e.PredictionError) -> None:
        """Write down that the prediction ended without a result, which this attempt reports."""
        if self._is_about(error.prediction_id):
            self._change({"ended": type(error).__name__, "max_tries": self._ti.max_tries})

    def delivered(self, prediction_id: str) -> None:
        """Write down that the task hands the prediction over, in this cycle."""
        if self._is_about(prediction_id):
            self._change({"state": "delivered", "at": _now(), "max_tries": self._ti.max_tries, "ended": None})

    def _is_about(self, prediction_id: str | None) -> bool:
        """Whether the record is still this prediction's: a user may have written another one meanwhile."""
        return self.record is not None and self.record.id == prediction_id

    @property
    def _cleared(self) -> bool:
        """Whether a user cleared the task since; where it can't be told, no: that never pays."""
        recorded = None if self.record is None else self.record.max_tries
        return not CLEAR_EMPTIES_STORE and recorded not in (None, self._ti.max_tries)

    def _reattach(self, record: Record) -> None:
        once_more = "clear the task once more; if that does not help, " if record.state == "delivered" else ""
        self._tell(
            "Going on with prediction %s, which an earlier attempt paid for (%s at %s): nothing is sent. "
            "To buy a new one all the same, %sdelete %s from the task's state store and clear the task.",
            record.id,
            record.state,
            record.at,
            once_more,
            self._key,
            level=logging.INFO,
        )
        if changed := record.changes(self._model, self.input):
            log.warning(
                "The task renders differently now than when prediction %s was created; changed: %s. "
                "The prediction is used all the same.",
                record.id,
                ", ".join(changed),
            )
        if record.state == "accepted" and record.max_tries != self._ti.max_tries:
            self._change({"max_tries": self._ti.max_tries})  # a retry of this cycle must not be taken for a clear
        metrics.count("comet.reattached", model=record.model or self._model)

    def refuse_if_killed(self) -> None:
        """Airflow's signal does not end the process at once: nothing may be bought in its last seconds."""
        if self._is_killed:
            raise AirflowException("The task was killed before the prediction was submitted: nothing was sent")

    @property
    def _is_killed(self) -> bool:
        return self.killed

    def _change(self, fields: Mapping[str, Any], patience: float = PATIENCE_SECONDS) -> None:
        if self.record is not None:
            self._write(dataclasses.replace(self.record, **fields), patience)

    def _write(self, record: Record, patience: float = PATIENCE_SECONDS) -> None:
        if not self.is_kept:
            self.record = record
            return
        keep(self._store, self._key, record.to_json(), patience)
        self.record = record

    def _tell(self, message: str, *args: object, level: int = logging.WARNING) -> None:
        log.log(level, message, *args)


def warn_without_record(ti: Any) -> None:
    """Say what a retry risks where nothing is kept."""
    if ti.try_number > 1:
        log.warning(
            "Airflow before 3.3 keeps no record of paid creates: this try submits again. If a try before it was "
            "killed after it had submitted, a prediction may be paid twice."
        )


def _now() -> str:
    return datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
