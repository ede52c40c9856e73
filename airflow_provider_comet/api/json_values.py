"""Walks over JSON values, and the one text by which two values count as equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_LEVELS = 200
"""What is nested deeper is left out: no model nests its output so, and Python can't walk any depth."""
NESTED_TOO_DEEP = f"<left out: nested more than {MAX_LEVELS} levels deep>"


def leaves(value: Any) -> Iterator[Any]:
    """Yield everything in a value that is neither a list nor an object, in order, whatever its depth."""
    open_values = [iter([value])]
    while open_values:
        for item in open_values[-1]:
            if isinstance(item, (Mapping, list)):
                open_values.append(iter(item.values() if isinstance(item, Mapping) else item))
                break
            yield item
        else:
            open_values.pop()


def map_strings(value: Any, change: Callable[[str], str], levels: int = MAX_LEVELS) -> Any:
    """Return the same value with each text in it changed, keys of objects included.

    :param levels: lists and objects below so many others become ``NESTED_TOO_DEEP``.
    """
    if isinstance(value, str):
        return change(value)
    if not isinstance(value, (Mapping, list)):
        return value
    if levels == 0:
        return NESTED_TOO_DEEP
    if isinstance(value, list):
        return [map_strings(item, change, levels - 1) for item in value]
    return {map_strings(key, change): map_strings(item, change, levels - 1) for key, item in value.items()}


def canonical_json(value: object) -> str:
    """Return a text that equal values share, whatever the order of their keys. It takes any value.

    What JSON has no form for is written as its ``str()``: of an ``ObjectStoragePath`` that includes the connection.
    """
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):  # refused before it is sent; it must not keep a paid result back
        return f"not JSON, {type(value).__name__}"
