"""What may be shown of a server's words."""

from __future__ import annotations

import re

EXCERPT_CHARACTERS = 300

DATA_URI_START = r"(?i)\bdata:(?:[\w.+/;=-]|=\\?[\"'][\w.+-]{0,40}\\?[\"']){0,200},"
"""What a data URI begins with. A parameter may be quoted, and within JSON its quotes have backslashes."""

# Lengths are bounded: a server's megabyte of "data:data:..." must not keep a regular expression busy. `re` compiles
# them when they are first used, and not while DAG files are parsed.
_SECRETS = (
    (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}", "***"),
    (r"(?i)\b(bearer|basic)\s+(?=\S{0,300}[0-9=])[A-Za-z0-9._~+/=-]{8,}", r"\1 ***"),
    (DATA_URI_START + r"[^\s\"'<>]*", "<data URI>"),
    (r"([A-Za-z0-9+.-]{1,20}://)[^/\s\"'<>]{0,2000}@", r"\1***@"),
    (r"(https?://[^\s\"'<>?]{0,2000})\?[^\s\"'<>]*", r"\1?..."),
)


def redact(text: str) -> str:
    """Remove what must not be shown: keys, data URIs, URL queries (they sign links) and URL passwords."""
    for pattern, replacement in _SECRETS:
        text = re.sub(pattern, replacement, text)
    return text


def whole_characters(text: str) -> str:
    """A text that UTF-8 can carry. JSON may hold halves of a character (``"\\ud83d"``): tokens of a language model end
    where they like. One such half in a trigger's event would end Airflow's triggerer.

    Halves that have come together are one character again, others are replaced by U+FFFD.
    """
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def excerpt(text: str, limit: int = EXCERPT_CHARACTERS) -> str:
    """One redacted line of at most ``limit`` characters, for messages.

    Redaction comes first: a key that is cut in half would no longer be recognised.
    """
    text = " ".join(redact(whole_characters(text)).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
