"""Airflow's triggerers in a simulated world: event loops that can die, pause, and fire twice."""

from __future__ import annotations

import asyncio
import contextvars
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.database import TaskInstance
from tests.simulation.loop import KernelLoop
from tests.simulation.process import Killed, Process

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler
    from tests.simulation.world import World

THRESHOLD_SECONDS = 30.0
"""After so many seconds without a heartbeat another triggerer takes over."""
START_SECONDS = 1.0
NOTICE_SECONDS = 5.0
"""How long a worker takes until it notices that its task instance was begun once more."""


@dataclass
class Row:
    """A row of Airflow's table of triggers.

    :param told_by: the processes whose work its task instance knows of when it is resumed.
    """

    number: int
    row: TaskInstance
    path: str
    kwargs: dict[str, Any]
    next_kwargs: dict[str, Any]
    told_by: tuple[Process, ...]
    is_fired: bool = False


TRIGGER: contextvars.ContextVar[Row] = contextvars.ContextVar("TRIGGER")
"""For which trigger a poll is made."""


class Triggerer:
    """A process with an event loop, in which triggers run."""

    def __init__(self, world: World, number: int) -> None:
        self.process: Process = world.kernel.process(f"triggerer{number}")
        self.loop = KernelLoop(world.kernel, lambda: world.kernel.now - world.begins + 1_000.0)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.is_paused = False
        world.kernel.start(self.process, self._run)

    def _run(self) -> None:
        asyncio.set_event_loop(None)
        self.loop.set_exception_handler(lambda *_: None)  # of killed tasks; what a trigger raises, `_run` judges
        try:
            self.loop.run_forever()
        except Killed:
            self.loop.unwind()
            raise


