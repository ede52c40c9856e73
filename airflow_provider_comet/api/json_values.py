"""Walks over JSON values, and the one text by which two values count as equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def leaves(value: Any) -> Iterator[Any]:
    """Yield everything in a value that is neither a list nor an object, in order, however deep it is nested."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))
        else:
            yield item


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return the same value with each text in it changed, keys of objects included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    return [map_strings(item, change) for item in value] if isinstance(value, list) else value


def canonical_json(value: object) -> str:
    """Return a text that equal values share, whatever the order of their keys. It takes any value.

    What JSON has no form for is written as its ``str()``: of an ``ObjectStoragePath`` that includes the connection.
    """
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):  # refused before it is sent; it must not keep a paid result back
        return f"not JSON, {type(value).__name__}"
