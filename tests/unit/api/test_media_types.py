"""``api/media_types.py``: the suffix of each media type that models make, and back."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api.media_types import ANY, clean_media_type, media_type_of, suffix_of, url_suffix


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [
        (".png", "image/png"),
        (".PNG", "image/png"),
        (".jpeg", "image/jpeg"),
        (".mp4", "video/mp4"),
        (".wav", "audio/wav"),
        (".glb", "model/gltf-binary"),
        (".safetensors", ANY),
        ("", ANY),
    ],
)
def test_the_media_type_of_a_suffix(suffix: str, media_type: str) -> None:
    """Whatever its case; a suffix that is not known says nothing."""
    assert media_type_of(suffix) == media_type


@pytest.mark.parametrize(
    ("media_type", "suffix"),
    [
        ("image/jpeg", ".jpg"),
        ("audio/wav", ".wav"),
        ("video/x-matroska", ".mkv"),
        ("audio/webm", ".weba"),
        ("x/y", None),
        (ANY, None),
    ],
)
def test_the_suffix_of_a_media_type(media_type: str, suffix: str | None) -> None:
    """The first of several; a type that is not known has none."""
    assert suffix_of(media_type) == suffix


@pytest.mark.parametrize(
    ("url", "suffix"),
    [
        ("https://a.example/x/out-0.WEBP?sig=a.png", ".webp"),
        ("https://a.example/x.tar.gz", ".gz"),
        ("https://a.example/x", ""),
        ("https://a.example/x.notasuffixatall", ""),
        ("https://[x/y.png", ""),
        (None, ""),
    ],
)
def test_the_suffix_of_a_link(url: str | None, suffix: str) -> None:
    """That of its path, in lower case, and at most eight characters long."""
    assert url_suffix(url) == suffix


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        ("Image/PNG; charset=x", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("audio/MP3", "audio/mpeg"),
        ("audio/x-wav", "audio/wav"),
        ("application/mp4", "video/mp4"),
        ("application/vnd.ms-excel.sheet+xml", "application/vnd.ms-excel.sheet+xml"),
        (None, ""),
        ("", ""),
        ("png", ""),
        ("image/", ""),
        ("image/png\nforged", ""),
        ("image/\u202egnp", ""),
        ("a b/c", ""),
        ("image/" + "x" * 1_000_000, "image/" + "x" * 249),
        (" " * 1_000_000 + "image/png", ""),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_is_no_media_type_is_none(text: str | None, media_type: str) -> None:
    """A server's header may hold anything; what goes into XCom and manifests is a media type, or nothing."""
    assert clean_media_type(text) == media_type
