"""Scenes of stories: they bring a record into a state, and then something happens while it is there.

What is chosen at random alone meets the usual states again and again, and the rare ones almost never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.aims import (
    AT_BEGIN,
    BAD_ENDS,
    LOST,
    RECORDS,
    REFUSED,
    Cast,
    at,
    bring_about,
    effects,
    file_faults,
    get_fault,
    index_of,
    killed,
    posts,
    prediction,
    strike,
    task_after,
    waiting,
    when,
)
from tests.simulation.answers import ENDS
from tests.simulation.coverage import SCOPES
from tests.simulation.hand_overs import handed_over
from tests.simulation.plots import (
    after,
    deferred,
    deferred_again,
    emptied,
    handled,
    lost_and_refused,
    polls_on,
    stored,
    twice,
)
from tests.simulation.story import Event

if TYPE_CHECKING:
    from tests.simulation.generate import Chance

Scene = Callable[["Chance", Cast, str], list[Event]]


def scene(chance: Chance, cast: Cast) -> list[Event]:
    """Return the events of a scene; it may change the cast."""
    record = chance.one_of(RECORDS)
    following = chance.one_of(FOLLOWING)
    first = bring_about(chance, cast, record) if following in ABOUT_RECORDS else []
    return first + following(chance, cast, record)


def _struck(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let processes of a create be struck."""
    names = [chance.one_of(effects(record)) for _ in range(chance.number(2, 5))]
    is_begun = record != "none" and names[0] in AT_BEGIN and chance.happens(0.8)  # the next attempt begins with it
    if "get" in names or (record == "delivered" and "clock" in names):
        waiting(chance, cast, "poke")
    elif record == "none" and names[0] in ("log", "store.set"):
        cast["shape"] = "mapped" if names[0] == "log" else "batch"
    index = 0 if names[0] == "log" and cast["shape"] == "mapped" else index_of(chance, cast)
    events = [killed(index, record)] if is_begun else []
    if is_begun:
        cast["retries"] = max(3, cast["retries"])
    if "clock" in names and record not in ("rejected", "accepted", "delivered"):
        stall = {**strike(chance, "create", index, "xcom.push"), "kind": "stall", "phase": "after", "seconds": 10.0}
        events.append(at(stall, record, 1))  # the server goes away after the first request of an attempt
        seconds = 18.0 if is_begun else 3.0 if record == "none" else chance.seconds(0.001, 1)
        away = {"kind": "server_away", "seconds": chance.seconds(20, 200)}
        events.append({**away, **when(chance, cast, record, seconds)})
    if record == "delivered" and cast["shape"] == "waiting":
        events += [prediction(chance, 1, 1, 2, "succeeded"), get_fault(chance, "create", 9.0, 20, 100)]
    for name in names:
        nth = 1 if chance.happens(0.6) else chance.small(4)
        events.append(at(strike(chance, "create", index, name), record, nth))
    if chance.happens(0.1):  # the time of the task is up meanwhile
        cast["execution_timeout"] = 5.0
        events[-1] |= {"kind": "stall", "seconds": chance.seconds(3, 60)}
    return events


