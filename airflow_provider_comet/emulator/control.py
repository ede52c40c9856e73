"""The test author's side door, under /_emulator/: faults, outcomes and the ledger. No key needed."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

from airflow_provider_comet.emulator.faults import Fault, Faults
from airflow_provider_comet.emulator.store import Store

CONTROL = "/_emulator/"


class Control:
    """Changes the store and the faults on request. Never subject to faults itself."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    async def handle(self, request: web.Request, path: str) -> web.Response:
        try:
            return await self._route(request, path)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=HTTPStatus.BAD_REQUEST)

    async def _route(self, request: web.Request, path: str) -> web.Response:
        match (request.method, *path.split("/")):
            case ("POST", "faults"):
                self._faults.add(Fault.from_fields(await fields_of(request)))
                return web.json_response({"faults": len(self._faults)}, status=HTTPStatus.CREATED)
            case ("DELETE", "faults"):
                self._faults.clear()
                return web.json_response({"faults": 0})
            case ("GET", "ledger"):
                return web.json_response(self._store.ledger())
            case ("DELETE", "ledger"):
                self._store.clear()
                return web.json_response({"accepted": 0})
            case ("PATCH", "predictions", id):
                prediction = self._store.predictions.get(id)
                if prediction is None:
                    return web.json_response({"error": f"no prediction {id}"}, status=HTTPStatus.NOT_FOUND)
                prediction.pin(await fields_of(request), self._store.clock())
                return web.json_response({"id": id, "pinned": prediction.pinned})
            case ("POST", "outcomes"):
                given = await fields_of(request)
                count, fields = given.get("count", 1), given.get("fields")
                if set(given) - {"count", "fields"} or not isinstance(count, int) or not isinstance(fields, dict):
                    raise ValueError('give {"count": 1, "fields": {...}}')
                self._store.expect(fields, count)
                return web.json_response({"outcomes": len(self._store.outcomes)}, status=HTTPStatus.CREATED)
            case ("DELETE", "outcomes"):
                self._store.outcomes.clear()
                return web.json_response({"outcomes": 0})
        return web.json_response({"error": f"no {request.method} {path} here"}, status=HTTPStatus.NOT_FOUND)


async def fields_of(request: web.Request) -> dict[str, Any]:
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body
