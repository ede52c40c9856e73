"""Airflow's real task runner against an Execution API made of dictionaries: no database, no server, some 20 ms a task.

Templating, rendered fields, the encoding of a deferral, XCom, links and the retry decision are Airflow's own (3.3).
Time is injected (`Clock`), so that a wait of an hour takes as long as its requests.
"""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
import re
import time
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import httpx
    import pytest
    from airflow.sdk import BaseOperator

    from airflow_provider_comet.triggers.prediction import PredictionTrigger

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOTHING = object()


@dataclass
class Outcome:
    """What one run of a task came to.

    :param state: as Airflow's database would have it: success, failed, up_for_retry, skipped, deferred,
        up_for_reschedule.
    :param error: what the task raised, also to be skipped.
    :param xcoms: what it pushed, by key, in this run.
    :param rendered: its rendered fields, as the user interface shows them.
    :param sent: the message that reported the state: trigger, trigger_kwargs, reschedule_date and so on.
    """

    state: str
    error: BaseException | None
    xcoms: dict[str, Any]
    rendered: dict[str, Any]
    sent: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Any:
        return self.xcoms.get("return_value")

    @property
    def message(self) -> str:
        return str(self.error)

    @property
    def chain(self) -> list[BaseException]:
        """The error and its causes, outermost first."""
        found: list[BaseException] = []
        error = self.error
        while error is not None:
            assert error not in found, f"{error!r} is its own cause: whoever walks the chain never comes to an end"
            found.append(error)
            error = error.__cause__
        return found

    def trigger(self) -> PredictionTrigger:
        """The trigger that a triggerer would make of a deferral: from its class path and stored kwargs."""
        from airflow.sdk._shared.module_loading import import_string
        from airflow.sdk.serde import deserialize

        assert self.state == "deferred", (self.state, self.error)
        kwargs: Any = deserialize(json.loads(json.dumps(self.sent["trigger_kwargs"])))
        made: PredictionTrigger = import_string(self.sent["classpath"])(**kwargs)
        return made

    @property
    def next_kwargs(self) -> dict[str, Any]:
        """What the method that a deferred task is resumed with gets besides the event."""
        from airflow.sdk.serde import deserialize

        kwargs: Any = deserialize(json.loads(json.dumps(self.sent["next_kwargs"])))
        return dict(kwargs or {})


