"""Walks over JSON values."""

from __future__ import annotations

import json
import math
from pathlib import PurePosixPath
from typing import Any

import pytest

from airflow_provider_comet.api.json_values import canonical_json, finite, leaves, map_strings, strict_json

VALUE = {"a": ["x", 1, None, {"b": "y"}], "c": True, "d": [], "e": {}}


def test_leaves_in_order() -> None:
    """Everything that is neither a list nor an object, in order; empty ones have none."""
    assert [*leaves(VALUE)] == ["x", 1, None, "y", True]
    assert [*leaves("x")] == ["x"]
    assert [*leaves([])] == []


def test_map_strings_changes_texts_and_keys() -> None:
    """Texts and keys are changed, all else stays."""
    assert map_strings(VALUE, str.upper) == {"A": ["X", 1, None, {"B": "Y"}], "C": True, "D": [], "E": {}}


def test_canonical_json_ignores_the_order_of_keys() -> None:
    """Equal values have one text."""
    assert canonical_json({"b": 1, "a": [2]}) == canonical_json({"a": [2], "b": 1})
    assert canonical_json({"a": 1}) != canonical_json({"a": "1"})


def _endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [(_endless(), "not JSON, list"), ({1: 1, "b": 2}, "not JSON, dict"), (PurePosixPath("/a"), '"/a"')],
)
def test_canonical_json_takes_any_value(value: object, text: str) -> None:
    """A value that JSON can't carry has a text, too: an error here would lose a paid result."""
    assert canonical_json(value) == text


@pytest.mark.parametrize("depth", [400, 990, 100_000])
def test_deep_values(depth: int) -> None:
    """The walks take any depth: a server decides about it."""
    lists: Any = "x"
    objects: Any = "x"
    for _ in range(depth):
        lists, objects = [lists], {"k": objects}
    assert [*leaves([lists, objects])] == ["x", "x"]
    assert [*leaves(map_strings([lists, objects], str.upper))] == ["X", "X"]
    assert [*leaves(finite([math.inf, lists]))] == [None, "x"]


def test_wide_values() -> None:
    """Half a million items keep their order."""
    wide = {str(number): [number, "x"] for number in range(250_000)}
    assert [*leaves(wide)][::2] == [*range(250_000)]
    assert map_strings(wide, str.upper) == {key: [number, "X"] for key, (number, _) in wide.items()}
    assert [*map_strings(wide, str.upper)] == [*wide]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        ([1e400, -math.inf, 0.5], "[\n null,\n null,\n 0.5\n]"),
        ({"a": {"b": [math.nan]}}, '{\n "a": {\n  "b": [\n   null\n  ]\n }\n}'),
        (2**64 + 1, "18446744073709551617"),
        (10**400, "1" + "0" * 400),
        ("a\0b", '"a\\u0000b"'),
        (True, "true"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_strict_json(value: Any, text: str) -> None:
    """Numbers that JSON has no form for are null; integers keep all their digits."""
    assert strict_json(value) == text


def test_strict_json_of_deep_values() -> None:
    """A value is written without indents where these would be longer than the value itself."""
    value: Any = ["x"] * 1000
    for _ in range(400):
        value = [value]
    text = strict_json(value)
    assert json.loads(text) == value
    assert len(text) < 10_000
