"""``api/summary.py``: what of a prediction is in XCom, whatever the server sends."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import INLINE_LIMIT_BYTES, SUMMARY_KEYS, has_marker

ID = "rgz4gtkqmnrma0cpj5k8v5a5q4"
URL = "https://replicate.delivery/xezq/abc/out-0.webp"
PNG = "data:image/png;base64,iVBORw0KGgo="
TEXT_KEYS = ("model", "version", "error", "created_at", "started_at", "completed_at")
NUL, HALF = "a\0b", "\ud83d"
TOO_LONG = "x" * (INLINE_LIMIT_BYTES + 1)


def nested(levels: int) -> Any:
    """A number within so many lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def summary(**fields: Any) -> dict[str, Any]:
    """The summary of a prediction with these fields."""
    return Prediction(**{"id": ID, "status": "succeeded", **fields}).summary()


TEXT = st.text(st.characters(), max_size=9) | st.sampled_from([URL, PNG, NUL, HALF, TOO_LONG, f"<{PNG}>"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([2**70, nested(500)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(
    JSON,
    st.dictionaries(TEXT, JSON, max_size=3) | st.none(),
    st.fixed_dictionaries({key: st.none() | TEXT for key in TEXT_KEYS}),
)
def test_every_summary_is_the_twelve_keys_with_their_types(
    output: object, metrics: object, texts: dict[str, str | None]
) -> None:
    """The XCom contract holds for any answer: exactly twelve keys with their types, strict JSON, small, no data URI."""
    result = summary(output=output, metrics=metrics, **texts)
    assert tuple(result) == SUMMARY_KEYS
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(isinstance(result[key], str) for key in ("id", "status"))
    assert all(result[key] is None or isinstance(result[key], str) for key in TEXT_KEYS)
    assert isinstance(result["files"], list)
    assert all(isinstance(file, str) for file in result["files"])
    assert result["metrics"] is None or isinstance(result["metrics"], dict)
    assert isinstance(result["data_removed"], bool)
    assert result["output"] == output or has_marker(result["output"])
    assert all(len(json.dumps(value)) <= INLINE_LIMIT_BYTES for value in result.values())
    assert "iVBORw0KGgo=" not in json.dumps(result["files"])


def test_the_summary_shows_small_values_as_they_are() -> None:
    """URLs, text and numbers below the limit are in the summary unchanged, control characters included."""
    known: dict[str, Any] = {
        "id": ID,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "status": "succeeded",
        "files": [URL],
        "output": {"a": [URL], "b": "text\x01\u202e\ufffe\U0001f600"},
        "error": None,
        "metrics": {"predict_time": 1.5, "n": 2**64 - 1, "m": -(2**63)},
        "created_at": "2026-03-12T11:27:18.258Z",
        "started_at": None,
        "completed_at": None,
        "data_removed": False,
    }
    assert summary(**{key: value for key, value in known.items() if key != "files"}) == known


def test_a_data_uri_becomes_a_marker_that_says_how_to_get_it() -> None:
    """In place of a data URI the summary names its type, its size and the call that returns it."""
    uri = "data:image/webp;base64," + "A" * 1000
    result = summary(output={"image": uri, "seed": 7})
    (file,) = result["files"]
    assert result["output"]["seed"] == 7
    for marker in (file, result["output"]["image"]):
        for part in ("image/webp", str(len(uri)), "CometReplicateHook", f"get_prediction({ID!r})"):
            assert part in marker
    assert "AAAA" not in json.dumps(result)


def _in_pieces(text: str) -> dict[str, str]:
    """An object with many short texts."""
    return {str(start): text[start : start + 1000] for start in range(0, len(text), 1000)}


@pytest.mark.parametrize("field", ["output", "metrics"])
@pytest.mark.parametrize("shape", [lambda text: [text], _in_pieces], ids=["list", "object"])
def test_a_value_above_the_limit_becomes_a_marker(field: str, shape: Any) -> None:
    """Values up to 48 kB are in the summary, larger ones only as a marker."""
    small, large = shape("x" * (INLINE_LIMIT_BYTES - 1000)), shape(TOO_LONG)
    assert summary(**{field: small})[field] == small
    marker = summary(**{field: large})[field]
    text = marker["marker"] if field == "metrics" else marker
    assert "more than 48000 bytes" in text
    assert len(text) < 200


@pytest.mark.parametrize("field", ["output", *TEXT_KEYS])
def test_text_above_the_limit_becomes_a_marker(field: str) -> None:
    """A long text is in the summary only as a marker that names its size and where to read it."""
    marker = summary(**{field: TOO_LONG})[field]
    assert f"{len(TOO_LONG)} bytes" in marker
    assert f".{field}>" in marker
    assert len(marker) < 200


NOT_CARRIED = {
    "NUL": NUL,
    "half a surrogate pair": [HALF, "\ude00"],
    "a NUL in a key": {"a\0": 1},
    "NaN": {"score": math.nan},
    "infinity": [[-math.inf]],
    "an integer of more than 64 bits": {"seed": 2**64},
    "a negative one": [-(2**63) - 1],
    "too deep": nested(150),
    "what ends Python's recursion": nested(5000),
    "what Airflow's serializer reserves": {"a": [{"__classname__": "x", "__version__": 1, "__data__": {}}]},
    "an id": {"__id__": 1},
    "the form of Airflow 2": {"__type": "dict", "__var": {"a": 1}},
}


@pytest.mark.parametrize("output", NOT_CARRIED.values(), ids=NOT_CARRIED)
def test_an_output_that_would_be_changed_becomes_a_marker(output: object) -> None:
    """What Airflow can't carry exactly is not in XCom at all, so that a store reads the prediction and has it exact."""
    marker = summary(output=output)["output"]
    assert has_marker(marker)
    assert isinstance(marker, str)
    assert marker.endswith(f"CometReplicateHook(conn_id).get_prediction({ID!r}).output>")


def test_what_is_not_the_output_is_changed_in_its_place() -> None:
    """Metrics and texts keep what can be carried: a number that is not finite is null, a NUL is U+FFFD."""
    result = summary(metrics={"predict_time": math.nan, "n": [1, math.inf]}, error=NUL, model=HALF, output="fine")
    assert result["metrics"] == {"predict_time": None, "n": [1, None]}
    assert (result["error"], result["model"], result["output"]) == ("a\ufffdb", "\ufffd", "fine")


def test_files_are_a_list_whatever_their_size() -> None:
    """A thousand links are more than XCom takes: then the list has a marker, and is a list all the same."""
    links = [f"{URL}?{number}{'x' * 90}" for number in range(1000)]
    result = summary(output=links)
    assert len(result["files"]) == 1
    assert has_marker(result["files"])
    assert has_marker(result["output"])
    few = summary(output={"text": TOO_LONG, "image": URL})
    assert few["files"] == [URL]


def test_a_marker_is_found_wherever_it_stands() -> None:
    """Text that mentions XCom is not taken for a marker."""
    marker = summary(output=TOO_LONG)["output"]
    assert has_marker([{"a": marker}])
    assert not has_marker([URL, "not in XCom: a poem", {"a": ["<b>"]}])


def test_the_names_of_files_beside_a_long_text() -> None:
    """Of an object that is too large its long texts are left out first, and the names of its files stay."""
    link = "https://replicate.delivery/xezq/vocals.wav"
    output = {"vocals": link, "lyrics": "la " * 20_000, "mood": "calm"}
    summary = Prediction("abc", "succeeded", output=output).summary()
    assert (summary["output"]["vocals"], summary["output"]["mood"]) == (link, "calm")
    assert summary["output"]["lyrics"].startswith("<60000 characters, not in XCom: ")
    assert has_marker(summary["output"])
    assert summary["files"] == [link]
    many = {str(number): link for number in range(2000)}
    assert Prediction("abc", "succeeded", output=many).summary()["output"].startswith("<output, ")
