"""Which type a file has, from its link, from what its server says, and from its first bytes."""

from __future__ import annotations

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.media_types import ANY, WEB_PAGES, clean_media_type
from airflow_provider_comet.outputs.signatures import guess, recognise

_UNKNOWN = frozenset({"", ANY, "binary/octet-stream", "application/binary", "application/x-binary"})
_STREAM_TYPES = frozenset({"application/vnd.apple.mpegurl", "application/x-mpegurl"})
"""Audio or video, although the name begins with ``application``."""
_XML_TYPES = frozenset({"application/xml", "text/xml"})
_KINDS = {"image": "image", "video": "audio or video", "audio": "audio or video"}
_MORE_EXACT = {
    "image/png": {"image/apng"},
    "video/mp4": {"audio/mp4", "video/quicktime"},
    "video/webm": {"audio/webm"},
    "video/x-matroska": {"audio/x-matroska"},
    "audio/ogg": {"audio/opus", "video/ogg"},
    "audio/mpeg": {"audio/aac", "audio/flac"},
}
"""The types that files may have which begin like another type."""
_SILENT_SUFFIXES = frozenset({"", ".bin", ".dat", ".tmp"})


def check_media_type(expected: str, announced: str | None, head: bytes, suffix: str = "") -> str:
    """Return a file's media type.

    Its first bytes decide where they prove a type, because links and servers call pictures what they are not. Then
    the server's ``Content-Type`` counts, and then the link's suffix. Another type of the promised kind is accepted: a
    PNG is as good as a WebP. A web page or an error document comes from something between us and the file, so a retry
    may get the file. A video in place of an image is final.

    :param expected: by the link's suffix; ``ANY`` if the suffix is unknown.
    :param announced: the ``Content-Type`` header.
    :param head: the first bytes of the file.
    :param suffix: of the link, also an unknown one: a zip file within may be a document or a model, as it says.
    :raises DeliveryError: a document was sent instead.
    :raises OutputRefusedError: a file of another kind was sent.
    """
    found = _find_type(expected, clean_media_type(announced), head, suffix)
    if found in WEB_PAGES and expected not in WEB_PAGES:
        error_type: type[DeliveryError | OutputRefusedError] = DeliveryError
    elif expected == ANY or _kind(found) == _kind(expected):
        return found
    else:
        error_type = DeliveryError if _kind(found) == "document" else OutputRefusedError
    promised = "a file" if expected == ANY else expected
    raise error_type(f"the link promises {promised}, and the server sends {found}")


def is_web_page(announced: str | None, head: bytes) -> bool:
    """Return whether a server sends a web page, by what it says and by the first bytes."""
    return _find_type(ANY, clean_media_type(announced), head) in WEB_PAGES


def type_of_data(said: str, content: bytes) -> str:
    """Return the media type of what came as a data URI; RFC 2397: without a type it is text."""
    return _find_type(ANY, said or "text/plain", content)


def _find_type(expected: str, said: str, head: bytes, suffix: str = "") -> str:
    """Return the type that first bytes, server and link say together; ``ANY``: none of them says any."""
    hints = [hint for hint in (said, expected) if hint not in _UNKNOWN]
    if expected == "image/svg+xml" and said in _XML_TYPES:
        hints.reverse()
    suggested = guess(head)
    proven = recognise(head) or (suggested if suggested == expected else None)  # by chance they would not agree
    if proven in WEB_PAGES and hints and _kind(hints[0]) == "document":
        proven = None  # the source of a page can be meant, as text
    if proven:
        return next((hint for hint in hints if hint in _MORE_EXACT.get(proven, ())), proven)
    is_silent = suffix in _SILENT_SUFFIXES or suffix[1:].isdigit()
    return hints[0] if hints else (suggested if is_silent else None) or ANY


def _kind(media_type: str) -> str:
    return _KINDS["video"] if media_type in _STREAM_TYPES else _KINDS.get(media_type.partition("/")[0], "document")
