"""``make_portable``: a server's value in a form that everything on its way through Airflow can carry.

XComs, trigger events, records and asset events pass msgspec's encoders, Airflow's serializer, and a database. A value
that one of them refuses fails the task at every retry; in a trigger's event it ends the triggerer of the whole
deployment (apache/airflow#70385). So a value passes through here where it leaves for Airflow, and nowhere before: a
stored file has the exact value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from airflow_provider_comet.api.redaction import whole_characters

MAX_DEPTH: Final = 100
"""Lists and objects that are nested deeper are left out. Airflow's serializer ends with RecursionError at some 400."""
_RESERVED: Final = ({"__classname__"}, {"__id__"}, {"__type", "__var"})
"""Airflow's serializer takes an object with these keys for one of its own: it refuses it, or makes something else."""

Marker: TypeAlias = Callable[[str], str]
"""Returns the text that stands in for a value; gets a few words that say what is left out."""


class Rule(NamedTuple):
    """Which values of a type can be carried, and what becomes of the others.

    :param is_carried: whether everything on the way carries a value.
    :param replace: returns what replaces a value that is not carried; ``None``: the marker does.
    :param refused_by: who refuses such a value.
    """

    is_carried: Callable[[Any], bool]
    replace: Callable[[Any], Any] | None
    refused_by: str


def carried_text(text: str) -> str:
    """Return a text in which U+0000 and halves of surrogate pairs are replaced by U+FFFD. Two halves are joined."""
    return whole_characters(text).replace("\0", "\ufffd")


RULES: Final[Mapping[type, Rule]] = {
    float: Rule(math.isfinite, lambda _: None, "strict JSON, PostgreSQL"),
    int: Rule(lambda number: -(2**63) <= number < 2**64, None, "msgpack, which a task and its supervisor speak"),
    str: Rule(lambda text: carried_text(text) == text, carried_text, "UTF-8, PostgreSQL"),
    dict: Rule(lambda value: not any(keys <= value.keys() for keys in _RESERVED), None, "Airflow's serializer"),
}
"""The types of JSON that are not always carried. ``bool``, ``None`` and lists are."""
_ALWAYS_CARRIED = frozenset({bool, type(None), list})


class Portable(NamedTuple):
    """A value that can be carried.

    :param value: plain JSON.
    :param is_exact: whether it is the value that was given, and nothing was replaced.
    """

    value: Any
    is_exact: bool


def make_portable(value: Any, marker: Marker, *, limit: int, shorten: Callable[[str], str] = str) -> Portable:
    """Return a value in a form that can be carried: JSON of at most ``limit`` bytes.

    The time this takes is bounded by ``limit``, however large the value is.

    :param marker: stands in for what can't be carried.
    :param limit: in bytes; the marker stands in for a larger value.
    :param shorten: replaces texts that should not be carried, such as data URIs. Of a value this counts as no change.
    """
    walk = _Walk(marker, limit, shorten)
    try:
        portable = walk.replace(value, 0)
        if (size := len(json.dumps(portable))) <= limit:
            return Portable(portable, walk.is_exact)
        words = f"{size} bytes"
    except _TooLargeError:
        words = f"{len(value) if isinstance(value, str) else f'more than {limit}'} bytes"
    return Portable(marker(words), is_exact=False)


class _TooLargeError(Exception):
    """The value is larger than the limit."""


class _Walk:
    def __init__(self, marker: Marker, limit: int, shorten: Callable[[str], str]) -> None:
        self.is_exact = True
        self._marker = marker
        self._room = limit
        self._shorten = shorten

    def replace(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            value = self._shorten(value)
        self._room -= len(value) if isinstance(value, str) else 1
        if self._room < 0:
            raise _TooLargeError
        rule = RULES.get(type(value))
        if depth > MAX_DEPTH:
            return self._replaced(f"nested more than {MAX_DEPTH} levels deep")
        if not (rule.is_carried(value) if rule else type(value) in _ALWAYS_CARRIED):
            replacement = self._replaced(f"{type(value).__name__} that Airflow can't carry")
            return rule.replace(value) if rule and rule.replace else replacement
        if isinstance(value, list):
            return [self.replace(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self._replace_key(key): self.replace(item, depth + 1) for key, item in value.items()}
        return value

    def _replace_key(self, key: Any) -> str:
        replacement = str(self.replace(key, 0))
        self.is_exact &= replacement == key  # no reader of a summary searches keys for a marker
        return replacement

    def _replaced(self, words: str) -> str:
        self.is_exact = False
        return self._marker(words)
