"""Scenes of stories: they bring a record into a state, and then something happens while it is there.

What is chosen at random alone meets the usual states again and again, and the rare ones almost never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.simulation import coverage
from tests.simulation.answers import BOUGHT_AGAIN, ENDS, GETS
from tests.simulation.downloads import DELIVERIES
from tests.simulation.storage import FAILURES
from tests.simulation.story import EFFECTS, STRIKES, Event

if TYPE_CHECKING:
    from tests.simulation.generate import Chance

Cast = dict[str, Any]

RECORDS = ("none", "sending", "sending", "rejected", "rejected", "accepted", "reported", "reported", "delivered")
LOST = ("lost_before", "lost_after", "gateway_before", "gateway_after", "endless_after", "late", "no_id")
REFUSED = ("throttled", "throttled_long", "throttled_long", "no_channel", "not_connected", "bad_request", "no_balance")
BAD_ENDS = tuple(ENDS)[1:]


def scene(chance: Chance, cast: Cast) -> list[Event]:
    """Return the events of a scene; it may change the cast."""
    record = chance.one_of(RECORDS)
    follow: tuple[Callable[[Chance, Cast, str], list[Event]], ...]
    follow = (*[_struck] * 5, *[_users] * 4, *[_later] * 3, *[_orphan] * 2, _twice, _deferred_again, _stored, _emptied)
    following = chance.one_of(follow)
    if following in (_twice, _deferred_again, _stored, _emptied):
        return following(chance, cast, record)
    return _bring_about(chance, cast, record) + following(chance, cast, record)


def strike(chance: Chance, task: str, index: int, effect: str = "") -> Event:
    """Return a strike, which lacks only when it happens."""
    event: Event = {"kind": chance.one_of(STRIKES), "task": task, "index": index}
    event["effect"] = effect or chance.one_of(EFFECTS[task])
    event["phase"] = chance.one_of(("before", "after"))
    if event["kind"] in ("stall", "give_up"):
        event["seconds"] = chance.seconds(1, 400)
    if event["kind"] == "give_up":
        event["is_heard"] = chance.happens(0.5)
    return event


# What brings a record into a state, and lets it stay there.


def _bring_about(chance: Chance, cast: Cast, record: str) -> list[Event]:
    cast["retries"] = max(cast["retries"], chance.number(0, 3))
    if record == "none":
        kind = chance.one_of(("server_away", "connection_away", "none"))
        return [] if kind == "none" else [{"kind": kind, "at": 1.0, "seconds": chance.seconds(1, 100)}]
    if record == "sending":
        cast["policy"] = chance.one_of(("retry", "retry", "fail"))
        return _posts(chance, LOST)
    if record == "rejected":
        return _posts(chance, REFUSED)
    if record == "reported":
        _wait(chance, cast)
        end = chance.one_of(sorted(BOUGHT_AGAIN)) if chance.happens(0.7) else chance.one_of(BAD_ENDS)
        return [_prediction(chance, 1, 1, 60, end)]
    if record == "accepted" and chance.happens(0.7):
        _wait(chance, cast)
        return [_prediction(chance, 1, 10, 2400, chance.one_of([*ENDS]))]
    if record == "delivered" and chance.happens(0.7):
        if chance.happens(0.5):
            _wait(chance, cast)
        return [{**_at(strike(chance, "create", _index(chance, cast), "xcom.push"), record, 1), "kind": "kill"}]
    return []


def _posts(chance: Chance, answers: Sequence[str]) -> list[Event]:
    numbers = (1, 2, 3)[: chance.small(3)]
    return [{"kind": "post", "number": number, "answer": chance.one_of(answers)} for number in numbers]


def _prediction(chance: Chance, number: int, least: float, most: float, end: str) -> Event:
    return {"kind": "prediction", "number": number, "seconds": chance.seconds(least, most), "end": end}


def _wait(chance: Chance, cast: Cast, mode: str = "") -> None:
    """Let the create wait for its result."""
    cast["shape"] = "waiting"
    cast["mode"] = mode or chance.one_of(("poke", "deferrable"))


def _index(chance: Chance, cast: Cast) -> int:
    return chance.number(0, len(cast["inputs"]) - 1) if cast["shape"] == "mapped" else -1


def _at(event: Event, record: str, nth: int) -> Event:
    return {**event, "record": record, "nth": nth}


def _when(chance: Chance, cast: Cast, record: str, seconds: float = 0.0) -> dict[str, Any]:
    state = "running" if record == "none" else f"record {record}"
    return {"when": ["create", _index(chance, cast), state, seconds or chance.seconds(0.005, 40)]}


# What happens then.


@cache
def _effects(record: str) -> tuple[str, ...]:
    """Return the effects of a create that it can have in a state of its record."""
    return tuple(name for name in EFFECTS["create"] if coverage.reason((f"kill before {name}", record)) is None)


def _struck(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let processes of a create be struck."""
    events = []
    for _ in range(chance.number(1, 3)):
        effect = chance.one_of(_effects(record))
        if effect == "get":
            _wait(chance, cast, "poke")
        if effect == "clock" and record not in ("rejected", "accepted"):
            away = {"kind": "server_away", "seconds": chance.seconds(10, 200)}
            events.append({**away, **_when(chance, cast, record, chance.seconds(0.001, 10))})
        events.append(_at(strike(chance, "create", _index(chance, cast), effect), record, chance.small(3)))
    return events


