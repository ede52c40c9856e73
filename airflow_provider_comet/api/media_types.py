"""Which media type belongs to which suffix of a name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# The names under which browsers and players know what models make. The first suffix of a type is the one we give, the
# last type of a suffix the one that we say.
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
"""What stands for a type that is not known."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")


def media_type_of(suffix: str) -> str:
    """Return the media type of files with this suffix (``.png``), ``ANY`` if it is not known.

    Not of ``mimetypes``, which knows other types on each machine.
    """
    return _TYPES.get(suffix.lower(), ANY)


def suffix_of(media_type: str) -> str | None:
    """Return the suffix that we give to files of this type."""
    known = _SUFFIXES.get(media_type)
    return known[0] if known else None


def url_suffix(url: str | None) -> str:
    """Return the suffix of the path of a URL, or an empty text."""
    try:
        found = _SUFFIX.search(urlsplit(url or "").path)
    except ValueError:  # whoever follows the link will refuse it
        return ""
    return found[0].lower() if found else ""
