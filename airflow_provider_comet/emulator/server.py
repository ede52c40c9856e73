"""The HTTP server: CometAPI's two Replicate routes, the model list and the delivery of files."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import random
import string
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from airflow_provider_comet.emulator.catalog import CATALOG
from airflow_provider_comet.emulator.control import CONTROL, Control
from airflow_provider_comet.emulator.delivery import Deliveries
from airflow_provider_comet.emulator.faults import Damage, Faults
from airflow_provider_comet.emulator.predictions import Wire, create_answer, query_answer, wrap
from airflow_provider_comet.emulator.store import Store

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024 * 1024  # inputs may carry pictures as data: URIs

# CometAPI answers a wrong path with a web page and status 200.
PAGE = """<!doctype html>
<html lang="en"><head><title>CometAPI emulator</title></head>
<body><p>Nothing here speaks JSON. The API is under /replicate/v1/ and /v1/models.</p></body></html>
"""


def new_request_id() -> str:
    """Return a request id in the format of the gateway: the time, then eight letters and digits."""
    letters = "".join(random.choices(string.ascii_letters + string.digits, k=8))
    return f"{datetime.now(UTC):%Y%m%d%H%M%S%f}000{letters}"


def refusal(status: int, message: str, code: str, request_id: str) -> web.Response:
    """Return an error answer in CometAPI's envelope."""
    error = {"message": f"{message} (request id: {request_id})", "type": "comet_api_error", "param": "", "code": code}
    return web.json_response({"error": error}, status=status)


class Server:
    """Answers requests from a store, unless a fault applies.

    The parameters are those of :class:`~airflow_provider_comet.emulator.runner.Emulator`.

    :param store: the predictions and the ledger.
    :param faults: the faults that wait for a request.
    """

    def __init__(
        self,
        store: Store,
        faults: Faults,
        *,
        api_key: str,
        wire: Wire = "flat",
        creates_per_second: int | None = None,
        file_bytes: int = 0,
    ) -> None:
        """Prepare the answers; :meth:`application` serves them."""
        self.store = store
        self.faults = faults
        self.api_key = api_key
        self.wire = wire
        self.creates_per_second = creates_per_second
        self._control = Control(store, faults)
        self._deliveries = Deliveries(store, file_bytes=file_bytes)
        self.connections: WeakKeyDictionary[asyncio.WriteTransport, int] = WeakKeyDictionary()
        self._connection_count = 0

    def application(self) -> web.Application:
        """Return an aiohttp application that handles every path."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record a request in the ledger and answer it."""
        connection = self._connection(request)
        path = request.rel_url.raw_path  # not decoded: the gateway does not take %2F for a slash
        if path.startswith(CONTROL):
            return await self._control.handle(request, path.removeprefix(CONTROL))
        entry: dict[str, Any] = {
            "method": request.method,
            "path": path,
            "status": None,
            "at": self.store.clock(),
            "authorization": "Authorization" in request.headers,
            "connection": connection,
        }
        self.store.requests.append(entry)
        request_id = new_request_id()
        response = await self._answer_with_faults(request, path, request_id)
        if response is None:
            logger.info("%s %s -> connection dropped", request.method, path)
            if isinstance(request.transport, asyncio.WriteTransport):
                request.transport.abort()  # close() would send a TLS close_notify first
            return web.Response()  # is not sent: the connection is closed
        entry["status"] = response.status
        logger.info("%s %s -> %d", request.method, path, response.status)
        return response

    async def _answer_with_faults(self, request: web.Request, path: str, request_id: str) -> web.Response | None:
        fault = self.faults.take(request.method, path)

        async def answer() -> web.Response:
            response = await self._answer(request, path, request_id, fault or Damage())
            response.headers["x-cometapi-request-id"] = request_id
            return response

        if fault is None:
            return await answer()
        await request.read()  # with unread bytes, closing the connection would reset it
        if fault.takes_effect_first:
            await answer()
        await asyncio.sleep(fault.delay)
        if fault.drop:
            return None
        if fault.status is None:
            return await answer()
        body, headers = fault.answer(request_id)
        return web.Response(status=fault.status, body=body, headers=headers)

    async def _answer(self, request: web.Request, path: str, request_id: str, damage: Damage) -> web.Response:
        authorized = self._authorized(request)
        match (request.method, *path[1:].split("/")):
            case ("GET", "delivery", id, file):
                return await self._deliveries.answer(request, id, file, path, damage)
            case (_, "delivery", *_):
                return web.Response(status=HTTPStatus.NOT_FOUND, text="not found")
            case (
                ("POST", "replicate", "v1", "models", _, _, "predictions")
                | ("GET", "replicate", "v1", "predictions", _)
                | ("GET", "v1", "models")
            ) if not authorized:
                return refusal(HTTPStatus.UNAUTHORIZED, "Invalid token", "", request_id)
            case ("POST", "replicate", "v1", "models", owner, name, "predictions"):
                return await self._create(request, f"{owner}/{name}", request_id)
            case ("GET", "replicate", "v1", "predictions", id):
                return self._query(request, id, request_id)
            case ("GET", "v1", "models"):
                return self._models()
        return web.Response(text=PAGE, content_type="text/html")

    def _authorized(self, request: web.Request) -> bool:
        authorization = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(authorization, f"Bearer {self.api_key}".encode())

    async def _create(self, request: web.Request, name: str, request_id: str) -> web.Response:
        content = await request.read()  # before the limit is checked: no other create may come between check and create
        if self.creates_per_second is not None and self.store.created_within(1.0) >= self.creates_per_second:
            busy = refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many requests", "", request_id)
            busy.headers["Retry-After"] = "1"  # the limit counts the creates of one second
            return busy
        model = CATALOG.get(name)
        if model is None:
            message = f"no available channel for group default and model {name} (distributor)"
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, "model_not_found", request_id)
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        input = body.get("input") if isinstance(body, dict) else None
        if not isinstance(input, dict) or not isinstance(input.get("prompt"), str) or not input["prompt"]:
            message = "field prompt is required"  # CometAPI answers 500, although a retry is pointless
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, message, "invalid_request", request_id)
        return web.json_response(create_answer(self.store.create(model, input)), status=HTTPStatus.CREATED)

    def _query(self, request: web.Request, id: str, request_id: str) -> web.Response:
        prediction = self.store.predictions.get(id)
        if prediction is None:
            message = f"task_not_exist (request id: {request_id})"
            return web.json_response(
                {"code": "task_not_exist", "message": message, "data": None}, status=HTTPStatus.BAD_REQUEST
            )
        now = self.store.clock()
        origin, store = f"{request.scheme}://{request.host}", self.store
        answer = query_answer(prediction, now, store.retention, origin, store.link_seconds)
        return web.json_response(answer if self.wire == "flat" else wrap(prediction, answer, now))

    def _models(self) -> web.Response:
        data = [
            {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": name.partition("/")[0]}
            for name in CATALOG
        ]
        return web.json_response({"object": "list", "data": data})

    def _connection(self, request: web.Request) -> int:
        """Return the number of the TCP connection, by which a test can tell reuse from reconnecting."""
        transport = request.transport
        if not isinstance(transport, asyncio.WriteTransport):  # None: the client has disconnected
            return 0
        if transport not in self.connections:
            self._connection_count += 1
            self.connections[transport] = self._connection_count
        return self.connections[transport]
