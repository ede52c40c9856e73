"""Airflow's database in a simulated world: task instances, XComs, and the task state store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

STORE_SECONDS = 0.01
"""How long Airflow's API server takes for a read or a write of a worker."""
AWAY_SECONDS = 9.0
"""How long a request takes that finds no API server: measured on Airflow 3.3.2 (the SDK repeats it)."""


OTHER_RUN = "other"
"""A run that has nothing but a store, of the predictions of the first run."""


class ServerAway(Exception):
    """The API server does not answer."""


class Refused(Exception):
    """The API server does not know this task instance any more: its next try has another id."""


@dataclass
class TaskInstance:
    """A row of Airflow's table of task instances.

    :ivar id: another one for each try: what an old try sends is refused.
    :ivar processes: how many processes have run for it, resumes included.
    :ivar started_at: when its try began.
    :ivar told_by: the processes whose work it knows of by what it was resumed with the last time.
    """

    run_id: str
    task_id: str
    map_index: int
    retries: int
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0
    id: int = 0
    processes: int = 0
    next_kwargs: dict[str, Any] | None = None
    started_at: float = 0.0
    told_by: tuple[Any, ...] = ()
    first_rescheduled_at: float | None = None
    store: dict[str, str] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    is_final: bool = False

    def __post_init__(self) -> None:
        self.max_tries = self.retries

    @property
    def name(self) -> str:
        run = "" if self.run_id == "run" else f"{self.run_id}."
        return f"{run}{self.task_id}[{self.map_index}]"

    @property
    def source_run(self) -> str:
        """The run whose tasks it takes its input from: the store of another run may store the same predictions."""
        return "run" if self.run_id == OTHER_RUN else self.run_id


class StateStore:
    """``context["task_state_store"]`` of one process."""

    def __init__(self, world: World, attempt: Attempt) -> None:
        self._world = world
        self._row = attempt.row
        self._id = attempt.id
        self._process = attempt.process

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value. Of a try that was replaced nothing is found: the server answers 404, as for no value."""

        def apply() -> Any:
            if self._id != self._row.id or key not in self._row.store:
                return default
            return json.loads(self._row.store[key])

        return self._request("store.get", key, f"{self._row.name} {key}", apply)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        text = json.dumps(value, allow_nan=False)

        def apply() -> None:
            if self._id != self._row.id:
                self._world.met("store refuses a replaced attempt", self._row.name)
                raise Refused("404: no such task instance")
            self._row.store[key] = text
            self._world.wrote(self._row, key, value)

        number = self._world.count("store.set")
        self._request("store.set", key, f"{self._row.name} {key}={_short(value)}", apply)
        if any(event["number"] == number for event in self._world.story.of_kind("store_answer_lost")):
            item = f"#{key}" if key.startswith("comet_submission.") else ""
            self._world.met("store_answer_lost", f"{self._row.name}{item}")
            raise ServerAway("the answer to a write was lost")

    def _request(self, kind: str, key: str, detail: str, apply: Any) -> Any:
        thread = self._world.kernel.current
        assert thread is not None
        before, thread.item = thread.item, key if key.startswith("comet_submission.") else ""
        try:
            request(self._world, self._process)
            return self._world.effect(kind, detail, STORE_SECONDS, apply)
        finally:
            thread.item = before


class RuntimeTaskInstance:
    """``context["ti"]`` of one process."""

    def __init__(self, world: World, attempt: Attempt) -> None:
        self._world = world
        self._row = row = attempt.row
        self._attempt = attempt
        self._process = attempt.process
        self.dag_id = "dag"
        self.run_id = row.run_id
        self.task_id = row.task_id
        self.map_index = row.map_index
        self.try_number = row.try_number
        self.max_tries = row.max_tries
        self.start_date = datetime.fromtimestamp(row.started_at, UTC)
        self.id = attempt.id

    def xcom_push(self, key: str, value: Any) -> None:
        """Push a value. Airflow asks for run, task and map index, not for the try: an old try can push, too."""
        text = json.dumps(value, allow_nan=False)

        def apply() -> None:
            self._row.xcoms[key] = json.loads(text)
            self._attempt.pushed.append(key)
            self._world.left("an XCom", text)

        request(self._world, self._process)
        self._world.effect("xcom.push", f"{self._row.name} {key}", STORE_SECONDS, apply)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        first = self._row.first_rescheduled_at
        return None if first is None else datetime.fromtimestamp(first, UTC)


def request(world: World, process: Process) -> None:
    """Reach the API server, as each request of a worker has to.

    :raises ServerAway: there is none now.
    """
    if process.is_orphan:
        raise ServerAway("the supervisor is gone")
    if world.is_server_away:
        world.met_by(process, "server_away")
        world.kernel.sleep(AWAY_SECONDS)
        if world.is_server_away:
            raise ServerAway("the API server does not answer")


def _short(value: Any) -> str:
    return str(value.get("state") or value.get("items")) if isinstance(value, dict) else str(value)
