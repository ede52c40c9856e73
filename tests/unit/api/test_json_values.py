"""Walks over JSON values."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from airflow_provider_comet.api.json_values import canonical_json, leaves, map_strings

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
