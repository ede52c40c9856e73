"""Remove secrets from a server's words before they are shown."""

from __future__ import annotations

import re

EXCERPT_CHARACTERS = 300

# The patterns are texts: `re` compiles them when they are first used, and not while DAG files are parsed. Lengths are
# bounded: a server that sends a megabyte of "data:data:..." must not block the process.
DATA_URI_START = r"(?i)\bdata:(?:[\w.+/;=-]|=\\?[\"'][\w.+-]{0,40}\\?[\"']){0,200},"
"""Matches a data URI up to its content. A parameter may be quoted, and inside JSON its quotes have backslashes."""

_SECRETS = (
    (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}", "***"),
    (r"(?i)\b(bearer|basic)\s+(?=\S{0,300}[0-9=])[A-Za-z0-9._~+/=-]{8,}", r"\1 ***"),
    (DATA_URI_START + r"[^\s\"'<>]*", "<data URI>"),
    (r"([A-Za-z0-9+.-]{1,20}://)[^/\s\"'<>]{0,2000}@", r"\1***@"),
    (r"(https?://[^\s\"'<>?]{0,2000})\?[^\s\"'<>]*", r"\1?..."),
)


def redact(text: str) -> str:
    """Return a text without API keys, data URIs, URL passwords, and URL queries, which sign links."""
    for pattern, replacement in _SECRETS:
        text = re.sub(pattern, replacement, text)
    return text


def whole_characters(text: str) -> str:
    r"""Return a text that UTF-8 can encode: two halves of a surrogate pair are joined, a lone half becomes U+FFFD.

    JSON may hold such halves (``"\ud83d"``), because a language model's tokens can end within a character. A single
    half in a trigger's event would end Airflow's triggerer.
    """
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def excerpt(text: str, limit: int = EXCERPT_CHARACTERS) -> str:
    """Return a text for a message: redacted, on a single line, and with at most ``limit`` characters.

    The text is redacted before it is cut: half a key would no longer be recognised.
    """
    text = " ".join(redact(whole_characters(text)).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
