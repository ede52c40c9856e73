"""``Response``: an HTTP response without the API key, before its meaning is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

KEPT_HEADERS = frozenset({"date", "retry-after", "ratelimit-reset", "content-type", "x-cometapi-request-id", "cf-ray"})
"""The headers that this package reads, in lower case."""
MIN_KEY_CHARACTERS = 6
"""A shorter key is not real (the emulator takes any), and to remove it would garble the text."""


@dataclass(frozen=True)
class Response:
    """An HTTP response.

    :param status: the HTTP status.
    :param headers: the headers of ``KEPT_HEADERS`` that were sent, by lower-case name.
    :param text: the body.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    @classmethod
    def received(cls, status: int, headers: Mapping[str, str], body: bytes, secret: str) -> Response:
        """Return a response from which the API key is removed, in case the server echoes it.

        Everything that the server says passes through here, so no XCom or log can hold the key.

        :param headers: all headers of the response.
        :param secret: the API key.
        """
        text = body.decode("utf-8-sig", "replace")
        if ("\\u" in text or "\\/" in text) and (content := _load(text)) is not None:
            text = json.dumps(content, ensure_ascii=False)  # without needless escapes, which could hide a key
        kept = {lower: value for name, value in headers.items() if (lower := name.lower()) in KEPT_HEADERS}
        if len(secret) >= MIN_KEY_CHARACTERS:
            text = text.replace(secret, "***")
            kept = {name: value.replace(secret, "***") for name, value in kept.items()}
        return cls(status, kept, text)

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page, by its content type or its first characters."""
        start = self.text[:100].lstrip().lower()
        is_labelled = "text/html" in self.headers.get("content-type", "") and self.json is None
        return is_labelled or start.startswith(("<!doctype html", "<html"))

    @property
    def json(self) -> Any:
        """The parsed body, or ``None`` if it is not JSON."""
        return _load(self.text)

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
    """Return how long a server asks to wait, between 0 and 86,400 seconds, or ``None`` if the hint can't be read.

    :param hint: seconds, or a date, which is compared with the server's own clock.
    :param date: the response's ``Date`` header.
    """
    if hint is None or isinstance(hint, bool):
        return None
    try:
        return max(0.0, min(float(hint), 86_400.0)) if isinstance(hint, (int, float, str)) else None
    except OverflowError:
        return 86_400.0
    except ValueError:
        pass
    try:
        wait = parsedate_to_datetime(str(hint)) - parsedate_to_datetime(str(date))
    except (TypeError, ValueError):
        return None
    return max(0.0, min(wait.total_seconds(), 86_400.0))


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
