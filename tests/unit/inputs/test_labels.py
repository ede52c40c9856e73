"""``inputs/labels.py``: what a person recognises an input by, whatever the input is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.portable import carried_text
from airflow_provider_comet.api.redaction import printable
from airflow_provider_comet.inputs.labels import LABEL_CHARACTERS, make_label

LINK = "https://user:hidden@host.example/a/start.png?X-Amz-Signature=hidden#hidden"
PROMPT = "a lighthouse on a cliff at dawn, with waves and gulls, painted by somebody who has seen it once"


class Path(PurePosixPath):
    """An ``ObjectStoragePath``, without Airflow."""

    def serialize(self) -> dict[str, Any]:
        return {}


class Broken(Mapping[str, Any]):
    """A mapping that can't be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("broken")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("broken")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("input", "label"),
    [
        ({"prompt": "a fox"}, "a fox"),
        ({"seed": 0, "guidance": 3.5, "prompt": "a fox", "go_fast": True}, "a fox seed=0 guidance=3.5 go_fast=true"),
        ({"prompt": "two\nlines\tand  blanks"}, "two lines and blanks"),
        ({"prompt": PROMPT}, PROMPT[:77] + "..."),
        ({"prompt": PROMPT, "seed": 11}, PROMPT[:69] + "... seed=11"),
        ({"prompt": "a fox", "negative_prompt": "x" * 41, "seed": 1}, "a fox seed=1"),
        ({"seed": 1, "text": PROMPT}, PROMPT[:70] + "... seed=1"),
        ({"prompt": "the same by night", "input_image": LINK}, "the same by night input_image=start.png"),
        ({"image": Path("s3://store@bucket/in/start.png"), "scale": 2}, "image=start.png scale=2"),
        ({"image": "data:image/png;base64,iVBORw0KGgo=", "scale": 2}, "image=<data URI> scale=2"),
        ({"prompt": f"like {LINK}"}, "like https://***@host.example/a/start.png?..."),
        ({"image": "https://user:hidden@host.example"}, "image=***@host.example"),
        ({"prompt": "a fox", "sizes": [1, 2], "more": {"a": 1}, "none": None}, "a fox"),
        ({"prompt": "a fox", "n": 2**64, "m": 2**63}, "a fox m=9223372036854775808"),
        ({"prompt": "a\0b\ud83dc\u202ed"}, "a\ufffdb\ufffdc\ufffdd"),
        ({"a\nb=c\0": 1}, "a b=c\ufffd=1"),
        ({"x": float("nan"), "y": float("inf")}, "x=NaN y=Infinity"),
        ({"prompt": 7}, "7"),
        ({}, ""),
        (None, ""),
        ("a fox", ""),
        ([{"prompt": "a fox"}], ""),
        (Broken(), ""),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_label(input: Any, label: str) -> None:
    """The prompt, then the short parameters; a long prompt leaves room for those, in which a sweep differs."""
    assert make_label(input) == label
    assert len(label) <= LABEL_CHARACTERS


@pytest.mark.parametrize(
    "input",
    [
        {"prompt": "with sk-0123456789abcdef"},
        {"prompt": "a fox", "hf_token": "hidden"},
        {"openai_api_key": "hidden", "prompt": "a fox"},
        {"PASSWORD": "hidden"},
        {"client_secret": "hidden", "Authorization": "hidden"},
        {"image": LINK},
        {"prompt": LINK},
        {"prompt": f"{PROMPT[:60]} {LINK}"},
        {"prompt": "x" * 15_990 + LINK},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_no_secrets(input: dict[str, Any]) -> None:
    """Neither a key, nor what signs a link, nor a parameter that is called a key or password."""
    label = make_label(input)
    assert "hidden" not in label
    assert "0123456789" not in label


def test_a_number_that_python_does_not_print() -> None:
    """It is left out: Python refuses to write more than 4,300 digits."""
    assert make_label({"prompt": "a fox", "n": 10**5000}) == "a fox"


def test_what_only_sounds_like_a_secret() -> None:
    """A limit of tokens, an author and a keyframe are shown."""
    assert make_label({"prompt": "a fox", "max_tokens": 300}) == "a fox max_tokens=300"
    assert make_label({"author": "x", "keyframe": 3}) == "author=x keyframe=3"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda items: st.lists(items, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), items, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["prompt", "image", "a", "b"]) | st.text(), JSON, max_size=6) | JSON)
def test_any_input(input: Any) -> None:
    """No exception, at most 80 characters on one line, and a text that Airflow's databases take."""
    label = make_label(input)
    assert len(label) <= LABEL_CHARACTERS
    assert carried_text(label) == label
    assert printable(label) == label
    json.dumps(label).encode()


def test_an_input_that_contains_itself() -> None:
    """It is refused when it is sent; its label is made all the same."""
    input: dict[str, Any] = {"prompt": "a fox"}
    input["self"] = input
    assert make_label(input) == "a fox"


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"prompt": "data:image/png;base64," + "A" * 10_000_000},
        lambda: {"prompt": "data:" * 2_000_000},
        lambda: {"prompt": "https://" + "x" * 10_000_000},
        lambda: {"k" * 10_000_000: 1},
        lambda: {f"key {number}": "://a" * 5_000 for number in range(10_000)},
    ],
    ids=["data URI", "data: again and again", "link", "key", "many"],
)
def test_large_inputs_are_not_read_whole(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of an input, at most a hundred texts are read, and of each a part."""
    from airflow_provider_comet.api import redaction
    from airflow_provider_comet.inputs import labels

    read: list[int] = []

    def counted(text: str) -> str:
        read.append(min(len(text), redaction.READ_CHARACTERS))
        return original(text)

    original = redaction.redact
    monkeypatch.setattr(redaction, "redact", counted)
    assert len(make_label(make())) <= LABEL_CHARACTERS
    assert sum(read) < 4 * labels._MAX_PARAMETERS * redaction.READ_CHARACTERS
    assert len(read) < 4 * labels._MAX_PARAMETERS
