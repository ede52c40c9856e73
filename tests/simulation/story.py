"""A story: which tasks there are, and what happens to them. A list of events that a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Event = dict[str, Any]

EFFECTS = {
    "create": (
        *("store.set", "store.get", "send", "receive", "log", "xcom.push", "lock", "state", "connection", "get"),
        "clock",
    ),
    "wait": ("get", "log", "xcom.push", "lock", "state", "connection", "clock"),
    "store": ("file", "download", "log", "lock", "xcom.push", "state", "connection", "get", "clock"),
}
"""The effects at which a process can be struck, by task."""

STRIKES = ("kill", "interrupt", "terminate", "give_up", "stall")
"""What happens to a process at one of its effects."""


@dataclass(frozen=True)
class Story:
    """What happens in a world.

    :param cast: the tasks: see ``cast.py``.
    :param events: what happens to them. What they do not mention goes well.
    :param order: which of several ready threads runs first; 0: the one that waits for longest.
    """

    cast: Mapping[str, Any]
    events: Sequence[Event] = field(default=())
    order: int = 0

    def answer_of_post(self, number: int) -> str | None:
        """Return the fault of the so-manyth create of the story."""
        return self._posts.get(number)

    def answer_of_get(self, seconds: float, prediction: int, task_id: str = "") -> str | None:
        """Return the fault of a poll.

        :param seconds: since the story began.
        :param prediction: the number of the prediction that is polled.
        :param task_id: of the task that polls.
        """
        for event in self._gets:
            is_about = event.get("prediction") in (None, prediction) and event.get("by") in (None, task_id)
            if is_about and event["at"] <= seconds < event["at"] + event["seconds"]:
                return str(event["answer"])
        return None

    def life_of(self, number: int) -> tuple[float, str]:
        """Return how many seconds the so-manyth prediction takes, and how it ends."""
        return self._lives.get(number, (30.0, "succeeded"))

    def answer_of_download(self, number: int) -> str | None:
        """Return the fault of the so-manyth request for a file."""
        return next((e["answer"] for e in self.of_kind("download") if e["number"] == number), None)

    def failure_of_file(self, number: int) -> str | None:
        """Return how the so-manyth operation of the object storage fails."""
        return next((e["failure"] for e in self.of_kind("file") if e["number"] == number), None)

    def of_kind(self, *kinds: str) -> list[Event]:
        """Return the events of some kinds."""
        return [event for event in self.events if event["kind"] in kinds]

    def to_json(self) -> dict[str, Any]:
        return {"cast": dict(self.cast), "order": self.order, "events": [*self.events]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Story:
        return cls(value["cast"], value["events"], value.get("order", 0))

    @property
    def lines(self) -> list[str]:
        """The story as a person reads it."""
        cast = ", ".join(f"{name}={value}" for name, value in self.cast.items())
        order = f"; threads in the order of number {self.order}" if self.order else ""
        return [f"   The tasks: {cast}{order}"] + [
            f"{number:2}. {describe(event)}" for number, event in enumerate(self.events, 1)
        ]

    @cached_property
    def _posts(self) -> dict[int, str]:
        return {event["number"]: event["answer"] for event in self.of_kind("post")}

    @cached_property
    def _gets(self) -> list[Event]:
        return self.of_kind("get")

    @cached_property
    def _lives(self) -> dict[int, tuple[float, str]]:
        return {event["number"]: (event["seconds"], event["end"]) for event in self.of_kind("prediction")}


def describe(event: Event) -> str:
    """Return an event as a sentence."""
    kind = event["kind"]
    if kind in STRIKES:
        words = {
            "kill": "is killed (SIGKILL)",
            "interrupt": "gets Airflow's task timeout",
            "terminate": "gets SIGTERM, and SIGKILL 5 s later",
            "give_up": "is given up by the scheduler, and runs on",
            "stall": f"stands still for {event.get('seconds')} s",
        }[kind]
        name, effect = f"{event['task']}[{event['index']}]", f"{event['phase']} its {event['effect']}"
        if "record" in event:
            state = "it has resumed" if event["record"] == "resumed" else f"the record is {event['record']}"
            return f"A process of {name} {words}, {effect} no. {event['nth']} while {state}"
        return f"Process {event['attempt']} of {name} {words}, {effect} no. {event['nth']}"
    if kind == "post":
        return f"Create no. {event['number']} is answered: {event['answer']}"
    if kind == "prediction":
        return f"Prediction no. {event['number']} takes {event['seconds']} s and ends: {event['end']}"
    rest = {name: value for name, value in event.items() if name not in ("kind", "at", "when")}
    when = f"At {event['at']} s" if "at" in event else ""
    if "when" in event:
        task, index, state, after = event["when"]
        what, state = ("the record of ", state.partition(" ")[2]) if state.startswith("record ") else ("", state)
        when = f"{after} s after {what}{task}[{index}] is {state}"
    return f"{when}: {kind} {json.dumps(rest, sort_keys=True) if rest else ''}".strip()
