"""The ways to wait for a prediction that are compared, each as its users run it.

A way is a context manager with the server's URL and a poll interval. It yields a coroutine function that waits for the
prediction of an id. Triggers run as in the triggerer, by iterating over ``run()``. Each way imports its own libraries.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

KEY = "sk-benchmark-0123456789abcdefghijklmnopqrstuv"
PATH = "/replicate/v1/predictions/"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
UNLIMITED = 80_000
"""Polls a second: the cost of a poll is measured, not how the limit of a connection spreads them."""
MOST_CONNECTIONS = 2000
"""As many as our client has, so that no way waits for a free connection."""

Wait = Callable[[str], Awaitable[None]]
Way = Callable[[str, float], AbstractAsyncContextManager[Wait]]


def interval_with_jitter(interval: float) -> float:
    """Return the interval with a jitter of a tenth to either side, as our triggers have."""
    return interval * random.uniform(0.9, 1.1)


@asynccontextmanager
async def comet(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait by the ``PredictionTrigger`` of this provider."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"] = json.dumps({
        "conn_type": "cometapi",
        "host": url,
        "password": KEY,
        "extra": {"max_polls_per_second": UNLIMITED},
    })

    async def wait(prediction_id: str) -> None:
        events = [event.payload async for event in PredictionTrigger([prediction_id], poke_interval=interval).run()]
        _require("succeeded" in json.dumps(events), events)

    yield wait


@asynccontextmanager
async def http_sensor(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait by the ``HttpSensorTrigger`` of the HTTP provider, which waits for the end of a 404 and reads no body."""
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps({"conn_type": "http", "host": url})

    async def wait(prediction_id: str) -> None:
        trigger = HttpSensorTrigger(f"/sensor{PATH}{prediction_id}", headers=AUTHORIZATION, poke_interval=interval)
        events = [event.payload async for event in trigger.run()]
        _require(events == [True], events)

    yield wait


@asynccontextmanager
async def threads(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait as the Anthropic provider does: a blocking client for each wait, and each poll in a thread."""
    import requests

    async def wait(prediction_id: str) -> None:
        with requests.Session() as session:
            session.headers.update(AUTHORIZATION)

            def poll() -> Any:
                answer = session.get(f"{url}{PATH}{prediction_id}", timeout=75)
                answer.raise_for_status()
                return answer.json()

            while True:
                prediction = await asyncio.to_thread(poll)
                if prediction["status"] == "succeeded":
                    return
                await asyncio.sleep(interval_with_jitter(interval))

    yield wait


@asynccontextmanager
async def shared_session(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait in a bare loop on a shared aiohttp session, without checks, limits, logs or errors: the practical limit."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS)
    async with aiohttp.ClientSession(headers=AUTHORIZATION, connector=connector) as session:

        async def wait(prediction_id: str) -> None:
            while True:
                async with session.get(f"{url}{PATH}{prediction_id}") as answer:
                    prediction = await answer.json()
                if prediction["status"] == "succeeded":
                    return
                await asyncio.sleep(interval_with_jitter(interval))

        yield wait


class _RawConnection(asyncio.Protocol):
    """Send bytes, and receive bytes until the body is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        self._received = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        if length and len(body) >= int(length):
            self._answer.set_result(body)


@asynccontextmanager
async def raw_socket(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait by bytes over asyncio transports, and JSON: the physical limit."""
    loop = asyncio.get_running_loop()
    scheme, _, address = url.partition("://")
    host, _, port = address.partition(":")
    context = ssl.create_default_context() if scheme == "https" else None
    free: list[_RawConnection] = []
    connections: list[_RawConnection] = []

    async def wait(prediction_id: str) -> None:
        head = f"GET {PATH}{prediction_id} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        request = head.encode()
        while True:
            if free:
                connection = free.pop()
            else:
                _, connection = await loop.create_connection(_RawConnection, host, int(port), ssl=context)
                connections.append(connection)
            body = await connection.send(request)
            free.append(connection)
            if json.loads(body)["status"] == "succeeded":
                return
            await asyncio.sleep(interval_with_jitter(interval))

    try:
        yield wait
    finally:
        for connection in connections:
            connection.transport.abort()


@asynccontextmanager
async def idle(url: str, interval: float) -> AsyncIterator[Wait]:
    """Wait by sleeping as long as the prediction takes: the minimum cost of a wait."""

    async def wait(prediction_id: str) -> None:
        _, _, plan = prediction_id.rpartition(".")
        _require(plan.startswith("t"), plan)
        await asyncio.sleep(max(0.0, int(plan[1:]) / 1000 - time.time()))

    yield wait


WAYS: dict[str, Way] = {
    "comet": comet,
    "http_sensor": http_sensor,
    "threads": threads,
    "shared_session": shared_session,
    "raw_socket": raw_socket,
    "idle": idle,
}
TITLES = {
    "comet": "`PredictionTrigger`",
    "http_sensor": "`HttpSensorTrigger`",
    "threads": "`asyncio.to_thread` and requests",
    "shared_session": "bare loop, shared aiohttp session",
    "raw_socket": "raw asyncio sockets",
    "idle": "idle asyncio task",
}


def _require(condition: bool, outcome: object) -> None:
    """Raise an error if a wait did not succeed, because it must not count as a fast wait."""
    if not condition:
        raise RuntimeError(f"a wait ended with {outcome}")
