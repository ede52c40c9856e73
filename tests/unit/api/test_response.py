"""``api/response.py``: a response as it was received, without the API key."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from airflow_provider_comet.api.response import KEPT_HEADERS, Response

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
    ("a day at most", {"retry-after": "99999999"}, {}, 86_400),
    ("infinite", {"retry-after": "inf"}, {}, 86_400),
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
    ("body endless", {}, {"retry_after": 10**400}, 86_400),
    ("reset", {"RateLimit-Reset": "11"}, {}, 11),
    ("body before reset", {"ratelimit-reset": "11"}, {"retry_after": 4}, 4),
    ("none", {}, {}, None),
    ("no object", {}, [], None),
]


@pytest.mark.parametrize(("headers", "body", "seconds"), [row[1:] for row in HINTS], ids=[row[0] for row in HINTS])
def test_the_servers_hint_is_read(headers: dict[str, str], body: object, seconds: float | None) -> None:
    """``Retry-After`` as seconds or date, then ``retry_after``, then ``ratelimit-reset``, between zero and a day."""
    assert received(body, headers).retry_after == seconds


@pytest.mark.parametrize("hint", ["nan", "1e999", "-inf", "", "Mon, 99 Nov 2026 06:00:30 GMT"])
def test_an_odd_hint_never_gives_an_odd_delay(hint: str) -> None:
    """Whatever the header says, the delay is a number from zero to a day, or none."""
    seconds = received({}, {"retry-after": hint, "date": "x"}).retry_after
    assert seconds is None or 0 <= seconds <= 86_400


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
        200, {"date": "a token"}, "a token is missing"
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
