"""Airflow's scheduler in a simulated world: tries, retries, resumes, and what users do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.database import OTHER_RUN, TaskInstance
from tests.simulation.process import Process
from tests.simulation.story import Event
from tests.simulation.triggerer import Triggerers
from tests.simulation.users import Users
from tests.simulation.worker import Attempt

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRY_SECONDS = 10.0
NOTICE_SECONDS = 5.0
"""How long it takes until somebody notices that a process has ended, or that its task instance was cleared."""
DEAD_SECONDS = 5.0
"""SIGKILL follows SIGTERM so much later."""
FINISHED = ("success", "failed", "skipped", "upstream_failed")


class Scheduler:
    """Decides which task instance runs when.

    :ivar rows: all task instances, by name.
    :ivar attempts: the processes that run now, by the name of their task instance; an orphan is not among them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[str, TaskInstance] = {}
        self.attempts: dict[str, Attempt] = {}
        self.all_attempts: list[Attempt] = []
        cast = world.cast
        for number in range(cast.options["runs"]):
            for task_id, indexes in cast.groups:
                for index in indexes:
                    self._add("run" if number == 0 else f"run{number + 1}", task_id, index)
        if cast.options["is_stored_twice"]:
            self._add(OTHER_RUN, "store", -1)
        self.triggerers = Triggerers(world, self)
        self.users = Users(world, self)

    def _add(self, run_id: str, task_id: str, index: int) -> None:
        row = TaskInstance(run_id, task_id, index, self.world.cast.options["retries"])
        self.rows[row.name] = row

    def begin(self) -> None:
        self.users.begin()
        self.triggerers.begin()
        self.tick()

    def tick(self) -> None:
        """Start every task instance whose time has come."""
        for row in self.rows.values():
            if row.state is not None:
                continue
            before = self._upstream(row)
            states = {other.state for other in before}
            if states & {"failed", "upstream_failed"}:
                self.set_state(row, "upstream_failed")
            elif "skipped" in states and states <= {*FINISHED}:
                self.set_state(row, "skipped")
            elif states <= {"success"}:
                self.start(row)

    def start(self, row: TaskInstance, *, is_new_try: bool = True) -> None:
        """Start a process for a task instance.

        :param is_new_try: as opposed to a resume, or to the next poke of a reschedule.
        """
        world = self.world
        if row.processes:
            again = "retry" if is_new_try else "poke" if row.next_kwargs is None else "resume"
            world.met(f"{again} begins", row.name)
        if any(other.row is row and other.process.is_running for other in self.all_attempts):
            world.met("try begins beside an orphan", row.name)
        if is_new_try:
            row.try_number += 1
            row.next_kwargs = None
            row.first_rescheduled_at = None
        if row.next_kwargs is None:  # otherwise it is resumed
            if row.xcoms:
                world.met("XComs are emptied", row.name)
            row.xcoms.clear()
            row.started_at = world.kernel.now
        row.id += 1
        row.processes += 1
        process = world.kernel.process(f"{row.name}.{row.processes}")
        process.owner, process.number = row.name, row.processes
        attempt = self.attempts[row.name] = Attempt(world, row, process)
        self.all_attempts.append(attempt)
        self.set_state(row, "running")
        world.kernel.start(process, attempt.run)

    def report(self, attempt: Attempt, state: str, details: Any) -> None:
        """Take what a process reports of its task instance."""
        row = attempt.row
        if attempt.id != row.id or row.state != "running" or self.attempts.get(row.name) is not attempt:
            return  # another try has begun, or a user has decided
        del self.attempts[row.name]
        if attempt.error is not None:
            row.errors.append(f"{type(attempt.error).__name__}: {attempt.error}")
        if state == "deferred":
            self.set_state(row, "deferred")
            self.triggerers.defer(row, details, (*attempt.told_by, attempt.process))
        elif state == "up_for_reschedule":
            row.first_rescheduled_at = row.first_rescheduled_at or row.started_at
            self.set_state(row, state)
            self._later(details, row, lambda: self.start(row, is_new_try=False))
        elif state == "retry":
            self.fail(row)
        else:
            self.set_state(row, state)

    def fail(self, row: TaskInstance) -> None:
        """Let a task instance fail: it is tried again if tries are left."""
        if row.try_number <= row.max_tries:
            self.set_state(row, "up_for_retry")
            self._later(self.world.kernel.now + RETRY_SECONDS, row, lambda: self.start(row))
        else:
            self.set_state(row, "failed")

    def resume(self, row: TaskInstance, method: str, kwargs: dict[str, Any], told_by: tuple[Process, ...]) -> None:
        """Let a deferred task instance run again.

        :param told_by: the processes whose work these arguments know of.
        """
        row.next_kwargs, row.told_by = {"__method__": method, **kwargs}, told_by
        self.set_state(row, "queued")
        self._later(self.world.kernel.now + 0.5, row, lambda: self.start(row, is_new_try=False))

    def set_state(self, row: TaskInstance, state: str | None) -> None:
        row.state = state
        self.world.note(f"{row.name} is {state}")
        self.users.on_state(row, state)
        if state in FINISHED or state is None:
            self.world.kernel.call_at(self.world.kernel.now + 0.1, self.tick)

    # Ends of processes.

    def strike(self, process: Process, event: Event) -> None:
        """Let something happen to a process."""
        kernel = self.world.kernel
        kind, attempt = event["kind"], self.attempt_of(process)
        attempt.struck.append(kind)
        if kind == "stall":
            kernel.sleep(event["seconds"])
        elif kind == "interrupt":
            from airflow.sdk.exceptions import AirflowTaskTimeout

            process.interrupt(AirflowTaskTimeout("execution_timeout"))
        elif kind == "terminate":
            self.terminate(attempt)
            self.notice(attempt, NOTICE_SECONDS + DEAD_SECONDS)
        elif kind == "give_up":
            process.is_orphan = not event.get("is_heard", False)
            self.notice(attempt, event.get("seconds", NOTICE_SECONDS))
        else:
            process.kill()
            self.notice(attempt, NOTICE_SECONDS)

    def terminate(self, attempt: Attempt) -> None:
        """Send SIGTERM, and SIGKILL some seconds later."""
        kernel, process = self.world.kernel, attempt.process
        if attempt.operator is not None:
            process.signal(lambda: (attempt.operator.on_kill(), kernel.halt(process)))
        kernel.call_at(kernel.now + DEAD_SECONDS, process.kill)

    def notice(self, attempt: Attempt, seconds: float = NOTICE_SECONDS) -> None:
        """Let a task instance fail some time after its process has ended, or is taken for dead."""

        def fail() -> None:
            row = attempt.row
            if self.attempts.get(row.name) is attempt and row.state == "running":
                del self.attempts[row.name]
                self.fail(row)

        self.world.kernel.call_at(self.world.kernel.now + seconds, fail)

    def shut_down(self) -> None:
        """End what is left of the world, so that the next one begins in an empty place."""
        for process in self.world.kernel.processes:
            process.kill()
        self.world.kernel.end()
        self.triggerers.shut_down()

    # Look-ups.

    def creates(self, run_id: str) -> list[TaskInstance]:
        return [row for row in self.rows.values() if (row.run_id, row.task_id) == (run_id, "create")]

    def attempt_of(self, process: Process) -> Attempt:
        return next(attempt for attempt in self.all_attempts if attempt.process is process)

    def _upstream(self, row: TaskInstance) -> list[TaskInstance]:
        names = [task_id for task_id, _ in self.world.cast.groups]
        place = names.index(row.task_id)
        before = names[place - 1] if place else None
        return [other for other in self.rows.values() if (other.run_id, other.task_id) == (row.source_run, before)]

    def _later(self, time: float, row: TaskInstance, function: Any) -> None:
        """Call a function at a time, unless the task instance has another state by then."""
        state, id = row.state, row.id

        def call() -> None:
            if (row.state, row.id) == (state, id):
                function()

        self.world.kernel.call_at(time, call)
