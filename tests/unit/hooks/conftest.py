"""Triggers that share a client, on an event loop whose time is virtual."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import logging
import time
import types
import warnings
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pytest

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.polling import clock
from tests.support.virtual_loop import BEGIN, VirtualLoop

if TYPE_CHECKING:
    from airflow_provider_comet.emulator import Emulator

WALL_CLOCK = 1_800_000_000.0
NEW_KEY = "sk-unit-replaced-4711"


def not_polled(prediction_id: str) -> dict[str, Any]:
    """Return the event of a wait whose last poll was not made."""
    return {"count": 1, "errors": 1, "unfinished": 1, "outcomes": {prediction_id: {}}}


Create: TypeAlias = Callable[..., str]
CreateMany: TypeAlias = Callable[..., list[str]]
Connection: TypeAlias = Callable[..., None]
SentMetrics: TypeAlias = list[tuple[str, str, Any, dict[str, str]]]


def now() -> float:
    """Return the seconds since the loop has started."""
    return asyncio.get_running_loop().time() - BEGIN


class World:
    """Triggers on one virtual loop.

    :ivar polls: when each poll was sent, for which id, and what came of it: `ok` or the error's class.
    :ivar lookups: when the connection was looked up.
    :ivar aget_config: the look-up of a connection, for tests that change its result.
    :ivar opened: how many clients were opened.
    :ivar open: how many of them are open.
    :ivar jump: how far the wall clock has been set.
    :ivar logs: what each task's log got: the ids that it waits for, the level and the text.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_provider_comet.client.async_client import AsyncCometClient
        from airflow_provider_comet.hooks import connection, refreshing_client
        from airflow_provider_comet.triggers.prediction import PredictionTrigger

        self.polls: list[tuple[float, str, str]] = []
        self.lookups: list[float] = []
        self.opened = self.open = 0
        self.jump = 0.0
        self.logs: list[tuple[str, int, str]] = []
        self.loop: VirtualLoop | None = None
        send, open_client, close = AsyncCometClient.send, AsyncCometClient.open, AsyncCometClient.close

        async def counted_send(client: Any, request: protocol.Request) -> Any:
            sent_at = now()
            try:
                with self._busy():
                    response = await send(client, request)
            except CometError as error:
                self.polls.append((sent_at, str(request.prediction_id), type(error).__name__))
                raise
            self.polls.append((sent_at, str(request.prediction_id), _result_of(request, response)))
            return response

        async def counted_open(client: Any) -> None:
            with self._busy():
                await open_client(client)
            self.opened += 1
            self.open += 1

        async def counted_close(client: Any) -> None:
            with self._busy():
                await close(client)
            self.open -= 1

        get_connection, mask_secret, aget_config = (
            connection._aget_connection,
            connection._amask_secret,
            connection.aget_config,
        )

        async def counted_lookup(conn_id: str) -> Any:
            self.lookups.append(now())
            return await aget_config(conn_id)

        async def busy_get_connection(conn_id: str) -> Any:
            with self._busy():
                return await get_connection(conn_id)

        async def busy_mask_secret(secret: str) -> None:
            with self._busy():
                await mask_secret(secret)

        self.aget_config = counted_lookup
        monkeypatch.setattr(AsyncCometClient, "send", counted_send)
        monkeypatch.setattr(AsyncCometClient, "open", counted_open)
        monkeypatch.setattr(AsyncCometClient, "close", counted_close)
        monkeypatch.setattr(refreshing_client, "aget_config", counted_lookup)
        monkeypatch.setattr(connection, "_aget_connection", busy_get_connection)
        monkeypatch.setattr(connection, "_amask_secret", busy_mask_secret)
        monkeypatch.setattr(clock, "now", self.time)
        monkeypatch.setattr(PredictionTrigger, "log", property(self._log))

    def _log(self, trigger: Any) -> Any:
        def log(level: int, text: str, *args: Any, **kwargs: Any) -> None:
            self.logs.append((", ".join(trigger.prediction_ids), level, text % args if args else text))

        return types.SimpleNamespace(
            log=log,
            exception=functools.partial(log, logging.ERROR),
            warning=functools.partial(log, logging.WARNING),
        )

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        loop.busy += 1
        try:
            yield
        finally:
            loop.busy -= 1

    def time(self) -> float:
        """Return the time of the wall clock."""
        return WALL_CLOCK + (self.loop.now - BEGIN if self.loop else 0.0) + self.jump

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine on a new virtual loop, and return its result."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            self.loop = cast(VirtualLoop, runner.get_loop())
            return runner.run(main())

    def poll_times(self, result: str | None = None) -> list[float]:
        """Return when polls were sent, all of them or those with one result."""
        return sorted(sent_at for sent_at, _, actual in self.polls if result in (None, actual))

    def texts(self, level: int = logging.NOTSET) -> list[str]:
        """Return the texts of all logs from a level on."""
        return [text for _, actual, text in self.logs if actual >= level]

    def warnings_about(self, words: str) -> Counter[tuple[str, str]]:
        """Count the warnings with these words in each task's log, and the prediction that each warning names."""
        return Counter(
            (prediction_ids, text.split(":")[0])
            for prediction_ids, level, text in self.logs
            if level >= logging.WARNING and words in text
        )


