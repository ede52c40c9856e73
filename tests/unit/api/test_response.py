"""``api/response.py``: a response as it was received, without the API key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api import response as module
from airflow_provider_comet.api.comet_error import MAX_RETRY_AFTER_SECONDS
from airflow_provider_comet.api.response import KEPT_HEADERS, MAX_TEXT_CHARACTERS, Response
from airflow_provider_comet.api.summary import has_marker

KEY = "sk-Abc123_def-456GHI789"


def received(body: object, headers: Mapping[str, str] | None = None, key: str = KEY) -> Response:
    """Return a response as a client makes it of a body, which is JSON unless it is text."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Response.received(200, headers or {}, text.encode(), key)


HINTS: list[tuple[str, dict[str, str], object, float | None]] = [
    ("seconds", {"retry-after": "30"}, {}, 30),
    ("fraction", {"retry-after": "0.5"}, {}, 0.5),
    ("zero", {"retry-after": "0"}, {"retry_after": 9}, 0),
    ("negative", {"retry-after": "-5"}, {}, 0),
    ("years", {"retry-after": "99999999"}, {}, 99_999_999),
    ("infinite", {"retry-after": "inf"}, {}, math.inf),
    ("date", {"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": "Mon, 23 Nov 2026 06:00:00 GMT"}, {}, 30),
    ("past date", {"retry-after": "Mon, 23 Nov 2026 05:00:00 GMT", "date": "Mon, 23 Nov 2026 06:00:00 GMT"}, {}, 0),
    ("date without the server's clock", {"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT"}, {}, None),
    ("nonsense", {"retry-after": "soon"}, {}, None),
    ("nonsense, then body", {"retry-after": "soon"}, {"retry_after": 4}, 4),
    ("header before body", {"retry-after": "3"}, {"retry_after": 4}, 3),
    ("body", {}, {"retry_after": 2.5}, 2.5),
    ("body text", {}, {"retry_after": "6"}, 6),
    ("body true", {}, {"retry_after": True}, None),
    ("body list", {}, {"retry_after": [1]}, None),
    ("body endless", {}, {"retry_after": 10**400}, math.inf),
    ("reset", {"RateLimit-Reset": "11"}, {}, 11),
    ("body before reset", {"ratelimit-reset": "11"}, {"retry_after": 4}, 4),
    ("none", {}, {}, None),
    ("no object", {}, [], None),
]


@pytest.mark.parametrize(("headers", "body", "seconds"), [row[1:] for row in HINTS], ids=[row[0] for row in HINTS])
def test_the_servers_hint_is_read(headers: dict[str, str], body: object, seconds: float | None) -> None:
    """``Retry-After`` as seconds or date, then ``retry_after``, then ``ratelimit-reset``; never less than zero."""
    assert received(body, headers).retry_after == seconds


ODD_TEXTS = [
    "nan",
    "1e999",
    "-inf",
    "",
    " ",
    "\u0661\u0662",
    "0x10",
    "1" * 5000,
    "1" * 1_000_000,
    "Mon, 99 Nov 2026 06:00:30 GMT",
    "Sat, 01 Jan 0000 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Fri, 31 Dec 9999 23:59:59 +9999999999",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Mon, 23 Nov 99999999999 06:00:30 GMT",
    "Mon, 23 Nov 2026 99999999999:00:30 GMT",
    f"Mon, 23 Nov {'9' * 5000} 06:00:30 GMT",
    "Mon, 23 Nov 2026 06:00:30 -0000",
    "Mon, 23 Nov 2026 06:00:30",
    "9999-12-31T23:59:59+23:59",
    ", " * 10_000,
]
DATES = st.builds(
    "{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon,", "", "Xyz,", "\u0661,"]),
    st.integers(-5, 10**12),
    st.sampled_from(["Nov 2026", "Dec 9999", "Jan 0001", "Feb 0", "Jan 10000", "Jan 99999999999", "x"]),
    st.integers(-1, 10**10),
    st.integers(-1, 10**10),
    st.integers(-1, 10**10),
    st.sampled_from(["GMT", "-0000", "+2359", "-9999", "+99999999999999", "", "EST", "??"]),
)
TEXTS = st.sampled_from(ODD_TEXTS) | DATES | st.text(max_size=60) | st.floats().map(str) | st.integers().map(str)
BODIES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS, st.lists)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(KEPT_HEADERS)), TEXTS), BODIES)
@example({"retry-after": "Mon, 23 Nov 99999999999 06:00:30 GMT", "date": "Mon, 23 Nov 2026 06:00:00 GMT"}, None)
@example({"retry-after": "Mon, 23 Nov 2026 06:00:30 GMT", "date": "Mon, 23 Nov 99999999999 06:00:00 GMT"}, None)
@example({}, 10**400)
def test_no_header_and_no_hint_is_too_odd(headers: dict[str, str], hint: object) -> None:
    """Whatever headers and body say, the answer becomes an error whose pause is none, or from zero to an hour."""
    request = protocol.get_prediction("abc")
    response = Response.received(429, headers, json.dumps({"retry_after": hint}).encode(), KEY)
    with pytest.raises(e.CometError) as caught:
        protocol.read_prediction(request, response)
    seconds = caught.value.retry_after
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS
    json.dumps(caught.value.to_dict(), allow_nan=False)


