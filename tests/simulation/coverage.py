"""Which events have met which states of a record, and which of these pairs can't happen.

Only a create has a record. An event that hits a task which waits or stores counts for that task, and in a row of its
own for the records of the creates before it. What hits an attempt that was replaced counts apart: the record is its
successor's by then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING

from tests.simulation.answers import ENDS, GETS, POSTS
from tests.simulation.downloads import DELIVERIES
from tests.simulation.impossible import RULES
from tests.simulation.storage import FAILURES
from tests.simulation.story import EFFECTS, STRIKES

if TYPE_CHECKING:
    from tests.simulation.database import TaskInstance
    from tests.simulation.process import Process
    from tests.simulation.world import World

Pair = tuple[str, str]

RECORDS = ("none", "sending", "rejected", "accepted", "reported", "delivered")
COLUMNS = (*RECORDS, "wait", "store", "resumed")
"""The states of a record, and the tasks that have none; ``resumed``: a store that has left the worker before."""
TASK_STATES = (
    "running",
    "deferred",
    "queued",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
    "success",
    "failed",
    "upstream_failed",
)
SCOPES = ("task", "downstream", "upstream", "run")
FILE_OPERATIONS = ("begin", "write", "commit", "put", "read")
REPLACED = (*STRIKES, "post", "get")
"""What is told apart if it hits an attempt that was replaced."""
LATER = (*STRIKES, "get", "download", "file", "clear", "mark")
"""What is told apart if it hits a task after the creates."""


# What an event meets.


def columns(world: World, owner: str) -> tuple[str, ...]:
    """Return what an event meets.

    :param owner: the task instance that it hits, and of a batch the item or the key of its record, if it is known.
    """
    name, _, item = owner.partition("#")
    row = world.scheduler.rows.get(name)
    if row is None:
        return ()
    if row.task_id == "create":
        return _states(world, row, item)
    return ("resumed",) if row.task_id == "store" and row.next_kwargs is not None else (row.task_id,)


def records(world: World, owner: str) -> tuple[str, ...]:
    """Return what a strike can name: the states of the records of a create, or of the creates before a task as well."""
    row, own = world.scheduler.rows.get(owner), columns(world, owner)
    if row is None or row.task_id == "create":
        return own
    creates = world.scheduler.creates(row.source_run)
    return (*own, *(state for create in creates for state in _states(world, create, "")))


def rows_of(world: World, label: str, process: Process) -> Iterator[Pair]:
    """Yield the rows and owners for an event that hits a process."""
    owner = process.owner
    row, thread = world.scheduler.rows.get(owner), world.kernel.current
    if row is None:
        return
    kind = label.partition(" ")[0]
    attempt = world.scheduler.attempt_of(process)
    if attempt is not None and attempt.id != row.id:
        if kind in REPLACED:
            yield f"{kind} of a replaced attempt", owner
        return
    item = thread.item if thread is not None and thread.process is process else ""
    yield label, f"{owner}#{item}" if item else owner
    yield from later(world, kind, owner)


def later(world: World, kind: str, owner: str) -> Iterator[Pair]:
    """Yield the row for an event that hits a task after the creates, with each of these."""
    row = world.scheduler.rows.get(owner)
    if row is not None and row.task_id != "create" and kind in LATER:
        for create in world.scheduler.creates(row.source_run):
            yield f"{kind} of a later task", create.name


def _states(world: World, row: TaskInstance, item: str) -> tuple[str, ...]:
    if not world.cast.is_batch:
        return (_state(row, "comet_submission"),)
    if item.startswith("comet_submission"):
        return (_state(row, item),)
    items = [item] if item else world.cast.items
    return tuple(dict.fromkeys(_state(row, record_key(one)) for one in items))


def _state(row: TaskInstance, key: str) -> str:
    text = row.store.get(key)
    if text is None:
        return "none"
    value = json.loads(text)
    state = str(value["state"])
    if state == "accepted" and value.get("reported_error"):
        return "reported"
    if state == "accepted" and "." in key and "comet_batch" in row.store:
        from airflow_provider_comet.submissions.record import BatchRecord

        batch = BatchRecord.from_json(json.loads(row.store["comet_batch"]))
        return "delivered" if batch.has_delivered(key.partition(".")[2], value["id"]) else state
    return state


@cache
def record_key(item: str) -> str:
    """Return the key of the record of an item of a batch: its prompt, and ``~2`` for the second of equal ones."""
    from airflow_provider_comet.submissions import batch
    from tests.simulation.cast import MODEL

    prompt, _, number = item.partition("~")
    (one,) = batch.Batch.of(MODEL, [{"prompt": prompt}]).items
    return batch.record_key(f"{one.digest}-{number or 1}")


# The table.


@cache
def events() -> tuple[str, ...]:
    """Return all rows of the table."""
    effects = dict.fromkeys(effect for names in EFFECTS.values() for effect in names)
    struck = [f"{kind} {phase} {effect}" for kind in STRIKES for effect in effects for phase in ("before", "after")]
    struck += [f"{kind} of a replaced attempt" for kind in REPLACED]
    struck += [f"{kind} of a later task" for kind in LATER]
    return (
        *[f"post {name}" for name in ("accepted", *POSTS)],
        *[f"get {name}" for name in GETS],
        *[f"prediction {name}" for name in ENDS],
        "output has expired",
        "link has expired",
        *[f"download {name}" for name in DELIVERIES],
        *[f"file {kind} {failure}" for kind in FILE_OPERATIONS for failure in FAILURES],
        "two runs store",
        "key_replaced",
        "clock_set",
        "connection_away",
        "server_away",
        "store_answer_lost",
        "store refuses a replaced attempt",
        "retry begins",
        "resume begins",
        "poke begins",
        "XComs are emptied",
        "try begins beside an orphan",
        "lower_retries",
        "change_inputs",
        "change_inputs of mapped",
        *[f"clear {scope}" for scope in SCOPES],
        *[f"clear while {state}" for state in TASK_STATES],
        "clear with changed inputs",
        "clear keeps the records",
        "clear empties the records",
        *[f"mark {state}" for state in ("success", "failed")],
        *[f"mark while {state}" for state in TASK_STATES],
        "execution_timeout",
        "deferral times out",
        "triggerer_dies",
        "triggerer_pauses",
        "event_lost",
        "event comes again while deferred",
        "event comes again while running",
        *struck,
    )


def reason(pair: Pair) -> str | None:
    """Return why a pair can't happen; ``None``: it can."""
    event, column = pair
    for pattern, names, words in RULES:
        if column in names.split() and re.fullmatch(pattern, event):
            return words
    return None