def _users(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let users, or what is around Airflow, do something."""
    when = _when(chance, cast, record)
    index = when["when"][1]
    events: list[Event] = []
    for _ in range(chance.number(1, 3)):
        seconds = chance.seconds(1, 300)
        clear = {"kind": "clear", "task": "create", "index": index, "scope": chance.one_of(coverage.SCOPES)}
        clear |= {"keep": True} if chance.happens(0.2) else {}
        mark = {"kind": "mark", "task": "create", "index": index, "state": chance.one_of(("success", "failed"))}
        event = chance.one_of(
            (
                *[clear] * 3,
                *[mark] * 3,
                {"kind": "change_inputs", "inputs": [*cast["inputs"][1:], chance.one_of(("z", cast["inputs"][0]))]},
                {"kind": "lower_retries", "retries": chance.number(0, 1)},
                {"kind": "server_away", "seconds": seconds},
                {"kind": "connection_away", "seconds": seconds},
                {"kind": "key_replaced", "number": chance.number(1, 999), "seconds": seconds},
                {"kind": "clock_set", "seconds": chance.one_of((-3600, -60, 60, 3600))},
            )
        )
        events.append({**event, **when})
        task, index, state, after = when["when"]
        when = {"when": [task, index, state, after + chance.seconds(0.5, 10)]}
    return events


def _orphan(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an attempt run beside its successor, and be struck there."""
    task = chance.one_of(("create", "create", "create", "wait", "store"))
    if cast["shape"] == "waiting" and task == "wait":
        task = "create"
    place = {"task": task, "index": _index(chance, cast) if task == "create" else -1, "nth": 1}
    if task == "create":
        if chance.happens(0.3):
            _wait(chance, cast, "poke")
        stands = {"effect": chance.one_of(("store.set", "send", "receive", "log", "get")), "phase": "before"}
        place["record"] = chance.one_of(("sending", "sending", "accepted", "none", record))
    else:
        stands = {"effect": chance.one_of(("connection", "log", "get")), "phase": "before"}
        place["attempt"] = 1
    later = strike(chance, task, place["index"])
    later |= {"attempt": 1, "nth": chance.small(4), "phase": "after", "effect": stands["effect"]}
    give_up = {"kind": "give_up", "seconds": chance.seconds(0.1, 8), "is_heard": chance.happens(0.7)}
    return [
        {**place, **stands, **give_up},
        {**place, **stands, "kind": "stall", "seconds": chance.seconds(8, 100)},
        later,
        *([_prediction(chance, 1, 1, 20, chance.one_of(BAD_ENDS))] if chance.happens(0.5) else []),
    ]


def _later(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let something happen to a task after the creates, while a create runs once more."""
    task = "store" if cast["shape"] == "waiting" else chance.one_of(("wait", "store"))
    index = _index(chance, cast)
    first: Event = {"kind": "mark", "task": "create", "index": index, "state": "success", **_when(chance, cast, record)}
    if chance.happens(0.7):  # otherwise the tasks after it begin, although it is not done
        state = chance.one_of(("running", "running", "deferred")) if task == "wait" else "running"
        when = {"when": [task, -1, state, chance.seconds(0.1, 3)]}
        first = {"kind": "clear", "task": "create", "index": index, "scope": "task", **when}
    stall = {"kind": "stall", "task": task, "index": -1, "attempt": 1, "effect": "connection", "phase": "after", "nth": 1}
    events: list[Event] = [first]
    if chance.happens(0.7):
        events.append({**stall, "seconds": chance.seconds(1, 60)})
    if record == "reported":
        events.append(_prediction(chance, 2, 1, 20, chance.one_of(BAD_ENDS)))
    elif record in ("sending", "rejected"):
        answers = LOST if record == "sending" else REFUSED
        events += [{"kind": "post", "number": number, "answer": chance.one_of(answers)} for number in (2, 3)]
    events += [_at(strike(chance, task, -1), record, chance.small(2)) for _ in range(chance.number(1, 2))]
    if chance.happens(0.5):
        answer = chance.one_of([*GETS])
        events.append({"kind": "get", "answer": answer, "by": task, "at": 0.0, "seconds": chance.seconds(50, 500)})
    if chance.happens(0.5):
        scope, state = chance.one_of(coverage.SCOPES), chance.one_of(("success", "failed"))
        event = chance.one_of(({"kind": "clear", "scope": scope}, {"kind": "mark", "state": state}))
        events.append({**event, "task": task, "index": -1, **_when(chance, cast, record)})
    return events + _file_faults(chance)


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
    events.append({"kind": "get", "answer": chance.one_of([*GETS]), "by": "store", "at": 0.0, "seconds": chance.seconds(20, 300)})
    if chance.happens(0.5):
        effect = chance.one_of(("file", "download", "get", "clock", "lock"))
        events.append({**strike(chance, "store", -1, effect), "attempt": chance.small(3), "nth": chance.small(6)})
    return events + _file_faults(chance) + _file_faults(chance)


def _deferred_again(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a create defer whose record is `delivered`: it was killed in that moment, and its next try can't poll."""
    _wait(chance, cast, "deferrable")
    cast["retries"] = max(2, cast["retries"])
    kill = {"kind": "kill", "task": "create", "index": -1, "effect": "store.set", "phase": "after"}
    events: list[Event] = [_at(kill, "delivered", 1)]
    events.append(_prediction(chance, 1, 1, 20, "succeeded"))
    answer = chance.one_of([name for name in GETS if GETS[name].passes])
    events.append({"kind": "get", "answer": answer, "at": 25.0, "seconds": chance.seconds(20, 600)})
    return events + _waiters(chance, ["create", -1, "record delivered", chance.seconds(10, 60)])


def _waiters(chance: Chance, when: list[Any]) -> list[Event]:
    """Let something happen to a task that is deferred."""
    place = {"task": when[0], "index": -1}
    event = chance.one_of(
        (
            {"kind": "triggerer_dies", "seconds": chance.seconds(20, 8000), "when": when},
            {"kind": "triggerer_pauses", "seconds": chance.seconds(5, 500), "when": when},
            {"kind": "event_lost", "number": chance.small(3)},
            {"kind": "event_twice", "number": chance.small(3), "seconds": chance.seconds(0.1, 60)},
            {"kind": "clear", **place, "scope": chance.one_of(coverage.SCOPES), "when": when},
            {"kind": "mark", **place, "state": chance.one_of(("success", "failed")), "when": when},
        )
    )
    return [event]


def _twice(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let an event come a second time, while the process that the first one has begun stands still, and then more."""
    seconds = chance.seconds(2, 20)
    twice = {"kind": "event_twice", "number": 1, "seconds": seconds}
    if chance.happens(0.3):  # of a sensor, or of a task that has deferred again
        cast["timeout"] = 60.0
        return [twice, *_waiters(chance, [chance.one_of(("create", "wait")), -1, "deferred", chance.seconds(1, 60)])]
    _wait(chance, cast, "deferrable")
    state = chance.one_of(("reported", "delivered", "accepted"))
    end = chance.one_of(BAD_ENDS) if state == "reported" else "succeeded"
    stall = {"kind": "stall", "task": "create", "index": -1, "effect": "store.set", "phase": "after", "seconds": 60.0}
    if state == "accepted":
        stall |= {"effect": "store.get"}
    when = ["create", -1, f"record {state}", max(0.01, seconds - 1.6 + chance.number(0, 9) / 15)]
    event = chance.one_of(({"kind": "clear", "scope": "task"}, {"kind": "mark", "state": "success"}))
    again = {**event, "task": "create", "index": -1, "when": when}
    return [_at(stall, state, 1), _prediction(chance, 1, 5, 20, end), twice, again]


def _emptied(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let a clear empty the store of a create whose prediction runs on, and the next try wait before it sends."""
    cast["airflow"] = "3.4"
    index = _index(chance, cast)
    state = chance.one_of(("record sending", "record accepted", "record delivered", "success"))
    when = {"when": ["create", index, state, chance.seconds(0.01, 20)]}
    scope = chance.one_of(("task", "downstream", "upstream"))
    events: list[Event] = [{"kind": "clear", "task": "create", "index": index, "scope": scope, **when}]
    events.append({"kind": chance.one_of(("server_away", "connection_away")), "seconds": chance.seconds(10, 300), **when})
    events += [_prediction(chance, number, 3, 100, chance.one_of([*ENDS])) for number in (1, 2, 3)]
    return events + (_posts(chance, LOST) if chance.happens(0.3) else [])
