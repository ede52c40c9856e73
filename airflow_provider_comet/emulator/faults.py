"""Answers that go wrong on purpose: errors, delays and connections that break before or after the work is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DELIVERY = "/delivery/"


@dataclass
class Damage:
    """What is wrong with a file that is delivered: nothing, unless set.

    `cut` closes the connection after this share (0 up to, not including, 1) of what was to be sent. `content_type` and
    `content_length` are claimed in place of the true ones: of a longer length the rest never comes and the connection
    is closed, at a shorter one the file ends. `slow` is bytes per second.
    """

    cut: float | None = None
    content_type: str | None = None
    content_length: int | None = None
    slow: float | None = None

    def __post_init__(self) -> None:
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
        """Whether anything is wrong at all."""
        return any(value is not None for value in (self.cut, self.content_type, self.content_length, self.slow))


@dataclass
class Fault(Damage):
    """What to do to the next `count` requests whose method and path match.

    With a `status` the fault answers in place of CometAPI and nothing is accepted, unless `accept` is set: then the
    request takes effect first and only its answer is replaced. `drop` closes the connection instead of answering,
    "before" or "after" the request took effect. `delay` waits: before the request takes effect, or (with `accept` or
    drop "after") between effect and answer. With a field of :class:`Damage` it matches nothing but deliveries of files.
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
        """A fault that would silently do nothing, or break the emulator, is a mistake in the test: say so."""
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
        """Accept the JSON of the control endpoint, where null means "the default" as often as it means null."""
        unknown = set(fields) - {item.name for item in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown field(s): {', '.join(sorted(unknown))}")
        values = {name: value for name, value in fields.items() if value is not None or name == "count"}
        try:
            return cls(**values)
        except (AttributeError, TypeError) as error:  # a number where a text belongs, or the reverse
            raise ValueError(f"wrong type in fault: {error}") from None

    @property
    def takes_effect_first(self) -> bool:
        """Whether the request is carried out although its answer gets lost or replaced."""
        return self.accept or self.drop == "after"

    def matches(self, method: str, path: str) -> bool:
        if self.damages and not (method == "GET" and path.startswith(DELIVERY)):
            return False
        return self.method in {None, method} and (self.path is None or self.path in path)

    def answer(self, request_id: str) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the faulty answer, with the request id filled in."""
        if self.body is None:
            text, kind = "", "text/plain"
        elif isinstance(self.body, str):
            text, kind = self.body, "text/html" if self.body.startswith("<") else "text/plain"
        else:
            text, kind = json.dumps(self.body), "application/json"
        headers = {"content-type": kind, "x-cometapi-request-id": request_id}
        headers.update({
            name.lower(): value.replace("{request_id}", request_id) for name, value in self.headers.items()
        })
        return text.replace("{request_id}", request_id).encode(), headers


class Faults:
    """The queue of faults still to come: the first that matches wins and is used up once per request."""

    def __init__(self) -> None:
        self._queue: list[Fault] = []

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, fault: Fault) -> None:
        self._queue.append(fault)

    def clear(self) -> None:
        self._queue.clear()

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self._queue:
            if fault.matches(method, path):
                if fault.count is not None:
                    fault.count -= 1
                    if not fault.count:
                        self._queue.remove(fault)
                return fault
        return None
