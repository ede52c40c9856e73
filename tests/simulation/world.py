"""A simulated world: what everything in it shares, and the effects that its processes have on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tests.simulation import coverage
from tests.simulation.cast import Cast
from tests.simulation.comet import CometAPI
from tests.simulation.invariants import Invariants
from tests.simulation.kernel import Kernel
from tests.simulation.process import Process, Thread
from tests.simulation.scheduler import Scheduler
from tests.simulation.storage import Storage
from tests.simulation.story import STRIKES, Event, Story

if TYPE_CHECKING:
    from tests.simulation.comet import Prediction
    from tests.simulation.database import TaskInstance

T = TypeVar("T")

STORY_SECONDS = 12 * 3600.0
"""When a story has to be at rest."""


class World:
    """One story while it happens.

    :ivar trace: what happened, a line for each effect: the same in every run of the story.
    :ivar pairs: which events met which state of a record.
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        self.kernel = Kernel(story.order)
        self.begins = self.kernel.now
        self.clock_jump = 0.0
        self.trace: list[str] = []
        self.pairs: set[tuple[str, str]] = set()
        self.logs: list[tuple[str, str]] = []
        self.happened: list[tuple[float, str]] = []
        self.downloads: list[tuple[float, str]] = []
        self.is_server_away = False
        self.is_connection_away = False
        self.locks: list[Any] = []
        self.sessions: set[tuple[Process, int]] = set()
        self._counts: dict[str, int] = {}
        self._strikes: dict[tuple[str, str, str], list[Event]] = {}
        for event in story.of_kind(*STRIKES):
            self._strikes.setdefault(_place(event), []).append(event)
        self.invariants = Invariants(self)
        self.api = CometAPI(self)
        self.connection_key = self.api.key
        self.cast = Cast(story.cast)
        self.storage = Storage(self)
        self.scheduler = Scheduler(self)

    def run(self) -> None:
        """Let the story happen, until nothing is left to do."""
        from tests.simulation.seams import installed

        with installed(self):
            try:
                self.scheduler.begin()
                self.kernel.run(self.begins + STORY_SECONDS)
                self.invariants.at_rest()
            finally:
                self.scheduler.shut_down()
                if self.invariants.first is not None:  # whatever came of it
                    raise self.invariants.first

    # Effects.

    def effect(
        self, kind: str, detail: str = "", seconds: float = 0.0, apply: Callable[[], T] | None = None
    ) -> T | None:
        """Let a process have an effect. Here it can be killed, before and after.

        :param kind: of the effect; a story names effects by kind and number.
        :param seconds: how long it takes.
        :param apply: makes it happen.
        """
        kernel, thread = self.kernel, self.kernel.current
        assert thread is not None, (kind, detail)
        kernel.checkpoint()
        process = thread.process
        number = process.effects[kind] = process.effects.get(kind, 0) + 1
        self._strike(thread, kind, number, "before")
        if seconds:
            kernel.sleep(seconds)
        self.note(f"{process.name}/{thread.name} {kind} {detail}")
        result = apply() if apply is not None else None
        self.invariants.after_effect()
        self._strike(thread, kind, number, "after")
        return result

    def note(self, text: str) -> None:
        self.trace.append(f"{self.kernel.now - self.begins:10.3f} {text}")

    def count(self, what: str) -> int:
        """Return the number of this effect among those of all processes."""
        self._counts[what] = self._counts.get(what, 0) + 1
        return self._counts[what]

    def _strike(self, thread: Thread, kind: str, number: int, phase: str) -> None:
        process = thread.process
        for event in self._strikes.get((process.owner, kind, phase), ()):
            if self._is_struck(thread, number, event):
                self.note(f"{process.name}: {event['kind']}")
                if event["kind"] != "interrupt" or (process.main is not None and process.is_interruptible):
                    self.met_by(process, f"{event['kind']} {phase} {kind}")
                self.scheduler.strike(process, event)
                self.kernel.checkpoint()

    def _is_struck(self, thread: Thread, number: int, event: Event) -> bool:
        """Whether it is this effect that an event names, by its number or by the state of the record."""
        process = thread.process
        if "record" not in event:
            return bool(number == event["nth"] and process.number == event["attempt"])
        owner = f"{process.owner}#{thread.item}" if thread.item else process.owner
        if event["record"] not in coverage.records(self, owner):
            return False
        return self.count(f"strike {self.story.events.index(event)}") == event["nth"]

    # What others tell.

    def met(self, label: str, owner: str) -> None:
        """Note that an event met a task instance, with the state of its record."""
        self.happened.append((self.kernel.now, label.partition(" ")[0]))
        self.pairs.update((label, column) for column in coverage.columns(self, owner))

    def met_by(self, process: Process, label: str) -> None:
        """Note that an event met a process."""
        for row, owner in coverage.rows_of(self, label, process):
            self.met(row, owner)

    def owner_of(self, process: Process, input: dict[str, Any]) -> str:
        """Return whose create a process sends: the task instance, and of a batch the input."""
        if not self.cast.is_batch:
            return process.owner
        thread = self.kernel.current
        number = thread.item.rpartition("-")[2] if thread is not None else ""
        return f"{process.owner}#{input['prompt']}{'' if number in ('', '1') else f'~{number}'}"

    @property
    def open_sessions(self) -> int:
        """How many sessions are open that nobody closes any more: triggerers that run have none at rest."""
        return sum(not process.is_dead for process, _ in self.sessions)

    def predictions_of(self, row: TaskInstance) -> list[Prediction]:
        """Return what was bought for a task instance."""
        return [made for made in self.api.predictions.values() if made.owner.partition("#")[0] == row.name]

    def accepted(self, prediction: Any) -> None:
        self.invariants.account.accepted(prediction)

    def wrote(self, row: Any, key: str, value: Any) -> None:
        self.left("the state store", str(value))
        self.invariants.wrote(row, key, value)
        for column in coverage.columns(self, row.name if key == "comet_batch" else f"{row.name}#{key}"):
            self.scheduler.users.on_state(row, f"record {column}")

    def left(self, where: str, text: str) -> None:
        """Check what leaves a process: it must not hold a key."""
        self.invariants.left(where, text)

    def log(self, text: str) -> None:
        """Write a line into the log of the process that runs."""
        thread = self.kernel.current
        owner = thread.process.owner if thread is not None else ""

        def apply() -> None:
            self.logs.append((owner, text))
            self.left("the log", text)

        if thread is None:
            apply()
        else:
            self.effect("log", text.partition("\n")[0][:160], 0.0, apply)


def _place(event: Event) -> tuple[str, str, str]:
    return f"{event['task']}[{event['index']}]", event["effect"], event["phase"]
