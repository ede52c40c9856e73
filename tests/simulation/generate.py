"""Makes a story from a seed: the same one on every machine and for every release of Python.

Only ``random()`` is used: Python promises its sequence, and not that of its other methods.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from tests.simulation.aims import strike, task_after
from tests.simulation.answers import ENDS, GETS, POSTS
from tests.simulation.downloads import DELIVERIES
from tests.simulation.scenes import scene
from tests.simulation.storage import FAILURES
from tests.simulation.story import Event, Story

T = TypeVar("T")

MAX_EVENTS = 9
PROMPTS = ("a", "b", "c", "d")
STATES = ("running", "deferred", "up_for_retry", "success", "failed", "up_for_reschedule", "queued")


class Chance:
    """Decides by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def happens(self, share: float) -> bool:
        return self._random() < share

    def one_of(self, values: Sequence[T]) -> T:
        return values[int(self._random() * len(values))]

    def number(self, first: int, last: int) -> int:
        return first + int(self._random() * (last - first + 1))

    def small(self, last: int) -> int:
        """Return a number from 1 to ``last``; small ones come more often."""
        return 1 + int(self._random() ** 2 * last)

    def seconds(self, least: float, most: float) -> float:
        """Return a time; each order of magnitude is equally likely."""
        return float(f"{least * (most / least) ** self._random():.3g}")


def make_story(seed: int) -> Story:
    """Return the story of a seed."""
    chance = Chance(seed)
    cast = _cast(chance)
    count = chance.small(MAX_EVENTS)
    events = scene(chance, cast) if chance.happens(0.75) else []
    for _ in range(chance.small(3) if events else count):
        events += _events(chance, cast)
    known = {event["number"] for event in events if event["kind"] == "prediction"}
    events += [_prediction(chance, number) for number in range(1, 6) if number not in known and chance.happens(0.3)]
    return Story(cast, events, chance.number(1, 10**6) if chance.happens(0.5) else 0)


def _cast(chance: Chance) -> dict[str, Any]:
    shape = chance.one_of(("single", "waiting", "waiting", "mapped", "batch", "batch"))
    cast: dict[str, Any] = {"shape": shape, "policy": chance.one_of(("fail", "fail", "retry"))}
    cast["retries"] = chance.number(0, 3)
    cast["inputs"] = [*PROMPTS[: chance.number(2, 3)]]
    if chance.happens(0.2):
        cast["inputs"][-1] = cast["inputs"][0]  # two equal ones
    options: list[tuple[str, Sequence[Any], float]] = [
        ("mode", ("poke", "reschedule") if shape != "waiting" else ("poke",), 0.3),
        ("timeout", (60.0, 600.0), 0.3),
        ("execution_timeout", (30.0, 300.0), 0.15),
        ("on_item_error", ("keep",), 0.3),
        ("airflow", ("3.4",), 0.25),
        ("cap", (1.0, 3.0), 0.2),
        ("runs", (2,), 0.15),
        ("defer_after", (0.0,), 0.3),
        ("is_decorated", (shape != "batch",), 0.25),
        ("is_stored_twice", (True,), 0.15),
        ("has_sensor", (shape == "waiting",), 0.4),
        ("hand_over_count", (1, 2), 0.4),
        ("hand_over_seconds", (3.0, 20.0, 60.0), 0.6),
        ("is_named", (True,), 0.3),
        ("storage", ("parts", "others"), 0.5),
        ("link_seconds", (1.0, 5.0, 50.0), 0.2),
        ("output_seconds", (2.0, 20.0, 200.0), 0.15),
    ]
    for name, values, share in options:
        if chance.happens(share):
            cast[name] = chance.one_of(values)
    return cast


def _events(chance: Chance, cast: dict[str, Any]) -> list[Event]:
    """Return an event, or some that have a meaning only together."""
    makers: tuple[tuple[Any, int], ...] = (
        (_strike, 10),
        (_post, 5),
        (_get, 4),
        (_clear, 6),
        (_mark, 1),
        (_dag, 2),
        (_changed_between_tries, 2),
        (_away, 3),
        (_key, 1),
        (_triggerer, 3),
        (_lost, 3),
        (_files, 4),
    )
    weighted = [maker for maker, weight in makers for _ in range(weight)]
    made = chance.one_of(weighted)(chance, cast)
    return made if isinstance(made, list) else [made]


def _place(chance: Chance, cast: dict[str, Any]) -> tuple[str, int]:
    task = chance.one_of(["create"] * 6 + [task_after(chance, cast)] * 4)
    is_mapped = cast["shape"] == "mapped" and task == "create"
    return task, chance.number(0, len(cast["inputs"]) - 1) if is_mapped else -1


def _strike(chance: Chance, cast: dict[str, Any]) -> Event:
    task, index = _place(chance, cast)
    return {**strike(chance, task, index), "attempt": chance.small(4), "nth": chance.small(4)}


