"""The routes under /_emulator/, with which a test sets faults and outcomes and reads the ledger.

They need no key.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

from airflow_provider_comet.emulator.faults import Fault, Faults
from airflow_provider_comet.emulator.store import Store

CONTROL = "/_emulator/"


class Control:
    """Answers the control routes. Faults never apply to them.

    :param store: the state that the routes read and change.
    :param faults: the faults that the routes add and clear.
    """

    def __init__(self, store: Store, faults: Faults) -> None:
        """Use the state that the server uses."""
        self._store = store
        self._faults = faults

    async def handle(self, request: web.Request, path: str) -> web.Response:
        """Answer a control request; a mistake in it is answered 400 with the reason.

        :param path: the path below /_emulator/.
        """
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
                body = await fields_of(request)
                count, fields = body.get("count", 1), body.get("fields")
                if set(body) - {"count", "fields"} or not isinstance(count, int) or not isinstance(fields, dict):
                    raise ValueError('give {"count": 1, "fields": {...}}')
                self._store.preset_outcome(fields, count)
                return web.json_response({"outcomes": len(self._store.outcomes)}, status=HTTPStatus.CREATED)
            case ("DELETE", "outcomes"):
                self._store.outcomes.clear()
                return web.json_response({"outcomes": 0})
        return web.json_response({"error": f"no {request.method} {path} here"}, status=HTTPStatus.NOT_FOUND)


async def fields_of(request: web.Request) -> dict[str, Any]:
    """Return the body of a request, which must be a JSON object."""
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body
