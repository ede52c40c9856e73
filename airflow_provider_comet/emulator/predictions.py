"""The state of a prediction at a moment, in both shapes in which CometAPI has answered queries."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from airflow_provider_comet.emulator.catalog import Model
from airflow_provider_comet.emulator.pictures import FORMATS

Wire = Literal["flat", "wrapped"]

PINNABLE = frozenset({"status", "output", "error", "logs", "metrics", "data_removed"})
NSFW = "NSFW content detected. Try running it again, or try a different prompt."
TERMINAL = {"succeeded": "SUCCESS", "failed": "FAILURE", "canceled": "FAILURE", "aborted": "FAILURE"}
EXPIRES = "expires"
"""The query parameter of a link that can be used until then, in seconds since 1970."""
RUNNING = {"starting": "QUEUED", "processing": "IN_PROGRESS"}


def iso(moment: float) -> str:
    """Return a moment as the API writes it: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def checked_pins(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the fields.

    :raises ValueError: if there are none, if one of them can't be pinned, or if the status is not a string.
    """
    unknown = set(fields) - PINNABLE
    if unknown or not fields:
        raise ValueError(f"give some of {', '.join(sorted(PINNABLE))}; not {', '.join(sorted(unknown)) or 'nothing'}")
    if not isinstance(fields.get("status", ""), str):
        raise ValueError("status must be a string")
    return dict(fields)


@dataclass
class Prediction:
    """An accepted create. Its state follows from the time, except for the fields that a test has pinned.

    :param model: the model of the catalog.
    :param input: the input of the create.
    :param created: when it was accepted; all times are in seconds since 1970.
    :param started: when it starts processing.
    :param completed: when it ends.
    :param id: 26 lower-case letters and digits, as CometAPI's ids.
    :param pinned: fields with which every query answers, whatever the time.
    """

    model: Model
    input: dict[str, Any]
    created: float
    started: float
    completed: float
    id: str = field(default_factory=lambda: base64.b32encode(uuid.uuid4().bytes).decode().lower().rstrip("="))
    pinned: dict[str, Any] = field(default_factory=dict)

    def pin(self, fields: Mapping[str, Any], now: float) -> None:
        """Pin fields; a terminal status ends a prediction that has not ended yet."""
        was_terminal = self.status(now) in TERMINAL
        self.pinned.update(checked_pins(fields))
        if fields.get("status") in TERMINAL and not was_terminal:
            self.started = min(self.started, now)
            self.completed = now

    @property
    def prompt(self) -> str:
        """The prompt of the input."""
        return str(self.input["prompt"])

    @property
    def seed(self) -> str:
        """The seed of the input, or a number that follows from the id: the picture is the same in every download."""
        seed = self.input.get("seed")
        return str(int(hashlib.sha256(self.id.encode()).hexdigest()[:8], 16) if seed is None else seed)

    @property
    def extension(self) -> str:
        """The extension of its files: the input's output_format, or webp."""
        output_format = self.input.get("output_format")
        return output_format if isinstance(output_format, str) and output_format in FORMATS else "webp"

    @property
    def files(self) -> int:
        """How many pictures this prediction makes."""
        if self.model.output != "urls":
            return int(self.model.output == "url")
        num_outputs = self.input.get("num_outputs")
        return min(4, max(1, num_outputs)) if isinstance(num_outputs, int) else 1

    def status(self, now: float) -> str:
        """Return the pinned status, or else what follows from the time."""
        if "status" in self.pinned:
            return str(self.pinned["status"])
        if now < self.completed:
            return "processing" if now >= self.started else "starting"
        return "failed" if "nsfw" in self.prompt.lower() else "succeeded"

    def delivers(self, now: float, retention: float) -> bool:
        """Return whether the files can be fetched."""
        if self.pinned.get("data_removed"):
            return False
        has_output = self.status(now) == "succeeded" or self.pinned.get("output") is not None
        return has_output and self.completed <= now < self.completed + retention

    def tokens(self, now: float) -> list[str]:
        """Return the part of a language model's text that is finished.

        It grows while the prediction is processing, so a client must not take an output for the end.
        """
        words = ["\n\n", "You said:", *(f" {word}" for word in self.prompt.split())]
        seconds = self.completed - self.started
        share = 1.0 if now >= self.completed or seconds <= 0 else max(0.0, (now - self.started) / seconds)
        return words[: int(len(words) * share)]


def create_answer(prediction: Prediction) -> dict[str, Any]:
    """Return the documented answer to a create: the prediction is accepted and has no output yet."""
    return {
        "id": prediction.id,
        "model": prediction.model.name,
        "version": "hidden",
        "input": prediction.input,
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "starting",
        "created_at": iso(prediction.created),
        # CometAPI's URLs point at Replicate too. They must never be called with a CometAPI key.
        "urls": {
            "cancel": f"https://api.replicate.com/v1/predictions/{prediction.id}/cancel",
            "get": f"https://api.replicate.com/v1/predictions/{prediction.id}",
            "stream": f"https://stream.replicate.com/v1/files/{prediction.id}",
            "web": f"https://replicate.com/p/{prediction.id}",
        },
    }


def query_answer(
    prediction: Prediction, now: float, retention: float, origin: str, link_seconds: float | None = None
) -> dict[str, Any]:
    """Return the prediction at `now` in the plain shape, as Replicate answers queries.

    :param link_seconds: how long the links of this answer can be used.
    """
    answer = create_answer(prediction)
    status = prediction.status(now)
    answer["status"] = status
    tokens = prediction.model.output == "tokens"
    if status != "starting":
        answer["started_at"] = iso(prediction.started)
        answer["logs"] = f"Using seed: {prediction.seed}\n"
        if tokens and status == "processing":
            answer["output"] = prediction.tokens(now) or None
    if status in TERMINAL:
        answer["completed_at"] = iso(prediction.completed)
        answer["metrics"] = {"predict_time": round(prediction.completed - prediction.started, 3)}
    if status == "failed":
        answer["error"] = NSFW if "nsfw" in prediction.prompt.lower() else "Prediction failed."
    if status == "succeeded":
        query = "" if link_seconds is None else f"?{EXPIRES}={now + link_seconds:.3f}"
        folder = f"{origin}/delivery/{prediction.id}"
        urls = [f"{folder}/{n}.{prediction.extension}{query}" for n in range(prediction.files)]
        if tokens:
            answer["output"] = prediction.tokens(now)
        else:
            answer["output"] = urls if prediction.model.output == "urls" else urls[0]
            answer["metrics"]["image_count"] = prediction.files
    answer.update(prediction.pinned)
    if status in TERMINAL and now >= prediction.completed + retention:
        answer.update(output=None, data_removed=True)
    elif answer["data_removed"] and "output" not in prediction.pinned:
        answer["output"] = None
    return answer


def wrap(prediction: Prediction, answer: dict[str, Any], now: float) -> dict[str, Any]:
    """Return the answer to a query in the task envelope, CometAPI's other shape."""
    status = TERMINAL.get(answer["status"]) or RUNNING.get(answer["status"], "UNKNOWN")
    progress = {"QUEUED": "0%", "SUCCESS": "100%", "FAILURE": "100%"}.get(status, "50%")
    return {
        "code": "success",
        "message": "",
        "data": {
            "task_id": prediction.id,
            "action": "generate",
            "status": status,
            "fail_reason": (answer["error"] or "") if status == "FAILURE" else "",
            "submit_time": int(prediction.created),
            "start_time": int(prediction.started) if now >= prediction.started else 0,
            "finish_time": int(prediction.completed) if answer["status"] in TERMINAL else 0,
            "progress": progress,
            "data": answer,
        },
    }
