"""One prediction: what it looks like at a given moment, in both shapes CometAPI has used."""

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
RUNNING = {"starting": "QUEUED", "processing": "IN_PROGRESS"}


def iso(moment: float) -> str:
    """The API's spelling of a moment: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def checked_pins(fields: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(fields) - PINNABLE
    if unknown or not fields:
        raise ValueError(f"give some of {', '.join(sorted(PINNABLE))}; not {', '.join(sorted(unknown)) or 'nothing'}")
    if not isinstance(fields.get("status", ""), str):
        raise ValueError("status must be a string")
    return dict(fields)


@dataclass
class Prediction:
    """One accepted request. What it looks like follows from the time, unless a test pinned a field."""

    model: Model
    input: dict[str, Any]
    created: float
    started: float
    completed: float
    id: str = field(default_factory=lambda: base64.b32encode(uuid.uuid4().bytes).decode().lower().rstrip("="))
    pinned: dict[str, Any] = field(default_factory=dict)

    def pin(self, fields: Mapping[str, Any], now: float) -> None:
        was_over = self.status(now) in TERMINAL
        self.pinned.update(checked_pins(fields))
        if fields.get("status") in TERMINAL and not was_over:
            self.started = min(self.started, now)
            self.completed = now

    @property
    def prompt(self) -> str:
        return str(self.input["prompt"])

    @property
    def seed(self) -> str:
        """The asked seed, or one of its own, so that the same picture comes back each time it is fetched."""
        seed = self.input.get("seed")
        return str(int(hashlib.sha256(self.id.encode()).hexdigest()[:8], 16) if seed is None else seed)

    @property
    def extension(self) -> str:
        asked = self.input.get("output_format")
        return asked if isinstance(asked, str) and asked in FORMATS else "webp"

    @property
    def files(self) -> int:
        """How many pictures this prediction makes."""
        if self.model.output != "urls":
            return int(self.model.output == "url")
        asked = self.input.get("num_outputs")
        return min(4, max(1, asked)) if isinstance(asked, int) else 1

    def status(self, now: float) -> str:
        if "status" in self.pinned:
            return str(self.pinned["status"])
        if now < self.completed:
            return "processing" if now >= self.started else "starting"
        return "failed" if "nsfw" in self.prompt.lower() else "succeeded"

    def delivers(self, now: float, retention: float) -> bool:
        """Whether the files can still be fetched."""
        if self.pinned.get("data_removed"):
            return False
        made = self.status(now) == "succeeded" or self.pinned.get("output") is not None
        return made and self.completed <= now < self.completed + retention

    def tokens(self, now: float) -> list[str]:
        """A language model's output grows while it is still processing: a trap for whoever goes by the output."""
        words = ["\n\n", "You said:", *(f" {word}" for word in self.prompt.split())]
        run = self.completed - self.started
        share = 1.0 if now >= self.completed or run <= 0 else max(0.0, (now - self.started) / run)
        return words[: int(len(words) * share)]


def create_answer(prediction: Prediction) -> dict[str, Any]:
    """The documented answer to a create: accepted, nothing made yet."""
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
        # The real ones point at Replicate too. Never to be called with a CometAPI key.
        "urls": {
            "cancel": f"https://api.replicate.com/v1/predictions/{prediction.id}/cancel",
            "get": f"https://api.replicate.com/v1/predictions/{prediction.id}",
            "stream": f"https://stream.replicate.com/v1/files/{prediction.id}",
            "web": f"https://replicate.com/p/{prediction.id}",
        },
    }


def query_answer(prediction: Prediction, now: float, retention: float, origin: str) -> dict[str, Any]:
    """A plain Replicate prediction as it stands `now`."""
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
        urls = [f"{origin}/delivery/{prediction.id}/{n}.{prediction.extension}" for n in range(prediction.files)]
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
    """The task envelope that CometAPI has also put around the same prediction."""
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
