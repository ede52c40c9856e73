"""Scenes of a store that waits by itself: it stores what has finished while the rest runs, in several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.aims import BAD_ENDS, Cast, at, file_faults, get_fault, prediction, strike
from tests.simulation.coverage import SCOPES
from tests.simulation.story import Event

if TYPE_CHECKING:
    from tests.simulation.generate import Chance

PROMPTS = "abcdef"


def handed_over(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a store be struck, or something around it, between its first poll and its report."""
    _cast(chance, cast)
    numbers = range(1, 2 * len(cast["inputs"]) + 1)  # a clear buys new ones
    events = [_life(chance, number) for number in numbers]
    for _ in range(chance.number(1, 3)):
        events += chance.one_of(FAULTS)(chance, cast)
    return events


def _cast(chance: Chance, cast: Cast) -> None:
    cast["shape"] = chance.one_of(("mapped", "batch", "batch"))
    cast["has_sensor"] = False
    cast["inputs"] = [*PROMPTS[: chance.number(3, len(PROMPTS))]]
    cast["hand_over_count"] = chance.one_of((1, 2, 3, 50))
    cast["hand_over_seconds"] = chance.one_of((3.0, 20.0, 60.0))
    cast["mode"] = "deferrable" if chance.happens(0.8) else "poke"
    cast["retries"] = chance.number(0, 3)


def _life(chance: Chance, number: int) -> Event:
    end = chance.one_of(BAD_ENDS) if chance.happens(0.1) else "succeeded"
    return prediction(chance, number, 2, 600, end)


def _struck(chance: Chance, cast: Cast) -> list[Event]:
    if chance.happens(0.7):
        return [at(strike(chance, "store", -1), "resumed", chance.small(12))]
    return [{**strike(chance, "store", -1), "attempt": 1, "nth": chance.small(20)}]


def _between(chance: Chance, cast: Cast) -> list[Event]:
    """A process ends when it has stored something and has not left the worker, or has, and the result is not there."""
    effect = chance.one_of(("state", "xcom.push", "log", "file"))
    return [{**strike(chance, "store", -1, effect), "attempt": chance.number(1, 4), "nth": chance.small(30)}]


def _triggerer(chance: Chance, cast: Cast) -> list[Event]:
    kind = chance.one_of(("triggerer_dies", "triggerer_pauses"))
    seconds = chance.seconds(5, 500)
    if chance.happens(0.3):  # until Airflow's own timeout
        cast["timeout"], kind, seconds = 600.0, "triggerer_dies", chance.seconds(2000, 8000)
    return [{"kind": kind, "seconds": seconds, "when": _while_deferred(chance, 5)}]


def _event(chance: Chance, cast: Cast) -> list[Event]:
    kind = chance.one_of(("event_lost", "event_twice"))
    seconds = {"seconds": chance.seconds(0.1, 60)} if kind == "event_twice" else {}
    return [{"kind": kind, "number": chance.number(1, 4), **seconds}]


def _cleared(chance: Chance, cast: Cast) -> list[Event]:
    task = chance.one_of(("create", "create", "store"))
    index = chance.number(0, len(cast["inputs"]) - 1) if task == "create" and cast["shape"] == "mapped" else -1
    event: Event = {"kind": "clear", "task": task, "index": index, "when": _while_deferred(chance, 5)}
    event["scope"] = "task" if chance.happens(0.6) else chance.one_of(SCOPES)
    if task == "store" or chance.happens(0.6):
        return [event]
    inputs = [*cast["inputs"]]
    inputs[max(0, index)] = "z"
    return [{"kind": "change_inputs", "inputs": inputs, "when": event["when"]}, event]


def _handled(chance: Chance, cast: Cast) -> list[Event]:
    """Users clear and mark the store, whatever state it is in after its first hand-over."""
    kill = {**strike(chance, "store", -1, chance.one_of(("file", "connection", "log"))), "kind": "kill"}
    state = chance.one_of(("queued", "running", "up_for_retry", "success", "failed"))
    if state == "failed":
        cast["retries"] = 0
    events = [] if state == "queued" else [at(kill, "resumed", chance.small(4))]
    if state == "success":
        events = []
    seconds = chance.seconds(0.05, 0.45) if state == "queued" else chance.seconds(0.1, 9)
    if state == "running":
        events, seconds = [{**events[0], "kind": "stall", "seconds": 30.0}], chance.seconds(5, 300)
    for _ in range(chance.number(1, 2)):
        scope, end = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        clear, mark = {"kind": "clear", "scope": scope}, {"kind": "mark", "state": end}
        event = chance.one_of((clear, mark, {"kind": "lower_retries", "retries": chance.number(0, 1)}))
        events.append({"task": "store", "index": -1, **event, "when": ["store", -1, state, seconds]})
        seconds += chance.seconds(0.5, 10)
    return events


def _bought_anew(chance: Chance, cast: Cast) -> list[Event]:
    """The first result is stored, and its create is cleared while the store waits for the others."""
    cast["hand_over_count"], cast["mode"] = 1, "deferrable"
    count = len(cast["inputs"])
    lives = [prediction(chance, 1, 2, 20, "succeeded"), prediction(chance, count + 1, 200, 900, "succeeded")]
    lives += [prediction(chance, number, 100, 600, "succeeded") for number in range(2, count + 1)]
    index = 0 if cast["shape"] == "mapped" else -1
    clear = {"kind": "clear", "task": "create", "index": index, "scope": "task"}
    return [*lives, {**clear, "when": _while_deferred(chance, 30)}]


def _files(chance: Chance, cast: Cast) -> list[Event]:
    return file_faults(chance, 1)


def _links(chance: Chance, cast: Cast) -> list[Event]:
    cast["link_seconds"] = chance.one_of((1.0, 5.0, 30.0))
    if chance.happens(0.3):
        cast["output_seconds"] = chance.one_of((20.0, 120.0, 400.0))
    return []


def _polls(chance: Chance, cast: Cast) -> list[Event]:
    return [get_fault(chance, "store", chance.seconds(5, 300), 5, 400)]


def _peace(chance: Chance, cast: Cast) -> list[Event]:
    """Nothing at all: then each result has to be stored in time."""
    return []


def _while_deferred(chance: Chance, least: float = 0.1) -> list[object]:
    return ["store", -1, "deferred", chance.seconds(least, 400)]


FAULTS = (
    *[_struck] * 5,
    _between,
    _triggerer,
    _event,
    _cleared,
    _handled,
    _bought_anew,
    _files,
    _links,
    _polls,
    _peace,
)
