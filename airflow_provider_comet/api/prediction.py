"""``Prediction``: one value for both shapes in which the API describes a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_comet.api.files import find_files
from airflow_provider_comet.api.json_values import canonical_json
from airflow_provider_comet.api.redaction import READ_CHARACTERS, WORD_CHARACTERS, excerpt
from airflow_provider_comet.api.statuses import STATUSES, SUCCEEDED, is_terminal, normalise_status
from airflow_provider_comet.api.summary import summarize


@dataclass(frozen=True)
class Prediction:
    """One prediction as the API last described it.

    :param id: what to poll for.
    :param status: ``starting``, ``processing``, ``succeeded``, ``failed``, ``canceled`` or ``aborted``;
        any other word is the server's own and counts as still running.
    :param model: ``owner/name``; the server may name another one than was requested.
    :param version: the model's version, often ``hidden``.
    :param output: raw JSON, of a shape that depends on the model (a list, a string, an object, ``None``).
    :param error: the server's words if it failed.
    :param logs: the model's log.
    :param metrics: an object, for example with ``predict_time`` in seconds.
    :param created_at: ISO 8601, the server's clock; the same holds for ``started_at`` and ``completed_at``.
    :param data_removed: the server has deleted input and output.
    :param missing_output: what came in place of the output, in words, if the task envelope says that the prediction has
        succeeded. It counts as running, because its output may be late by some polls.
    :param input: what it was made from, as the API says it; not every answer does.
    :param seen_at: when the server gave this answer, by its own clock: the ``Date`` header.
    :param is_large: whether the answer was so large that an event loop should not walk over it.
    """

    id: str
    status: str
    model: str | None = None
    version: str | None = None
    output: Any = None
    error: str | None = None
    logs: str | None = None
    metrics: Any = None
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    data_removed: bool = False
    missing_output: str | None = None
    input: Any = field(default=None, compare=False, repr=False)
    seen_at: str | None = field(default=None, compare=False)
    is_large: bool = field(default=False, compare=False, repr=False)

    @property
    def age(self) -> float | None:
        """Seconds from its create to this answer, both by the server's clocks, because ours may be wrong.

        Up to a second too little: the header names whole seconds.
        """
        return _seconds_between(self.created_at, self.seen_at)

    @property
    def finished_ago(self) -> float | None:
        """Seconds from its end to this answer, both by the server's clocks."""
        return _seconds_between(self.completed_at, self.seen_at)

    @property
    def is_terminal(self) -> bool:
        """Whether it never changes again. The status alone decides: output can be there while it still runs."""
        return is_terminal(self.status)

    @property
    def has_known_status(self) -> bool:
        """Whether ``STATUSES`` has its status. Another one counts as still running and is worth a warning."""
        return self.status in STATUSES

    @property
    def described_status(self) -> str:
        """Words for a timeout: the last status, and what came in place of an output."""
        missing = f" ({self.missing_output})" if self.missing_output else ""
        return f"last status {excerpt(self.status, WORD_CHARACTERS)!r}{missing}"

    @property
    def succeeded(self) -> bool:
        """Whether it finished with a result."""
        return self.status == SUCCEEDED

    @property
    def files(self) -> list[str]:
        """Every URL and data URI of the output that is a file, in order. ``find_files`` has the rule."""
        return [file.link for file in find_files(self.output).files]

    def without_output(self) -> Prediction:
        """Return the success without output that the task envelope says it is; its ``error`` says what came instead."""
        words = ": ".join(text for text in (self.missing_output, self.error) if text)
        return replace(self, status=SUCCEEDED, error=words, missing_output=None)

    def summary(self) -> dict[str, Any]:
        """Return what a wait puts into XCom: ``SUMMARY_KEYS``, JSON, small. See ``summarize``."""
        return summarize(self)

    @classmethod
    def from_body(
        cls, body: object, *, prediction_id: str | None = None, seen_at: str | None = None, is_large: bool = False
    ) -> Prediction | None:
        """Read an answer's JSON; ``None`` if it describes no prediction.

        :param body: flat (a Replicate prediction, as documented today) or wrapped (CometAPI's task envelope
            ``{"code": "success", "data": {"task_id", "status", "data": {...}}}``, which its own tools read in 2026).
        :param prediction_id: the id that was requested; it wins over the one in the body.
        :param seen_at: the answer's ``Date`` header.
        :param is_large: as for the class.
        """
        if not isinstance(body, Mapping):
            return None
        inner, task = _unwrap(body)
        own_id = inner.get("id") or task.get("task_id")
        identity = prediction_id or own_id
        has_status = isinstance(inner.get("status"), str) or isinstance(task.get("status"), str)
        if not isinstance(identity, str) or not identity or (prediction_id and not has_status):
            return None
        status = _status(inner, task)
        if own_id is None and status in STATUSES and STATUSES[status].error:
            return None  # {"status": "error"} may be a proxy's, about itself; taken for an end, it would cost money
        # Only of a failure: this gateway's family keeps other things in it otherwise.
        error = inner.get("error") or (task.get("fail_reason") if status == "failed" else None) or None
        return cls(
            id=identity,
            status=status,
            model=_text(inner.get("model")),
            version=_text(inner.get("version")),
            output=inner.get("output"),
            error=error if error is None or isinstance(error, str) else canonical_json(error),
            logs=_text(inner.get("logs")),
            metrics=metrics if isinstance(metrics := inner.get("metrics"), Mapping) else None,
            created_at=_text(inner.get("created_at")),
            started_at=_text(inner.get("started_at")),
            completed_at=_text(inner.get("completed_at")),
            data_removed=inner.get("data_removed") is True,
            missing_output=_missing_output(inner, task) if task and status == "processing" else None,
            input=inner.get("input"),
            seen_at=seen_at,
            is_large=is_large,
        )


