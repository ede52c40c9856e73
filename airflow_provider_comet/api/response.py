"""An answer as it came in, before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

READ_HEADERS = frozenset({"date", "retry-after", "ratelimit-reset", "content-type", "x-cometapi-request-id", "cf-ray"})
"""All that anybody here reads, in lower case."""


@dataclass(frozen=True)
class Response:
    """One answer.

    :param headers: those of ``READ_HEADERS`` that it has.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    @classmethod
    def received(cls, status: int, headers: Mapping[str, str], body: bytes, secret: str) -> Response:
        """Take an answer in. If a server echoes the key, it goes here, at the door: no XCom or log can hold it then."""

        # What is this short is no key (the emulator takes any), and removing it would tear words apart.
        hidden = secret if len(secret) > 5 else ""
        text = body.decode("utf-8-sig", "replace")
        if ("\\u" in text or "\\/" in text) and (content := _load(text)) is not None:
            text = json.dumps(content, ensure_ascii=False)  # without needless escapes, which could hide a key
        kept = {name: value for given, value in headers.items() if (name := given.lower()) in READ_HEADERS}
        if hidden and hidden in text:
            text = text.replace(hidden, "***")
        if hidden and hidden in " ".join(kept.values()):
            kept = {name: value.replace(hidden, "***") for name, value in kept.items()}
        return cls(status, kept, text)

    @property
    def is_html(self) -> bool:
        """A web page, by its content type or its first characters."""
        start = self.text[:100].lstrip().lower()
        is_labelled = "text/html" in self.headers.get("content-type", "") and self.json is None
        return is_labelled or start.startswith(("<!doctype html", "<html"))

    @property
    def json(self) -> Any:
        """The body, or ``None`` if it is no JSON."""
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


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def seconds_to_wait(hint: object, date: str | None) -> float | None:
    """What a hint of a server asks for: seconds, or a date, which is compared with the server's own clock.

    :param date: the answer's ``Date`` header.
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
