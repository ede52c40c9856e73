"""``Prediction``: one value for both shapes in which the API describes a prediction."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_provider_comet.api.redaction import whole_characters

INLINE_LIMIT_BYTES = 48_000
"""Longer text stays out of XCom: there it would sit in the metadata database and in every log of it."""

# Spellings seen from CometAPI, its gateway and Replicate, compared in lower case.
_STATUSES = {
    "starting": ("starting", "pending", "queued", "submitted", "not_start"),
    "processing": ("processing", "in_progress", "running"),
    "succeeded": ("succeeded", "success", "succeed", "completed"),
    "failed": ("failed", "failure", "error", "violation"),
    "canceled": ("canceled", "cancelled"),
    "aborted": ("aborted",),
}
_SPELLINGS = {spelling: status for status, spellings in _STATUSES.items() for spelling in spellings}
_URL = re.compile(r"https?://\S+")
# A parameter may be quoted, and amid JSON its quotes have backslashes.
DATA_URI_START = re.compile(r"(?i)\bdata:(?:[\w.+/;=-]|=\\?[\"'][\w.+-]{0,40}\\?[\"']){0,200},")
DATA_URI = re.compile(DATA_URI_START.pattern + r"\S*")
_MARK = "not in XCom:"
_TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
# Words of a failed prediction that blame its input: paying for it again buys the same refusal. Seen in errors of
# Replicate's models (replicate-python #397, pollinations #10801 and #11809, puter #3719) and of cog's validation.
# Text: `re` compiles and keeps it when it is first used. All DAG files that import an operator would pay 5 ms for it.
_REFUSALS = (
    r"(?i)\b(nsfw|E005|flagged|moderated|moderation|safety (filter|system|checker|policy)|sensitive content|prohibited"
    r"|content[ _-](policy|policies|filter|violation)\w*|input validation|validation error|field required"
    r"|invalid (input|prompt|image|video|audio|url|parameter|argument|value)s?)\b"
)


def normalise_status(raw: object) -> str:
    """One of the six statuses, or what the server said if it is none of them."""
    text = raw if isinstance(raw, str) else ""
    return _SPELLINGS.get(text.strip().lower()) or whole_characters(text) or "unknown"


SUMMARY_KEYS = (
    "id",
    "model",
    "version",
    "status",
    "files",
    "output",
    "error",
    "metrics",
    "created_at",
    "started_at",
    "completed_at",
    "data_removed",
)
"""What a wait puts into XCom, in every mode."""


@dataclass(frozen=True)
class Prediction:
    """One prediction as the API last described it.

    :param id: the id to ask for.
    :param status: ``starting``, ``processing``, ``succeeded``, ``failed``, ``canceled`` or ``aborted``;
        any other word is the server's own and counts as still running.
    :param model: ``owner/name``; the server may name another one than was asked for.
    :param version: the model's version, often ``hidden``.
    :param output: raw JSON, of a shape that depends on the model (a list, a string, an object, ``None``).
    :param error: the server's words if it failed.
    :param logs: the model's log.
    :param metrics: for example ``predict_time`` in seconds.
    :param created_at: ISO 8601, the server's clock; the same holds for ``started_at`` and ``completed_at``.
    :param data_removed: the server has deleted input and output.
    :param input: what it was made from, as the API says it; not every answer does.
    :param seen_at: when the server gave this answer, by its own clock: the ``Date`` header.
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
    input: Any = field(default=None, compare=False, repr=False)
    seen_at: str | None = field(default=None, compare=False)

    @property
    def age(self) -> float | None:
        """Seconds from its create to this answer, both by the server's clocks: ours may be wrong. Up to a second less
        than it is: the header names whole seconds."""
        return _seconds_between(self.created_at, self.seen_at)

    @property
    def finished_ago(self) -> float | None:
        """Seconds from its end to this answer, both by the server's clocks."""
        return _seconds_between(self.completed_at, self.seen_at)

    @property
    def is_terminal(self) -> bool:
        """Whether it will not change any more. Decided on the status alone: output can be there while it still runs."""
        return self.status in _TERMINAL

    @property
    def has_known_status(self) -> bool:
        """Whether the status is one of the six; another one counts as running and is worth a warning."""
        return self.status in _STATUSES

    @property
    def succeeded(self) -> bool:
        """Whether it finished well."""
        return self.status == "succeeded"

    @property
    def files(self) -> list[str]:
        """Every URL and data URI of the output in order, whatever the output's shape."""
        return list(_files(self.output))

    def summary(self) -> dict[str, Any]:
        """What a wait puts into XCom: ``SUMMARY_KEYS``, JSON, small.

        Data URIs and text above 48 kB are replaced by a marker that says how to get them.
        """
        return {key: self._inline(getattr(self, key)) for key in SUMMARY_KEYS}

    def _inline(self, value: Any) -> Any:
        value = self._without_data_uris(value)
        size = len(json.dumps(value))
        return self._marker("text", size) if size > INLINE_LIMIT_BYTES else value

    def _without_data_uris(self, value: Any) -> Any:
        if isinstance(value, str):
            if not is_data_uri(value):
                return whole_characters(value)
            return self._marker(value[len("data:") : 100].split(";")[0].split(",")[0] or "data", len(value))
        if isinstance(value, Mapping):
            return {whole_characters(key): self._without_data_uris(item) for key, item in value.items()}
        return [self._without_data_uris(item) for item in value] if isinstance(value, list) else value

    def _marker(self, kind: str, size: int) -> str:
        return f"<{kind}, {size} bytes, {_MARK} CometReplicateHook(conn_id).get_prediction({self.id!r}).output>"

    @classmethod
    def from_body(
        cls, body: object, *, prediction_id: str | None = None, seen_at: str | None = None
    ) -> Prediction | None:
        """Read an answer's JSON; ``None`` if it describes no prediction.

        :param body: flat (a Replicate prediction, as documented today) or wrapped (CometAPI's task envelope
            ``{"code": "success", "data": {"task_id", "status", "data": {...}}}``, which its own tools read in 2026).
        :param prediction_id: the id that was asked for; it wins over the one in the body.
        :param seen_at: the answer's ``Date`` header.
        """
        if not isinstance(body, Mapping):
            return None
        inner, task = _unwrap(body)
        identity = prediction_id or inner.get("id") or task.get("task_id")
        has_status = isinstance(inner.get("status"), str) or isinstance(task.get("status"), str)
        if not isinstance(identity, str) or not identity or (prediction_id and not has_status):
            return None
        status = _status(inner, task)
        # Only of a failure: this gateway's family keeps other things in it otherwise.
        error = inner.get("error") or (task.get("fail_reason") if status == "failed" else None) or None
        return cls(
            id=identity,
            status=status,
            model=_text(inner.get("model")),
            version=_text(inner.get("version")),
            output=inner.get("output"),
            error=error if error is None or isinstance(error, str) else json.dumps(error),
            logs=_text(inner.get("logs")),
            metrics=inner.get("metrics"),
            created_at=_text(inner.get("created_at")),
            started_at=_text(inner.get("started_at")),
            completed_at=_text(inner.get("completed_at")),
            data_removed=inner.get("data_removed") is True,
            input=inner.get("input"),
            seen_at=seen_at,
        )


