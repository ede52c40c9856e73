"""What brings the record of a create into a state, and what strikes it there: the parts of scenes."""

from __future__ import annotations

from collections.abc import Sequence
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
PASSING = tuple(name for name in GETS if GETS[name].passes)
AT_BEGIN = ("store.get", "xcom.push", "connection", "lock", "log", "state", "clock")
"""Effects that an attempt has which begins with a record."""


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


@cache
def effects(record: str) -> tuple[str, ...]:
    """Return the effects of a create that it can have in a state of its record."""
    return tuple(name for name in EFFECTS["create"] if coverage.reason((f"kill before {name}", record)) is None)


def bring_about(chance: Chance, cast: Cast, record: str) -> list[Event]:
    """Let the record of a create reach a state, and stay there for a while."""
    cast["retries"] = max(cast["retries"], chance.number(0, 3))
    if record == "none":
        kind = chance.one_of(("server_away", "connection_away", "none"))
        return [] if kind == "none" else [{"kind": kind, "at": 1.0, "seconds": chance.seconds(1, 100)}]
    if record == "sending":
        cast["policy"] = chance.one_of(("retry", "retry", "fail"))
        return posts(chance, LOST)
    if record == "rejected":
        return posts(chance, REFUSED)
    if record == "reported":
        waiting(chance, cast)
        end = chance.one_of(sorted(BOUGHT_AGAIN)) if chance.happens(0.7) else chance.one_of(BAD_ENDS)
        lost = [{"kind": "store_answer_lost", "number": 3}] if chance.happens(0.1) else []
        return [prediction(chance, 1, 1, 60, end), *lost]
    if record == "accepted" and chance.happens(0.7):
        waiting(chance, cast)
        return [prediction(chance, 1, 10, 2400, chance.one_of([*ENDS]))]
    if record == "delivered" and chance.happens(0.7):
        if chance.happens(0.5):
            waiting(chance, cast)
        return [{**at(strike(chance, "create", index_of(chance, cast), "xcom.push"), record, 1), "kind": "kill"}]
    return []


def killed(index: int, record: str) -> Event:
    """Return the kill of the first attempt that brings a record into a state, in which the next one begins."""
    event = {"kind": "kill", "task": "create", "index": index, "effect": "store.set", "phase": "after"}
    return at(event, record, 1)


def get_fault(
    chance: Chance, task: str, begins: float, least: float, most: float, answers: Sequence[str] = ()
) -> Event:
    """Return a fault of the polls of a task."""
    answer = chance.one_of(answers or [*GETS])
    return {"kind": "get", "answer": answer, "by": task, "at": begins, "seconds": chance.seconds(least, most)}


def posts(chance: Chance, answers: Sequence[str], first: int = 1) -> list[Event]:
    """Let some creates in a row be answered so."""
    numbers = range(first, first + chance.small(3))
    return [{"kind": "post", "number": number, "answer": chance.one_of(answers)} for number in numbers]


def prediction(chance: Chance, number: int, least: float, most: float, end: str) -> Event:
    return {"kind": "prediction", "number": number, "seconds": chance.seconds(least, most), "end": end}


def waiting(chance: Chance, cast: Cast, mode: str = "") -> None:
    """Let the create wait for its result."""
    cast["shape"] = "waiting"
    cast["mode"] = mode or chance.one_of(("poke", "deferrable"))


def task_after(chance: Chance, cast: Cast) -> str:
    """Return a task after the creates."""
    has_sensor = cast["shape"] != "waiting" and cast.get("has_sensor", True)
    return chance.one_of(("wait", "store")) if has_sensor else "store"


def index_of(chance: Chance, cast: Cast) -> int:
    """Return the map index of a create."""
    return chance.number(0, len(cast["inputs"]) - 1) if cast["shape"] == "mapped" else -1


def at(event: Event, record: str, nth: int) -> Event:
    """Return a strike at the so-manyth effect of its kind while the record is in a state."""
    return {**event, "record": record, "nth": nth}


def when(chance: Chance, cast: Cast, record: str, seconds: float = 0.0) -> dict[str, Any]:
    """Return the time of an event some seconds after a record has reached a state."""
    state = "running" if record == "none" else f"record {record}"
    return {"when": ["create", index_of(chance, cast), state, seconds or chance.seconds(0.005, 40)]}


def file_faults(chance: Chance, least: int = 0) -> list[Event]:
    """Return faults of storage and links."""
    events = []
    for _ in range(chance.number(least, 2)):
        events.append({"kind": "file", "number": chance.small(25), "failure": chance.one_of(FAILURES)})
        events.append({"kind": "download", "number": chance.small(6), "answer": chance.one_of(DELIVERIES)})
    return events
