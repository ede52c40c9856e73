"""``api/portable.py``: which values are carried as they are, and what becomes of the others."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.portable import MAX_DEPTH, RULES, carried_text, make_portable

TEXT = st.text(st.characters(), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.just("__id__"), inner, max_size=4),
    max_leaves=12,
)


def portable(value: Any, limit: int = 10_000) -> Any:
    """The value that is carried, and whether it is exact; ``<words>`` stands in for what is left out."""
    return make_portable(value, lambda words: f"<{words}>", limit=limit)


@given(JSON)
def test_what_is_carried_is_strict_and_stays_as_it_is(value: object) -> None:
    """Whatever goes in, strict JSON comes out, a second pass changes nothing, and ``is_exact`` tells the truth."""
    first = portable(value)
    assert json.loads(json.dumps(first.value, allow_nan=False)) == first.value
    json.dumps(first.value, ensure_ascii=False).encode()
    assert portable(first.value) == (first.value, True)
    assert first.is_exact == (first.value == value)


@given(TEXT)
def test_text_keeps_every_character_but_two_kinds(text: str) -> None:
    """Only U+0000 and halves of surrogate pairs are replaced, by U+FFFD."""
    assert [*carried_text(text)] == [
        "\ufffd" if mark == "\0" or "\ud800" <= mark <= "\udfff" else mark for mark in text
    ]


def test_two_halves_within_a_text_are_joined() -> None:
    """The halves of one character may come as two escapes; together they are the character."""
    assert carried_text("\ud83d\ude00") == "\U0001f600"


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        (math.nan, None),
        ([1.5, -math.inf], [1.5, None]),
        (1e308, 1e308),
        (2**64, "<int that Airflow can't carry>"),
        ({"a": -(2**63)}, {"a": -(2**63)}),
        ({"a\0": "\0"}, {"a\ufffd": "\ufffd"}),
        ({"a": {"__id__": 1, "b": 2}}, {"a": "<dict that Airflow can't carry>"}),
        ({"__type": "dict"}, {"__type": "dict"}),
        ({"__type": "dict", "__var": 1, "c": 2}, "<dict that Airflow can't carry>"),
        (b"bytes", "<bytes that Airflow can't carry>"),
        ({1, 2}, "<set that Airflow can't carry>"),
        (True, True),
    ],
    ids=repr,
)
def test_the_table(value: object, carried: object) -> None:
    """Numbers that are not finite become null, texts lose what can't be carried, the marker stands for the rest."""
    assert portable(value).value == carried
    assert portable(value).is_exact == (value == carried)


def test_each_rule_says_who_refuses() -> None:
    """A row without a reason could not be judged by the next reader."""
    assert all(rule.refused_by for rule in RULES.values())


def test_what_is_too_deep_is_left_out_where_it_is_too_deep() -> None:
    """A hundred levels are carried; below them the marker stands."""
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert portable(value) == (value, True)
    deeper = portable([value])
    assert not deeper.is_exact
    assert "<nested more than 100 levels deep>" in json.dumps(deeper.value)


@pytest.mark.parametrize("value", ["x" * 11, ["x" * 5] * 2, {"x" * 6: "y" * 6}, "\u00fc" * 5, [0] * 6], ids=repr)
def test_what_is_larger_than_the_limit_is_left_out(value: object) -> None:
    """The limit counts bytes of JSON, escapes included."""
    assert portable(value, limit=10).value.endswith("bytes>")
    assert portable(value, limit=100) == (value, True)


def test_the_time_does_not_grow_with_the_value() -> None:
    """A value far above the limit costs no more than the limit does."""

    def seconds(items: int) -> float:
        value = [{"key": "text"}] * items
        return min(_time(value) for _ in range(5))

    def _time(value: object) -> float:
        started = time.perf_counter()
        portable(value)
        return time.perf_counter() - started

    assert seconds(2_000_000) < 10 * seconds(20_000)
