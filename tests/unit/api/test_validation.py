"""``api/validation.py``: what is refused before it is paid for, and that a refusal shows no value."""

from __future__ import annotations

import json
import math
from collections import UserDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.validation import check_create, check_prediction_id, check_prediction_ids

MODEL = "black-forest-labs/flux-schnell"
SECRET = "a-prompt-that-nobody-may-see"


class Colour(StrEnum):
    """A string that JSON can carry."""

    RED = "red"


@pytest.mark.parametrize(
    "model", [MODEL, "a/b", "meta/meta-llama-3-8b-instruct", "stability-ai/sdxl_1.0", "0x/9", "A.b-c_d/E.f-g_h"]
)
def test_an_owner_and_a_name_are_a_model(model: str) -> None:
    """``owner/name`` is accepted, and its slash goes into the path as it is."""
    assert protocol.create_prediction(model, {"prompt": "x"}).path == f"/replicate/v1/models/{model}/predictions"


@pytest.mark.parametrize(
    "model",
    [
        "",
        "flux-schnell",
        "a/b/c",
        "a/",
        "/b",
        "a//b",
        f"{MODEL}:5c7d5dc6",
        f"https://replicate.com/{MODEL}",
        "a%2Fb",
        "a b/c",
        " a/b",
        "a/b ",
        "a/b\n",
        "a\n/b",
        "../b",
        "a/..",
        "a/b?x=1",
        "a/b#x",
        "ä/b",
        "{{ model }}",
    ],
    ids=repr,
)
def test_an_invalid_model_is_refused(model: str) -> None:
    """The error for an invalid model id shows the right form and the value."""
    with pytest.raises(InvalidInputError) as caught:
        check_create(model, {"prompt": "x"})
    assert "owner/name" in str(caught.value)
    assert str(caught.value).startswith("Not sent, nothing was paid: model ")


@pytest.mark.parametrize(
    ("model", "kind"), [(None, "got None"), (7, "type int"), ([MODEL], "type list"), (b"a/b", "type bytes")], ids=repr
)
def test_a_model_that_is_no_text_is_refused_by_type(model: object, kind: str) -> None:
    """A model of another type is refused, and the message names the type."""
    with pytest.raises(InvalidInputError, match=kind):
        check_create(model, {"prompt": "x"})


