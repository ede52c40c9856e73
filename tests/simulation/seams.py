"""Puts a world in place of what the product reaches the outside through: time, threads, clients, store, connections.

Nothing else of the product is replaced.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from airflow.sdk._shared.dagnode.node import GenericDAGNode
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.definitions._internal.logging_mixin import LoggingMixin as HookLogging
from airflow.utils.log.logging_mixin import LoggingMixin as TriggerLogging

from airflow_provider_comet import metrics
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.client import async_client, sync_client
from airflow_provider_comet.client.async_client import AsyncCometClient
from airflow_provider_comet.client.sync_client import CometClient
from airflow_provider_comet.hooks import connection
from airflow_provider_comet.outputs import download, object_upload, storage
from airflow_provider_comet.polling import clock, hand_over, threads
from airflow_provider_comet.submissions import state_store, stored_record
from tests.simulation import sync
from tests.simulation.downloads import make_downloader

if TYPE_CHECKING:
    from tests.simulation.world import World


assert storage.BLOCK_BYTES == object_upload.BLOCK_BYTES, "it is copied before a story changes it"


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Let the product run in a world."""
    kernel = world.kernel
    future = type("Future", (sync.Future,), {"kernel": kernel})
    lock = type("Lock", (sync.Lock,), {"kernel": kernel, "effect": staticmethod(world.effect), "made": world.locks})
    own_lock = type("ProcessLock", (sync.ProcessLock,), {"kernel": kernel})
    replaced: list[tuple[Any, dict[str, Any]]] = [
        (
            clock,
            {
                "now": lambda: kernel.now + world.clock_jump,
                "monotonic": lambda: kernel.now - world.begins + 1_000.0,
                "sleep": lambda seconds: world.effect("clock", "", seconds),
                "wait": lambda event, seconds: _wait(world, event, seconds),
            },
        ),
        (
            threads,
            {
                "Future": future,
                "Pool": type("Pool", (sync.Pool,), {"kernel": kernel, "future": future}),
                "Lock": lock,
                "wait": sync.wait,
                "start": lambda target, name: kernel.start(_process(world), target, name),
                "is_main": lambda: kernel.current is None or kernel.current.is_main,
            },
        ),
        (state_store, {"_LOCK": own_lock("state_store", lock), "_warn_of_offloading": lambda: None}),
        (stored_record, {"CLEAR_EMPTIES_STORE": world.cast.options["airflow"] == "3.4"}),
        (
            connection,
            {
                "BaseHook": SimpleNamespace(get_connection=lambda conn_id: _connection(world)),
                "_aget_connection": lambda conn_id: _aconnection(world),
                "_found": _ProcessMemory(world),
                "mask_secret": lambda secret: None,
                "_amask_secret": _nothing,
            },
        ),
        (sync_client, {"CometClient": type("Client", (_Client,), {"world": world})}),
        (async_client, {"AsyncCometClient": type("AsyncClient", (_AsyncClient,), {"world": world})}),
        (download, {"Downloader": make_downloader(world)}),
        (object_upload, {"BLOCK_BYTES": world.storage.block_bytes}),
        (
            hand_over,
            {
                "HAND_OVER_COUNT": world.cast.options["hand_over_count"],
                "HAND_OVER_SECONDS": world.cast.options["hand_over_seconds"],
            },
        ),
        (random, {"random": random.Random(world.story.order).random}),
        (metrics, {"Stats": SimpleNamespace(incr=_ignore, gauge=_ignore, timing=_ignore)}),
        # Three classes of Airflow give operators, hooks and triggers their loggers.
        (GenericDAGNode, {"_cached_logger": _LOGGER}),
        (HookLogging, {"_log": _LOGGER}),
        (TriggerLogging, {"_log": _LOGGER}),
        (ExecutorSafeguard, {"test_mode": True}),
    ]
    with ExitStack() as stack:
        for owner, names in replaced:
            stack.enter_context(mock.patch.multiple(owner, **names))
        stack.enter_context(_logging(world))
        stack.enter_context(world.storage.registered())
        yield


class _Client(CometClient):
    """The product's client for workers, whose requests reach the world's CometAPI."""

    world: World

    def _exchange(self, request: Any, body: Any = None) -> Response:
        process = _process(self.world)
        if request.may_cost_money:
            if body is None:
                body = sync_client._RequestBody(request.body)
            return self.world.api.create(request, self.config, process, body)
        if self._connections.is_aborted:
            raise sync_client.protocol.transport_error(request, "the task was ended", sent=True)
        seconds, answer = self.world.api.poll(request, self.config, process)
        self.world.effect("get", request.path, seconds)
        response: Response = answer()
        return response


class _AsyncClient(AsyncCometClient):
    """The product's client for triggers, whose requests reach the world's CometAPI."""

    world: World
    _is_open = False

    async def open(self) -> None:
        self._is_open = True
        self.world.sessions.add((_process(self.world), id(self)))

    async def close(self) -> None:
        self._sweeper.close()
        self._is_open = False
        self.world.sessions.discard((_process(self.world), id(self)))

    async def send(self, request: Any) -> Response:
        assert self._is_open
        assert not request.may_cost_money
        process = _process(self.world)

        def on_timeout() -> None:
            """Nothing: the world has answered by then."""

        self._sweeper.start(on_timeout)
        try:
            seconds, answer = self.world.api.poll(request, self.config, process)
            await clock.async_sleep(seconds)
            self.world.effect("get", request.path)
            response: Response = answer()
            return response
        finally:
            self._sweeper.stop(on_timeout)
            if self._is_retired and not self._sweeper:
                await self.close()


class _ProcessMemory(dict[str, bool]):
    """What a process knows of connections: a module's global, of which each process has its own."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def _own(self) -> dict[str, bool]:
        own: dict[str, bool] = _process(self._world).memory.setdefault("connections", {})
        return own

    def get(self, key: str, default: Any = None) -> Any:
        return self._own().get(key, default)

    def __setitem__(self, key: str, value: bool) -> None:
        self._own()[key] = value


class _Handler(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.DEBUG)
        self._world = world

    def handle(self, record: logging.LogRecord) -> bool:  # without the lock: other threads run meanwhile
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f"\n{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._world.log(text)
        return True


_LOGGER = logging.getLogger("airflow_provider_comet.simulated")


@contextmanager
def _logging(world: World) -> Iterator[None]:
    logger, handler = logging.getLogger("airflow_provider_comet"), _Handler(world)
    before = logger.level, logger.propagate, logger.disabled
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate, logger.disabled = before
        logging.root.manager._clear_cache()  # type: ignore[attr-defined]


def _process(world: World) -> Any:
    assert world.kernel.current is not None
    return world.kernel.current.process


def _connection(world: World) -> Any:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    world.effect("connection", "", 0.01)
    if world.is_connection_away:
        world.met_by(_process(world), "connection_away")
        raise AirflowNotFoundException("the connection isn't defined")  # as Airflow calls it while its database is away
    extra = f'{{"max_polls_per_second": {world.cast.options["cap"]}}}'
    fields = dict.fromkeys(("host", "schema", "login", "port"))
    return SimpleNamespace(conn_type="cometapi", password=world.connection_key, extra=extra, **fields)


async def _aconnection(world: World) -> Any:
    await clock.async_sleep(0.03)
    return _connection(world)


def _wait(world: World, event: Any, seconds: float) -> None:
    if not event.is_set():
        world.kernel.checkpoint()
        world.kernel.sleep(seconds, can_halt=True)
    world.effect("clock")


async def _nothing(*args: Any) -> None:
    """Mask no secret: the world finds each of them."""


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Count nothing."""
