"""Show a server's words: without secrets, without characters that act on a terminal or a log, and short.

The patterns are linear, because a server chooses what they read: a megabyte of "data:data:..." must not block the
process. They are texts: `re` compiles them when they are first used, and not while DAG files are parsed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable

EXCERPT_CHARACTERS = 300
WORD_CHARACTERS = 80
"""What is shown of a status, a code, a request id or a model's name."""
ID_CHARACTERS = 200
"""A longer prediction id is none: the names of its files would be too long for file systems."""
VALUE_CHARACTERS = 250
"""What is shown of a value in a log line: all of an Airflow id."""
READ_CHARACTERS = 16_000
"""What is read of a text before it is shown. Further on there is nothing that a message has room for."""
_SECRET_CHARACTERS = 2_100
"""Every pattern below recognises a secret by its first so many characters."""

DATA_URI_START = r"(?i)\bdata:(?:[\w.+/;=-]|=\\?[\"'][\w.+-]{0,40}\\?[\"']){0,200},"
"""Matches a data URI up to its content. A parameter may be quoted, and inside JSON its quotes have backslashes."""

_SECRETS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{8,}", "***"),
    (r"(?i)\b(bearer|basic)\s++(?=\S{0,300}[0-9=])[A-Za-z0-9._~+/=-]{8,}", r"\1 ***"),
    (DATA_URI_START + r"[^\s\"'<>]*", "<data URI>"),
    (r"://[^/\s\"'<>]{0,2000}@", "://***@"),
    # Matches links without a query, too: otherwise each "://" of a long word would be tried up to its end.
    (r"(://[^\s\"'<>?]*+)(\?[^\s\"'<>]*+)?", lambda link: link[1] + ("?..." if link[2] else "")),
)
_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control, format and surrogate characters, and of line and paragraph separators."""


def redact(text: str) -> str:
    """Return the start of a text without API keys, data URIs, URL passwords, and URL queries, which sign links."""
    if len(text) > READ_CHARACTERS:
        text = _without_unfinished(text[:READ_CHARACTERS]) + " ..."
    text = whole_characters(text)
    for pattern, replacement in _SECRETS:
        text = re.sub(pattern, replacement, text)
    return text


def _without_unfinished(text: str) -> str:
    """Return a text that was cut without its last word: half a secret would not be recognised."""
    end = re.match(r"(?s)(?:.*[\s\"'<>])?", text[-_SECRET_CHARACTERS:])
    return text[:-_SECRET_CHARACTERS] + (end[0] if end else "")


def whole_characters(text: str) -> str:
    r"""Return a text that UTF-8 can encode: two halves of a surrogate pair are joined, a lone half becomes U+FFFD.

    JSON may hold such halves (``"\ud83d"``), because a language model's tokens can end within a character. A single
    half in a trigger's event would end Airflow's triggerer.
    """
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def printable(text: str) -> str:
    """Return a text with U+FFFD for every character that is not seen but acts.

    These are line breaks, terminal sequences, and the characters that hide text or turn its direction.
    """
    text = whole_characters(text)
    if text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(character) in _NOT_SHOWN else character for character in text)


def excerpt(text: str, limit: int = EXCERPT_CHARACTERS) -> str:
    """Return a text for a message: redacted, printable, on a single line, and with at most ``limit`` characters.

    The text is redacted before it is cut: half a key would no longer be recognised.
    """
    text = printable(" ".join(redact(text).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def log_value(value: object, limit: int = VALUE_CHARACTERS) -> str:
    """Return a value for a log line of the form ``key=value``: a single word.

    What is not a single word becomes a JSON text without blanks, so that nobody can forge a key, or a line.
    """
    text = str(value)
    text = text if len(text) <= limit else text[:limit] + "..."
    if text.isprintable() and text and " " not in text and not text.startswith('"'):
        return text
    return json.dumps(text).replace(" ", "\\u0020").replace("\x7f", "\\u007f")
