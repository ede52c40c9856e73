"""Scenes of stories: they bring a record into a state, and then something happens while it is there.

What is chosen at random alone meets the usual states again and again, and the rare ones almost never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.aims import (
    AT_BEGIN,
    BAD_ENDS,
    LOST,
    PASSING,
    RECORDS,
    REFUSED,
    Cast,
    at,
    bring_about,
    effects,
    get_fault,
    index_of,
    killed,
    posts,
    prediction,
    strike,
    waiting,
    when,
)
from tests.simulation.answers import ENDS
from tests.simulation.coverage import SCOPES, TASK_STATES
from tests.simulation.downloads import DELIVERIES
from tests.simulation.storage import FAILURES
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


# Scenes that need a record in a state.


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
        seconds = chance.seconds(6, 15) if is_begun else chance.seconds(0.001, 1)
        events.append({
            "kind": "server_away",
            "seconds": chance.seconds(10, 200),
            **when(chance, cast, record, seconds),
        })
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
    task = chance.one_of(("create", "create", "create", "store" if cast["shape"] == "waiting" else "wait", "store"))
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
    task = "store" if cast["shape"] == "waiting" else chance.one_of(("wait", "store"))
    index = index_of(chance, cast)
    first: Event = {"kind": "mark", "task": "create", "index": index, "state": "success", **when(chance, cast, record)}
    if chance.happens(0.7):  # otherwise the tasks after it begin, although it is not done
        state = chance.one_of(("running", "running", "deferred")) if task == "wait" else "running"
        time = [task, -1, state, chance.seconds(0.1, 3)]
        first = {"kind": "clear", "task": "create", "index": index, "scope": "task", "when": time}
        if record == "none":
            cast["airflow"] = "3.4"
    effect = chance.one_of(("connection", "get", "download", "file")) if task == "store" else "connection"
    stall = {"kind": "stall", "task": task, "index": -1, "attempt": 1, "effect": effect, "phase": "before", "nth": 1}
    events: list[Event] = [first]
    if chance.happens(0.8):
        events.append({**stall, "seconds": chance.seconds(1, 60)})
    if record == "reported":
        events.append(prediction(chance, 2, 1, 20, chance.one_of(BAD_ENDS)))
    elif record in ("sending", "rejected"):
        events += posts(chance, LOST if record == "sending" else REFUSED, 2)
    events += [at(strike(chance, task, -1), record, chance.small(2)) for _ in range(chance.number(1, 2))]
    if chance.happens(0.5):
        events.append(get_fault(chance, task, 0.0, 50, 500))
    if chance.happens(0.5):
        scope, state = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": state}))
        events.append({**event, "task": task, "index": -1, **when(chance, cast, record)})
    return events + _file_faults(chance, 1)


# Scenes that bring about what they need.


def _after(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a task after the creates be struck."""
    task = "store" if cast["shape"] == "waiting" else chance.one_of(("wait", "store"))
    events = [at(strike(chance, task, -1), "delivered", chance.small(4)) for _ in range(chance.number(2, 6))]
    if any(event["effect"] == "clock" for event in events):
        events.append(get_fault(chance, task, 0.0, 30, 300, PASSING))
    if chance.happens(0.1):
        cast["execution_timeout"] = 5.0
        events[0] |= {"kind": "stall", "seconds": 30.0}
    return events


