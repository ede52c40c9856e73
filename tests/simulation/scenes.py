"""Scenes of stories: they bring a record into a state, and then something happens while it is there.

What is chosen at random alone meets the usual states again and again, and the rare ones almost never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.aims import BAD_ENDS, LOST, RECORDS, REFUSED, Cast, at, bring_about, effects, index_of
from tests.simulation.aims import posts, prediction, strike, waiting, when
from tests.simulation.answers import ENDS, GETS
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
    events = []
    for _ in range(chance.number(1, 3)):
        effect = chance.one_of(effects(record))
        if effect == "get":
            waiting(chance, cast, "poke")
        if effect == "clock" and record not in ("rejected", "accepted"):
            away = {"kind": "server_away", "seconds": chance.seconds(10, 200)}
            events.append({**away, **when(chance, cast, record, chance.seconds(0.001, 10))})
        events.append(at(strike(chance, "create", index_of(chance, cast), effect), record, chance.small(3)))
    if chance.happens(0.1):  # the time of the task is up meanwhile
        cast["execution_timeout"] = 5.0
        events[-1] |= {"kind": "stall", "seconds": chance.seconds(3, 60)}
    return events


def _users(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let users, or what is around Airflow, do something."""
    time = when(chance, cast, record)
    index = time["when"][1]
    events: list[Event] = []
    for _ in range(chance.number(1, 3)):
        seconds = chance.seconds(1, 300)
        clear = {"kind": "clear", "task": "create", "index": index, "scope": chance.one_of(SCOPES)}
        clear |= {"keep": True} if chance.happens(0.2) else {}
        mark = {"kind": "mark", "task": "create", "index": index, "state": chance.one_of(("success", "failed"))}
        change = {"kind": "change_inputs", "inputs": [*cast["inputs"][1:], chance.one_of(("z", cast["inputs"][0]))]}
        happening = chance.one_of(
            (
                *[[clear]] * 3,
                *[[mark]] * 3,
                *[[change, clear]] * 2,
                [change],
                [{"kind": "lower_retries", "retries": chance.number(0, 1)}],
                [{"kind": "server_away", "seconds": seconds}],
                [{"kind": "connection_away", "seconds": seconds}],
                [{"kind": "key_replaced", "number": chance.number(1, 999), "seconds": seconds}],
                [{"kind": "clock_set", "seconds": chance.one_of((-3600, -60, 60, 3600))}],
            )
        )
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
        begin = chance.one_of((("sending", "send"), ("sending", "receive"), ("accepted", "get"), ("none", "connection")))
        place["record"], stands["effect"] = begin
    if stands["effect"] == "get":
        place["nth"] = chance.small(3)
    later = {**strike(chance, task, place["index"]), "attempt": 1, "nth": place["nth"], "phase": "after"}
    later["effect"] = stands["effect"]
    give_up = {"kind": "give_up", "seconds": chance.seconds(0.1, 8), "is_heard": chance.happens(0.7)}
    events = [{**place, **stands, **give_up}, {**place, **stands, "kind": "stall", "seconds": chance.seconds(12, 100)}]
    if chance.happens(0.3):
        cast["policy"] = "retry"
    if place.get("record") == "accepted":
        events.append(prediction(chance, 1, 10, 40, chance.one_of([*ENDS])))
        events += posts(chance, chance.one_of((LOST, REFUSED)), 2)
    return [*events, later]


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
        answer = chance.one_of([*GETS])
        events.append({"kind": "get", "answer": answer, "by": task, "at": 0.0, "seconds": chance.seconds(50, 500)})
    if chance.happens(0.5):
        scope, state = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": state}))
        events.append({**event, "task": task, "index": -1, **when(chance, cast, record)})
    return events + _file_faults(chance)


# Scenes that bring about what they need.


def _after(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a task after the creates be struck."""
    task = "store" if cast["shape"] == "waiting" else chance.one_of(("wait", "store"))
    events = [at(strike(chance, task, -1), "delivered", chance.small(4)) for _ in range(chance.number(2, 4))]
    if any(event["effect"] == "clock" for event in events):
        answer = chance.one_of([name for name in GETS if GETS[name].passes])
        events.append({"kind": "get", "answer": answer, "by": task, "at": 0.0, "seconds": chance.seconds(30, 300)})
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


def _file_faults(chance: Chance) -> list[Event]:
    events = []
    for _ in range(chance.number(0, 2)):
        events.append({"kind": "file", "number": chance.small(25), "failure": chance.one_of(FAILURES)})
        events.append({"kind": "download", "number": chance.small(6), "answer": chance.one_of(DELIVERIES)})
    return events


def _stored(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a store run again over what it has stored, among faults of storage, links and polls."""
    clear = {"kind": "clear", "task": "store", "index": -1, "scope": "task"}
    events: list[Event] = [{**clear, "when": ["store", -1, "success", chance.seconds(0.1, 100)]}]
    get = {"kind": "get", "answer": chance.one_of([*GETS]), "by": "store", "at": 0.0}
    return [*events, {**get, "seconds": chance.seconds(20, 300)}, *_file_faults(chance), *_file_faults(chance)]


def _deferred_again(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a create defer whose record is `delivered`: it was killed in that moment, and its next try can't poll."""
    waiting(chance, cast, "deferrable")
    cast["retries"] = max(2, cast["retries"])
    kill = {"kind": "kill", "task": "create", "index": -1, "effect": "store.set", "phase": "after"}
    events: list[Event] = [at(kill, "delivered", 1), prediction(chance, 1, 1, 10, "succeeded")]
    answer = chance.one_of([*GETS])
    events.append({"kind": "get", "answer": answer, "at": 14.0, "seconds": chance.seconds(20, 600)})
    time = ["create", -1, "record delivered", chance.seconds(15, 60)]
    return events + chance.one_of(([_to_waiting(chance, time)], [], [{"kind": "event_lost", "number": 2}]))


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
    return chance.one_of(
        (
            {"kind": "triggerer_dies", "seconds": chance.seconds(20, 8000), "when": time},
            {"kind": "triggerer_pauses", "seconds": chance.seconds(5, 500), "when": time},
            {"kind": "event_lost", "number": chance.small(3)},
            {"kind": "event_twice", "number": chance.small(3), "seconds": chance.seconds(0.1, 60)},
            {"kind": "clear", **place, "scope": chance.one_of(SCOPES), "when": time},
            {"kind": "mark", **place, "state": chance.one_of(("success", "failed")), "when": time},
        )
    )


def _twice(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an event come a second time, while the process that the first one has begun stands still, and then more."""
    waiting(chance, cast, "deferrable")
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
    _lost_and_refused: 1,
}
FOLLOWING: tuple[Scene, ...] = tuple(one for one, weight in WEIGHTS.items() for _ in range(weight))
