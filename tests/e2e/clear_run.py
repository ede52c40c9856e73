"""Runs many stories at once: each is what happens to one task instance, and what has to be true meanwhile."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_comet.emulator import Emulator
from tests.e2e.rest import FINISHED, AirflowRest, RestError
from tests.e2e.standalone import Standalone

Steps = Generator[None, None, None]
"""A story; it yields when the state has to be read again."""

RETRIES = 2
PAUSE = 0.5
HEADER = (
    f"{'scenario':24} {'task':24} {'map':>3} {'creates':>7}  {'final':8} {'tries':>5} {'secs':>5}  record / verdict"
)


LOG_BEGINS = "startup parse complete"  # of an attempt that was not lost
LOG_SECONDS = 10.0


class World:
    """What all stories see: Airflow's state as of the current round, and the emulator.

    :param dags: the private copy of the DAG files.
    """

    def __init__(self, airflow: Standalone, emulator: Emulator, dags: Path) -> None:
        self.home = airflow.home
        self.rest: AirflowRest = airflow.rest
        self.emulator = emulator
        self.dags = dags
        self.runs: dict[str, str] = {}
        self.instances: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.stories: list[Story] = []
        self._once: set[str] = set()

    def refresh(self) -> None:
        """Read the state of everything."""
        self.instances = {
            (dag_id, ti["task_id"], ti["map_index"]): ti
            for dag_id, run_id in self.runs.items()
            for ti in self.rest.task_instances(dag_id, run_id)
        }

    def once(self, name: str, act: Callable[[], None]) -> None:
        """Do this unless another story has done it."""
        if name not in self._once:
            self._once.add(name)
            act()

    def start(self, dag_id: str) -> None:
        """Start the one run of this DAG."""
        self.rest.wait_for_dag(dag_id)
        self.runs[dag_id] = self.rest.trigger(dag_id)

    def done(self, name: str) -> bool:
        return name in self._once

    def finished(self, dag_id: str, task_id: str | None = None) -> bool:
        """Whether all instances of the DAG's run, or of the task, have ended."""
        found = [ti for key, ti in self.instances.items() if key[0] == dag_id and task_id in (None, key[1])]
        return bool(found) and all(ti["state"] in FINISHED for ti in found)

    def run(self, stories: Sequence[Story], timeout: float) -> None:
        """Run all stories at once; each notes what goes wrong in it."""
        self.stories = list(stories)
        started = time.monotonic()
        steps = {id(story): story.scenario(story) for story in stories}
        while (left := [story for story in stories if story.seconds is None]) and time.monotonic() - started < timeout:
            self.refresh()
            for story in left:
                try:
                    next(steps[id(story)])
                except StopIteration:
                    story.seconds = time.monotonic() - started
                except Exception as error:  # the other stories continue
                    story.seconds = time.monotonic() - started
                    story.fail(f"{type(error).__name__}: {error}")
            time.sleep(PAUSE)
        for story in left:
            story.fail(f"not finished within {timeout:.0f} s")
        self.refresh()