def _unwrap(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The prediction's own fields, and those of the task envelope around it (empty for a flat body)."""
    task = body.get("data")
    if isinstance(body.get("status"), str) or not isinstance(task, Mapping):
        return body, {}
    if "task_id" not in task and "data" not in task:
        return task, {}
    inner = task.get("data")
    return (inner if isinstance(inner, Mapping) else {}), task


def _status(inner: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """The prediction's own status if terminal, else the envelope's, unless that claims a success it doesn't carry.

    Output alone proves nothing: text models fill it while they run.
    """
    own = normalise_status(inner.get("status", "starting"))
    if own in _TERMINAL or not task:
        return own
    outer = normalise_status(task.get("status"))
    if "status" in inner and outer not in _STATUSES:
        return own
    is_ahead = outer == "succeeded" and ("status" in inner or inner.get("output") is None)
    return "processing" if is_ahead else outer


def _files(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if is_url(value) or is_data_uri(value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _files(item)
    elif isinstance(value, list):
        for item in value:
            yield from _files(item)


def blames_input(error: str) -> bool:
    """Whether the error of a failed prediction says that its input was refused, so that the same one fails again."""
    return re.search(_REFUSALS, error) is not None


def is_marked(value: Any) -> bool:
    """Whether a part of a summary's output stands for something that was left out of it."""
    if isinstance(value, (list, dict)):
        return any(is_marked(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value.startswith("<") and _MARK in value[:200]


def is_url(text: str) -> bool:
    """Whether a text is a URL and nothing else."""
    return _URL.fullmatch(text) is not None


def is_data_uri(text: str) -> bool:
    """Whether a text is a data URI and nothing else."""
    return DATA_URI.fullmatch(text) is not None


def _seconds_between(moment: str | None, date: str | None) -> float | None:
    if moment is None or date is None:  # asked at each look, and an exception costs as much as reading the answer
        return None
    try:
        passed = parsedate_to_datetime(date) - datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        return None
    return passed.total_seconds() if passed.total_seconds() >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