def _unwrap(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the prediction's own fields, and those of the task envelope around it (empty for a flat body)."""
    task = body.get("data")
    if isinstance(body.get("status"), str) or not isinstance(task, Mapping):
        return body, {}
    if "task_id" not in task and "data" not in task:
        return task, {}
    inner = task.get("data")
    return (inner if isinstance(inner, Mapping) else {}), task


def _status(inner: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return the prediction's own status if terminal, else the envelope's, unless that claims a success it lacks.

    Output alone proves nothing: text models fill it while they run.
    """
    own = normalise_status(inner.get("status", "starting"))
    has_own = bool(_text(inner.get("status")))  # null and an empty text are none
    if not task or is_terminal(own):
        return own
    outer = normalise_status(task.get("status"))
    if has_own and outer not in STATUSES:
        return own
    is_ahead = outer == SUCCEEDED and (has_own or inner.get("output") is None)
    return "processing" if is_ahead else outer


def _missing_output(inner: Mapping[str, Any], task: Mapping[str, Any]) -> str | None:
    """Return what came in place of the output of a task that says it has succeeded; ``None``: it says no such thing."""
    if normalise_status(task.get("status")) != SUCCEEDED or inner.get("output") is not None:
        return None
    if "data" not in task:
        what = "it has no data"
    elif not isinstance(data := task["data"], Mapping):
        data = data[:READ_CHARACTERS] if isinstance(data, str) else data
        what = f"its data is {excerpt(canonical_json(data), WORD_CHARACTERS)}"
    elif "status" in inner:
        what = f"its data has the status {excerpt(canonical_json(inner['status']), WORD_CHARACTERS)} and no output"
    else:
        what = "its data has no output"
    return f"the task says {excerpt(str(task['status']), WORD_CHARACTERS)}, {what}"


def _seconds_between(moment: str | None, date: str | None) -> float | None:
    if moment is None or date is None:  # the common case of each poll; an exception costs as much as reading the answer
        return None
    try:
        passed = parsedate_to_datetime(date) - datetime.fromisoformat(moment)
    except (ValueError, TypeError, OverflowError):
        return None
    return passed.total_seconds() if passed.total_seconds() >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
