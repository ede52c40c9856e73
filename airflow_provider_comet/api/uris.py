"""How a link may be written: URLs and data URIs, and how a URL is sent."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from airflow_provider_comet.api.media_types import ANY, media_type_of, url_suffix
from airflow_provider_comet.api.redaction import DATA_URI_START

DATA_URI = re.compile(DATA_URI_START + r"\S*")
_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_URL = re.compile(rf"(?i:https?)://[^\s/?#{_CONTROLS}]+(?:[/?#][^{_CONTROLS}]*)?")
_BLANK = re.compile(r"\s")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_CHARACTERS = 8000
"""A longer text with blanks is no URL: servers take none that is longer."""
_DELIVERY_HOST = "replicate.delivery"
"""Replicate serves the files of its models from this host and from those below it."""


def is_url(text: str) -> bool:
    """Return whether a text is a URL and nothing else.

    Servers write blanks into file names (``https://host/my picture.png``), and people write sentences that begin with
    a URL. A URL with blanks is one only if it ends as the name of a file does, with a suffix that is known.
    """
    if not has_url_form(text):
        return False
    if _BLANK.search(text) is None:
        return True
    if len(text) > _MAX_CHARACTERS:
        return False
    path, _, query = text.partition("?")
    is_sentence = path[-1].isspace() or text.count("://") > 1 or _BLANK.search(query) is not None
    return not is_sentence and file_type(text) != ANY


def has_url_form(text: str) -> bool:
    """Return whether a text is a URL if all of it is a link. Sentences that begin with a URL have this form, too."""
    return text[:4].lower() == "http" and _URL.fullmatch(text) is not None  # most texts of an output are neither


def is_data_uri(text: str) -> bool:
    """Return whether a text is a data URI and nothing else."""
    return text[:5].lower() == "data:" and DATA_URI.fullmatch(text) is not None


def file_type(url: str) -> str:
    """Return the media type that the suffix of a URL stands for; ``ANY`` if it is unknown."""
    return media_type_of(url_suffix(quote_url(url)))


def is_delivery(url: str) -> bool:
    """Return whether a URL leads to where Replicate serves the files that its models make."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # the link is refused when it is followed
        return False
    return host == _DELIVERY_HOST or host.endswith(f".{_DELIVERY_HOST}")


def quote_url(url: str) -> str:
    """Return a URL in which blanks are quoted, and every percent sign that quotes nothing: ``100%.png``, not ``%20``.

    The HTTP libraries quote the rest, but all percent signs anew if one of them stands alone. Nobody has quoted a URL
    with blanks, so a ``#`` in it is a part of the file's name, too.
    """
    url = _STRAY_PERCENT.sub("%25", url)
    return _BLANK.sub(lambda blank: quote(blank[0]), url.replace("#", "%23")) if _BLANK.search(url) else url
