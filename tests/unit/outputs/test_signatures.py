"""``outputs/signatures.py``: the type of a file by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.outputs.signatures import guess, recognise

HEADS = {
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": "image/png",
    b"\xff\xd8\xff\xe1": "image/jpeg",
    b"GIF89a": "image/gif",
    b"RIFF\x0a\0\0\0WEBPVP8 ": "image/webp",
    b"RIFF\n\n\n\nWAVEfmt ": "audio/wav",
    b"RIFF....AVI LIST": "video/x-msvideo",
    b"\0\0\0\x20ftypavif\0\0\0\0": "image/avif",
    b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif": "image/avif",
    b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic": "image/heic",
    b"\0\0\0\x18ftypheic": "image/heic",
    b"\0\0\0\x14ftypqt  ": "video/quicktime",
    b"\0\0\0\x1cftypM4A ": "audio/mp4",
    b"\0\0\0\x20ftypisom": "video/mp4",
    b"\0\0\0\x18ftypmp42": "video/mp4",
    b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm": "video/webm",
    b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska": "video/x-matroska",
    b"OggS\0\x02" + bytes(22) + b"OpusHead": "audio/ogg",
    b"OggS\0\x02" + bytes(22) + b"\x80theora": "video/ogg",
    b"fLaC": "audio/flac",
    b"ID3\x04": "audio/mpeg",
    b"glTF\x02": "model/gltf-binary",
    b"%PDF-1.7": "application/pdf",
    b"\xef\xbb\xbf<svg xmlns=": "image/svg+xml",
    b"<?xml version='1.0'?>\n<!-- a --><svg>": "image/svg+xml",
    b"\n <!DOCTYPE HTML><title>": "text/html",
    b"<!-- a -->\n<html>": "text/html",
    b"<?xml version='1.0'?><svg><foreignObject><html>": "image/svg+xml",
}


@pytest.mark.parametrize(("head", "media_type"), HEADS.items(), ids=HEADS.values())
def test_what_first_bytes_prove(head: bytes, media_type: str) -> None:
    """The formats that models make are known by them; a part of them proves nothing."""
    assert recognise(head) == guess(head) == recognise(head + bytes(600)) == media_type
    assert recognise(b"x" + head) is None
    assert recognise(head[:2]) is None


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b\x08", "application/gzip"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\xff\xf1\x50", "audio/aac"),
        (b"BM\x36", "image/bmp"),
        (b"II*\0", "image/tiff"),
    ],
)
def test_what_first_bytes_suggest(head: bytes, media_type: str) -> None:
    """Other formats begin so, too, so this counts only where nothing else is known."""
    assert (recognise(head), guess(head)) == (None, media_type)


@given(st.binary(max_size=40))
def test_anything(head: bytes) -> None:
    """Text and chance prove nothing, and nothing fails."""
    assert recognise(b"{" + head) is guess(b"{" + head) is None