class TaskRunner:
    """Runs tasks of one DAG run; XComs and connections live as long as it does.

    :param connections: by id, as the Execution API gives them, for those that are not in the environment.
    """

    def __init__(self, connections: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.connections = dict(connections or {})
        self.is_down = False  # for connections
        self.store: dict[str, Any] = {}  # the task state store, by task, map index and key
        self.expiry: dict[str, Any] = {}  # of what is in it
        self.on_store: Callable[[str, Any], int] = lambda method, value: 200  # status of each access, before it happens
        self.xcoms: dict[str, Any] = {}
        self.mapped: dict[str, list[Any]] = {}  # outputs of mapped tasks: instances without one are not in it
        self.assets: dict[str, dict[str, Any]] = {}  # what Airflow knows, by name
        self.instances: dict[str, int] = {}  # how many of them a mapped task has
        self.asked: list[str] = []  # method and path of each request
        self.started_at: dict[str, dt.datetime] = {}
        self._pushed: dict[str, Any] = {}
        self._rendered: dict[str, Any] = {}
        self._states: list[dict[str, Any]] = []
        self._run: dict[str, Any] = {}
        self._scope = ""
        self.running: Any = None  # the task that runs now, or ran last

    def record(self, task_id: str = "create", map_index: int = -1) -> Any:
        """What the store holds about a task's create."""
        return self.store.get(f"{task_id}/{map_index}/comet_submission")

    def run(
        self,
        task: BaseOperator,
        *,
        event: object = NOTHING,
        next_method: str = "execute_complete",
        next_kwargs: Mapping[str, Any] | None = None,
        retries_left: bool = True,
        rescheduled_since: dt.datetime | None = None,
        try_number: int = 1,
        max_tries: int = 2,
        map_index: int = -1,
    ) -> Outcome:
        """Run a task once.

        :param event: what the trigger reported; then the task is resumed instead of begun.
        :param next_method: what resumes it, `__fail__` if the trigger failed.
        :param rescheduled_since: when the first of several reschedules of this try began.
        :param max_tries: what a clear raises and a retry leaves as it is.
        """
        from airflow.sdk.api.client import Client
        from airflow.sdk.api.datamodels._generated import TaskInstance
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, run_task_in_process
        from airflow.sdk.serde import serialize

        self._pushed, self._rendered, self._states = {}, {}, []
        self._scope = f"{task.task_id}/{map_index}"
        self._run = {"max_tries": max_tries, "should_retry": retries_left, "task_reschedule_count": 0}
        if event is not NOTHING:
            next_kwargs = {"event": event, **(next_kwargs or {})}
        if next_kwargs is not None:
            self._run.update(next_method=next_method, next_kwargs=serialize(dict(next_kwargs)))
        if rescheduled_since is not None:
            self._run["task_reschedule_count"] = 1
            self.started_at["reschedule"] = rescheduled_since
        instance = TaskInstance(
            id=uuid.uuid4(),
            task_id=task.task_id,
            dag_id=task.dag_id,
            run_id="run",
            try_number=try_number,
            map_index=map_index,
            dag_version_id=uuid.uuid4(),
        )
        import httpx

        client = Client(base_url=None, token="", dry_run=True, transport=httpx.MockTransport(self._answer))
        raised: list[Exception] = []

        def execute(*args: Any, original: Callable[..., Any] = task_runner._execute_task, **kwargs: Any) -> Any:
            self.running = (args[1] if len(args) > 1 else kwargs["ti"]).task
            try:
                return original(*args, **kwargs)
            except Exception as error:
                raised.append(error)  # the runner keeps the reason of a skip to itself
                raise

        try:
            with (
                mock.patch.object(task_runner, "_execute_task", execute),
                # The channel for subprocesses of a task costs a thread for a second; no task of ours starts any.
                mock.patch.object(InProcessTestSupervisor, "_setup_subprocess_socket", nullcontext),
            ):
                # A process of its own would start from a fresh copy of the DAG each time.
                result = run_task_in_process(ti=instance, task=copy.copy(task), client=client)
        finally:
            client.close()
        sent = self._states[-1] if self._states else {}
        state = str(getattr(result.state, "value", result.state))
        error = raised[-1] if state == "skipped" else result.error
        return Outcome(state, error, dict(self._pushed), dict(self._rendered), sent)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        import httpx

        path = request.url.path
        body: Any = json.loads(request.content) if request.content else None
        self.asked.append(f"{request.method} {path}")
        if path.endswith("task-instances/count"):
            counts = [self.instances.get(one, 1) for one in request.url.params.get_list("task_ids")]
            return httpx.Response(200, json=sum(counts))
        if path.endswith("/run"):
            return httpx.Response(200, json=self._context())
        if path.endswith("/state"):
            self._states.append(body)
            return httpx.Response(204)
        if path.endswith("/rtif"):
            self._rendered.update(body)
            return httpx.Response(201, json={})
        if "task-reschedules/" in path:
            return httpx.Response(200, json=self.started_at["reschedule"].isoformat())
        if path.endswith("/assets/by-name"):
            return httpx.Response(200, json=self.assets[request.url.params["name"]])
        if found := re.search(r"connections/([^/]+)$", path):
            if self.is_down:
                return httpx.Response(422, json={"detail": "the API server has other problems"})
            known = self.connections.get(found[1])
            if known is None:
                return httpx.Response(404, json={"detail": {"reason": "not_found", "message": "no such connection"}})
            fields = dict.fromkeys(("host", "schema", "login", "password", "port", "extra"))
            return httpx.Response(200, json={"conn_id": found[1], **fields, **known})
        if found := re.search(r"store/ti/[^/]+/([^/]+)$", path):
            return self._stored(request.method, f"{self._scope}/{found[1]}", body)
        if found := re.search(r"xcoms/(.+?)(/slice|/item/\d+)?$", path):
            task_id = found[1].split("/")[-2]
            if task_id in self.mapped and request.method != "POST":
                return self._mapped_xcom(request, self.mapped[task_id], found[2] or "")
            return self._xcom(request, found[1], bool(found[2]), body)
        return httpx.Response(200, json={})

    def _stored(self, method: str, name: str, body: Any) -> httpx.Response:
        import httpx

        status = self.on_store(method, body and body["value"])
        if status != 200:
            return httpx.Response(status, json={"detail": "the API server has other problems"})
        if method == "PUT":
            self.store[name] = body["value"]
            self.expiry[name] = body["expires_at"]
            return httpx.Response(204)
        if name not in self.store:
            return httpx.Response(404, json={"detail": {"reason": "not_found", "message": "no such key"}})
        return httpx.Response(200, json={"value": self.store[name]})

    def _xcom(self, request: httpx.Request, name: str, is_slice: bool, body: Any) -> httpx.Response:
        import httpx

        key = name.split("/")[-1]
        if request.method == "POST":
            self.xcoms[name] = self._pushed[key] = body
            return httpx.Response(201, json={})
        if is_slice:
            return httpx.Response(200, json=[self.xcoms[name]] if name in self.xcoms else [])
        if name in self.xcoms:
            return httpx.Response(200, json={"key": key, "value": self.xcoms[name]})
        return httpx.Response(404, json={"detail": {"reason": "not_found", "message": "no such XCom"}})

    def _mapped_xcom(self, request: httpx.Request, values: list[Any], part: str) -> httpx.Response:
        import httpx

        if request.method == "HEAD":
            return httpx.Response(200, headers={"Content-Range": f"map_indexes {len(values)}"})
        if part == "/slice":
            bounds = [request.url.params.get(name) for name in ("start", "stop", "step")]
            wanted = slice(*(None if bound is None else int(bound) for bound in bounds))
            return httpx.Response(200, json=values[wanted])
        offset = int(part.split("/")[-1] or 0)
        if offset >= len(values):
            return httpx.Response(404, json={"detail": {"reason": "not_found", "message": "no such XCom"}})
        return httpx.Response(200, json=values[offset])

    def _context(self) -> dict[str, Any]:
        moment = START.isoformat()
        dag_run: dict[str, Any] = {
            "dag_id": "dag",
            "run_id": "run",
            "logical_date": moment,
            "data_interval_start": moment,
            "data_interval_end": moment,
            "run_after": moment,
            "start_date": moment,
            "end_date": None,
            "clear_number": 0,
            "run_type": "manual",
            "state": "running",
            "conf": {},
            "consumed_asset_events": [],
            "triggering_user_name": None,
            "note": None,
            "team_name": None,
            "partition_key": None,
        }
        return {"dag_run": dag_run, **self._run}


class Clock:
    """Time that passes only while somebody sleeps.

    :ivar on_sleep: called with the seconds before each sleep, so that the world can change meanwhile.
    :ivar jump: how far the machine's clock has been set since.
    """

    def __init__(self) -> None:
        self.now = time.time()
        self.jump = 0.0
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[float], None] = lambda seconds: None
        self._sleepers: list[float] = []
        self._polling = 0

    def time(self) -> float:
        return self.now + self.jump

    def monotonic(self) -> float:
        return self.now - 1_000_000_000.0

    def utcnow(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.time(), dt.UTC)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.on_sleep(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        """Sleep beside others: when all sleep and no request is running, time moves to the earliest end."""
        ends = self.now + seconds
        self._sleepers.append(ends)
        try:
            for _ in range(3):  # whoever is about to sleep, or to send a request, gets there
                await asyncio.sleep(0)
            while self.now < ends:
                if self._polling or ends > min(self._sleepers):
                    await asyncio.sleep(0.001)
                    continue
                self.sleeps.append(seconds)
                self.on_sleep(seconds)
                self.now = ends
        finally:
            self._sleepers.remove(ends)

    def _counted(self, send: Any) -> Any:
        async def counted(*args: Any) -> Any:
            self._polling += 1
            try:
                return await send(*args)
            finally:
                self._polling -= 1

        return counted

    def slow_answers(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Let the delays of the emulator's faults take time by this clock, after answers without a delay."""
        from airflow_provider_comet.emulator import server

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0.05 if seconds else 0.0)
            self.now += seconds

        monkeypatch.setattr(server, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
        return self

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Make all waiting of the package, and of Airflow's sensors, go by this clock."""
        from airflow.sdk.bases import sensor as base
        from airflow.sdk.execution_time import supervisor

        from airflow_provider_comet.client.async_client import AsyncCometClient
        from airflow_provider_comet.polling import clock

        monkeypatch.setattr(clock, "now", self.time)
        monkeypatch.setattr(clock, "monotonic", self.monotonic)
        monkeypatch.setattr(clock, "loop_time", self.monotonic)
        monkeypatch.setattr(clock, "sleep", self.sleep)
        monkeypatch.setattr(clock, "wait", lambda event, seconds: self.sleep(seconds))
        monkeypatch.setattr(clock, "async_sleep", self.asleep)
        monkeypatch.setattr(AsyncCometClient, "send", self._counted(AsyncCometClient.send))
        monkeypatch.setattr(
            base, "time", types.SimpleNamespace(monotonic=self.monotonic, sleep=self.sleep, time=self.time)
        )
        monkeypatch.setattr(base, "timezone", types.SimpleNamespace(utcnow=self.utcnow))
        monkeypatch.setattr(supervisor, "datetime", types.SimpleNamespace(now=lambda tz: self.utcnow()))
        return self


async def events_of(trigger: PredictionTrigger) -> list[Any]:
    """The payloads of all events, as the worker gets them: through JSON."""
    return [json.loads(json.dumps(event.payload)) async for event in trigger.run()]


def event_of(trigger: PredictionTrigger) -> Any:
    """The payload of a trigger's only event."""
    (event,) = asyncio.run(events_of(trigger))
    return event


@contextmanager
def dag(**options: Any) -> Iterator[Any]:
    """A DAG for tasks to be made in."""
    from airflow.sdk import DAG

    with DAG("dag", schedule=None, **options) as made:
        yield made


MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"defer_after": 0},
}


def run_sensor(runner: TaskRunner, task: Any, clock: Clock, **options: Any) -> Outcome:
    """Run a sensor to its end, in whatever mode: reschedules and deferrals are carried out."""
    first = clock.utcnow()
    outcome = runner.run(task, **options)
    for _ in range(1000):
        if outcome.state == "deferred":
            outcome = runner.run(task, event=event_of(outcome.trigger()), next_kwargs=outcome.next_kwargs, **options)
        elif outcome.state == "up_for_reschedule":
            date = dt.datetime.fromisoformat(outcome.sent["reschedule_date"].replace("Z", "+00:00"))
            clock.sleep(max(0.0, date.timestamp() - clock.time()) + 0.1)  # a start is never on time to the second
            outcome = runner.run(task, rescheduled_since=first, **options)
        else:
            return outcome
    raise AssertionError(f"the sensor never ends: {outcome}")