def _handled(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let users clear and mark a task after the creates, whatever state it is in."""
    task = "store" if cast["shape"] == "waiting" else chance.one_of(("wait", "wait", "store"))
    state = chance.one_of([name for name in TASK_STATES if name != "restarting"])
    events: list[Event] = []
    if state == "up_for_reschedule":
        cast["mode"] = "reschedule"
    if state in ("up_for_retry", "failed"):
        cast["retries"] = 0 if state == "failed" else 2
        events.append({**at(strike(chance, task, -1), "delivered", 1), "kind": "kill", "effect": "connection"})
    if state == "upstream_failed":
        events += [{"kind": "post", "number": number, "answer": "bad_request"} for number in (1, 2, 3)]
    seconds = chance.seconds(0.01, 8)
    for _ in range(chance.number(1, 2)):
        scope, end = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": end}))
        events.append({**event, "task": task, "index": -1, "when": [task, -1, state, seconds]})
        seconds += chance.seconds(0.5, 10)
    return events


def _file_faults(chance: Chance, least: int = 0) -> list[Event]:
    events = []
    for _ in range(chance.number(least, 2)):
        events.append({"kind": "file", "number": chance.small(25), "failure": chance.one_of(FAILURES)})
        events.append({"kind": "download", "number": chance.small(6), "answer": chance.one_of(DELIVERIES)})
    return events


def _stored(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a store run again over what it has stored, among faults of storage, links and polls."""
    clear = {"kind": "clear", "task": "store", "index": -1, "scope": "task"}
    events: list[Event] = [{**clear, "when": ["store", -1, "success", chance.seconds(0.1, 100)]}]
    return [*events, get_fault(chance, "store", 0.0, 20, 300), *_file_faults(chance), *_file_faults(chance)]


def _deferred_again(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a create defer whose record is `delivered`: it was killed in that moment, and its next try can't poll."""
    waiting(chance, cast, "deferrable")
    cast["retries"] = max(2, cast["retries"])
    events: list[Event] = [killed(-1, "delivered"), prediction(chance, 1, 1, 10, "succeeded")]
    events.append(get_fault(chance, "create", 14.0, 20, 600))
    time = ["create", -1, "record delivered", chance.seconds(15, 60)]
    twice = {"kind": "event_twice", "number": 1, "seconds": chance.seconds(18, 50)}
    return events + chance.one_of(([_to_waiting(chance, time)], [twice], [{"kind": "event_lost", "number": 2}]))


def _deferred(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let something happen to a task that is deferred."""
    if chance.happens(0.5):
        waiting(chance, cast, "deferrable")
    cast["timeout"] = chance.one_of((60.0, 600.0))
    task = "create" if cast["shape"] == "waiting" else "wait"
    state = chance.one_of(("deferred", "deferred", "queued"))
    seconds = chance.seconds(0.01, 0.5) if state == "queued" else chance.seconds(1, 60)
    return [prediction(chance, 1, 5, 200, "succeeded"), _to_waiting(chance, [task, -1, state, seconds])]


def _to_waiting(chance: Chance, time: list[Any]) -> Event:
    place = {"task": time[0], "index": -1}
    return chance.one_of((
        *[{"kind": "triggerer_dies", "seconds": chance.seconds(20, 8000), "when": time}] * 2,
        {"kind": "triggerer_pauses", "seconds": chance.seconds(5, 500), "when": time},
        {"kind": "event_lost", "number": chance.small(3)},
        {"kind": "event_twice", "number": chance.small(3), "seconds": chance.seconds(0.1, 60)},
        {"kind": "clear", **place, "scope": chance.one_of(SCOPES), "when": time},
        {"kind": "mark", **place, "state": chance.one_of(("success", "failed")), "when": time},
    ))


def _twice(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an event come a second time, while the process that the first one has begun stands still, and then more."""
    waiting(chance, cast, "deferrable")
    if chance.happens(0.25):
        twice = {"kind": "event_twice", "number": 1, "seconds": chance.seconds(13, 50)}
        return [prediction(chance, 1, 8, 20, "failed"), prediction(chance, 2, 30, 90, "succeeded"), twice]
    state = chance.one_of(("reported", "delivered", "accepted"))
    end = chance.one_of(BAD_ENDS) if state == "reported" else "succeeded"
    effect = "store.get" if state == "accepted" else "store.set"
    stall = {"kind": "stall", "task": "create", "index": -1, "effect": effect, "phase": "after", "seconds": 60.0}
    seconds = chance.seconds(2, 20)
    time = ["create", -1, f"record {state}", max(0.01, seconds - 1.6 + chance.number(0, 9) / 15)]
    event = chance.one_of(({"kind": "clear", "scope": "task"}, {"kind": "mark", "state": "success"}))
    twice = {"kind": "event_twice", "number": 1, "seconds": seconds}
    return [
        at(stall, state, 1),
        prediction(chance, 1, 8, 20, end),
        twice,
        {**event, "task": "create", "index": -1, "when": time},
    ]


def _emptied(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a clear empty the store of a create whose prediction runs on, and the next try wait before it sends."""
    cast["airflow"] = "3.4"
    if chance.happens(0.15):  # of a batch that has sent nothing yet
        cast["shape"], cast["retries"] = "batch", 2
        kill = killed(-1, "none")
        clear = {"kind": "clear", "task": "create", "index": -1, "scope": "task"}
        return [kill, {**clear, "when": ["create", -1, "up_for_retry", chance.seconds(0.1, 9)]}]
    index = index_of(chance, cast)
    state = chance.one_of(("record accepted", "record delivered", "success"))
    time = {"when": ["create", index, state, chance.seconds(0.01, 20)]}
    scope = chance.one_of(("task", "downstream", "upstream"))
    events: list[Event] = [{"kind": "clear", "task": "create", "index": index, "scope": scope, **time}]
    events.append({"kind": "server_away", "seconds": chance.seconds(30, 290), **time})
    return events + [prediction(chance, number, 10, 150, chance.one_of([*ENDS])) for number in (1, 2, 3)]


def _lost_and_refused(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a prediction end of which nobody knows, while the next create is refused."""
    cast["policy"], cast["retries"] = "retry", 3
    if cast["shape"] == "batch":
        cast["shape"] = "single"
    lost = chance.one_of(("lost_after", "broken_after", "no_id", "empty"))
    events: list[Event] = [{"kind": "post", "number": 1, "answer": lost}]
    events += [{"kind": "post", "number": number, "answer": "throttled_long"} for number in (2, 3, 4, 5, 6)]
    return [*events, prediction(chance, 1, 20, 100, chance.one_of([*ENDS]))]


ABOUT_RECORDS: tuple[Scene, ...] = (_struck, _users, _orphan, _later)
WEIGHTS: dict[Scene, int] = {
    _struck: 16,
    _users: 7,
    _orphan: 7,
    _later: 8,
    _after: 8,
    _handled: 4,
    _stored: 4,
    _deferred_again: 3,
    _deferred: 3,
    _twice: 2,
    _emptied: 2,
    _lost_and_refused: 2,
}
FOLLOWING: tuple[Scene, ...] = tuple(one for one, weight in WEIGHTS.items() for _ in range(weight))