@cache
def possible() -> tuple[Pair, ...]:
    """Return all pairs that can happen."""
    return tuple(pair for event in events() for column in COLUMNS if reason(pair := (event, column)) is None)


def unmet(pairs: Collection[Pair]) -> list[Pair]:
    """Return the pairs that can happen and were not met."""
    return [pair for pair in possible() if pair not in pairs]


def unexpected(pairs: Collection[Pair]) -> list[str]:
    """Return what is wrong with the table: pairs that were met although they can't happen, and rows that it lacks."""
    wrong = [
        f"{event}, {column}: was met, but: {reason((event, column))}"
        for event, column in sorted(pairs)
        if reason((event, column))
    ]
    return wrong + [f"{event}: is no row" for event in sorted({event for event, _ in pairs} - {*events()})]


def table(pairs: Collection[Pair]) -> str:
    """Return the table as text: ``+`` was met, ``.`` can't happen, a hole was not met; below it the holes by name."""
    width = max(map(len, events()))
    lines = [f"{'':{width}} {' '.join(f'{name[:5]:5}' for name in COLUMNS)}".rstrip()]
    for event in events():
        marks = ["+" if (event, name) in pairs else " " if reason((event, name)) is None else "." for name in COLUMNS]
        lines.append(f"{event:{width}} {' '.join(f'{mark:5}' for mark in marks)}".rstrip())
    holes: dict[str, list[str]] = {}
    for event, column in unmet(pairs):
        holes.setdefault(event, []).append(column)
    return "\n".join([*lines, *(f"not met: {event} ({', '.join(names)})" for event, names in holes.items())])


def summary(pairs: Collection[Pair]) -> str:
    """Return how many pairs were met, and what is wrong with the table."""
    count = len(possible())
    words = f"{count - len(unmet(pairs))} of {count} pairs of event and state of the record were met"
    return "\n".join([words, *unexpected(pairs)])
