"""``outputs/store_items.py``: what a task was given to store, and the names for it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.outputs.store_items import StoreItems

DONE = {"id": "done", "status": "succeeded"}


def result_of(prediction_id: str) -> dict[str, Any]:
    return {"prediction_id": prediction_id, "manifest": f"{prediction_id}.manifest.json", "files": []}


def test_a_single_prediction() -> None:
    """An id alone is no list, and its name is a text."""
    items = StoreItems("abc", "B-17")
    assert (items.is_list, items.ids, items.names) == (False, ["abc"], {"abc": "B-17"})
    assert items.in_order({"abc": result_of("abc")}) == [{**result_of("abc"), "name": "B-17"}]


def test_a_list_keeps_its_order() -> None:
    """Null stays null, an item without a result is null, and a prediction that is in the list twice is stored once."""
    items = StoreItems(["b", None, "a", "b", "c"], ["1", "2", None, "4", "5"])
    assert items.ids == ["b", "a", "c"]
    assert items.names == {"b": "1", "c": "5"}
    results = items.in_order({"a": result_of("a"), "b": result_of("b")})
    assert [found and (found["prediction_id"], found["name"]) for found in results] == [
        ("b", "1"),
        None,
        ("a", None),
        ("b", "4"),
        None,
    ]


def test_what_a_wait_has_returned() -> None:
    """A result that has ended needs no wait; a description of what still runs is waited for by its id."""
    items = StoreItems([DONE, {"id": "runs", "status": "processing"}, "abc"])
    assert items.ids == ["done", "runs", "abc"]
    assert items.summaries == {"done": DONE}


def test_an_item_that_is_no_prediction() -> None:
    """It is an error of its own, and names its place and type; the others are to be stored."""
    items = StoreItems(["abc", 7, ["def"], "None", {"id": None}])
    assert items.ids == ["abc"]
    words = [str(error) for error in items.errors]
    assert "prediction[1] must be" in words[0]
    assert "int" in words[0]
    assert "nested too deeply" in words[1]
    assert len(words) == 4


@pytest.mark.parametrize("value", [None, [], [None, None]], ids=["null", "empty", "nulls"])
def test_nothing_to_store(value: Any) -> None:
    """It is an error, because a task that was given nothing has a cause that somebody should see."""
    with pytest.raises(InvalidInputError, match="nothing to store"):
        StoreItems(value)


@pytest.mark.parametrize("value", [7, 1.5, "None", "a/b"])
def test_a_single_value_that_is_no_prediction(value: Any) -> None:
    """There is nothing else to store, so it fails the task at once."""
    with pytest.raises(InvalidInputError):
        StoreItems(value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x"], "names has 1 items, and prediction has 2"),
        ("x", "names has 1 items"),
        ({"a": "x"}, "must be a list of texts; got a value of type dict"),
        (7, "must be a list of texts; got a value of type int"),
        (["x", 1071], r"names\[1\] must be text, or null; got int: use str"),
    ],
    ids=["too few", "one text", "dict", "number", "number in it"],
)
def test_names_that_do_not_fit(names: Any, words: str) -> None:
    """They are refused before anything is stored: a file under another article's name is worse than none."""
    with pytest.raises(InvalidInputError, match=words):
        StoreItems(["a", "b"], names)


def test_a_name_that_no_database_takes() -> None:
    """It loses what can't be carried, as any text does on its way through Airflow."""
    assert StoreItems("abc", "a\0b\ud800").names == {"abc": "a\ufffdb\ufffd"}


def test_a_result_names_its_prediction_first() -> None:
    """Who reads an XCom sees which prediction it is, and the user's own name, before paths and digests."""
    (result,) = StoreItems(["abc"], ["B-17"]).in_order({"abc": result_of("abc")})
    assert result is not None
    assert [*result] == ["prediction_id", "name", "manifest", "files"]


def test_the_first_result_of_a_prediction_counts() -> None:
    """It may be in a list twice, as the XCom of two waits; what still runs is no result."""
    later = {**DONE, "output": "later"}
    assert StoreItems([DONE, later]).summaries == {"done": DONE}
    assert StoreItems([{**DONE, "status": "processing"}, later]).summaries == {"done": later}


def test_names_of_nothing() -> None:
    """A name in the place of null is no prediction's name."""
    items = StoreItems([None, "abc"], ["B-17", None])
    assert (items.names, items.in_order({})) == ({}, [None, None])


def test_an_item_that_is_no_prediction_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The others are stored first, which may take hours: the log says it at once."""
    items = StoreItems(["abc", 7])
    assert str(items.errors[0]) in caplog.text