@dataclass(eq=False)
class Story:
    """One task instance, and what has to be true of it."""

    world: World
    scenario: Callable[[Story], Steps]
    dag_id: str
    task_id: str
    map_index: int = -1
    seconds: float | None = None
    clears: int = 0
    wrong: list[str] = field(default_factory=list)
    _tries_before: int = 0

    @property
    def name(self) -> str:
        function = getattr(self.scenario, "func", self.scenario)
        return str(getattr(function, "__name__", function))

    @property
    def _where(self) -> tuple[str, str, str]:
        return self.dag_id, self.world.runs[self.dag_id], self.task_id

    @property
    def instance(self) -> dict[str, Any]:
        """What Airflow said of it at the beginning of this round."""
        return self.world.instances.get((self.dag_id, self.task_id, self.map_index), {})

    @property
    def state(self) -> str | None:
        found: str | None = self.instance.get("state")
        return found

    @property
    def tries(self) -> int:
        return int(self.instance.get("try_number") or 0)

    def creates(self) -> list[str]:
        """The ids of its accepted creates."""
        mine = f"{self.task_id}/{max(0, self.map_index)}"
        ledger = self.world.emulator.ledger()["creates"]
        return [create["id"] for create in ledger if create["input"]["prompt"].split(" ")[0] == mine]

    def record(self) -> dict[str, Any]:
        return self.world.rest.record(*self._where, map_index=self.map_index) or {}

    def log(self, try_number: int) -> str:
        """What an attempt logged; nothing if Airflow does not know that attempt."""
        try:
            return self.world.rest.log(*self._where, try_number=try_number, map_index=self.map_index)
        except RestError as error:
            if error.status == 404:
                return ""
            raise

    def result(self) -> Any:
        return self.world.rest.xcom(*self._where, map_index=self.map_index)

    # What a user does.

    def clear(self, **options: Any) -> None:
        task = self.task_id if self.map_index < 0 else [self.task_id, self.map_index]
        self._tries_before = self.tries
        self.clears += 1
        self.world.rest.clear(self.dag_id, self.world.runs[self.dag_id], [task], **options)

    def put_record(self, value: dict[str, Any]) -> None:
        self.world.rest.put_record(*self._where, value, map_index=self.map_index)

    def delete_record(self) -> None:
        self.world.rest.delete_record(*self._where, map_index=self.map_index)

    def set_note(self, value: str) -> None:
        """Let the note in the task's input be another text."""
        self.world.rest.set_variable(f"note_{self.task_id}", value)

    def clear_whole_run(self) -> None:
        """Clear the DAG run, once for all of its stories."""
        path, body = self._clear_path, {"dry_run": False, "only_failed": False}
        self.world.once(path, lambda: self.world.rest.send("POST", path, body))

    def pin(self, prediction_id: str, status: str = "succeeded") -> None:
        """Let a prediction be in this status; without this it runs for as long as the test does."""
        self.world.emulator.set_prediction(prediction_id, status=status)

    # What is waited for.

    def until(self, what: str, check: Callable[[], object], timeout: float = 150.0) -> Steps:
        end = time.monotonic() + timeout
        yield  # what was done before this shows in the next round
        while not check():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {timeout:.0f} s: {what}")
            yield

    def paid(self, count: int) -> Steps:
        yield from self.until(f"{count} creates", lambda: len(self.creates()) >= count)

    def ends(self, state: str) -> Steps:
        """Wait for the end of what was started last, and claim how it ends."""
        yield from self.until(f"ended as {state}", lambda: self.state in FINISHED and self.tries > self._tries_before)
        self._tries_before = self.tries
        self.claim("it ends as", state, self.state)

    def runs_again(self, state: str) -> Steps:
        """Wait until the attempt after a clear has come to this state."""
        yield from self.until(f"{state} again", lambda: self.state == state and self.tries > self._tries_before)

    def run_is_over(self) -> bool:
        """Whether the DAG run has ended, or was cleared since. It ends a little after its last task, and Airflow
        forgets a clear that comes in between."""
        if self.world.done(self._clear_path):
            return True
        run_state = self.world.rest.run_state
        return self.world.finished(self.dag_id) and run_state(self.dag_id, self.world.runs[self.dag_id]) in FINISHED

    @property
    def _clear_path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{urllib.parse.quote(self.world.runs[self.dag_id], safe='')}/clear"

    def siblings(self) -> list[Story]:
        """The stories of those map indexes that are cleared."""
        return [story for story in self.world.stories if story.task_id == self.task_id and story.name != "untouched"]

    # What is claimed.

    def claim(self, what: str, expected: object, found: object) -> None:
        if found != expected:
            self.fail(f"{what}: expected {expected!r}, found {found!r}")

    def claim_log(self, try_number: int, *texts: str) -> None:
        """Claim that each text is in the log of that attempt or of a later attempt.

        When a task resumes after a deferral, Airflow now and then loses the attempt and begins another one
        (apache/airflow#72716): the log of the lost attempt is gone or empty, and proves nothing.
        """
        end = time.monotonic() + LOG_SECONDS
        while True:
            logs = [self.log(number) for number in range(try_number, max(self.tries, try_number) + 1)]
            missing = [text for text in texts if not any(text in log for log in logs)]
            if not missing or time.monotonic() > end:
                break
            time.sleep(1)  # the last lines of an attempt may come after its state
        if missing and all(LOG_BEGINS in log for log in logs):
            self.fail(f"the log of try {try_number} does not say {missing}:\n{logs[0][-3000:]}")

    def claim_not_in_log(self, try_number: int, text: str) -> None:
        if text in (log := self.log(try_number)):
            self.fail(f"the log of try {try_number} says {text!r}:\n{log[-3000:]}")

    def claim_handed_over(self, ids: Sequence[str], *, reason: str = "first", earlier: Sequence[str] = ()) -> None:
        """These were accepted and no others; the last one is the task's result, and so says the record."""
        self.claim("accepted creates", ids, self.creates())
        self.claim("the task's result", ids[-1], self.result())
        record = self.record()
        found = {name: record.get(name) for name in ("state", "id", "reason", "earlier")}
        self.claim("record", {"state": "delivered", "id": ids[-1], "reason": reason, "earlier": list(earlier)}, found)

    def fail(self, text: str) -> None:
        """Note what is wrong together with what can be known now."""
        instance = {name: self.instance.get(name) for name in ("state", "try_number", "max_tries")}
        try:
            record: object = self.record()
        except Exception as error:
            record = error
        self.wrong.append(f"{text}\n    now: {instance}, ledger {self.creates()}\n    record: {record}")

    def evidence(self) -> str:
        """What is wrong with it, and the end of its last log."""
        try:
            log = self.log(max(1, self.tries))
        except Exception as error:
            log = repr(error)
        lines = [f"{self.name} {self.task_id}[{self.map_index}]", *(f"  - {text}" for text in self.wrong)]
        return "\n".join([*lines, f"  log of try {self.tries}, its end:", log[-2500:]])

    def line(self) -> str:
        """Its line in the table."""
        record = self.record()
        says = "no record"
        if record:
            says = f"{record['state']} {(record.get('id') or '-')[:6]} {record.get('reason')}"
            says += f", {len(record.get('earlier') or ())} earlier"
        mapped = "-" if self.map_index < 0 else str(self.map_index)
        verdict = f"{len(self.wrong)} WRONG" if self.wrong else "ok"
        seconds = "-" if self.seconds is None else f"{self.seconds:.0f}"
        return (
            f"{self.name:24} {self.task_id:24} {mapped:>3} {len(self.creates()):7}  {self.state or '-':8} "
            f"{self.tries:5} {seconds:>5}  {says} / {verdict}"
        )
