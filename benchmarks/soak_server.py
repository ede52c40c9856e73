"""The API for the soak, in a process of its own, with random faults and changing keys.

``python -m benchmarks.soak_server`` prints its URL as a line of JSON and then answers the commands of
``benchmarks.processes``. An id says what its prediction is: ``soak-NUMBER-CREATED-ENDED``, two moments in
milliseconds since 1970. The emulator is no alternative: its faults are not random, and all its predictions take the
same time.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from aiohttp import web

SEED = 7
FAULTS = {
    "error_500": 0.01,
    "error_503_with_hint": 0.003,
    "web_page_502": 0.01,
    "dropped_before": 0.01,
    "dropped_midway": 0.005,
    "cut_json": 0.003,
    "not_found": 0.002,
    "slow": 0.005,
}
"""The share of the polls to which each fault applies."""
SLOW_SECONDS = (2.0, 20.0)
LIMIT_EVERY = (300.0, 500.0)
LIMIT_SECONDS = 1.0
RETRY_AFTER = 3
"""After a random time in this range, all polls within a second are answered 429 with this Retry-After."""
YOUNG_SECONDS = 50.0
"""Only younger ids are answered as unknown: after a minute a client takes that for a fact."""
PAGE = "<!doctype html><html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
NOT_FOUND = {"code": "success", "message": "", "data": {}}


def output_of(number: int) -> str:
    """Return the output URL of a prediction, which is different for each."""
    return f"https://replicate.delivery/soak/{sha256(str(number).encode()).hexdigest()}/out-0.webp"


class Api:
    """Answers polls with random faults."""

    def __init__(self) -> None:
        """Start with the first key."""
        self.key = "sk-soak-000000000000"
        self._keys = 0
        self._chance = random.Random(SEED)
        self._counts: Counter[str] = Counter()
        self._burst_start = time.monotonic() + self._chance.uniform(*LIMIT_EVERY) / 2

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Change the key if the command says so, and return the key and the counts so far."""
        if command.get("change_key"):
            self._keys += 1
            self.key = f"sk-soak-{self._keys:012}"
        return {"key": self.key, "counts": self._counts}

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """Answer a poll."""
        self._counts["polls"] += 1
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return self._refuse(401, "Invalid token", "refused_key")
        now = time.monotonic()
        if now > self._burst_start + LIMIT_SECONDS:
            self._burst_start = now + self._chance.uniform(*LIMIT_EVERY)
        if now > self._burst_start:
            return self._refuse(429, "too many requests", "rate_limited", {"Retry-After": str(RETRY_AFTER)})
        prediction_id = request.match_info["id"]
        is_young = time.time() - int(prediction_id.split("-")[2]) / 1000 < YOUNG_SECONDS
        match self._fault():
            case "error_500":
                return self._refuse(500, "something went wrong")
            case "error_503_with_hint":
                return self._refuse(503, "busy", None, {"Retry-After": "2"})
            case "web_page_502":
                return web.Response(status=502, text=PAGE, content_type="text/html")
            case "dropped_before":
                return self._drop(request)
            case "dropped_midway":
                return await self._drop_midway(request)
            case "cut_json":
                return web.Response(text=json.dumps(prediction(prediction_id))[:100], content_type="application/json")
            case "not_found" if is_young:
                return web.json_response(NOT_FOUND)
            case "slow":
                await asyncio.sleep(self._chance.uniform(*SLOW_SECONDS))
        return web.json_response(prediction(prediction_id))

    def _fault(self) -> str | None:
        number = self._chance.random()
        for name, share in FAULTS.items():
            if number < share:
                self._counts[name] += 1
                return name
            number -= share
        return None

    def _refuse(
        self, status: int, message: str, name: str | None = None, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        if name:
            self._counts[name] += 1
        error = {"message": message, "type": "comet_api_error", "param": "", "code": ""}
        return web.json_response({"error": error}, status=status, headers=headers)

    def _drop(self, request: web.Request) -> web.Response:
        if isinstance(request.transport, asyncio.WriteTransport):
            request.transport.abort()
        return web.Response()

    async def _drop_midway(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "500"})
        await answer.prepare(request)
        await answer.write(b'{"id": "')
        await asyncio.sleep(0.01)
        return self._drop(request)


def prediction(prediction_id: str) -> dict[str, Any]:
    """Return the prediction in the documented shape."""
    _, number, created, ended = prediction_id.split("-")
    now, ends = time.time(), int(ended) / 1000
    return {
        "id": prediction_id,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": f"picture {number}"},
        "logs": "",
        "output": [output_of(int(number))] if now >= ends else None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "created_at": datetime.fromtimestamp(int(created) / 1000, UTC).isoformat(),
        "status": "succeeded" if now >= ends else "processing",
        "completed_at": datetime.fromtimestamp(ends, UTC).isoformat() if now >= ends else None,
        "metrics": {"predict_time": 1.0} if now >= ends else {},
    }


async def serve() -> None:
    """Serve until the standard input ends."""
    api = Api()
    app = web.Application()
    app.router.add_get("/replicate/v1/predictions/{id}", api.poll)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=5000).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}", "key": api.key}), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        print(json.dumps(api.command(json.loads(line))), flush=True)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
