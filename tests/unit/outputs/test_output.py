"""``outputs/output.py``: which files an output consists of, how they are named, and what is removed from them."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.api.media_types import ANY, url_suffix
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import has_marker
from airflow_provider_comet.outputs.output import Output, file_name, list_outputs, without_secrets

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
URL = "https://replicate.delivery/x/out-0.webp"


def outputs(output: Any) -> list[Output]:
    return list_outputs(Prediction("abc", "succeeded", output=output))


def link(index: int, media_type: str, url: str, *, name: str | None = None, is_certain: bool = True) -> Output:
    """The output of a link; its text is what is stored if it leads to a web page."""
    return Output(index, media_type, url, url.encode(), name, is_certain)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, []),
        ([], []),
        (URL, [link(0, "image/webp", URL)]),
        ([URL, URL + "?sig=1"], [link(0, "image/webp", URL), link(1, "image/webp", URL + "?sig=1")]),
        ({"video": "https://a.example/v.mp4"}, [link(0, "video/mp4", "https://a.example/v.mp4", name="video")]),
        ("https://a.example/file", [link(0, ANY, "https://a.example/file", is_certain=False)]),
        (
            ["See ", "https://a.example/x", " for more"],
            [Output(0, "text/plain", content=b"See https://a.example/x for more")],
        ),
        ("data:application/octet-stream;base64,iVBORw0KGgo=", [Output(0, "image/png", content=b"\x89PNG\r\n\x1a\n")]),
        (PNG, [Output(0, "image/png", content=b"\x89PNG")]),
        *(
            (f"data:image/png;base64,iVBOR{rest}", [Output(0, "image/png", content=b"\x89PNG\x1f\xbf")])
            for rest in ("x-_", "x+/", "x%2B%2F", "x%2b/")
        ),
        *(
            (f"data:image/png;base64,iVBORw{end}", [Output(0, "image/png", content=b"\x89PNG")])
            for end in ("==", "", "%3D%3D")
        ),
        ("data:,a%20b", [Output(0, "text/plain", content=b"a b")]),
        ("a poem", [Output(0, "text/plain", content=b"a poem")]),
        (["a ", "haiku", "\u2026"], [Output(0, "text/plain", content="a haiku\u2026".encode())]),
        (["\ud83d", "\ude00", "!"], [Output(0, "text/plain", content="\U0001f600!".encode())]),
        ("half \ud83d", [Output(0, "text/plain", content="half \ufffd".encode())]),
        ({"a": "\ude00"}, [Output(0, "application/json", content='{\n "a": "\ufffd"\n}'.encode())]),
        ("DATA:image/PNG;BASE64,iVBO", [Output(0, "image/png", content=b"\x89PN")]),
        ('data:text/plain;charset="utf-8",a', [Output(0, "text/plain", content=b"a")]),
        ("data:,\u00e9\ud83d", [Output(0, "text/plain", content="\u00e9\ufffd".encode())]),
        (7, [Output(0, "application/json", content=b"7")]),
        ([0.5, "a"], [Output(0, "application/json", content=json.dumps([0.5, "a"], indent=1).encode())]),
    ],
    ids=repr,
)
def test_every_shape_of_output(output: Any, expected: list[Output]) -> None:
    """URLs and data URIs are files, text is one file in however many pieces, and the rest is not lost."""
    assert outputs(output) == expected


def test_an_object_with_more_than_files() -> None:
    """It is stored as JSON beside its files, without signatures of links and without the bytes of data URIs."""
    first, second, rest = outputs({"image": URL + "?sig=secret", "mask": PNG, "score": 0.5})
    assert (first.url, second.content, rest.index) == (URL + "?sig=secret", b"\x89PNG", 2)
    stored = json.loads(rest.content)
    assert (stored["image"], stored["score"]) == (URL, 0.5)
    assert stored["mask"].startswith("<data URI, 30 characters, sha256 ")


@pytest.mark.parametrize("body", ["###", "iVBO\u00e9", "\ud83d", "i", "", "%3D"], ids=ascii)
def test_unreadable_data_uri(body: str) -> None:
    """It is an error, not an empty file."""
    with pytest.raises(OutputRefusedError, match="can't be read"):
        outputs(f"data:image/png;base64,{body}")


@pytest.mark.parametrize(
    ("output", "media_type", "name"),
    [
        (Output(0, "image/webp", URL), "image/webp", "abc-0.webp"),
        (Output(3, "image/webp", URL), "image/png", "abc-3.png"),
        (Output(0, "application/octet-stream", "https://a.example/x.safetensors"), "application/octet-stream", None),
        (Output(0, "application/octet-stream", "https://a.example/x"), "application/octet-stream", "abc-0.bin"),
        (Output(0, "application/octet-stream", "https://a.example/..%2f..%2fetc"), "x/../y", "abc-0.bin"),
        (Output(0, "application/octet-stream", "https://a.example/a.x/../.ssh"), "x/y", "abc-0.ssh"),
        (Output(0, "text/plain"), "text/plain", "abc-0.txt"),
    ],
    ids=repr,
)
def test_names(output: Output, media_type: str, name: str | None) -> None:
    """By the type that the server announces, else by the link's suffix. No other part of the link is used."""
    assert file_name("abc", output, media_type) == (name or "abc-0.bin")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://u:p@a.example/i.png?sig=s#f, please", "see https://a.example/i.png please"),
        ('https://h/i.png?x="1"&sig=SECRET next', "https://h/i.png next"),
        ('https://h/i"m.png?sig=SECRET', 'https://h/i"m.png'),
        ("https://u:pa'ss@h/i.png", "https://h/i.png"),
        ("s3://key:secret@bucket/x and http://b.example", "s3://bucket/x and http://b.example"),
        ("http://[x", "http://[x"),
        ("is 1 > 0? a@b.example: yes", "is 1 > 0? a@b.example: yes"),
        ('say data:"x",y', 'say data:"x",y'),
        (f"{{{PNG}}}", None),
        (PNG.replace("data", "DATA"), None),
        ('data:text/plain;charset="utf-8",' + PNG.partition(",")[2], None),
    ],
)
def test_secrets_within_a_text(text: str, cleaned: str | None) -> None:
    """Prompts hold links and data URIs, too; a link that can't be read does no harm."""
    if cleaned is None:
        assert PNG.partition(",")[2] not in without_secrets([text])[0]
        assert "sha256" in without_secrets({"a": text})["a"]
        assert "sha256" in next(iter(without_secrets({text: 1})))
    else:
        assert without_secrets(text) == cleaned