class Triggerers:
    """All triggerers, one of which takes new triggers, and the table of triggers."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world = world
        self.scheduler = scheduler
        self.triggerers: list[Triggerer] = []
        self._rows: dict[int, Row] = {}
        self._numbers = 0

    def begin(self) -> None:
        self._add()

    def defer(self, row: TaskInstance, details: dict[str, Any], told_by: tuple[Process, ...]) -> None:
        """Take the trigger of a task instance that has left its worker."""
        kernel = self.world.kernel
        self._numbers += 1
        trigger = Row(self._numbers, row, details["path"], details["kwargs"], details["next_kwargs"], told_by)
        self._rows[trigger.number] = trigger
        kernel.call_at(kernel.now + START_SECONDS, lambda: self._assign(trigger))
        if details["timeout"] is not None:
            kernel.call_at(kernel.now + details["timeout"], lambda: self._time_out(trigger))

    def remove(self, row: TaskInstance, *, by_user: bool) -> None:
        """Forget the trigger of a task instance; its task is canceled."""
        for number, trigger in [*self._rows.items()]:
            if trigger.row is row:
                del self._rows[number]
                for triggerer in self.triggerers:
                    if (task := triggerer.tasks.pop(number, None)) is not None and not triggerer.process.is_dead:
                        triggerer.loop.hand_over(task.cancel)

    def kill(self, seconds: float) -> None:
        """SIGKILL of the triggerer that has the triggers; another one takes them over some time later."""
        triggerer = self.triggerers[-1]
        self._met("triggerer_dies")
        triggerer.process.kill()
        self._take_over(seconds)

    def pause(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT; if that lasts, another triggerer takes over, and both run the triggers."""
        triggerer, kernel = self.triggerers[-1], self.world.kernel
        self._met("triggerer_pauses")
        triggerer.loop.is_frozen = triggerer.is_paused = True

        def proceed() -> None:
            triggerer.loop.is_frozen = triggerer.is_paused = False
            if not triggerer.process.is_dead:
                triggerer.loop.hand_over(lambda: None)

        kernel.call_at(kernel.now + seconds, proceed)
        if seconds > THRESHOLD_SECONDS:
            self._take_over(THRESHOLD_SECONDS)

    def shut_down(self) -> None:
        """Close the loops, whose processes are dead."""
        for triggerer in self.triggerers:
            triggerer.loop.close()

    @property
    def deferred(self) -> list[Row]:
        """The triggers that have not fired."""
        return [*self._rows.values()]

    def is_awaited(self, trigger: Row) -> bool:
        """Whether a task instance still waits for the event of a trigger."""
        return self._rows.get(trigger.number) is trigger

    def _add(self) -> None:
        self.triggerers.append(Triggerer(self.world, len(self.triggerers) + 1))

    def _take_over(self, seconds: float) -> None:
        def take_over() -> None:
            self._add()
            for trigger in [*self._rows.values()]:
                self._assign(trigger)

        self.world.kernel.call_at(self.world.kernel.now + seconds, take_over)

    def _assign(self, trigger: Row) -> None:
        if self._rows.get(trigger.number) is trigger:
            triggerer = self.triggerers[-1]
            if not triggerer.process.is_dead:
                triggerer.loop.hand_over(lambda: self._start(triggerer, trigger))

    def _start(self, triggerer: Triggerer, trigger: Row) -> None:
        if trigger.number not in triggerer.tasks:
            task = triggerer.loop.create_task(self._run(triggerer, trigger))
            triggerer.tasks[trigger.number] = task
            task.add_done_callback(lambda _: triggerer.tasks.pop(trigger.number, None))

    async def _run(self, triggerer: Triggerer, trigger: Row) -> None:
        from airflow.sdk._shared.module_loading import import_string

        TRIGGER.set(trigger)
        made = import_string(trigger.path)(**json.loads(json.dumps(trigger.kwargs)))
        try:
            async for event in made.run():
                payload = json.dumps(event.payload, allow_nan=False)
                self.world.left("an event", payload)
                self.world.invariants.stores.left(trigger.row, payload)
                self._fire(trigger, json.loads(payload))
        except Exception as error:
            self.world.invariants.require(False, f"a trigger raises {type(error).__name__}: {error}")
        except asyncio.CancelledError:
            if trigger.number not in self._rows and hasattr(made, "on_kill"):
                await made.on_kill()

    def _fire(self, trigger: Row, payload: Any) -> None:
        """Take an event: the first one counts."""
        if self._rows.pop(trigger.number, None) is None or trigger.row.state != "deferred":
            return
        number, kernel = self.world.count("event"), self.world.kernel
        events = [event for event in self.world.story.of_kind("event_lost", "event_twice") if event["number"] == number]
        lost = any(event["kind"] == "event_lost" for event in events)
        if lost:
            self.world.met("event_lost", trigger.row.name)
        kwargs = dict(trigger.next_kwargs) if lost else {**trigger.next_kwargs, "event": payload}
        kernel.call_at(kernel.now, lambda: self._resume(trigger, kwargs))
        for event in events:
            if event["kind"] == "event_twice":
                kernel.call_at(kernel.now + event["seconds"], lambda: self._fire_again(trigger, kwargs))

    def _resume(self, trigger: Row, kwargs: dict[str, Any]) -> None:
        self.scheduler.resume(trigger.row, "execute_complete", kwargs, trigger.told_by)

    def _fire_again(self, trigger: Row, kwargs: dict[str, Any]) -> None:
        """Handle an event once more: two triggerers had the trigger, and one of them is late.

        A task that has deferred again has another trigger, so the old event is dropped. A task that runs is begun once
        more, and the process that runs loses its right to write.
        """
        row, state = trigger.row, trigger.row.state
        if state != "deferred" and not (state == "running" and row.next_kwargs):
            return
        self.world.met(f"event comes again while {state}", row.name)
        if state == "deferred":
            return
        if (attempt := self.scheduler.attempts.pop(row.name, None)) is not None:
            row.id += 1
            self.world.kernel.call_at(self.world.kernel.now + NOTICE_SECONDS, lambda: self.scheduler.terminate(attempt))
        self._resume(trigger, kwargs)

    def _time_out(self, trigger: Row) -> None:
        """Airflow's own timeout of a deferral."""
        if self._rows.pop(trigger.number, None) is None or trigger.row.state != "deferred":
            return
        from airflow.sdk.bases.operator import TriggerFailureReason

        self.world.met("deferral times out", trigger.row.name)
        self.scheduler.resume(trigger.row, "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, trigger.told_by)

    def _met(self, label: str) -> None:
        for trigger in self._rows.values():
            self.world.met(label, trigger.row.name)
