"""The record of a paid create, in Airflow's task state store (3.3 and later): no attempt pays twice for one result.

The rule: a paid result that has not been handed over is never bought again; one that was handed over is bought again
only by a user's clear. ``docs/paid-once.md`` tells it from the user's side.

What is recorded, and what an attempt may do by it, stands in ``api/record.py``. The store keeps it through a killed
process, a retry and, in Airflow 3.3, a clear; XCom does not. What an attempt writes is refused by the API server once
the next attempt exists (the task instance has another id then), so the last word before a POST, ``sending``, can't come
from an attempt that was given up.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import Stats

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.record import KEY, Record, decide, digest
from airflow_provider_comet.api.redaction import excerpt

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
"""How long a write or read of the record is repeated: an API server that restarts must not cost a paid id."""
PAUSE_SECONDS = 5.0

# From 3.4 on a clear of the task empties the store unless the user asks to keep it: a record that is there is meant.
CLEAR_EMPTIES_STORE = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 4)

_Result = TypeVar("_Result")


class Submission:
    """The create of one task instance: reads and writes its record, and counts what was paid.

    :param context: Airflow's context of the attempt.
    :param model: the rendered model.
    :param input: the rendered input.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    """

    def __init__(self, context: Context, model: str, input: object, on_ambiguous_submit: str) -> None:
        self.record: Record | None = None
        self._ti = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._model = model
        self._input = input
        self._on_ambiguous_submit = on_ambiguous_submit
        self._reason = "first"

    def recorded_id(self, ended: e.CometError | None = None) -> str | None:
        """Return the id of the prediction that this attempt goes on with, or ``None`` if it may create one.

        :param ended: how that prediction ended, if the attempt has waited for it already.
        :raises CometError: neither may happen.
        """
        if ended is None:
            self.read()
        reason = decide(self.record, cleared=self._cleared, on_ambiguous_submit=self._on_ambiguous_submit, ended=ended)
        if reason is None:
            return self._reattach()
        self._reason = reason
        if ended is not None:
            log.warning("%s This attempt creates a new one.", ended)
        if self._store is None and self._ti.try_number > 1:
            log.warning(
                "Airflow before 3.3 keeps no record of paid creates: this try submits again. If a try before it was "
                "killed while it submitted, a prediction may have been paid twice."
            )
        if reason == "retry_ambiguous":
            log.warning("The fate of the last create is unknown; on_ambiguous_submit='retry' submits again")
        return None

    def read(self) -> Record | None:
        """Read the record.

        :raises SubmissionRecordError: it can't be read.
        """
        value = None if self._store is None else self._patiently(lambda: self._store.get(KEY))
        self.record = None if value is None else Record.from_json(value)
        return self.record

    def sending(self) -> None:
        """Write down that a POST is about to go out.

        :raises SubmissionRecordError: it can't be written; the POST must not go out then.
        """
        before = self.record
        earlier = () if before is None else (*before.earlier, *([before.id] if before.id else ()))
        self._write(
            Record(
                "sending",
                reason=self._reason,
                model=self._model,
                input=digest(self._input),
                max_tries=self._ti.max_tries,
                at=_now(),
                earlier=earlier,
            )
        )

    def rejected(self) -> None:
        """Write down that the POST was certainly not accepted."""
        self._change(state="rejected", at=_now())

    def unclear(self, error: e.CometError) -> None:
        """Keep what came back in place of an answer; the record says ``sending`` already."""
        try:
            self._change(patience=0.0, answer=f"the answer was: {error.detail}", request_id=error.request_id)
        except e.SubmissionRecordError as trouble:
            log.warning("%s", trouble)
        Stats.incr("comet.ambiguous", tags={"model": self._model})

    def accepted(self, prediction_id: str) -> None:
        """Log, count and write down an id that was paid for.

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
        try:
            self._change(state="accepted", id=prediction_id, at=_now(), answer=None, request_id=None)
        except e.SubmissionRecordError as error:
            raise e.UnrecordedPredictionError(error.detail, prediction_id=prediction_id) from error
        finally:
            Stats.incr("comet.creates", tags={"model": self._model, "reason": self._reason})

    def delivered(self) -> None:
        """Write down that the task hands the prediction over, in this cycle."""
        self._change(state="delivered", at=_now(), max_tries=self._ti.max_tries)

    @property
    def _cleared(self) -> bool:
        """Whether a user cleared the task since; where it can't be told, no: that never pays."""
        recorded = None if self.record is None else self.record.max_tries
        return not CLEAR_EMPTIES_STORE and recorded not in (None, self._ti.max_tries)

    def _reattach(self) -> str | None:
        record = self.record
        assert record is not None  # only a record makes an attempt go on with something
        Stats.incr("comet.reattached", tags={"model": self._model})
        how_to_force = f"delete {KEY!r} from the task's state store, then clear the task"
        if record.state == "delivered":
            how_to_force = f"clear the task once more; if that does not help, {how_to_force}"
        log.info(
            "Going on with prediction %s, which an earlier attempt paid for (%s at %s): nothing is sent. "
            "To buy a new one, %s.",
            record.id,
            record.state,
            record.at,
            how_to_force,
        )
        if changed := record.changes(self._model, self._input):
            log.warning(
                "The task renders differently now than when prediction %s was created; changed: %s. "
                "The prediction is used all the same.",
                record.id,
                ", ".join(changed),
            )
        return record.id

    def _change(self, *, patience: float = PATIENCE_SECONDS, **fields: Any) -> None:
        if self.record is not None:
            self._write(dataclasses.replace(self.record, **fields), patience)

    def _write(self, record: Record, patience: float = PATIENCE_SECONDS) -> None:
        if self._store is None:
            self.record = record
            return
        from airflow.sdk.execution_time.context import NEVER_EXPIRE  # exists where the store does

        # The default retention of 30 days would make an old task forget what it paid; the row goes with its DAG run.
        value = record.to_json()
        self._patiently(lambda: self._store.set(KEY, value, retention=NEVER_EXPIRE), patience)
        self.record = record

    def _patiently(self, call: Callable[[], _Result], patience: float = PATIENCE_SECONDS) -> _Result:
        started = time.monotonic()
        while True:
            try:
                return call()
            except Exception as error:  # whatever it is: an unreadable record must never look like no record
                if time.monotonic() - started >= patience:
                    raise e.SubmissionRecordError(f"{type(error).__name__}: {error}") from error
                log.warning("Airflow's task state store does not answer, trying again: %s", excerpt(str(error)))
            time.sleep(PAUSE_SECONDS)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
