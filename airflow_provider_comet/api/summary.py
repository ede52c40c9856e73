"""``summarize``: what a wait puts into XCom of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_comet.api.json_values import leaves
from airflow_provider_comet.api.portable import Portable, make_portable
from airflow_provider_comet.api.uris import is_data_uri

if TYPE_CHECKING:
    from airflow_provider_comet.api.prediction import Prediction

INLINE_LIMIT_BYTES: Final = 48_000
"""A larger value stays out of XCom: there it would sit in the metadata database and in every log of it."""
SUMMARY_KEYS: Final = (
    *("id", "model", "version", "status", "files", "output", "error", "metrics"),
    *("created_at", "started_at", "completed_at", "data_removed"),
)
"""What a wait puts into XCom, in every mode. docs/waiting.md has their types."""
TEXT_KEYS: Final = ("model", "version", "error", "created_at", "started_at", "completed_at")
"""The keys whose value is text or null."""
_MARKER: Final = "not in XCom:"
_ID_CHARACTERS: Final = 80
_SHORT_CHARACTERS: Final = 2000
"""Longer texts are left out first of an object that is too large. Links are shorter."""


def summarize(prediction: Prediction) -> dict[str, Any]:
    """Return ``SUMMARY_KEYS`` of a prediction: JSON that Airflow can carry, in which each key has its documented type.

    A marker, which says how to get the value, stands in for data URIs, for values above 48 kB, and for an output that
    can't be carried exactly. Whoever stores an output with a marker reads the prediction again, and stores its words.
    """
    parts = {key: _inline(prediction, key) for key in SUMMARY_KEYS}
    summary = {key: part.value for key, part in parts.items()}
    if not (parts["output"].is_exact or _is_marker(summary["output"])):
        summary["output"] = _mark(prediction, "output", "output that Airflow can't carry")
    if isinstance(summary["files"], str):
        summary["files"] = [summary["files"]]
    if isinstance(summary["metrics"], str):
        summary["metrics"] = {"marker": summary["metrics"]}
    return summary


def has_marker(value: Any) -> bool:
    """Return whether a summary's output has a marker in the place of something that was left out."""
    return any(_is_marker(leaf) for leaf in leaves(value))


def _inline(prediction: Prediction, key: str) -> Portable:
    def name_data_uri(text: str) -> str:
        if not is_data_uri(text):
            return text
        media_type = text[len("data:") : 100].split(";")[0].split(",")[0]
        return _mark(prediction, key, f"{media_type or 'data'}, {len(text)} bytes")

    def mark(words: str) -> str:
        return _mark(prediction, key, f"{key}, {words}")

    def name_long_text(text: str) -> str:
        if is_data_uri(text) or len(text) <= _SHORT_CHARACTERS:
            return name_data_uri(text)
        return _mark(prediction, key, f"{len(text)} characters")

    value = getattr(prediction, key)
    part = make_portable(value, mark, limit=INLINE_LIMIT_BYTES, shorten=name_data_uri)
    if key == "output" and isinstance(value, dict) and isinstance(part.value, str):
        # Its keys are the names of its files: these are kept if only its texts are too long.
        part = make_portable(value, mark, limit=INLINE_LIMIT_BYTES, shorten=name_long_text)
    return part


def _mark(prediction: Prediction, key: str, words: str) -> str:
    return f"<{words}, {_MARKER} CometReplicateHook(conn_id).get_prediction({prediction.id[:_ID_CHARACTERS]!r}).{key}>"


def _is_marker(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("<") and _MARKER in value[:200]
