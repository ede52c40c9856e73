"""``api/redaction.py``: what is removed from a server's words before they are shown."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import DATA_URI_START, excerpt, redact, whole_characters

KEY = "sk-Abc123_def-456GHI789"


HIDDEN = [
    ("key", f"key {KEY} is wrong", KEY, "key *** is wrong"),
    ("key in quotes", f"'{KEY}'", KEY, "'***'"),
    ("bearer", "Authorization: Bearer abc.DEF-123~x/y+z==", "DEF-123", "Authorization: Bearer ***"),
    ("bearer, lower case", "authorization: bearer tok3n-of-another", "tok3n", "authorization: bearer ***"),
    ("basic", "Basic dXNlcjpwYXNzd29yZA==", "dXNl", "Basic ***"),
    ("data URI", "image data:image/png;base64,AAAABBBB was refused", "AAAABBBB", "image <data URI> was refused"),
    ("data URI in JSON", '{"image": "data:;base64,AAAA"}', "AAAA", '{"image": "<data URI>"}'),
    ("plain data URI", "data:text/plain;charset=utf-8,secret", "secret", "<data URI>"),
    ("data URI in capitals", "DATA:image/png;base64,AAAABBBB", "AAAABBBB", "<data URI>"),
    ("quoted parameter", 'data:text/plain;charset="utf-8",secret', "secret", "<data URI>"),
    ("query", "see https://h.example/a?sig=s3cr3t&x=1 now", "s3cr3t", "see https://h.example/a?... now"),
    ("userinfo", "proxy http://me:pa55@proxy:3128/ failed", "pa55", "proxy http://***@proxy:3128/ failed"),
    ("userinfo with @", "proxy http://me:pa55@w0rd@proxy:3128 failed", "w0rd", "proxy http://***@proxy:3128 failed"),
    ("userinfo of another scheme", "socks5://me:pa55@proxy:1080", "pa55", "socks5://***@proxy:1080"),
]


@pytest.mark.parametrize(("text", "secret", "shown"), [row[1:] for row in HIDDEN], ids=[row[0] for row in HIDDEN])
def test_secrets_are_not_shown(text: str, secret: str, shown: str) -> None:
    """Keys, tokens, data URIs, URL queries and URL passwords are replaced; the words around them stay."""
    assert redact(text) == shown
    error = e.ServerError(text)
    assert secret not in str(error) + json.dumps(error.to_dict()) + repr(error)


@pytest.mark.parametrize(
    "text",
    [
        "field prompt is required",
        "black-forest-labs/flux-schnell",
        "https://api.cometapi.com/replicate/v1: refused",
        "field mask-image of task-1234 is risk-free",
        "the Bearer token is not valid",
        "basic models need no image",
        "bad data: prompt, seed",
    ],
)
def test_harmless_words_stay(text: str) -> None:
    """The server's words are shown as they are where they hold no secret."""
    assert redact(text) == text


@pytest.mark.parametrize("length", range(280, 320))
def test_a_key_at_the_cut_is_not_shown_in_part(length: int) -> None:
    """The text is redacted before it is cut: no half of a key remains at the end of an excerpt."""
    shown = excerpt("x" * (length - len(KEY)) + " " + KEY + " tail" * 99)
    assert len(shown) <= 300
    assert "sk-" not in shown


@pytest.mark.parametrize(("length", "expected"), [(0, 0), (1, 1), (299, 299), (300, 300), (301, 300), (100_000, 300)])
def test_an_excerpt_has_at_most_300_characters(length: int, expected: int) -> None:
    """Up to 300 characters are shown whole, longer text is cut and ends in dots."""
    shown = excerpt("y" * length)
    assert len(shown) == expected
    assert shown.endswith("...") is (length > 300)


def test_an_excerpt_is_one_line() -> None:
    """Line breaks and runs of blanks become one blank: a message is one line of a log."""
    assert excerpt(" a\r\n\tb\n\n c ") == "a b c"


@pytest.mark.parametrize("text", ["data:" + "a" * 20_000, "http://" * 3_000], ids=["data", "http"])
def test_redaction_takes_no_noticeable_time(text: str) -> None:
    """A server's text can't hold up the event loop of a triggerer: the patterns are linear."""

    began = time.perf_counter()
    redact(text)
    assert time.perf_counter() - began < 1


@given(st.text(max_size=400), st.integers(0, 400))
def test_redaction_is_final(text: str, position: int) -> None:
    """A second pass changes nothing, so an error keeps its words on its way through a trigger's event."""
    shown = excerpt(f"{text[:position]} {KEY} {text[position:]}")
    assert excerpt(shown) == shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("data:image/png;base64,AAAA", "data:image/png;base64,"),
        ("DATA:,x", "DATA:,"),
        ('{"image": "data:text/plain;charset=\\"utf-8\\",x"}', 'data:text/plain;charset=\\"utf-8\\",'),
        ("bad data: prompt, seed", None),
        ("metadata:image/png,x", None),
        ("data:" + "a" * 300 + ",x", None),
    ],
    ids=["base64", "capitals", "quoted inside JSON", "words", "part of a word", "too long"],
)
def test_the_start_of_a_data_uri(text: str, start: str | None) -> None:
    """The pattern finds a data URI up to its content, also with quoted parameters, and no ordinary words."""
    found = re.search(DATA_URI_START, text)
    assert (found[0] if found else None) == start


@pytest.mark.parametrize(
    ("text", "encodable"),
    [("plain", "plain"), ("\ud83d\ude00", "\U0001f600"), ("a\ud83d", "a\ufffd"), ("\ude00b ä", "\ufffdb ä")],
    ids=ascii,
)
def test_halves_of_characters(text: str, encodable: str) -> None:
    """Two halves of a surrogate pair are joined, and a lone half becomes U+FFFD: UTF-8 can encode the text."""
    assert whole_characters(text) == encodable
    assert whole_characters(text).encode().decode() == encodable
