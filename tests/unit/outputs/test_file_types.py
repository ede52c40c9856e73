"""``outputs/file_types.py``: which type a file has, when its link, its server and its first bytes disagree."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.media_types import ANY
from airflow_provider_comet.outputs.file_types import check_media_type, is_web_page, type_of_data

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
MP4 = bytes(4) + b"ftypisom" + bytes(20)
OGG = b"OggS" + bytes(40)
PAGE = b"\n<!DOCTYPE html><html>"
SVG = b'<?xml version="1.0"?><svg/>'
ZIP = b"PK\x03\x04" + bytes(20)
MP3 = b"\xff\xfb\x90\x44" + bytes(20)
TAGGED = b"ID3\x04" + bytes(20)
MATROSKA = b"\x1a\x45\xdf\xa3" + bytes(20)


@pytest.mark.parametrize(
    ("expected", "announced", "result"),
    [
        ("image/webp", "image/webp", "image/webp"),
        ("image/webp", "image/png", "image/png"),
        ("image/webp", "IMAGE/PNG; charset=x", "image/png"),
        ("image/webp", None, "image/webp"),
        ("image/webp", "application/octet-stream", "image/webp"),
        ("image/webp", "binary/octet-stream", "image/webp"),
        ("video/mp4", "audio/mp4", "audio/mp4"),
        ("application/octet-stream", "model/gltf-binary", "model/gltf-binary"),
        ("application/octet-stream", "application/json", "application/json"),
        ("text/html", "text/html", "text/html"),
        ("video/mp4", "application/mp4", "video/mp4"),
        ("audio/ogg", "application/ogg", "audio/ogg"),
        ("video/mp4", "application/vnd.apple.mpegurl", "application/vnd.apple.mpegurl"),
        ("image/svg+xml", "application/xml", "image/svg+xml"),
        ("image/svg+xml", "text/xml; charset=utf-8", "image/svg+xml"),
        ("image/webp", "application/xml", DeliveryError),
        ("image/svg+xml", "text/html", DeliveryError),
        ("image/webp", "application/mp4", OutputRefusedError),
        ("image/webp", "text/html", DeliveryError),
        ("image/webp", "application/json", DeliveryError),
        ("application/octet-stream", "text/html; charset=utf-8", DeliveryError),
        ("video/mp4", "image/png", OutputRefusedError),
    ],
)
def test_media_types(expected: str, announced: str | None, result: str | type[CometError]) -> None:
    """Another image type is accepted for an image. For a page or an error document a retry may get the image."""
    if isinstance(result, str):
        assert check_media_type(expected, announced, b"?") == result
        return
    with pytest.raises(result, match="the link promises"):
        check_media_type(expected, announced, b"?")


@pytest.mark.parametrize(
    ("expected", "announced", "head", "result"),
    [
        ("image/png", "image/png", JPEG, "image/jpeg"),
        (ANY, "image/jpg", b"?", "image/jpeg"),
        (ANY, "audio/mp3", b"?", "audio/mpeg"),
        (ANY, "video/x-matroska", b"?", "video/x-matroska"),
        (ANY, ANY, PNG, "image/png"),
        (ANY, None, MP4, "video/mp4"),
        (ANY, "application/binary", ZIP, "application/zip"),
        (ANY, "application/vnd.example+zip", ZIP, "application/vnd.example+zip"),
        ("audio/mp4", ANY, MP4, "audio/mp4"),
        (ANY, "audio/mp4", MP4, "audio/mp4"),
        (ANY, "application/ogg", OGG, "audio/ogg"),
        ("audio/opus", "application/ogg", OGG, "audio/opus"),
        ("image/webp", "application/json", PNG, "image/png"),
        (ANY, "text/xml", SVG, "image/svg+xml"),
        (ANY, "text/plain", PAGE, "text/plain"),
        ("text/html", ANY, PAGE, "text/html"),
        ("audio/mpeg", "application/x-www-form-urlencoded", MP3, "audio/mpeg"),
        ("audio/mpeg", "application/force-download", MP3, "audio/mpeg"),
        ("audio/mpeg", "text/plain", b"error=denied", DeliveryError),
        ("image/tiff", "text/plain", b"II*\0" + bytes(20), "image/tiff"),
        ("audio/aac", ANY, TAGGED, "audio/aac"),
        (ANY, "audio/aac", TAGGED, "audio/aac"),
        (ANY, "audio/flac", TAGGED, "audio/flac"),
        (ANY, "audio/wav", TAGGED, "audio/mpeg"),
        ("audio/x-matroska", ANY, MATROSKA, "audio/x-matroska"),
        ("image/webp", "image/webp", PAGE, DeliveryError),
        (ANY, None, PAGE, DeliveryError),
        ("image/webp", "image/webp", MP4, OutputRefusedError),
        ("video/mp4", "video/mp4", PNG, OutputRefusedError),
    ],
)
def test_first_bytes(expected: str, announced: str | None, head: bytes, result: str | type[CometError]) -> None:
    """What they prove outranks the server's word and the link; what they only suggest counts where both are silent."""
    if isinstance(result, str):
        assert check_media_type(expected, announced, head) == result
        return
    with pytest.raises(result, match="the link promises"):
        check_media_type(expected, announced, head)


def test_web_pages() -> None:
    """By what the server says, or by the first bytes; the source of a page that is sent as text is none."""
    assert is_web_page("text/html; charset=utf-8", b"?")
    assert is_web_page("application/xhtml+xml", b"?")
    assert is_web_page(None, PAGE)
    assert not is_web_page("text/plain", PAGE)
    assert not is_web_page("image/webp", b"?")
    assert not is_web_page("text/html", PNG)


@pytest.mark.parametrize(
    ("said", "content", "media_type"),
    [
        ("", b"words", "text/plain"),
        ("image/png", b"?", "image/png"),
        (ANY, PNG, "image/png"),
        (ANY, b"?", ANY),
        ("", PNG, "image/png"),
    ],
)
def test_data_uris(said: str, content: bytes, media_type: str) -> None:
    """The type that they name, unless the content proves another one."""
    assert type_of_data(said, content) == media_type


@pytest.mark.parametrize(
    ("suffix", "head", "result"),
    [
        (".usdz", ZIP, ANY),
        (".docx", ZIP, ANY),
        (".md", b"BM25 is a rule", ANY),
        (".usdz", PNG, "image/png"),
        ("", ZIP, "application/zip"),
        (".bin", ZIP, "application/zip"),
        (".0", MP3, "audio/mpeg"),
    ],
)
def test_a_suffix_that_is_unknown(suffix: str, head: bytes, result: str) -> None:
    """It says more than first bytes that many formats share, unless it says nothing itself."""
    assert check_media_type(ANY, ANY, head, suffix) == result
