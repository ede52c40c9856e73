"""``api/uris.py``: how links are written."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api.media_types import ANY
from airflow_provider_comet.api.uris import file_type, is_data_uri, is_delivery, is_url, quote_url


@pytest.mark.parametrize(
    "text",
    [
        "https://files.example/a.png?sig=x#y",
        "http://127.0.0.1:8765/0.webp",
        "HTTPS://files.example",
        "https://files.example/my picture.png",
        "https://files.example/a b/my  picture (2).JPEG?sig=x",
        "https://files.example/100% #2.mp4",
        "https://files.example/mein\u00a0Bild.webp",
    ],
)
def test_a_url_and_nothing_else_is_a_url(text: str) -> None:
    """From the first to the last character of a text; blanks may stand in a path that names a file."""
    assert is_url(text)
    assert not is_url(f"{text} ")
    assert not is_url(f"see {text}")
    assert not is_data_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        *("https://", "https:///a.png", "https://?a.png", "ftp://a.example/x.png", "https: //a.example/x.png"),
        "https://files.example is a good place for a.png",
        "https://files.example/ is a good place",
        "https://files.example/a.png is a good picture.",
        "https://files.example/a.png, https://files.example/b.png",
        "https://files.example/a b.png?sig=x y",
        "https://files.example/a b.unknown",
        *(f"https://files.example/a{control}b.png" for control in "\0\t\n\r\x1b\x7f\x85\u2028\u2029"),
    ],
    ids=ascii,
)
def test_what_is_no_url(text: str) -> None:
    """A sentence that begins with a URL is a text, and a control character is never part of a URL."""
    assert not is_url(text)


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,iVBORw0KGgo=", "DATA:,x", 'data:text/plain;charset="utf-8",a%20b']
)
def test_a_data_uri_and_nothing_else_is_a_data_uri(text: str) -> None:
    """A text that is a data URI from its first to its last character is a file."""
    assert is_data_uri(text)
    assert not is_data_uri(f"{text} and more")
    assert not is_url(text)


@pytest.mark.parametrize(
    ("url", "quoted"),
    [
        ("https://h/a.png?x=1#y", "https://h/a.png?x=1#y"),
        ("https://h/a%20b%2f.png", "https://h/a%20b%2f.png"),
        ("https://h/50%.png", "https://h/50%25.png"),
        ("https://h/a b%20c 5%.png", "https://h/a%20b%20c%205%25.png"),
        ("https://h/a #2.png", "https://h/a%20%232.png"),
        ("https://h/a\u3000b.png", "https://h/a%E3%80%80b.png"),
    ],
)
def test_quoting(url: str, quoted: str) -> None:
    """What quotes nothing is quoted, what is quoted stays, and quoting twice changes nothing more."""
    assert quote_url(url) == quote_url(quoted) == quoted


@pytest.mark.parametrize(
    ("url", "media_type"),
    [
        ("https://h/a b.PNG?x=.mp4", "image/png"),
        ("https://h/a #2.mp4", "video/mp4"),
        ("https://h/a#2.mp4", ANY),
        ("https://h/a", ANY),
        ("https://[x/a.png", ANY),
    ],
)
def test_the_type_that_a_suffix_stands_for(url: str, media_type: str) -> None:
    """The suffix of the path counts."""
    assert file_type(url) == media_type


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://replicate.delivery/x", True),
        ("https://u@PBXT.replicate.delivery:443/x", True),
        ("https://replicate.delivery.example/x", False),
        ("https://notreplicate.delivery/x", False),
        ("https://a.example/replicate.delivery", False),
        ("https://[x", False),
    ],
)
def test_the_delivery_host(url: str, expected: bool) -> None:
    """It and the hosts below it serve nothing but files of models."""
    assert is_delivery(url) is expected
