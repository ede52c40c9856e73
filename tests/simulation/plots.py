"""Scenes of stories that bring about all that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.aims import (
    BAD_ENDS,
    PASSING,
    Cast,
    at,
    file_faults,
    get_fault,
    index_of,
    killed,
    prediction,
    strike,
    task_after,
    waiting,
)
from tests.simulation.answers import ENDS
from tests.simulation.coverage import SCOPES, TASK_STATES
from tests.simulation.story import Event

if TYPE_CHECKING:
    from tests.simulation.generate import Chance


def after(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a task after the creates be struck."""
    task = task_after(chance, cast)
    events = [at(strike(chance, task, -1), "delivered", chance.small(4)) for _ in range(chance.number(2, 6))]
    if any(event["effect"] == "clock" for event in events):
        events.append(get_fault(chance, task, 0.0, 30, 300, PASSING))
    if chance.happens(0.1):
        cast["execution_timeout"] = 5.0
        events[0] |= {"kind": "stall", "seconds": 30.0}
    return events


def handled(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let users clear and mark a task after the creates, whatever state it is in."""
    task = task_after(chance, cast)
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
    if state == "running" and chance.happens(0.7):  # for some time, and then it is ended
        events.append({**at(strike(chance, task, -1, "connection"), "delivered", 1), "kind": "stall", "seconds": 60.0})
        clear = {"kind": "clear", "scope": "task", "task": task, "index": -1}
        events.append({**clear, "when": [task, -1, state, seconds]})
        seconds += chance.seconds(0.5, 10)
    for _ in range(chance.number(1, 2)):
        scope, end = chance.one_of(SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": end}))
        events.append({**event, "task": task, "index": -1, "when": [task, -1, state, seconds]})
        seconds += chance.seconds(0.5, 10)
    return events


def stored(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a store run again over what it has stored, among faults of storage, links and polls."""
    clear = {"kind": "clear", "task": "store", "index": -1, "scope": "task"}
    events: list[Event] = [{**clear, "when": ["store", -1, "success", chance.seconds(0.1, 100)]}]
    return [*events, get_fault(chance, "store", 0.0, 20, 300), *file_faults(chance), *file_faults(chance)]


def deferred_again(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a create defer whose record is `delivered`: it was killed in that moment, and its next try can't poll."""
    waiting(chance, cast, "deferrable")
    cast["retries"] = max(2, cast["retries"])
    events: list[Event] = [killed(-1, "delivered"), prediction(chance, 1, 1, 10, "succeeded")]
    events.append(get_fault(chance, "create", 14.0, 20, 600))
    time = ["create", -1, "record delivered", chance.seconds(15, 60)]
    twice = {"kind": "event_twice", "number": 1, "seconds": chance.seconds(18, 50)}
    return events + chance.one_of(([_to_waiting(chance, time)], [twice], [{"kind": "event_lost", "number": 2}]))


def deferred(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let something happen to a task that is deferred."""
    if chance.happens(0.5):
        waiting(chance, cast, "deferrable")
    cast["timeout"], cast["mode"] = 60.0, "deferrable"
    task = "create" if cast["shape"] == "waiting" else "wait" if cast.get("has_sensor", True) else "store"
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


def twice(chance: Chance, cast: Cast, record: str) -> list[Event]:
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


def polls_on(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an attempt that was given up poll late, while its successor buys anew, or has given up as well."""
    waiting(chance, cast, "poke")
    state = chance.one_of(("none", "sending", "rejected", "reported"))
    cast["retries"] = 1 if state == "reported" else 3
    place = {"task": "create", "index": -1, "attempt": 1, "effect": "clock", "nth": 1}
    events: list[Event] = [
        {"kind": "give_up", **place, "phase": "before", "seconds": 1.0, "is_heard": chance.happens(0.5)},
        {"kind": "stall", **place, "phase": "after", "seconds": chance.seconds(30, 60)},
        prediction(chance, 1, 3, 6, chance.one_of(BAD_ENDS)),
        get_fault(chance, "create", 25.0, 60, 300),
    ]
    if state == "none":
        cast["airflow"] = "3.4"
        clear = {"kind": "clear", "task": "create", "index": -1, "scope": "task"}
        events.append({**clear, "when": ["create", -1, "up_for_retry", chance.seconds(0.1, 5)]})
        stall = {"kind": "stall", **place, "attempt": 2, "effect": "store.get", "phase": "before"}
        events.append({**stall, "seconds": 90.0})
    elif state != "reported":
        answer = "endless_before" if state == "sending" else "throttled_long"
        events.append({"kind": "post", "number": 2, "answer": answer})
    return events


def emptied(chance: Chance, cast: Cast, record: str) -> list[Event]:
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


def lost_and_refused(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a prediction end of which nobody knows, while the next create is refused."""
    cast["policy"], cast["retries"] = "retry", 3
    if cast["shape"] == "batch":
        cast["shape"] = "single"
    lost = chance.one_of(("lost_after", "broken_after", "no_id", "empty"))
    events: list[Event] = [{"kind": "post", "number": 1, "answer": lost}]
    events += [{"kind": "post", "number": number, "answer": "throttled_long"} for number in (2, 3, 4, 5, 6)]
    return [*events, prediction(chance, 1, 20, 100, chance.one_of([*ENDS]))]
