"""Recognise the type of a file by its first bytes."""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""How many first bytes are read for that."""

# The first pattern that matches decides.
_PROOFS = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"....ftypavi[fs]", "image/avif"),
    (rb"....ftypm[is]f1.{0,60}avif", "image/avif"),
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "image/heic"),
    (rb"\0\0\0\x0cJXL ", "image/jxl"),
    (rb"....ftypM4[ABP] ", "audio/mp4"),
    (rb"....ftypqt  ", "video/quicktime"),
    (rb"....ftyp", "video/mp4"),
    (rb"\x1a\x45\xdf\xa3.{0,60}webm", "video/webm"),
    (rb"\x1a\x45\xdf\xa3", "video/x-matroska"),
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"\0\0\x01\xba", "video/mpeg"),
    (rb"OggS.{0,60}theora", "video/ogg"),
    (rb"OggS", "audio/ogg"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"fLaC", "audio/flac"),
    (rb"ID3", "audio/mpeg"),
    (rb"MThd", "audio/midi"),
    (rb"FORM....AIF[FC]", "audio/aiff"),
    (rb"glTF", "model/gltf-binary"),
    (rb"%PDF-", "application/pdf"),
    (rb"(?:\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|(?:<\?xml|<!--)(?:(?!<svg).)*<html)", "text/html"),
    (rb"(?:\xef\xbb\xbf)?\s*(?i:<svg|(?:<\?xml|<!--|<!doctype svg).*<svg)", "image/svg+xml"),
)
# Other formats begin so, too: many are zip files within, and two bytes can be chance.
_HINTS = (
    (rb"PK\x03\x04", "application/zip"),
    (rb"\x1f\x8b", "application/gzip"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"BM", "image/bmp"),
    (rb"\0\0\x01\0", "image/x-icon"),
    (rb"\xff[\xfb\xf3\xf2]", "audio/mpeg"),
    (rb"\xff[\xf1\xf9]", "audio/aac"),
)


def recognise(head: bytes) -> str | None:
    """Return the media type that the first bytes of a file prove; ``None``: they prove none.

    :param head: the first ``HEAD_BYTES``, or all of a shorter file.
    """
    return _first_match(_PROOFS, head)


def guess(head: bytes) -> str | None:
    """Return the media type that the first bytes suggest, for a file of which nothing else is known."""
    return _first_match(_PROOFS + _HINTS, head)


def _first_match(patterns: tuple[tuple[bytes, str], ...], head: bytes) -> str | None:
    head = head[:HEAD_BYTES]
    return next((media_type for pattern, media_type in patterns if re.match(pattern, head, re.DOTALL)), None)