def _users(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let users, or what is around Airflow, do something."""
    if record != "reported" and chance.happens(0.25):
        cast["shape"] = "mapped"
    time = when(chance, cast, record)
    index = time["when"][1]
    events: list[Event] = []
    if record != "none" and chance.happens(0.4):  # nothing runs then
        cast["retries"] = chance.number(0, 1)
        events.append(killed(index, record))
        time["when"][3] = chance.seconds(5.5, 14)
    elif chance.happens(0.3):  # it is still running then
        stall = {**killed(index, record), "kind": "stall", "seconds": 60.0}
        events += [stall, {"kind": "clear", "task": "create", "index": index, "scope": "task", **time}]
        time = {"when": [*time["when"][:3], time["when"][3] + chance.seconds(0.5, 10)]}
    for _ in range(chance.number(1, 3)):
        seconds = chance.seconds(1, 300)
        clear = {"kind": "clear", "task": "create", "index": index, "scope": chance.one_of(SCOPES)}
        clear |= {"keep": True} if chance.happens(0.2) else {}
        mark = {"kind": "mark", "task": "create", "index": index, "state": chance.one_of(("success", "failed"))}
        change = {"kind": "change_inputs", "inputs": [*cast["inputs"][1:], chance.one_of(("z", cast["inputs"][0]))]}
        happening = chance.one_of((
            *[[clear]] * 3,
            *[[mark]] * 3,
            *[[change, clear]] * 2,
            [change],
            [{"kind": "lower_retries", "retries": chance.number(0, 1)}],
            [{"kind": "server_away", "seconds": seconds}],
            [{"kind": "connection_away", "seconds": seconds}],
            [{"kind": "key_replaced", "number": chance.number(1, 999), "seconds": seconds}],
            [{"kind": "clock_set", "seconds": chance.one_of((-3600, -60, 60, 3600))}],
        ))
        events += [{**event, **time} for event in happening]
        task, index, state, after = time["when"]
        time = {"when": [task, index, state, after + chance.seconds(0.5, 10)]}
    return events


def _orphan(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an attempt run beside its successor, and be struck there."""
    if chance.happens(0.4):
        waiting(chance, cast, "poke")
    task = chance.one_of(("create", "create", "create", task_after(chance, cast)))
    place = {"task": task, "index": index_of(chance, cast) if task == "create" else -1, "attempt": 1, "nth": 1}
    stands = {"effect": chance.one_of(("connection", "log", "get", "lock")), "phase": "before"}
    if task == "create":
        begin = chance.one_of((
            ("sending", "send"),
            ("sending", "receive"),
            ("accepted", "get"),
            ("none", "connection"),
        ))
        place["record"], stands["effect"] = begin
    gets = []
    if stands["effect"] == "get":
        place["nth"] = chance.small(3)
        gets = [get_fault(chance, task, 5.0, 100, 300)] if chance.happens(0.5) else []
    if place.get("record") == "none":
        gets = [{"kind": "connection_away", "at": 5.0, "seconds": chance.seconds(50, 150)}]
    elif place.get("record") == "sending" and chance.happens(0.5):
        gets = posts(chance, REFUSED, 2)
    later = {**strike(chance, task, place["index"]), "attempt": 1, "nth": place["nth"], "phase": "after"}
    later["effect"] = stands["effect"]
    give_up = {"kind": "give_up", "seconds": chance.seconds(0.1, 8), "is_heard": chance.happens(0.7)}
    events = [{**place, **stands, **give_up}, {**place, **stands, "kind": "stall", "seconds": chance.seconds(12, 100)}]
    if chance.happens(0.3):
        cast["policy"] = "retry"
    if place.get("record") == "accepted":
        events.append(prediction(chance, 1, 10, 40, chance.one_of([*ENDS])))
        events += posts(chance, chance.one_of((LOST, REFUSED)), 2)
    return [*events, *gets, later]


def _later(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let something happen to a task after the creates, while a create runs once more."""
    if record in ("accepted", "reported"):
        waiting(chance, cast)
    task = task_after(chance, cast)
    index = index_of(chance, cast)
    effect = chance.one_of(("connection", "get", "download", "file")) if task == "store" else "connection"
    stall = {"kind": "stall", "task": task, "index": -1, "attempt": 1, "effect": effect, "phase": "before", "nth": 1}
    if chance.happens(0.3):  # the tasks after it begin, although it is not done
        events = bring_about(chance, cast, record)
        index, time = index_of(chance, cast), when(chance, cast, record)
        events.append({"kind": "mark", "task": "create", "index": index, "state": "success", **time})
        events.append({**stall, "seconds": chance.seconds(1, 60)})
    else:
        events = [{**stall, "seconds": chance.seconds(15, 40)}]
        is_deferred = task == "wait" or not cast.get("has_sensor", True)
        state = chance.one_of(("running", "running", "deferred")) if is_deferred else "running"
        time = [task, -1, state, chance.seconds(0.1, 3)]
        events.append({"kind": "clear", "task": "create", "index": index, "scope": "task", "when": time})
        cast["airflow"] = "3.4" if record == "none" else "3.3"
        if cast["shape"] == "waiting":
            if record == "reported":  # for good
                cast["retries"] = 0
                events.append(prediction(chance, 2, 1, 3, chance.one_of(BAD_ENDS)))
            else:
                events.append(prediction(chance, 2, 20, 90, "succeeded"))
        if record in ("sending", "rejected"):
            events += posts(chance, LOST if record == "sending" else ("bad_request", "no_balance"), 2)
    events += [at(strike(chance, task, -1), record, chance.small(2)) for _ in range(chance.number(1, 2))]
    if chance.happens(0.5):
        events.append(get_fault(chance, task, 0.0, 50, 500))
    if chance.happens(0.5):
        scope, state = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": state}))
        events.append({**event, "task": task, "index": -1, **when(chance, cast, record)})
    return events + file_faults(chance, 1)


ABOUT_RECORDS: tuple[Scene, ...] = (_struck, _users, _orphan)
WEIGHTS: dict[Scene, int] = {
    _struck: 16,
    _users: 7,
    _orphan: 10,
    _later: 8,
    after: 8,
    handled: 4,
    stored: 4,
    deferred_again: 3,
    deferred: 5,
    twice: 2,
    emptied: 2,
    lost_and_refused: 2,
    polls_on: 1,
    handed_over: 26,
}
FOLLOWING: tuple[Scene, ...] = tuple(one for one, weight in WEIGHTS.items() for _ in range(weight))