def test_only_known_headers_are_kept() -> None:
    """Headers that this package reads are kept by their lower-case names, and no others."""
    response = received("", {"Date": "x", "CF-Ray": "y", "Set-Cookie": "z"})
    assert response.headers == {"date": "x", "cf-ray": "y"}
    assert {*response.headers} <= KEPT_HEADERS


def test_an_echoed_key_is_removed() -> None:
    """A key that the server repeats in the body, with or without escapes, or in a header is replaced by asterisks."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    assert received(f"key {KEY} refused").text == "key *** refused"
    assert received(f'{{"error": "key {escaped} refused"}}').json == {"error": "key *** refused"}
    assert received("", {"Retry-After": f"{KEY}, {KEY}"}).headers == {"retry-after": "***, ***"}


@pytest.mark.parametrize("key", ["", "x", "token"])
def test_a_very_short_key_is_not_removed(key: str) -> None:
    """The emulator takes any key: to remove a short text would garble the words that contain it."""
    assert received("a token is missing", {"date": "a token"}, key) == Response(
        200, {"date": "a token"}, "a token is missing", None
    )


@pytest.mark.parametrize(
    ("body", "content_type", "is_html"),
    [
        ("<!DOCTYPE html><html>", "", True),
        ("\n <HTML lang=en>", "text/plain", True),
        ("Bad gateway", "text/html; charset=utf-8", True),
        ('{"error": "<html>"}', "text/html", False),
        ("Bad gateway", "text/plain", False),
        ("", "", False),
    ],
)
def test_a_web_page_is_recognized(body: str, content_type: str, is_html: bool) -> None:
    """A web page is recognized by its first characters, or by its content type unless it is JSON."""
    assert received(body, {"Content-Type": content_type}).is_html is is_html


@pytest.mark.parametrize("body", ["", "{", "[" * 200_000], ids=["empty", "cut off", "too deep"])
def test_a_body_that_is_no_json(body: str) -> None:
    """A body that can't be parsed is ``None`` as JSON, and names no time to wait."""
    response = received(body)
    assert (response.json, response.retry_after) == (None, None)


@pytest.mark.parametrize("has_escapes", [False, True])
def test_the_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch, has_escapes: bool) -> None:
    """However often a poll's answer is read, its JSON was parsed once, when it came."""
    calls: list[str] = []
    loads = json.loads
    monkeypatch.setattr(module.json, "loads", lambda text, **options: calls.append(text) or loads(text, **options))
    body: dict[str, Any] = {"id": "abc", "status": "processing", "logs": "ü \n" if has_escapes else "x"}
    response = received(body)
    request = protocol.get_prediction("abc")
    assert not protocol.is_rate_limited(request, response)
    assert protocol.read_prediction(request, response).logs == body["logs"]
    assert (response.is_html, response.retry_after) == (False, None)
    assert len(calls) == 1


def test_an_integer_of_any_length_is_read() -> None:
    """A number with more digits than Python converts arrives as text, and all else of the answer as it is."""
    digits = "7" * 5000
    body = f'{{"id": "abc", "status": "succeeded", "output": ["x"], "metrics": {{"seed": {digits}, "n": 3}}}}'
    prediction = protocol.read_prediction(protocol.get_prediction("abc"), received(body))
    assert (prediction.output, prediction.metrics) == (["x"], {"seed": digits, "n": 3})
    assert received(body + "}").json is None


@pytest.mark.parametrize("deep", ["{open}1{close}", '{open}"x", {{}}, "\\u0041"{close}'])
@pytest.mark.parametrize("depth", [1, 99, 500, 5000])
def test_deep_json_is_a_result_or_an_error_of_ours(deep: str, depth: int) -> None:
    """What Python can't parse is no JSON, and what is nested less arrives whole: it is paid for."""
    value = deep.format(open="[" * depth, close="]" * depth)
    response = received(f'{{"id": "abc", "status": "succeeded", "output": {value}}}')
    request = protocol.get_prediction("abc")
    if depth == 5000:
        with pytest.raises(e.ServerError):
            protocol.read_prediction(request, response)
    else:
        prediction = protocol.read_prediction(request, response)
        assert prediction.files == []
        assert json.dumps(prediction.output) == json.dumps(json.loads(value))
        assert has_marker(prediction.summary()["output"]) == (depth > 100)


def test_the_text_of_a_long_body_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is for messages: they need its beginning. The JSON of the body is whole, and the key is in neither."""
    logs = "x" * (2 * MAX_TEXT_CHARACTERS) + KEY
    response = received({"logs": logs})
    assert len(response.text) == MAX_TEXT_CHARACTERS
    assert response.json == {"logs": logs.replace(KEY, "***")}
