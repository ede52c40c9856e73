"""Walks over JSON values, and texts of them.

The walks hold their place in lists of their own: a server decides how deeply its JSON is nested, and a function that
calls itself for each level would end in ``RecursionError``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

INDENTED_LEVELS = 20
"""Values that are nested more deeply are written without indents: these would grow with the depth of each item."""


def leaves(value: Any) -> Iterator[Any]:
    """Yield everything in a value that is neither a list nor an object, in order."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))
        else:
            yield item


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return the same value with each text in it changed, keys of objects included."""
    return _map(value, lambda leaf: change(leaf) if isinstance(leaf, str) else leaf)


def finite(value: Any) -> Any:
    """Return the same value with null in place of NaN and of the infinities, for which JSON has no form."""
    return _map(value, lambda leaf: leaf if is_finite(leaf) else None)


def is_finite(leaf: Any) -> bool:
    """Return whether JSON has a form for a number; true for everything that is no number."""
    return not isinstance(leaf, float) or math.isfinite(leaf)


def strict_json(value: Any) -> str:
    """Return a value as JSON that every parser reads: numbers that JSON has no form for become null.

    It has a line for each item, unless the value is nested so deeply that indents would be longer than what they
    indent.

    :raises RecursionError: Python can't write a value that is nested so deeply; it could not have read it either.
    """
    indent = 1 if _depth(value) <= INDENTED_LEVELS else None
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of a value with each leaf and each key changed."""
    copy: list[Any] = []
    pending: list[tuple[Any, Any]] = [([value], copy)]
    while pending:
        source, target = pending.pop()
        for key, item in source.items() if isinstance(source, Mapping) else enumerate(source):
            if isinstance(item, (Mapping, list)):
                changed: Any = {} if isinstance(item, Mapping) else []
                pending.append((item, changed))
            else:
                changed = change(item)
            if isinstance(target, dict):
                target[change(key)] = changed
            else:
                target.append(changed)
    return copy[0]


def _depth(value: Any) -> int:
    """Return how many lists and objects stand within each other, at most."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (Mapping, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, Mapping) else item)]
    return depth


def canonical_json(value: object) -> str:
    """Return a text that equal values share, whatever the order of their keys. It takes any value.

    What JSON has no form for is written as its ``str()``: of an ``ObjectStoragePath`` that includes the connection.
    """
    try:
        return json.dumps(value, sort_keys=True, default=_text_of)
    except (TypeError, ValueError, RecursionError):  # refused before it is sent; it must not keep a paid result back
        return f"not JSON, {type(value).__name__}"


def _text_of(value: object) -> str:
    """Return the text of a value that JSON has no form for. A set has another order in each process."""
    return str(sorted(map(str, value))) if isinstance(value, (set, frozenset)) else str(value)