def _result_of(request: protocol.Request, response: Response) -> str:
    try:
        protocol.read_prediction(request, response)
    except CometError as error:
        return type(error).__name__
    return "ok"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Triggers on one virtual loop."""
    return World(monkeypatch)


def new_trigger(prediction_ids: str | list[str], timeout: float = 3600, **kwargs: Any) -> Any:
    """Return a trigger whose task began just now, for one prediction or for a list."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    ids = [prediction_ids] if isinstance(prediction_ids, str) else prediction_ids
    trigger = PredictionTrigger(ids, **kwargs)
    if "deadline" not in kwargs:
        trigger.deadline = trigger.started_at + timeout
    return trigger


async def run_trigger(trigger: Any) -> Any:
    """Return a trigger's only event, through JSON."""
    (payload,) = [json.loads(json.dumps(event.payload)) async for event in trigger.run()]
    return payload


async def run_triggers(triggers: list[Any]) -> list[Any]:
    """Return the events of triggers that run beside each other."""
    return [*await asyncio.gather(*map(run_trigger, triggers))]


def start(triggers: list[Any]) -> list[asyncio.Task[Any]]:
    """Start triggers, and return their tasks."""
    return [asyncio.create_task(run_trigger(trigger)) for trigger in triggers]


async def cancel(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """Cancel tasks, and return what they came to."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


def outcome_of(event: Any) -> Any:
    """Return the outcome of the only prediction of an event."""
    (outcome,) = event["outcomes"].values()
    return outcome


def statuses(events: list[Any]) -> list[str]:
    """Return the status of the only prediction of each event."""
    return [outcome_of(event)["summary"]["status"] for event in events]


def error_types(events: list[Any]) -> list[str]:
    """Return the class of the error of the only prediction of each event."""
    return [outcome_of(event)["error"]["type"] for event in events]


@pytest.fixture
def create_many(create: Create, comet: Emulator) -> CreateMany:
    """Make many predictions at the emulator in one step: copies of a prediction that was created."""

    def create_many(count: int, status: str = "processing") -> list[str]:
        first = create(status=status)

        def copy() -> list[str]:
            predictions = comet._store.predictions
            for number in range(1, count):
                predictions[f"{first}-{number}"] = predictions[first]
            return [*predictions][-count:]

        return comet._on_loop(copy)

    return create_many


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let other tasks run for up to five seconds of real time; virtual time does not pass."""
    give_up_at = time.monotonic() + 5
    for _ in itertools.count():
        if condition():
            return
        assert time.monotonic() < give_up_at, "it never came to that"
        await asyncio.sleep(0)


def open_clients() -> dict[str, Any]:
    """Return the shared clients of this loop, by connection."""
    from airflow_provider_comet.hooks import shared_client

    return shared_client._clients.get(asyncio.get_running_loop(), {})


def most_within(moments: list[float], seconds: float) -> int:
    """Return how many of these moments lie within an interval of this length at most."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(moments):
        window.append(moment)
        while window[0] <= moment - seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@pytest.fixture
def tidy(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Assert that nothing is left open and that no loop complains; yields the list for a loop's complaints."""
    complaints: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield complaints
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)] == []
    assert complaints == []
    assert "Unclosed" not in caplog.text


@pytest.fixture
def sent_metrics(monkeypatch: pytest.MonkeyPatch) -> SentMetrics:
    """Everything that was sent to the metrics backend: kind, name, value, tags."""
    from airflow.providers.common.compat.sdk import Stats

    sent: SentMetrics = []

    def recorder(kind: str) -> Callable[..., None]:
        def record(stat: str, value: Any = 1, *args: Any, tags: dict[str, str] | None = None, **kwargs: Any) -> None:
            if stat.startswith("comet."):
                sent.append((kind, stat, value, dict(tags or {})))

        return record

    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(Stats, kind, recorder(kind))
    return sent
