"""The state of the emulator: the accepted predictions, the preset outcomes and the ledger of requests."""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_comet.emulator.catalog import Model
from airflow_provider_comet.emulator.predictions import Prediction, checked_pins

MAX_LEDGER_REQUESTS = 100_000


class Store:
    """All state of an emulator. It is not thread-safe: only the server's event loop uses it.

    :param duration: seconds that every prediction takes, or the least and the most of them; by default each model has a
        duration of its own.
    :param retention: seconds after completion at which output and files disappear.
    :param link_seconds: how long the links of an answer can be used; by default until the files disappear.
    :param clock: returns the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        duration: float | tuple[float, float] | None = None,
        retention: float = 3600.0,
        link_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty."""
        self.duration = duration
        self.retention = retention
        self.link_seconds = link_seconds
        self.clock = clock
        self.outcomes: deque[dict[str, Any]] = deque()
        self.clear()

    def clear(self) -> None:
        """Forget the predictions and the ledger."""
        self.predictions: dict[str, Prediction] = {}
        self.creates: list[dict[str, Any]] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=MAX_LEDGER_REQUESTS)
        self.served: list[dict[str, Any]] = []

    def create(self, model: Model, input: dict[str, Any]) -> Prediction:
        """Accept a create."""
        now, seconds = self.clock(), self._seconds(model)
        prediction = Prediction(model, input, now, now + min(0.5, seconds / 5), now + seconds)
        if self.outcomes:
            prediction.pin(self.outcomes.popleft(), now)
        self.predictions[prediction.id] = prediction
        self.creates.append({"id": prediction.id, "model": model.name, "input": input, "at": now})
        return prediction

    def _seconds(self, model: Model) -> float:
        if isinstance(self.duration, tuple):  # the nth create takes the same time in each run of a test
            return random.Random(len(self.creates)).uniform(*self.duration)
        return model.seconds if self.duration is None else self.duration

    def created_within(self, seconds: float) -> int:
        """Return how many creates were accepted in the last `seconds`."""
        since = self.clock() - seconds
        return sum(1 for _ in itertools.takewhile(lambda create: create["at"] > since, reversed(self.creates)))

    def preset_outcome(self, fields: Mapping[str, Any], count: int = 1) -> None:
        """Pin fields of the next `count` predictions."""
        if count < 1:
            raise ValueError("count must be at least 1")
        self.outcomes.extend(checked_pins(fields) for _ in range(count))

    def ledger(self) -> dict[str, Any]:
        """Return a copy of the ledger."""
        return {
            "accepted": len(self.creates),
            "creates": list(self.creates),
            "requests": [dict(entry) for entry in self.requests],
            "served": [dict(entry) for entry in self.served],
        }
