"""What users and operators of Airflow do in a story: clear, mark, change the DAG, and what else has its own time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import coverage
from tests.simulation.database import TaskInstance
from tests.simulation.story import Event
from tests.simulation.triggerer import THRESHOLD_SECONDS

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler
    from tests.simulation.world import World

KINDS = (
    "clear",
    "mark",
    "change_inputs",
    "lower_retries",
    "server_away",
    "connection_away",
    "key_replaced",
    "clock_set",
    "triggerer_dies",
    "triggerer_pauses",
)


class Users:
    """Makes the events of a story happen that have a time, or that follow a state of a task instance."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self.world = world
        self.scheduler = scheduler
        self._events = world.story.of_kind(*KINDS)
        self._done: set[int] = set()

    def begin(self) -> None:
        for number, event in enumerate(self._events):
            if "at" in event:
                self._at(self.world.kernel.now + event["at"], number, event)

    def on_state(self, row: TaskInstance, state: str | None) -> None:
        """Let the events begin to wait that follow this state of a task instance, or of its record."""
        for number, event in enumerate(self._events):
            if "when" not in event or number in self._done:
                continue
            task_id, index, awaited, seconds = event["when"]
            if (row.task_id, row.map_index, row.run_id, state) == (task_id, index, "run", awaited):
                self._done.add(number)
                self._at(self.world.kernel.now + seconds, number, event)

    def _at(self, time: float, number: int, event: Event) -> None:
        self._done.add(number)

        def call() -> None:
            if "task" in event and f"{event['task']}[{event['index']}]" not in self.scheduler.rows:
                return  # another task of another DAG
            self.world.note(f"event: {event['kind']}")
            self.world.happened.append((self.world.kernel.now, event["kind"]))
            getattr(self, f"_{event['kind']}")(event)

        self.world.kernel.call_at(time, call)

    # Clears.

    def _clear(self, event: Event) -> None:
        """Clear task instances, as a user does in Airflow's interface."""
        scheduler = self.scheduler
        row = self._row(event)
        order = [task_id for task_id, _ in self.world.cast.groups]
        place = order.index(row.task_id)
        wanted = {
            "task": [row.task_id],
            "downstream": order[place:],
            "upstream": order[: place + 1],
            "run": order,
        }[event["scope"]]
        for other in [*scheduler.rows.values()]:
            is_row = other is row or event["scope"] != "task"
            if other.run_id == row.run_id and other.task_id in wanted and is_row and (other.try_number or other.state):
                self._clear_row(other, event)

    def _clear_row(self, row: TaskInstance, event: Event) -> None:
        world, scheduler = self.world, self.scheduler
        state = row.state
        is_emptied = world.cast.options["airflow"] == "3.4" and event["scope"] != "run" and not event.get("keep")
        self._met("clear", row, event["scope"], f"while {state}")
        if row.store:
            self.world.met(f"clear {'empties' if is_emptied else 'keeps'} the records", row.name)
        if row.task_id == "create" and world.cast.inputs != world.cast.options["inputs"]:
            self.world.met("clear with changed inputs", row.name)
        world.invariants.account.cleared(row, is_emptied=is_emptied)
        if is_emptied:
            row.store.clear()
        attempt = scheduler.attempts.pop(row.name, None)
        if state == "running" and attempt is not None:
            row.id += 1  # at once: what the old process writes is refused from now on
            scheduler.set_state(row, "restarting")
            world.kernel.call_at(world.kernel.now + 5.0, lambda: scheduler.terminate(attempt))
            world.kernel.call_at(world.kernel.now + 11.0, lambda: self._restart(row, event))
            return
        if state == "deferred":
            scheduler.triggerers.remove(row, by_user=True)
        row.id += 1
        row.max_tries = row.try_number + row.retries
        row.next_kwargs = None
        scheduler.set_state(row, None)

    def _restart(self, row: TaskInstance, event: Event) -> None:
        """Airflow does not always raise ``max_tries`` of a task that was cleared while it ran."""
        if row.state == "restarting":
            row.max_tries += 1 if event.get("is_raised", True) else 0
            row.next_kwargs = None
            self.scheduler.set_state(row, None)

    def _mark(self, event: Event) -> None:
        row, scheduler = self._row(event), self.scheduler
        self._met("mark", row, event["state"], f"while {row.state}")
        if row.state == "deferred":
            scheduler.triggerers.remove(row, by_user=True)
        if (attempt := scheduler.attempts.pop(row.name, None)) is not None:
            self.world.kernel.call_at(self.world.kernel.now + 5.0, lambda: scheduler.terminate(attempt))
        scheduler.set_state(row, event["state"])

    # The DAG, and what is around it.

    def _change_inputs(self, event: Event) -> None:
        self.world.cast.inputs = [*event["inputs"]]
        for row in self.scheduler.creates("run"):
            self.world.met("change_inputs", row.name)
            if self.world.cast.is_mapped:
                self.world.met("change_inputs of mapped", row.name)

    def _lower_retries(self, event: Event) -> None:
        for row in self.scheduler.rows.values():
            row.retries = min(row.retries, event["retries"])
            self.world.met("lower_retries", row.name)

    def _server_away(self, event: Event) -> None:
        self.world.is_server_away = True
        self._end(event, "is_server_away")

    def _connection_away(self, event: Event) -> None:
        self.world.is_connection_away = True
        self._end(event, "is_connection_away")

    def _end(self, event: Event, name: str) -> None:
        self.world.kernel.call_at(self.world.kernel.now + event["seconds"], lambda: setattr(self.world, name, False))

    def _key_replaced(self, event: Event) -> None:
        """The service takes another key at once, and the connection has it some time later."""
        world = self.world
        world.api.key = key = f"{world.api.key[:-3]}{event['number']:03d}"
        world.kernel.call_at(world.kernel.now + event["seconds"], lambda: setattr(world, "connection_key", key))
        self._met_all("key_replaced")

    def _clock_set(self, event: Event) -> None:
        self.world.clock_jump += event["seconds"]
        self._met_all("clock_set")

    def _triggerer_dies(self, event: Event) -> None:
        self.scheduler.triggerers.kill(event.get("seconds", THRESHOLD_SECONDS))

    def _triggerer_pauses(self, event: Event) -> None:
        self.scheduler.triggerers.pause(event["seconds"])

    def _met(self, kind: str, row: TaskInstance, *details: str) -> None:
        for detail in details if row.state is not None else details[:1]:
            self.world.met(f"{kind} {detail}", row.name)
        for label, owner in coverage.later(self.world, kind, row.name):
            self.world.met(label, owner)

    def _met_all(self, label: str) -> None:
        for row in self.scheduler.rows.values():
            if row.state not in (None, "success", "failed", "upstream_failed", "skipped"):
                self.world.met(label, row.name)

    def _row(self, event: Event) -> TaskInstance:
        return self.scheduler.rows[f"{event['task']}[{event['index']}]"]
