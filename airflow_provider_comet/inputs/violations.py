"""What an input does that its model's schema does not allow, in words: they name the place, never a prompt."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import ValidationError

SHOWN_CHARACTERS = 40

URL = re.compile(r"https?://[^/\s]|data:", re.IGNORECASE)

_NATIVE = (
    "; a template makes text of everything: set render_template_as_native_obj=True on the DAG, or give the value itself"
)
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
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


def words_of(error: ValidationError) -> str:
    """One violation, without its value where that may be long, or a prompt."""
    path = "input" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.context:  # anyOf, oneOf: what each of the forms lacks
        return ", or ".join(dict.fromkeys(words_of(one) for one in error.context))
    rule = str(error.validator)
    limit: Any = error.validator_value
    value: Any = error.instance
    if rule == "required":
        missing = [key for key in limit if key not in value]
        return f"{path} lacks {', '.join(missing)}"
    if rule == "type":
        kinds = [limit] if isinstance(limit, str) else [*limit]
        wanted = " or ".join(_KINDS.get(kind, f"of type {kind}") for kind in kinds)
        hint = _NATIVE if isinstance(value, str) and _reads_as(value, kinds) else ""
        is_shown = {*kinds} <= {"integer", "number", "boolean", "null"}
        return f"{path} must be {wanted}; got {_shown(value) if is_shown else _what(value)}{hint}"
    if rule in {"enum", "const"}:
        allowed = limit if rule == "enum" else [limit]
        hint = _NATIVE if isinstance(value, str) and any(str(one) == value for one in allowed) else ""
        listed = ", ".join(json.dumps(one, ensure_ascii=False) for one in allowed)
        return f"{path} must be one of {listed}; got {_shown(value)}{nearest(value, allowed)}{hint}"
    if rule in _LIMITS:
        return f"{path} must be {_LIMITS[rule]} {limit}; got {_shown(value)}"
    if rule in _LENGTHS:
        return f"{path} must be {_LENGTHS[rule].format(limit)}; got {len(value)}"
    if rule == "format":
        what = "a URL (https://, http:// or data:)" if limit == "uri" else f"of the format {limit!r}"
        return f"{path} must be {what}; got {_what(value)}"
    if rule == "additionalProperties" and limit is False:
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        others = [key for key in value if key not in known]
        return f"{path} has keys that are not allowed: {', '.join(key + nearest(key, known) for key in others)}"
    return f"{path} does not fit {rule} {json.dumps(limit, default=str)[:200]}"


def _reads_as(text: str, kinds: list[str]) -> bool:
    """Whether a text says what one of these types would."""
    if "boolean" in kinds and text.strip().lower() in {"true", "false"}:
        return True
    if {"integer", "number"} & {*kinds}:
        with contextlib.suppress(ValueError):
            number = float(text)
            return math.isfinite(number) if "number" in kinds else number.is_integer()
        return False
    return bool({"array", "object"} & {*kinds}) and text.strip()[:1] in {"[", "{"}


def _shown(value: Any) -> str:
    """A short text as it is: for the place of a number or of a choice, where no prompt belongs."""
    if isinstance(value, str) and len(value) <= SHOWN_CHARACTERS and "\n" not in value and not URL.match(value):
        return json.dumps(value)
    return _what(value)


def _what(value: Any) -> str:
    """A number as it is; of anything else what it is."""
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, (int, float)):
        return json.dumps(value)
    return f"a value of type {type(value).__name__}"


def nearest(value: Any, known: Any) -> str:
    """A hint at the one of several names that a text may mean; empty if there is none."""
    texts = {str(one): one for one in known}
    close = difflib.get_close_matches(value, texts, 1) if isinstance(value, str) and value not in texts else []
    return f" (did you mean {_shown(texts[close[0]])}?)" if close else ""
