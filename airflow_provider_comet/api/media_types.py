"""Which media type belongs to which suffix of a file name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# The types of the files that models make, as browsers and players name them. A stored file gets the first suffix of its
# type. Of two types with the same suffix, the later one is the type of that suffix.
_SUFFIXES = {
    "image/webp": (".webp",),
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/gif": (".gif",),
    "image/avif": (".avif",),
    "image/svg+xml": (".svg",),
    "image/tiff": (".tiff", ".tif"),
    "image/bmp": (".bmp",),
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "video/quicktime": (".mov",),
    "audio/mpeg": (".mp3",),
    "audio/x-wav": (".wav",),
    "audio/wav": (".wav",),
    "audio/ogg": (".ogg", ".oga"),
    "audio/flac": (".flac",),
    "audio/mp4": (".m4a",),
    "model/gltf-binary": (".glb",),
    "application/zip": (".zip",),
    "application/pdf": (".pdf",),
    "application/json": (".json",),
    "text/plain": (".txt",),
    "text/html": (".html", ".htm"),
}
_TYPES = {suffix: media_type for media_type, suffixes in _SUFFIXES.items() for suffix in suffixes}
ANY = "application/octet-stream"
"""The media type that stands for an unknown type."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
MAX_CHARACTERS = 255
"""What is read of a media type: type and subtype have at most 127 characters each (RFC 6838)."""


def media_type_of(suffix: str) -> str:
    """Return the media type of files with this suffix (``.png``); ``ANY`` if it is unknown.

    The standard library's ``mimetypes`` is not used, because it knows other types on each machine.
    """
    return _TYPES.get(suffix.lower(), ANY)


def suffix_of(media_type: str) -> str | None:
    """Return the suffix for files of this type; ``None`` if the type is unknown."""
    known = _SUFFIXES.get(media_type)
    return known[0] if known else None


def clean_media_type(text: str | None) -> str:
    """Return the media type of a ``Content-Type`` header or a data URI, in lower case; an empty text if it is none."""
    media_type = (text or "")[:MAX_CHARACTERS].partition(";")[0].strip().lower()
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else ""


def url_suffix(url: str | None) -> str:
    """Return the suffix of a URL's path in lower case; an empty text if it has none."""
    try:
        found = _SUFFIX.search(urlsplit(url or "").path)
    except ValueError:  # the link is refused when it is followed
        return ""
    return found[0].lower() if found else ""
