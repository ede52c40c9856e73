"""``python -m tests.simulation.lines``: an exception from outside at any line of ``submissions/``.

Airflow's task timeout is raised by a signal handler, so in the main thread of a task, between any two lines of it. Each
base story is run once to count the lines that the main thread of one process runs, and then once for each of them.
Which lines there are depends on the release of Python.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from tests.support import private_airflow

private_airflow()

from airflow_provider_comet.submissions import state_store  # noqa: E402
from tests.simulation.invariants import Violated  # noqa: E402
from tests.simulation.story import Event, Story  # noqa: E402
from tests.simulation.worker import Attempt  # noqa: E402
from tests.simulation.world import World  # noqa: E402

ROOM = os.path.dirname(state_store.__file__)
STRUCK_INDEX = 1
"""The map index of the create that is struck, where it is mapped."""

QUICK: list[Event] = [
    {"kind": "prediction", "number": number, "seconds": 0.5, "end": "succeeded"} for number in range(1, 10)
]


@dataclass(frozen=True)
class Base:
    """A story, and the process of its create that is struck.

    :param process: 1 for the first one; tries and resumes count alike.
    """

    name: str
    story: Story
    process: int

    @property
    def owner(self) -> str:
        return f"create[{_index(self.story.cast['shape'])}]"


@dataclass(frozen=True)
class Outcome:
    """How a base story went.

    :param wrong: which invariant does not hold; ``None``: all do.
    :param end: the final state of each task instance, and how many creates were accepted of each item.
    :param lines: those that the struck process ran, up to the exception.
    :param error: how the struck process ended.
    """

    wrong: str | None
    end: tuple[dict[str, str | None], dict[str, int]]
    lines: list[str]
    error: BaseException | None


def bases() -> list[Base]:
    """Return all base stories."""
    found = []
    for shape in ("single", "waiting", "mapped", "batch"):
        for policy in ("fail", "retry"):
            for name, events, process in _before(shape):
                quick = [] if shape == "waiting" else QUICK  # what comes after a create that does not wait takes long
                cast = {"shape": shape, "policy": policy, "inputs": ["a", "b", "c"] if shape == "batch" else ["a", "b"]}
                story = Story(cast, [*events, *quick])
                found.append(Base(f"{shape}, {policy}: {name}", story, process))
    return found


def _before(shape: str) -> Iterator[tuple[str, list[Event], int]]:
    """Yield what has happened before the process that is struck, and its number."""
    place = {"task": "create", "index": _index(shape)}
    kill: Event = {"kind": "kill", **place, "attempt": 1, "nth": 1, "phase": "after"}
    first = 3 if shape == "waiting" else 2  # a create that waits has run twice by then
    yield "its first try", [], 1
    if shape != "mapped":  # there the exception would give the answer to another one's create
        yield "no clear answer", [{"kind": "post", "number": 1, "answer": "lost_after"}], 1
    yield "a retry, killed before the answer", [{**kill, "effect": "send"}], 2
    yield "a retry, killed after the answer", [{**kill, "effect": "receive"}], 2
    yield (
        "a retry, killed with the id on record",
        [{**kill, "effect": "store.set", "nth": 4 if shape == "batch" else 2}],
        2,
    )
    when = {"when": ["create", place["index"], "success", 1.0]}
    yield "after a clear", [{"kind": "clear", **place, **when, "scope": "task"}], first
    if shape == "waiting":
        yield "its resume", [], 2
        yield "the report of a bad end", [{"kind": "prediction", "number": 1, "seconds": 30.0, "end": "failed"}], 2


def _index(shape: str) -> int:
    return STRUCK_INDEX if shape == "mapped" else -1


class Strike:
    """Raises Airflow's task timeout in the main thread of one process, at the n-th line that it runs.

    :param number: of the line, from 0; ``None``: it is never raised.
    :ivar lines: those that were run, up to the exception.
    :ivar attempt: the process.
    """

    def __init__(self, world: World, base: Base, number: int | None) -> None:
        self.lines: list[str] = []
        self.attempt: Attempt | None = None
        self._kernel = world.kernel
        self._place = base.owner, base.process
        self._number = number

    def execute(self, execute: Any, attempt: Attempt, operator: Any, context: Any) -> Any:
        """Execute a task, traced if it is the one."""
        if (attempt.process.owner, attempt.process.number) != self._place:
            return execute(attempt, operator, context)
        self.attempt, before = attempt, sys.gettrace()
        sys.settrace(self._on_call)
        try:
            return execute(attempt, operator, context)
        finally:
            sys.settrace(before)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
        if not path.startswith(ROOM) or not self._is_main or is_generator:  # when closed, it swallows what is raised
            return None
        exits, previous, name = _exits(path), 0, os.path.relpath(path, os.path.dirname(ROOM))

        def on_event(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal previous
            assert self._is_main, "a thread was traced that Python delivers no signals to"
            if event == "line":
                line, came_from = frame.f_lineno, previous
                previous = line
                if (line, came_from) not in exits:
                    self._on_line(f"{name}:{line}")
            return on_event

        return on_event

    @property
    def _is_main(self) -> bool:
        """Whether the thread that runs is the main thread of the process: greenlets share the trace function."""
        return self.attempt is not None and self._kernel.current is self.attempt.process.main

    def _on_line(self, line: str) -> None:
        from airflow.sdk.exceptions import AirflowTaskTimeout

        self.lines.append(line)
        if len(self.lines) - 1 == self._number and self.attempt is not None:
            self.attempt.struck.append("interrupt")
            raise AirflowTaskTimeout("execution_timeout")


@functools.cache
def _exits(path: str) -> frozenset[tuple[int, int]]:
    """Return the pairs of a line of a ``with`` and a line of its body: from there it is run again, to leave the block.

    No signal is handled then: a lock would stay locked, which real signals can't do to it.
    """
    found = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        if isinstance(node, ast.With):
            head = range(node.lineno, node.body[0].lineno)
            body = range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
            found |= {(line, came_from) for line in head for came_from in body}
    return frozenset(found)


def run(base: Base, number: int | None = None) -> Outcome:
    """Run a base story, with the exception at a line."""
    world = World(base.story)
    strike = Strike(world, base, number)
    execute, wrong = Attempt._execute, None

    def traced(attempt: Attempt, operator: Any, context: Any) -> Any:
        return strike.execute(execute, attempt, operator, context)

    with mock.patch.object(Attempt, "_execute", traced):
        try:
            world.run()
        except (Exception, Violated) as error:
            wrong = f"{type(error).__name__}: {error}"
    states = {row.name: row.state for row in world.scheduler.rows.values()}
    bought = {item.owner: len(item.bought) for item in world.invariants.account.items.values()}
    error = None if strike.attempt is None else strike.attempt.error
    return Outcome(wrong, (states, bought), strike.lines, error)


def run_as_usual(base: Base) -> Outcome:
    """Run a base story without an exception, for the second time: what is imported late has its own lines."""
    run(base)
    return run(base)


def failure(base: Base, number: int, usual: Outcome) -> str | None:
    """Return what goes wrong if the exception comes at a line; ``None``: all is well.

    However it is interrupted, the task has to end as it does without that, and for the same money.
    """
    outcome = run(base, number)
    wrong = outcome.wrong
    if wrong is None and outcome.lines != usual.lines[: number + 1]:
        wrong = "another line was run than without the exception"
    if wrong is None and outcome.error is None:
        wrong = "the exception was swallowed"
    if wrong is None and outcome.end != usual.end:
        wrong = f"it ends as {outcome.end}, and should as {usual.end}"
    return None if wrong is None else f"{outcome.lines[-1]} (no. {number}): {wrong}"


def main() -> int:
    """Sweep over all lines of the base stories."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.lines")
    parser.add_argument("--story", default="", help="only the stories whose name has this in it")
    options = parser.parse_args()
    started, total, failed = time.monotonic(), 0, 0
    for base in bases():
        if options.story not in base.name:
            continue
        usual = run_as_usual(base)
        failures = [found for number in range(len(usual.lines)) if (found := failure(base, number, usual))]
        if usual.wrong is not None or not usual.lines:
            failures.append(f"without an exception: {usual.wrong or 'no line was run'}")
        print(f"{len(usual.lines):5} lines, {len(failures)} failures: {base.name}", flush=True)
        print(*(f"      {line}\n" for line in failures), sep="", end="")
        total, failed = total + len(usual.lines), failed + len(failures)
    seconds, version = time.monotonic() - started, ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {total} lines in {seconds:.0f} s, {failed} failures")
    return int(bool(failed) or not total)


if __name__ == "__main__":
    sys.exit(main())
