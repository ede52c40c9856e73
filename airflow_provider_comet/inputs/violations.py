"""Describe in words how an input violates its model's schema, without showing a prompt."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema.exceptions import ValidationError

MAX_SHOWN_CHARACTERS = 40
"""A longer text may be a prompt: messages show its length only."""

URL = re.compile(r"https?://[^/\s]|data:", re.IGNORECASE)
"""What a text starts with that ``format: uri`` allows."""

_NATIVE = (
    "; a template makes text of everything: give the value itself, or set render_template_as_native_obj=True on the "
    'DAG (then a text "42" becomes the number 42, too)'
)
_TYPES = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_LENGTHS = {
    "minLength": "at least {} characters long",
    "maxLength": "at most {} characters long",
    "minItems": "a list of at least {}",
    "maxItems": "a list of at most {}",
}


def describe_violation(error: ValidationError) -> str:
    """Return a violation in words: the path of the value, what the schema wants, and what it got.

    The value itself is shown only if it is a number, or a short text where a number or a choice belongs.
    """
    path = "input" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.context:  # anyOf, oneOf: a violation for each alternative
        return ", or ".join(dict.fromkeys(map(describe_violation, error.context)))
    rule = str(error.validator)
    limit: Any = error.validator_value
    value: Any = error.instance
    if rule == "required":
        missing = [key for key in limit if key not in value]
        return f"{path} lacks {', '.join(missing)}"
    if rule == "type":
        types = [limit] if isinstance(limit, str) else [*limit]
        wanted = " or ".join(_TYPES.get(name, f"of type {name}") for name in types)
        hint = _NATIVE if isinstance(value, str) and _can_be_read_as(value, types) else ""
        is_shown = {*types} <= {"integer", "number", "boolean", "null"}
        return f"{path} must be {wanted}; got {_show(value) if is_shown else _summarize(value)}{hint}"
    if rule in {"enum", "const"}:
        choices = limit if rule == "enum" else [limit]
        hint = _NATIVE if isinstance(value, str) and any(str(choice) == value for choice in choices) else ""
        listed = ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
        return f"{path} must be one of {listed}; got {_show(value)}{suggest(value, choices)}{hint}"
    if rule in _LIMITS:
        return f"{path} must be {_LIMITS[rule]} {limit}; got {_show(value)}"
    if rule in _LENGTHS:
        return f"{path} must be {_LENGTHS[rule].format(limit)}; got {len(value)}"
    if rule == "format":
        wanted = "a URL (https://, http:// or data:)" if limit == "uri" else f"of the format {limit!r}"
        return f"{path} must be {wanted}; got {_summarize(value)}"
    if rule == "additionalProperties" and limit is False:
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        others = [key for key in value if key not in known]
        return f"{path} has keys that are not allowed: {', '.join(key + suggest(key, known) for key in others)}"
    return f"{path} does not fit {rule} {json.dumps(limit, default=str)[:200]}"


def suggest(value: Any, known: Iterable[Any]) -> str:
    """Return a hint at the known name that a text is most similar to, or an empty text if none is similar."""
    texts = {str(name): name for name in known}
    close = difflib.get_close_matches(value, texts, 1) if isinstance(value, str) and value not in texts else []
    return f" (did you mean {_show(texts[close[0]])}?)" if close else ""


def _can_be_read_as(text: str, types: list[str]) -> bool:
    """Return whether a text is the rendered form of a value of one of these types."""
    if "boolean" in types and text.strip().lower() in {"true", "false"}:
        return True
    if {"integer", "number"} & {*types}:
        with contextlib.suppress(ValueError):
            number = float(text)
            return math.isfinite(number) if "number" in types else number.is_integer()
        return False
    return bool({"array", "object"} & {*types}) and text.strip()[:1] in {"[", "{"}


def _show(value: Any) -> str:
    """Return a short text as it is, for the place of a number or of a choice, where no prompt belongs."""
    if isinstance(value, str) and len(value) <= MAX_SHOWN_CHARACTERS and "\n" not in value and not URL.match(value):
        return json.dumps(value)
    return _summarize(value)


def _summarize(value: Any) -> str:
    """Return a number as it is, and the type of any other value."""
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, (int, float)):
        return json.dumps(value)
    return f"a value of type {type(value).__name__}"
