"""What the simulated CometAPI may answer instead of what it should: one row per fault.

Each answer is one that ``docs/errors-and-retries.md`` speaks of. ``accepts`` is what really becomes of a create, which
the product can't know; ``proof`` is whether the answer tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENVELOPE = {"error": {"message": "no available channel", "type": "new_api_error", "code": "model_not_found"}}


@dataclass(frozen=True)
class Answer:
    """A fault of one request.

    :param accepts: whether a create takes effect.
    :param status: the HTTP status; 0: there is no answer, the connection breaks.
    :param body: JSON, or a text; ``{id}`` in it is the prediction's id.
    :param seconds: how long the answer takes. More than the read timeout: there is none.
    :param is_sent: whether the request leaves at all.
    :param proves: whether the product may know that nothing was accepted.
    :param passes: whether trouble of this kind may pass: a retry is of use.
    """

    accepts: bool
    status: int = 0
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.4
    is_sent: bool = True
    proves: bool = False
    passes: bool = True

    def content(self, prediction_id: str | None) -> bytes:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.replace("{id}", prediction_id or "").encode()


def _error(message: str, code: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": "comet_api_error", "code": code}}


PAGE = "<html><head><title>502 Bad Gateway</title></head><body></body></html>"

POSTS: dict[str, Answer] = {
    # Not accepted, and the answer proves it.
    "not_connected": Answer(False, is_sent=False, proves=True, seconds=0.1),
    "throttled": Answer(False, 429, _error("slow down"), {"Retry-After": "7"}, proves=True),
    "throttled_long": Answer(False, 429, _error("slow down"), {"Retry-After": "300"}, proves=True),
    "no_channel": Answer(False, 503, _error("no available channel", "get_channel_failed"), proves=True),
    "bad_request": Answer(False, 400, _error("width must be positive"), proves=True, passes=False),
    "bad_key": Answer(False, 401, _error("invalid token"), proves=True, passes=False),
    "no_balance": Answer(False, 402, _error("balance exhausted"), proves=True, passes=False),
    "forbidden": Answer(False, 403, _error("forbidden"), proves=True, passes=False),
    "unknown_model": Answer(False, 404, _error("no such model"), proves=True, passes=False),
    "too_large": Answer(False, 413, _error("too large"), proves=True, passes=False),
    # Nobody knows.
    "lost_before": Answer(False, seconds=1.0),
    "lost_after": Answer(True, seconds=1.0),
    "gateway_before": Answer(False, 504, PAGE, seconds=60.0),
    "gateway_after": Answer(True, 504, PAGE, seconds=60.0),
    "proxy_before": Answer(False, 503, "upstream connect error", seconds=2.0),
    "proxy_after": Answer(True, 503, "upstream connect error", seconds=2.0),
    "broken_before": Answer(False, 500, PAGE),
    "broken_after": Answer(True, 500, PAGE),
    "endless_before": Answer(False, seconds=1e9),
    "endless_after": Answer(True, seconds=1e9),
    "redirected": Answer(True, 303, ""),
    "empty": Answer(True, 200, ""),
    "no_id": Answer(True, 200, {"status": "starting"}),
    "page": Answer(True, 200, "<!doctype html><title>Welcome</title>"),
    "cut_off": Answer(True, 201, '{"id": "{id'),
    "number_id": Answer(True, 201, {"id": 12345, "status": "starting"}),
    # Accepted, and the answer says so, late or oddly.
    "late": Answer(True, 201, {"id": "{id}", "status": "starting"}, seconds=50.0),
    "wrapped": Answer(True, 200, {"code": "success", "data": {"task_id": "{id}", "status": "NOT_START"}}),
    "unusable_id": Answer(True, 201, {"id": "{id} of today", "status": "starting"}),
    "echoes_key": Answer(True, 201, {"id": "{id}", "status": "starting", "logs": "Bearer {key}"}),
}
"""Answers to a create. ``before`` and ``after``: whether it was accepted, of answers that are alike."""

GETS: dict[str, Answer] = {
    "throttled": Answer(False, 429, _error("slow down"), {"Retry-After": "20"}),
    "throttled_long": Answer(False, 429, _error("slow down"), {"Retry-After": "900"}),
    "broken": Answer(False, 500, PAGE),
    "gateway": Answer(False, 504, PAGE, seconds=60.0),
    "no_channel": Answer(False, 503, _error("no available channel", "get_channel_failed")),
    "lost": Answer(False, seconds=1.0),
    "endless": Answer(False, seconds=1e9),
    "slow": Answer(True, 200, seconds=20.0),
    "cut_off": Answer(False, 200, '{"id": "{id'),
    # Odd answers, of which a minute is waited out.
    "unknown": Answer(False, 404, _error("task not exist", "task_not_exist"), passes=False),
    "page": Answer(False, 200, "<!doctype html><title>Welcome</title>", passes=False),
    "bad_request": Answer(False, 400, _error("bad request"), passes=False),
    "redirected": Answer(False, 302, "", passes=False),
    # A key that is refused for less than ten minutes may be about to be replaced.
    "bad_key": Answer(False, 401, _error("invalid token"), passes=False),
    "forbidden": Answer(False, 403, _error("forbidden"), passes=False),
    "odd_status": Answer(False, 200, {"id": "{id}", "status": "meditating", "output": None}),
    "no_status": Answer(False, 200, {"code": "success", "data": None}, passes=False),
}
"""Answers to a poll. ``accepts``: the truth follows, only late."""

ENDS: dict[str, dict[str, Any]] = {
    "succeeded": {"status": "succeeded"},
    "out_of_memory": {"status": "failed", "error": "CUDA out of memory"},
    "failed": {"status": "failed", "error": "the model gave up"},
    "failed_oddly": {"status": "failed", "error": "the model gave up: {id}"},
    "refused": {"status": "failed", "error": "NSFW content detected. Try a different prompt."},
    "canceled": {"status": "canceled"},
    "aborted": {"status": "aborted"},
    "empty": {"status": "succeeded", "output": []},
    "removed": {"status": "succeeded", "output": None, "data_removed": True},
}
"""How a prediction may end. All but ``succeeded`` are bad ends."""

BOUGHT_AGAIN = {"out_of_memory", "failed", "failed_oddly", "canceled", "aborted"}
"""Bad ends after which a retry of a create that waits buys a new prediction."""
NAMELESS = {"number_id", "no_id", "empty", "page", "cut_off", "redirected"}
