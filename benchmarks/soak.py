"""Half an hour of 2,000 waits in one event loop, against a server that fails in every way: nothing is lost or leaks.

``python -m benchmarks.soak [seconds]``. Each prediction ends at a random moment of the last tenth, so that all are
waited for nearly all the time. Every tenth answer is a fault (5xx with and without envelope, a web page with a 5xx, a
dropped connection, one that is slow, now and then a 429), and for a minute and a half the key is refused.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import psutil

from tests.support import private_airflow

if TYPE_CHECKING:
    from aiohttp import web

WAITS = 2_000
KEY = "sk-soak-0123456789"
WARM_UP = 300.0
"""Seconds before memory is judged: the first looks, pools and caches."""
TARGETS = {"lost": 0.0, "wrong": 0.0, "tasks_left": 0.0, "sockets_left": 0.0, "mb_per_10_minutes": 1.0}


def serve(pipe: Connection, seconds: float) -> None:
    """The server's process: predictions are a function of id and time."""
    from aiohttp import web

    began = time.time()
    chance = random.Random(1)
    ends = {number: began + seconds * (0.9 + 0.1 * chance.random()) for number in range(WAITS)}
    seen: Counter[str] = Counter()

    def fault() -> tuple[str, int, str, dict[str, str]] | None:
        now = time.time() - began
        if 0.5 * seconds < now < 0.5 * seconds + min(90.0, 0.05 * seconds):
            return "401", 401, '{"error": {"message": "Invalid token", "code": ""}}', {}
        if chance.random() > 0.1:
            return None
        if chance.random() < 0.02:
            return "429", 429, '{"error": {"message": "slow down", "code": ""}}', {"Retry-After": "3"}
        return chance.choice([
            ("500", 500, "Internal Server Error", {}),
            ("502", 502, "<!doctype html><title>Bad gateway</title>", {"Content-Type": "text/html"}),
            ("503", 503, '{"error": {"message": "no channel", "code": "get_channel_failed"}}', {}),
            ("garbage", 200, '{"id": ', {}),
            ("dropped", 0, "", {}),
            ("slow", 1, "", {}),
        ])

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/seen":
            return web.json_response(seen)
        number = int(request.path.rsplit("-", 1)[1])
        kind, status, body, headers = fault() or ("ok", 1, "", {})
        seen[kind] += 1
        if status > 1:
            return web.Response(status=status, body=body.encode(), headers=headers)
        if kind == "dropped":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if kind == "slow":
            await asyncio.sleep(chance.uniform(5, 30))
        is_done = time.time() >= ends[number]
        prediction = {
            "id": f"soak-{number}",
            "status": "succeeded" if is_done else "processing",
            "output": [f"https://files.example/{number}.webp"] if is_done else None,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(began)),
        }
        return web.json_response(prediction)

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


async def soak(seconds: float) -> dict[str, float]:
    """Wait for all, and measure this process meanwhile."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    me = psutil.Process()
    results: dict[int, Any] = {}
    memory: list[tuple[float, float]] = []

    async def wait(number: int) -> None:
        async for event in PredictionTrigger(f"soak-{number}", deadline=time.time() + seconds + 600).run():
            results[number] = json.loads(json.dumps(event.payload))

    async def watch() -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(5)
            memory.append((time.monotonic() - began, me.memory_info().rss / 2**20))

    tasks, sockets = len(asyncio.all_tasks()), me.num_fds()
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*[wait(number) for number in range(WAITS)])
    watcher.cancel()
    await asyncio.sleep(0.5)
    flat = [(at, size) for at, size in memory if min(WARM_UP, seconds / 3) < at < 0.9 * seconds]
    return {
        "results": float(len(results)),
        "lost": float(WAITS - len(results)),
        "wrong": float(sum(not is_right(number, event) for number, event in results.items())),
        "tasks_left": float(len(asyncio.all_tasks()) - tasks),
        "sockets_left": float(me.num_fds() - sockets),
        "mb_per_10_minutes": slope(flat) * 600,
        "peak_mb": max(size for _, size in memory),
    }


def is_right(number: int, event: dict[str, Any]) -> bool:
    """The event is this prediction's, with its own output."""
    summary = event.get("summary") or {}
    return summary.get("id") == f"soak-{number}" and summary.get("files") == [f"https://files.example/{number}.webp"]


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares: how much the second grows with the first."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def run(seconds: float = 1_800.0) -> dict[str, float]:
    """Do it; print what came of it."""
    private_airflow()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, seconds), daemon=True)
    server.start()
    port = ours.recv()
    extra = {"max_polls_per_second": 200}
    connection = {"conn_type": "cometapi", "host": f"http://127.0.0.1:{port}", "password": KEY, "extra": extra}
    os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"] = json.dumps(connection)
    import logging

    import requests

    logging.disable(logging.CRITICAL)
    try:
        figures = asyncio.run(soak(seconds))
        figures |= {
            f"answers_{kind}": float(n)
            for kind, n in requests.get(f"http://127.0.0.1:{port}/seen", timeout=9).json().items()
        }
    finally:
        server.terminate()
        server.join()
    for name, value in figures.items():
        verdict = (
            "" if name not in TARGETS else "  ok" if value <= TARGETS[name] else f"  MISSED (at most {TARGETS[name]:g})"
        )
        print(f"{name:<20}{value:>12,.2f}{verdict}")
    return figures


if __name__ == "__main__":
    run(float(sys.argv[1]) if len(sys.argv) > 1 else 1_800.0)