def test_a_link_that_is_none() -> None:
    """It is an output like others, and refused when it is followed."""
    assert outputs("https://[x/y.png") == [link(0, ANY, "https://[x/y.png", is_certain=False)]


def test_marks_in_summaries() -> None:
    """What a summary leaves out is known by its mark."""
    assert has_marker(Prediction("abc", "succeeded", output=[PNG]).summary()["output"])
    assert has_marker(Prediction("abc", "succeeded", output="word " * 20_000).summary()["output"])
    assert not has_marker([URL, "not in XCom: a poem", {"a": ["<b>"]}])


TEXTS = st.text(st.characters(exclude_categories=()), max_size=60)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
STARTS = ("https://", "http://[", "https://a..b/", "data:", "data:;base64,", "data:image/png;base64,", "data:,%")
LINKS = st.builds(str.__add__, st.sampled_from(STARTS), TEXTS)


@settings(max_examples=300, deadline=None)
@given(ANYTHING | LINKS | st.lists(LINKS, max_size=3))
@example([["https://[::1", "x"]])
def test_any_output(output: Any) -> None:
    """Whatever a server sends, the files are listed, or the error is the package's own."""
    try:
        files = outputs(output)
    except OutputRefusedError:
        return
    for number, file in enumerate(files):
        assert file.index == number
        assert file_name("abc", file, file.media_type).startswith(f"abc-{number}.")
        if file.media_type == "application/json":
            json.loads(file.content, parse_constant=pytest.fail)


@pytest.mark.parametrize("leaf", ["x", 7, URL, PNG], ids=["text", "number", "link", "data URI"])
def test_a_deep_output(leaf: Any) -> None:
    """As deep as Python reads JSON it is stored; deeper, it is refused."""
    deep: Any = leaf
    for _ in range(900):
        deep = [deep]
    assert outputs(deep)
    for _ in range(5000):
        deep = {"k": deep}
    if leaf in {URL, PNG}:
        assert len(outputs(deep)) == 1
    else:
        with pytest.raises(OutputRefusedError, match="nested too deeply"):
            outputs(deep)


def test_a_wide_output() -> None:
    """Half a million tokens are one text, and half a million numbers one JSON file."""
    assert outputs(["ab"] * 500_000)[0].content == b"ab" * 500_000
    assert json.loads(outputs([7] * 500_000)[0].content) == [7] * 500_000


SHAPES = ["a", "://", "a://", "a:// ", "a://u@", "a://" + "u" * 50, ".", "a.b", "?", "#", "%2"]
SHAPES += ["data:", "data:,", 'data:="a"', '="aaaa"']


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("act", [without_secrets, url_suffix, outputs], ids=lambda act: act.__name__)
def test_long_texts_take_linear_time(act: Callable[[str], Any], shape: str) -> None:
    """Four times the text takes about four times as long, not sixteen times."""

    def seconds(length: int) -> float:
        text = (shape * (length // len(shape) + 1))[:length]
        took = []
        for _ in range(3):
            began = time.process_time()
            with contextlib.suppress(OutputRefusedError):
                act(text)
            took.append(time.process_time() - began)
        return min(took)

    short = max(seconds(60_000), 0.002)  # less can't be measured
    assert seconds(240_000) < 10 * short