def _post(chance: Chance, cast: dict[str, Any]) -> Event:
    return {"kind": "post", "number": chance.small(5), "answer": chance.one_of([*POSTS])}


def _get(chance: Chance, cast: dict[str, Any]) -> Event:
    event: Event = {"kind": "get", "answer": chance.one_of([*GETS])}
    event["at"] = chance.seconds(1, 300)
    event["seconds"] = chance.seconds(1, 1500)
    if chance.happens(0.3):
        event["prediction"] = chance.small(3)
    return event


def _prediction(chance: Chance, number: int) -> Event:
    end = chance.one_of([*ENDS]) if chance.happens(0.5) else "succeeded"
    return {"kind": "prediction", "number": number, "seconds": chance.seconds(1, 2400), "end": end}


def _when(chance: Chance, cast: dict[str, Any]) -> dict[str, Any]:
    task, index = _place(chance, cast)
    return {"when": [task, index, chance.one_of(STATES), chance.seconds(0.1, 60)]}


def _clear(chance: Chance, cast: dict[str, Any]) -> Event:
    task, index = _place(chance, cast)
    event: Event = {"kind": "clear", "task": task, "index": index, **_when(chance, cast)}
    if chance.happens(0.6):
        event["when"][:2] = [task, index]
    event["scope"] = chance.one_of(("task", "downstream", "downstream", "upstream", "run"))
    if chance.happens(0.3):
        event["is_raised"] = False
    if chance.happens(0.3):
        event["keep"] = True
    return event


def _mark(chance: Chance, cast: dict[str, Any]) -> Event:
    task, index = _place(chance, cast)
    state = chance.one_of(("success", "failed"))
    return {"kind": "mark", "task": task, "index": index, "state": state, **_when(chance, cast)}


def _dag(chance: Chance, cast: dict[str, Any]) -> Event:
    if chance.happens(0.3):
        return {"kind": "lower_retries", "retries": chance.number(0, 1), **_when(chance, cast)}
    return {**_changed(chance, cast), **_when(chance, cast)}


def _changed_between_tries(chance: Chance, cast: dict[str, Any]) -> list[Event]:
    """Let a create end when its id is on record, and its input change before the next try."""
    index = chance.number(0, len(cast["inputs"]) - 1) if cast["shape"] == "mapped" else -1
    strike = {"kind": chance.one_of(("kill", "interrupt", "terminate", "give_up")), "task": "create", "index": index}
    strike |= {"attempt": 1, "effect": chance.one_of(("store.set", "xcom.push")), "nth": 2, "phase": "after"}
    change = {**_changed(chance, cast), "when": ["create", index, "up_for_retry", chance.seconds(0.1, 9)]}
    return [strike, change]


def _changed(chance: Chance, cast: dict[str, Any]) -> Event:
    inputs = [*cast["inputs"]]
    if chance.happens(0.5):
        inputs = [*inputs[1:], inputs[0]]
    else:
        inputs[chance.number(0, len(inputs) - 1)] = "z"
    return {"kind": "change_inputs", "inputs": inputs}


def _away(chance: Chance, cast: dict[str, Any]) -> Event:
    kind = chance.one_of(("server_away", "server_away", "connection_away"))
    event: Event = {"kind": kind, "seconds": chance.seconds(1, 500)}
    return {**event, **(_when(chance, cast) if chance.happens(0.5) else {"at": chance.seconds(0.5, 100)})}


def _key(chance: Chance, cast: dict[str, Any]) -> Event:
    if chance.happens(0.4):
        return {"kind": "clock_set", "seconds": chance.one_of((-3600, -60, 60, 3600)), "at": chance.seconds(1, 100)}
    event: Event = {"kind": "key_replaced", "number": chance.number(1, 999), "at": chance.seconds(0.5, 100)}
    return {**event, "seconds": chance.seconds(1, 500)}


def _triggerer(chance: Chance, cast: dict[str, Any]) -> Event:
    at = {"at": chance.seconds(3, 300)} if chance.happens(0.5) else _when(chance, cast)
    if chance.happens(0.5):
        return {"kind": "triggerer_dies", **at}
    return {"kind": "triggerer_pauses", "seconds": chance.seconds(5, 500), **at}


def _lost(chance: Chance, cast: dict[str, Any]) -> Event:
    kind = chance.one_of(("store_answer_lost", "event_lost", "event_twice"))
    event: Event = {"kind": kind, "number": chance.small(6) if kind == "store_answer_lost" else chance.small(3)}
    return {**event, "seconds": chance.seconds(0.1, 300)} if kind == "event_twice" else event


def _files(chance: Chance, cast: dict[str, Any]) -> Event:
    if chance.happens(0.5):
        return {"kind": "file", "number": chance.number(1, 14), "failure": chance.one_of(FAILURES)}
    return {"kind": "download", "number": chance.number(1, 8), "answer": chance.one_of(DELIVERIES)}
