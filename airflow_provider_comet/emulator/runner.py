"""Run the emulator in a thread of its own, for tests and for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from airflow_provider_comet.emulator.faults import Fault, Faults
from airflow_provider_comet.emulator.predictions import Wire
from airflow_provider_comet.emulator.server import Server
from airflow_provider_comet.emulator.store import Store

T = TypeVar("T")

SHUTDOWN_TIMEOUT = 0.05  # seconds that a request in progress gets when the emulator stops


class Emulator:
    """CometAPI on this machine, as a context manager or by :meth:`start` and :meth:`stop`.

    :param host: the address to listen on; by default only this machine can connect.
    :param port: the port, 0 for any free port.
    :param wire: whether queries are answered with a plain prediction ("flat") or in the task envelope ("wrapped").
    :param duration: seconds that every prediction takes, or the least and the most of them; by default each model has a
        duration of its own.
    :param retention: seconds after completion at which output and files disappear.
    :param link_seconds: how long the links of an answer can be used: each query has new ones. By default until the
        files disappear.
    :param api_key: the only key that is accepted; it can be replaced while the emulator runs.
    :param creates_per_second: how many creates are accepted within any second; further creates are answered 429.
    :param file_bytes: the minimum size of a delivered file in bytes; pictures are padded to it without taking memory.
    :param ssl_context: serve https with it.
    :raises ValueError: if a value is out of range.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        wire: Wire = "flat",
        duration: float | tuple[float, float] | None = None,
        retention: float = 3600.0,
        link_seconds: float | None = None,
        api_key: str = "sk-emulator",
        creates_per_second: int | None = None,
        file_bytes: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare an emulator; it does not listen before :meth:`start`."""
        if wire not in {"flat", "wrapped"}:
            raise ValueError(f'wire must be "flat" or "wrapped", not {wire!r}')
        if creates_per_second is not None and creates_per_second < 1:
            raise ValueError(f"creates_per_second must be at least 1, or None for no limit, not {creates_per_second}")
        if file_bytes < 0:
            raise ValueError(f"file_bytes must not be negative, not {file_bytes}")
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._store = Store(duration=duration, retention=retention, link_seconds=link_seconds)
        self._faults = Faults()
        self._server = Server(
            self._store,
            self._faults,
            api_key=api_key,
            wire=wire,
            creates_per_second=creates_per_second,
            file_bytes=file_bytes,
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """The URL of the running emulator, without a trailing slash."""
        if self._base_url is None:
            raise RuntimeError("the emulator has not been started")
        return self._base_url

    @property
    def api_key(self) -> str:
        """The only key that is accepted. After it is replaced, the old key is answered 401, as after a rotation."""
        return self._server.api_key

    @api_key.setter
    def api_key(self, key: str) -> None:
        self._on_loop(lambda: setattr(self._server, "api_key", key))

    def connection_json(self) -> str:
        """Return the connection for an AIRFLOW_CONN_... variable."""
        return json.dumps({"conn_type": "cometapi", "host": self.base_url, "password": self.api_key})

    def start(self) -> None:
        """Start listening, and return when requests are answered.

        :raises OSError: if the port can't be used.
        :raises RuntimeError: if the emulator is running already.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator is running already")
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="comet-emulator", daemon=True)
        self._thread.start()
        try:
            port = ready.result()
        except BaseException:
            self.stop()
            raise
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        self._base_url = f"{'https' if self._ssl_context else 'http'}://{host}:{port}"

    def stop(self) -> None:
        """Abort the requests in progress and close thread and sockets; does nothing if the emulator is stopped."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # after a failed start the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        self._loop = None

    def __enter__(self) -> Emulator:
        """Start the emulator."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the emulator."""
        self.stop()

    def fault(self, **fields: Any) -> None:
        """Add a fault; the fields are those of :class:`~airflow_provider_comet.emulator.faults.Fault`."""
        fault = Fault.from_fields(fields)
        self._on_loop(lambda: self._faults.add(fault))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._on_loop(self._faults.clear)

    def ledger(self) -> dict[str, Any]:
        """Return the accepted creates, the requests and the served files so far."""
        return self._on_loop(self._store.ledger)

    def set_prediction(self, id: str, **fields: Any) -> None:
        """Pin fields of a prediction: queries answer with them whatever the time.

        :raises KeyError: if there is no prediction with this id.
        """
        self._on_loop(lambda: self._store.predictions[id].pin(fields, self._store.clock()))

    def next_outcome(self, *, count: int = 1, **fields: Any) -> None:
        """Pin fields of the next `count` predictions that are created."""
        self._on_loop(lambda: self._store.preset_outcome(fields, count))

    def reset(self) -> None:
        """Forget all faults, outcomes, predictions and the ledger, as in a fresh emulator."""

        def clear() -> None:
            self._faults.clear()
            self._store.outcomes.clear()
            self._store.clear()

        self._on_loop(clear)

    def _on_loop(self, action: Callable[[], T]) -> T:
        """Run `action` on the event loop, to which all state belongs, and return its result."""
        loop = self._loop
        if loop is None:
            return action()
        done: Future[T] = Future()

        def run_action() -> None:
            try:
                done.set_result(action())
            except BaseException as error:  # raised in the caller, not in the loop
                done.set_exception(error)

        loop.call_soon_threadsafe(run_action)
        return done.result()

    def _run(self, ready: Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        runner = web.AppRunner(self._server.application(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, ssl_context=self._ssl_context)
            await site.start()
            ready.set_result(runner.addresses[0][1])
            await self._stopping.wait()
        finally:
            # Before aiohttp closes them: closing a TLS connection waits for the peer, which may never answer.
            for transport in list(self._server.connections):
                transport.abort()
            await runner.cleanup()
