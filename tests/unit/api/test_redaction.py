"""``api/redaction.py``: what is removed from a server's words before they are shown."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import (
    _SECRETS,
    DATA_URI_START,
    READ_CHARACTERS,
    excerpt,
    log_value,
    printable,
    redact,
    whole_characters,
)
from tests.support.growth import assert_linear

HOSTILE = [
    *(" ", "\n", "a", "A1", "é", "-", ".", "/", "@", "?", "<", "\u202e", "\ud83d"),
    *("sk-", "sk-a ", "bearer ", "bearer", "basic a", "data:", "data:a", 'data:="', "data:,", 'data:=\\"a'),
    *("http://", "https://a", "://", "a://", "://a@", "://:", "@://", "https://a?", "a/?", "a+.-"),
]
"""What texts are made of that are to keep a pattern busy."""

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


@pytest.mark.parametrize("shape", HOSTILE, ids=ascii)
@pytest.mark.parametrize("show", [excerpt, redact, log_value], ids=lambda show: show.__name__)
def test_a_long_text_takes_no_longer(show: Callable[[str], str], shape: str) -> None:
    """A server's text can't hold up the event loop of a triggerer, whatever ten million characters of it are."""
    assert_linear(show, shape, sizes=(1_000, 10_000, 100_000, 10_000_000), is_bounded=True)


@pytest.mark.parametrize("shape", HOSTILE, ids=ascii)
def test_each_pattern_is_linear(shape: str) -> None:
    """Not only the cut protects: no pattern reads the same text twice."""
    for pattern in (*(secret[0] for secret in _SECRETS), DATA_URI_START):
        assert_linear(re.compile(pattern).findall, shape, sizes=(1_000, 10_000, 100_000))


SECRETS = [
    f"x {KEY}", "Bearer tok3n-of-another", "https://me:pa55w0rd@proxy:3128/", "https://h.example/a?sig=s3cr3t",
    "data:image/png;base64,s3cr3tAAAA",
]  # fmt: skip
PARTS = ("Abc123", "def-456", "tok3n", "pa55", "s3cr")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_half_of_a_secret_at_the_cut(secret: str) -> None:
    """A long text is cut before its secrets are found: what stands at the cut is left out, as far as it is a secret."""
    for length in range(READ_CHARACTERS - len(secret) - 3, READ_CHARACTERS + 3):
        text = " " * length + secret + " tail" * 99
        assert not [part for part in PARTS if part in redact(text) + excerpt(text)], length


HIDDEN_CHARACTERS = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F))),
    *map(chr, (*range(0x2060, 0x2065), *range(0x2066, 0x2070), 0xFEFF, 0xFFF9, 0x1D173, 0xE0001, 0xE0041, 0xD800)),
]


@pytest.mark.parametrize("character", HIDDEN_CHARACTERS, ids=ascii)
def test_characters_that_act_are_not_shown(character: str) -> None:
    """Line breaks, terminal sequences, and what hides text or turns its direction reach neither message nor log."""
    text = f"a{character}b"
    for shown in (printable(text), excerpt(text), log_value(text), str(e.ServerError(text, code=text))):
        assert character not in shown or character == " "
        assert shown.isprintable()
        assert unicodedata.normalize("NFC", shown).startswith(("a", '"a', "CometAPI"))


@given(st.text() | st.integers() | st.none())
def test_a_value_of_a_log_line_is_one_word(value: object) -> None:
    """Whatever it holds, nobody can forge another key or line; and the value can be read back."""
    shown = log_value(value)
    assert len(shown.split()) == 1
    assert shown.isprintable()
    assert shown == str(value) or json.loads(shown) == str(value)


def test_a_value_of_a_log_line_is_short() -> None:
    """Five million characters are no line of a log."""
    assert len(log_value("x" * 5_000_000)) < 300
    assert len(log_value("\u202e" * 5_000_000)) < 2_000


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
