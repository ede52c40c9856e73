"""``api/uris.py``: which texts are files."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api.uris import is_data_uri, is_url


@pytest.mark.parametrize("text", ["https://files.example/a.png?sig=x#y", "http://127.0.0.1:8765/0.webp"])
def test_a_url_and_nothing_else_is_a_url(text: str) -> None:
    """A text that is a URL from its first to its last character is a file."""
    assert is_url(text)
    assert not is_url(f"{text} ")
    assert not is_url(f"see {text}")
    assert not is_data_uri(text)


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,iVBORw0KGgo=", "DATA:,x", 'data:text/plain;charset="utf-8",a%20b']
)
def test_a_data_uri_and_nothing_else_is_a_data_uri(text: str) -> None:
    """A text that is a data URI from its first to its last character is a file."""
    assert is_data_uri(text)
    assert not is_data_uri(f"{text} and more")
    assert not is_url(text)
