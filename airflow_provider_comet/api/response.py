"""``Response``: an HTTP response without the API key, before its meaning is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

KEPT_HEADERS = frozenset({"date", "retry-after", "ratelimit-reset", "content-type", "x-cometapi-request-id", "cf-ray"})
"""The headers that this package reads, in lower case."""
MIN_KEY_CHARACTERS = 6
"""A shorter key is not real (the emulator takes any), and to remove it would garble the text."""
SMALL_BYTES = 64 * 1024
"""A body of at most this size is parsed, and its values are read, within milliseconds: an event loop can do it."""
MAX_TEXT_CHARACTERS = 50_000
"""What is kept of a body as text, which is only read for the message of an error."""


@dataclass(frozen=True)
class Response:
    """An HTTP response.

    :param status: the HTTP status.
    :param headers: the headers of ``KEPT_HEADERS`` that were sent, by lower-case name.
    :param text: the body's first ``MAX_TEXT_CHARACTERS``.
    :param json: the whole body, parsed, or ``None`` if it is not JSON.
    :param size: bytes of the whole body, unpacked.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    json: Any = field(repr=False)
    size: int = field(default=0, compare=False)

    @classmethod
    def received(cls, status: int, headers: Mapping[str, str], body: bytes, secret: str) -> Response:
        """Return a response from which the API key is removed, in case the server echoes it.

        Everything that the server says passes through here, so no XCom or log can hold the key.

        :param headers: all headers of the response.
        :param secret: the API key.
        """
        text = body.decode("utf-8-sig", "replace")
        content = _load(text)
        if content is not None and ("\\u" in text or "\\/" in text):
            text = json.dumps(content, ensure_ascii=False)  # without needless escapes, which could hide a key
        kept = {lower: value for name, value in headers.items() if (lower := name.lower()) in KEPT_HEADERS}
        if len(secret) >= MIN_KEY_CHARACTERS:
            kept = {name: value.replace(secret, "***") for name, value in kept.items()}
            if secret in text:
                text = text.replace(secret, "***")
                content = _load(text)
        return cls(status, kept, text[:MAX_TEXT_CHARACTERS], content, len(body))

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page, by its content type or its first characters."""
        start = self.text[:100].lstrip().lower()
        is_labelled = "text/html" in self.headers.get("content-type", "") and self.json is None
        return is_labelled or start.startswith(("<!doctype html", "<html"))

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait: ``Retry-After`` (seconds or a date), the body's ``retry_after``, or ``ratelimit-reset``."""
        in_body = self.json.get("retry_after") if isinstance(self.json, Mapping) else None
        for hint in (self.headers.get("retry-after"), in_body, self.headers.get("ratelimit-reset")):
            seconds = seconds_to_wait(hint, self.headers.get("date"))
            if seconds is not None:
                return seconds
        return None


def seconds_to_wait(hint: object, date: str | None) -> float | None:
    """Return how long a server asks to wait, 0 or more seconds, or ``None`` if the hint can't be read.

    How much of it is obeyed, ``CometError`` decides.

    :param hint: seconds, or a date, which is compared with the server's own clock.
    :param date: the response's ``Date`` header.
    """
    if isinstance(hint, bool) or not isinstance(hint, (int, float, str)):
        return None
    try:
        seconds = float(hint)
    except OverflowError:
        seconds = math.inf
    except ValueError:
        try:
            wait = parsedate_to_datetime(str(hint)) - parsedate_to_datetime(str(date))
        except (TypeError, ValueError, OverflowError):  # OverflowError: a year of ten digits
            return None
        seconds = wait.total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)


def _load(text: str) -> Any:
    """Return the parsed text, or ``None`` if it is no JSON, or nested more deeply than Python can parse."""
    try:
        return _parse(text)
    except (ValueError, RecursionError):
        return None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer has more digits than Python converts
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | str:
    """Return a number, or its digits as text: a float could be infinite, for which JSON has no form."""
    try:
        return int(digits)
    except ValueError:
        return digits
