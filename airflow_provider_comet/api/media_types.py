"""Which media type belongs to which suffix of a file name, and which names a type has."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# The types of the files that models make, as browsers and players name them. A stored file gets the first suffix of its
# type.
_SUFFIXES = {
    "image/webp": (".webp",),
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/gif": (".gif",),
    "image/avif": (".avif",),
    "image/heic": (".heic", ".heif"),
    "image/jxl": (".jxl",),
    "image/apng": (".apng",),
    "image/svg+xml": (".svg",),
    "image/tiff": (".tiff", ".tif"),
    "image/bmp": (".bmp",),
    "image/x-icon": (".ico",),
    "video/mp4": (".mp4", ".m4v"),
    "video/webm": (".webm",),
    "video/quicktime": (".mov",),
    "video/x-matroska": (".mkv",),
    "video/x-msvideo": (".avi",),
    "video/mpeg": (".mpg", ".mpeg"),
    "video/ogg": (".ogv",),
    "audio/mpeg": (".mp3",),
    "audio/wav": (".wav",),
    "audio/ogg": (".ogg", ".oga"),
    "audio/flac": (".flac",),
    "audio/opus": (".opus",),
    "audio/webm": (".weba",),
    "audio/x-matroska": (".mka",),
    "audio/mp4": (".m4a",),
    "audio/aac": (".aac",),
    "audio/aiff": (".aiff", ".aif"),
    "audio/midi": (".mid", ".midi"),
    "model/gltf-binary": (".glb",),
    "application/zip": (".zip",),
    "application/gzip": (".gz", ".tgz"),
    "application/pdf": (".pdf",),
    "application/json": (".json",),
    "text/plain": (".txt",),
    "text/html": (".html", ".htm"),
}
# Other names that servers have for a type.
_NAMES = {
    "image/jpeg": "image/jpg image/pjpeg image/jfif",
    "image/png": "image/x-png",
    "image/webp": "image/x-webp",
    "image/svg+xml": "image/svg",
    "image/bmp": "image/x-bmp image/x-ms-bmp",
    "image/heic": "image/heif",
    "image/x-icon": "image/vnd.microsoft.icon image/ico",
    "video/mp4": "video/x-m4v video/m4v application/mp4",
    "video/x-matroska": "video/matroska video/mkv video/x-mkv",
    "video/x-msvideo": "video/avi video/msvideo",
    "audio/mpeg": "audio/mp3 audio/x-mp3 audio/mpeg3 audio/x-mpeg-3 audio/x-mpeg audio/mpg",
    "audio/wav": "audio/x-wav audio/wave audio/vnd.wave audio/x-pn-wav",
    "audio/ogg": "application/ogg audio/x-ogg",
    "audio/flac": "audio/x-flac",
    "audio/mp4": "audio/x-m4a audio/m4a",
    "audio/aac": "audio/x-aac audio/aacp",
    "audio/aiff": "audio/x-aiff",
    "audio/midi": "audio/x-midi audio/mid",
    "application/zip": "application/x-zip application/x-zip-compressed",
    "application/gzip": "application/x-gzip",
    "application/pdf": "application/x-pdf",
    "application/json": "text/json",
}
_SYNONYMS = {name: media_type for media_type, names in _NAMES.items() for name in names.split()}
WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
"""The types of web pages."""
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
    """Return the media type of a ``Content-Type`` header or a data URI; an empty text if it is none.

    It is in lower case, and of several names for the same type the usual one: ``image/jpeg`` for ``image/jpg``.
    """
    media_type = (text or "")[:MAX_CHARACTERS].partition(";")[0].strip().lower()
    return _SYNONYMS.get(media_type, media_type) if _MEDIA_TYPE.fullmatch(media_type) else ""


def url_suffix(url: str | None) -> str:
    """Return the suffix of a URL's path in lower case; an empty text if it has none."""
    try:
        found = _SUFFIX.search(urlsplit(url or "").path)
    except ValueError:  # the link is refused when it is followed
        return ""
    return found[0].lower() if found else ""