@pytest.mark.parametrize(
    ("input", "kind"),
    [
        (None, "got None"),
        ({}, "empty dict"),
        ([], "type list"),
        ([{"prompt": SECRET}], "type list"),
        (SECRET, "type str"),
        (f'{{"prompt": "{SECRET}"}}', "type str"),
        (7, "type int"),
        (True, "type bool"),
        (MappingProxyType({"prompt": SECRET}), "type mappingproxy"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_input_that_is_no_filled_object_is_refused(input: object, kind: str) -> None:
    """The input must be a non-empty dict; the message names the type, never the value."""
    with pytest.raises(InvalidInputError, match=kind) as caught:
        check_create(MODEL, input)
    assert str(caught.value).startswith("Not sent, nothing was paid: input ")
    assert SECRET not in str(caught.value)


LOOP: list[Any] = [SECRET]
LOOP.append(LOOP)
RING: dict[str, Any] = {"prompt": SECRET}
RING["self"] = {"deep": [RING]}

FAULTS: list[tuple[str, dict[Any, Any], str, str]] = [
    ("none", {"prompt": SECRET, "image": None}, "input.image", "is None"),
    ("nested none", {"a": [{"b": (SECRET, None)}]}, "input.a[0].b[1]", "is None"),
    ("nan", {"guidance": math.nan}, "input.guidance", "NaN or infinite"),
    ("inf", {"guidance": [1.0, math.inf]}, "input.guidance[1]", "NaN or infinite"),
    ("minus inf", {"guidance": -math.inf}, "input.guidance", "NaN or infinite"),
    ("bytes", {"image": SECRET.encode()}, "input.image", "type bytes"),
    ("datetime", {"when": datetime(2026, 1, 1, tzinfo=UTC)}, "input.when", "type datetime"),
    ("set", {"tags": {SECRET}}, "input.tags", "type set"),
    ("decimal", {"n": Decimal("3.25")}, "input.n", "type Decimal"),
    ("object", {"n": object()}, "input.n", "type object"),
    ("number as key", {"prompt": SECRET, 7: "x"}, "input", "key of type int"),
    ("none as key", {"a": {None: SECRET}}, "input.a", "key of type NoneType"),
    ("list in itself", {"loop": LOOP}, "input.loop[1]", "contains itself"),
    ("dict in itself", RING, "input.self.deep[0]", "contains itself"),
    ("mapping that is no dict", {"a": MappingProxyType({"b": SECRET})}, "input.a", "type mappingproxy"),
    ("UserDict", {"a": UserDict(b=SECRET)}, "input.a", "type UserDict"),
    ("half a surrogate pair", {"prompt": f"{SECRET} \ud800"}, "input.prompt", ""),
    ("half a surrogate pair in a key", {"a": {f"\udcff{SECRET}": "x"}}, "input.a", ""),
]


@pytest.mark.parametrize(("input", "path", "fault"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_what_json_can_not_carry_is_refused_by_its_path(input: dict[Any, Any], path: str, fault: str) -> None:
    """A value that can't be sent is refused before sending, with its path and type, and without any value."""
    with pytest.raises(InvalidInputError) as caught:
        protocol.create_prediction(MODEL, input)
    assert caught.value.detail.startswith(f"{path} ")
    assert fault in caught.value.detail
    assert SECRET not in str(caught.value)


def test_very_deep_input_is_refused() -> None:
    """An input that is nested too deep for JSON is refused, and does not crash the check."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidInputError):
        protocol.create_prediction(MODEL, {"deep": deep})


def test_a_number_too_long_to_write_is_refused() -> None:
    """An integer that Python can't convert to text is refused like other values that JSON can't carry."""
    with pytest.raises(InvalidInputError):
        protocol.create_prediction(MODEL, {"prompt": "x", "seed": 10**5000})


@pytest.mark.parametrize(
    "input",
    [
        {"prompt": ""},
        {"prompt": "x", "seed": 0, "go": False, "scale": 1.5, "none": [], "more": {}},
        {"size": (1, 2), "nested": ({"a": (1,)},)},
        {"colour": Colour.RED},
        {"prompt": "ä € 🗼", "ключ": "значение"},
        {"twice": [[1], [1]]},
    ],
    ids=lambda value: ",".join(value),
)
def test_whatever_json_can_carry_is_accepted(input: dict[str, Any]) -> None:
    """Any JSON object is sent as the ``input`` of the body, with tuples as lists."""
    body = protocol.create_prediction(MODEL, input).body
    assert body is not None
    assert json.loads(body) == {"input": json.loads(json.dumps(input))}


def test_one_list_in_two_places_does_not_contain_itself() -> None:
    """Sharing a value is no cycle."""
    shared = [1, 2]
    check_create(MODEL, {"a": shared, "b": [shared, shared]})


JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=3))
def test_every_json_object_without_nulls_can_be_sent(input: dict[str, Any]) -> None:
    """Every JSON object without nulls is accepted and sent unchanged."""
    body = protocol.create_prediction(MODEL, input).body
    assert body is not None
    assert json.loads(body) == {"input": input}


@pytest.mark.parametrize("identity", ["rgz4gtkqmnrma0cpj5k8v5a5q4", "3d957031-1b2c", "a", "task_01:x.y"])
def test_an_id_goes_into_the_path(identity: str) -> None:
    """A prediction id becomes the end of the query's path."""
    assert protocol.get_prediction(identity).path == f"/replicate/v1/predictions/{identity}"


@pytest.mark.parametrize(
    "identity",
    [None, "", 7, ["a"], "a/b", "../x", "a?b", "a b", "a\n", "\na", "a#b", "a%2Fb", "None\n", "{{ x }}", "-a"],
    ids=repr,
)
def test_what_is_no_id_is_refused(identity: object) -> None:
    """Nothing that would change the path of the query passes as an id."""
    with pytest.raises(InvalidInputError, match="prediction_id must be the id that a create returned"):
        check_prediction_id(identity)


def test_a_list_of_ids_keeps_its_order_and_nulls() -> None:
    """``None`` stands for a create that returned no id, and keeps its position."""
    assert check_prediction_ids(["b", None, "a", "b"]) == ["b", None, "a", "b"]


@pytest.mark.parametrize(
    ("raw_ids", "text"),
    [
        ([], "prediction_id is an empty list"),
        ([None, None], "prediction_id is a list of 2 nulls"),
        (["a", 7], "item 1 of the list: prediction_id must be the id that a create returned; got a value of type int"),
        ([None, "None"], "item 1 of the list: "),
        ([["a"]], "item 0 of the list: "),
    ],
    ids=repr,
)
def test_an_invalid_list_of_ids_is_refused(raw_ids: list[object], text: str) -> None:
    """The error names the position of the value that is no id, or says that the list holds no id at all."""
    with pytest.raises(InvalidInputError) as caught:
        check_prediction_ids(raw_ids)
    assert caught.value.detail.startswith(text)
