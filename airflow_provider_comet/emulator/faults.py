"""Deliberate faults: errors, delays and connections that break before or after a request took effect."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DELIVERY = "/delivery/"


@dataclass
class Damage:
    """What is wrong with the delivery of a file; nothing by default.

    :param cut: close the connection after this share of the bytes, at least 0 and less than 1.
    :param content_type: the media type to claim in place of the real type.
    :param content_length: the length to claim in place of the real length. If it is longer, the connection closes where
        the file ends; if it is shorter, the file ends there.
    :param slow: bytes per second.
    """

    cut: float | None = None
    content_type: str | None = None
    content_length: int | None = None
    slow: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.cut is not None and not 0 <= self.cut < 1:
            raise ValueError(f"cut must be at least 0 and less than 1, not {self.cut}")
        if not isinstance(self.content_type, str | None):
            raise TypeError("content_type must be a string")
        if not isinstance(self.content_length, int | None):
            raise TypeError("content_length must be a whole number")
        if self.content_length is not None and self.content_length < 0:
            raise ValueError("content_length must not be negative")
        if self.slow is not None and not self.slow > 0:
            raise ValueError("slow must be more than 0 bytes per second")

    @property
    def damages(self) -> bool:
        """Whether anything is wrong with a delivery."""
        return any(value is not None for value in (self.cut, self.content_type, self.content_length, self.slow))


@dataclass
class Fault(Damage):
    """What goes wrong with the next requests that match.

    With a field of :class:`Damage`, a fault matches only deliveries of files.

    :param method: the HTTP method; any by default.
    :param path: a part of the path; any by default.
    :param count: how many requests it applies to; `None` for all until it is cleared.
    :param status: answer with this status, and nothing takes effect.
    :param body: the body of that answer: JSON or a text.
    :param headers: more headers of that answer.
    :param delay: seconds to wait: before the request takes effect or, with `accept` or `drop="after"`, before its
        answer.
    :param drop: close the connection without an answer, `"before"` or `"after"` the request took effect.
    :param accept: the request takes effect all the same, and `status` only replaces its answer.
    """

    method: str | None = None
    path: str | None = None
    count: int | None = 1
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: str | None = None
    accept: bool = False

    def __post_init__(self) -> None:
        """Refuse a fault that would do nothing or break the emulator: it is a mistake in the test."""
        super().__post_init__()
        if not isinstance(self.path, str | None):
            raise TypeError("path must be a string")
        if not all(isinstance(value, str) for value in self.headers.values()):
            raise TypeError("header values must be strings")
        if self.method is not None:
            self.method = self.method.upper()
        if self.status is None and self.drop is None and not self.delay and not self.damages:
            raise ValueError(
                "a fault needs at least one of status, drop, delay, cut, content_type, content_length and slow"
            )
        if self.damages and (self.status is not None or self.drop is not None):
            raise ValueError("cut, content_type, content_length and slow need a file, which status and drop prevent")
        if self.status is None and (self.body is not None or self.headers or self.accept):
            raise ValueError("body, headers and accept need a status")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be between 200 and 599, not {self.status}")
        if self.drop not in {None, "before", "after"}:
            raise ValueError(f'drop must be "before", "after" or null, not {self.drop!r}')
        if self.drop is not None and self.status is not None:
            raise ValueError("a fault either answers (status) or breaks the connection (drop)")
        if self.count is not None and self.count < 1:
            raise ValueError("count must be at least 1, or null for ever")
        if self.delay < 0:
            raise ValueError("delay must not be negative")

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Fault:
        """Create a fault from JSON; null stands for the default of every field but `count`."""
        unknown = set(fields) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown field(s): {', '.join(sorted(unknown))}")
        values = {name: value for name, value in fields.items() if value is not None or name == "count"}
        try:
            return cls(**values)
        except (AttributeError, TypeError) as error:  # a number where a text belongs, or the reverse
            raise ValueError(f"wrong type in fault: {error}") from None

    @property
    def takes_effect_first(self) -> bool:
        """Whether the request takes effect although its answer is lost or replaced."""
        return self.accept or self.drop == "after"

    def matches(self, method: str, path: str) -> bool:
        """Return whether the fault applies to a request."""
        if self.damages and not (method == "GET" and path.startswith(DELIVERY)):
            return False
        return self.method in {None, method} and (self.path is None or self.path in path)

    def answer(self, request_id: str) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of the faulty answer, with the request id filled in."""
        if self.body is None:
            text, content_type = "", "text/plain"
        elif isinstance(self.body, str):
            text, content_type = self.body, "text/html" if self.body.startswith("<") else "text/plain"
        else:
            text, content_type = json.dumps(self.body), "application/json"
        headers = {"content-type": content_type, "x-cometapi-request-id": request_id}
        headers.update({
            name.lower(): value.replace("{request_id}", request_id) for name, value in self.headers.items()
        })
        return text.replace("{request_id}", request_id).encode(), headers


class Faults:
    """The queue of faults: the first fault that matches a request applies, and its count goes down by one."""

    def __init__(self) -> None:
        """Start without faults."""
        self._queue: list[Fault] = []

    def __len__(self) -> int:
        """Return how many faults are waiting."""
        return len(self._queue)

    def add(self, fault: Fault) -> None:
        """Append a fault."""
        self._queue.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._queue.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """Return the fault that applies to a request, if any, and count it."""
        for fault in self._queue:
            if fault.matches(method, path):
                if fault.count is not None:
                    fault.count -= 1
                    if not fault.count:
                        self._queue.remove(fault)
                return fault
        return None
