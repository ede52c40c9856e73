"""``CometError``, the base of all errors: how an error is shown, and how it crosses from a trigger to a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_provider_comet.api.redaction import EXCERPT_CHARACTERS, ID_CHARACTERS, WORD_CHARACTERS, excerpt

MAX_RETRY_AFTER_SECONDS = 3600.0
"""The longest pause that a server gets. One wrong header must not stop all polls of a connection for a day."""
_TEXTS = ("code", "request_id", "prediction_id")


class CometError(Exception):
    """Base of all errors of this package. Its message says what happened, then what to do.

    :param detail: the server's words, or what was found; kept as a redacted excerpt of at most 300 characters.
    :param status: HTTP status, if there was an answer.
    :param code: ``error.code`` of the answer.
    :param request_id: CometAPI's id of the request; its support asks for it.
    :param prediction_id: the prediction that the error is about.
    :param retry_after: seconds that the server asked us to wait. Of more than an hour, the error keeps an hour, and
        says so.
    """

    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later although nobody changed anything."""
    buys_again: ClassVar[bool] = False
    """Whether a task that creates and waits buys a new prediction at its next try because of this error."""
    summary: ClassVar[str] = "CometAPI call failed"
    next_step: ClassVar[str] = ""
    _types: ClassVar[dict[str, type[CometError]]] = {}

    def __init_subclass__(cls) -> None:
        CometError._types[cls.__name__] = cls

    def __init__(
        self,
        detail: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        prediction_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        note, seconds = "", _seconds(retry_after)
        if seconds is not None and seconds > MAX_RETRY_AFTER_SECONDS:
            note = f" The server asks for a pause of {seconds:g} s and gets {MAX_RETRY_AFTER_SECONDS:g} s."
            seconds = MAX_RETRY_AFTER_SECONDS
        self.detail = (excerpt(detail, EXCERPT_CHARACTERS - len(note)) + note).strip()
        self.status = _http_status(status)
        # Nothing may be left of a text, if it was nothing but blanks.
        self.code = excerpt(code or "", WORD_CHARACTERS) or None
        self.request_id = excerpt(request_id or "", WORD_CHARACTERS) or None
        self.prediction_id = excerpt(prediction_id or "", ID_CHARACTERS) or None
        self.retry_after = seconds
        super().__init__(self.detail)

    def __str__(self) -> str:
        known = {"HTTP": self.status, "code": self.code, "request id": self.request_id}
        facts = ", ".join(f"{name} {value}" for name, value in known.items() if value)
        text = f"Prediction {self.prediction_id}: {self.summary}" if self.prediction_id else self.summary
        text += f" ({facts})" if facts else ""
        text += f": {self.detail}" if self.detail else ""
        text += "" if text.endswith((".", "!", "?")) else "."
        return f"{text} {self.next_step}".rstrip()

    def about(self, prediction_id: object) -> CometError:
        """Set the prediction that this error is about, unless one is set already, and return the error."""
        if self.prediction_id is None and isinstance(prediction_id, str):
            self.prediction_id = excerpt(prediction_id, ID_CHARACTERS)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return JSON for a trigger's event; ``from_dict`` makes an equal error of it."""
        fields = ("detail", "status", *_TEXTS, "retry_after")
        return {"type": type(self).__name__, **{name: getattr(self, name) for name in fields}}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> CometError:
        """Make an error from ``to_dict``'s JSON, of any release.

        Unknown fields are dropped, and so are values of a wrong type; an unknown type becomes a ``CometError``.
        """
        texts = {name: value for name in ("type", "detail", *_TEXTS) if isinstance(value := data.get(name), str)}
        error_class = CometError._types.get(texts.pop("type", ""), CometError)
        return error_class(
            texts.pop("detail", ""), status=data.get("status"), retry_after=data.get("retry_after"), **texts
        )


def _http_status(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 999 else None


def _seconds(value: object) -> float | None:
    """Return a number of seconds; a number that is no time to wait is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
