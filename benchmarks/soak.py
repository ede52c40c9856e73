"""Run 2,000 waits at a time for half an hour against a failing API: no result is lost and no resource leaks.

All waits are ``PredictionTrigger``s in the event loop of this process, as in a triggerer; the API is
``benchmarks.soak_server``. For each wait that ends a new wait starts, until the time is up; then the last waits end.
Every result is compared with the expected output of its prediction. Memory is that of this process alone; its
slope is that of the best straight line after the first five minutes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from statistics import fmean, median
from typing import Any

import psutil

from benchmarks.processes import Process
from benchmarks.report import Part, Table, Target, number
from benchmarks.soak_server import output_of
from tests.support import private_airflow

WAITS = 2000
DURATIONS = (5.0, 240.0)
"""Range of the seconds that predictions take, with uniform probability."""
POLLS_PER_SECOND = 200
BEGIN_SECONDS = 20.0
"""The first waits start evenly over this time."""
WARM_SECONDS = 300.0
SAMPLE_SECONDS = 5.0
KEY_EVERY_SECONDS = 420.0
KEY_UNKNOWN_SECONDS = 25.0
"""The interval of the API's key changes, and the time until the connection has the new key."""
MOST_RESULTS = 1_000_000
SLOPE_LIMIT_MB = 1.0
NOTES = [
    f"{WAITS:,} `PredictionTrigger`s at a time in one event loop, each for a prediction of {DURATIONS[0]:g} to "
    f"{DURATIONS[1]:g} s; for each that ends another wait starts. The server answers with 500s, 503s, web pages, cut "
    "JSON, dropped connections, unknown ids and slow answers at random, with bursts of 429s, and changes its key every "
    "seven minutes. Every result is compared with the expected output of its prediction. Memory is the process's own "
    "(without mapped files), its slope that of the best line after five minutes.",
]


class Soak:
    """The waits and their results, in arrays of a fixed size, because growing lists would look like a leak.

    :param server: the API.
    :param seconds: for how long new waits start.
    """

    def __init__(self, server: Process, seconds: float) -> None:
        """Allocate the arrays."""
        self._server = server
        self._ends_at = time.monotonic() + seconds
        self._started = 0
        self._results = bytearray(MOST_RESULTS)
        self._delays = array("f", bytes(4 * MOST_RESULTS))
        self.wrong = 0
        self.samples: list[tuple[float, float, int, int]] = []
        self._chance = random.Random(1)

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of waits that have started, have had their result, and have had it twice."""
        return self._started, sum(map(bool, self._results)), sum(count > 1 for count in self._results)

    def delays(self) -> list[float]:
        """Return the seconds from the end of each prediction to the end of its wait, sorted."""
        return sorted(delay for delay, count in zip(self._delays, self._results, strict=True) if count)

    async def run(self) -> None:
        """Run `WAITS` lanes at the same time, each of which starts a wait after the other."""
        watching = [asyncio.create_task(self._sample()), asyncio.create_task(self._change_keys())]
        async with asyncio.TaskGroup() as group:
            for lane in range(WAITS):
                group.create_task(self._lane(BEGIN_SECONDS * lane / WAITS))
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    async def _lane(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while time.monotonic() < self._ends_at:
            self._started += 1
            seconds = self._chance.uniform(*DURATIONS)
            # Each wait is an asyncio task of its own, as in a triggerer.
            await asyncio.create_task(self._wait(self._started, seconds))

    async def _wait(self, position: int, seconds: float) -> None:
        from airflow_provider_comet.triggers.prediction import PredictionTrigger

        now = time.time()
        prediction_id = f"soak-{position}-{int(now * 1000)}-{int((now + seconds) * 1000)}"
        trigger = PredictionTrigger([prediction_id], started_at=now)
        events = [event.payload async for event in trigger.run()]
        delay = time.time() - now - seconds
        if len(events) == 1 and self._is_right(events[0], prediction_id, position):
            self._results[position] += 1
            self._delays[position] = delay
        else:
            self.wrong += 1
            print(f"WRONG: {json.dumps(events)[:500]}", flush=True)

    def _is_right(self, event: Any, prediction_id: str, position: int) -> bool:
        summary = event["outcomes"].get(prediction_id, {}).get("summary") or {}
        result = (summary.get("id"), summary.get("status"), summary.get("files"))
        return result == (prediction_id, "succeeded", [output_of(position)])

    async def _sample(self) -> None:
        began = time.monotonic()
        process = psutil.Process()
        while True:
            # Without mapped files: they would count as its own as soon as no other process maps them.
            usage = process.memory_info()
            memory = (usage.rss - usage.shared) / 1e6
            tasks = len(asyncio.all_tasks())
            self.samples.append((time.monotonic() - began, memory, process.num_fds(), tasks))
            if len(self.samples) % 12 == 0:
                at, size, files, _ = self.samples[-1]
                print(
                    f"{at:5.0f} s: {size:.2f} MB, {files} open files, {tasks} tasks, {self._started} waits started, "
                    f"{self.wrong} wrong",
                    flush=True,
                )
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _change_keys(self) -> None:
        while True:
            await asyncio.sleep(KEY_EVERY_SECONDS / 2)
            answer = await asyncio.to_thread(self._server.call, change_key=True)
            await asyncio.sleep(KEY_UNKNOWN_SECONDS)
            connect(self._server.hello["url"], answer["key"])
            await asyncio.sleep(KEY_EVERY_SECONDS / 2)


def connect(url: str, key: str) -> None:
    """Set the connection in Airflow's environment variable."""
    extra = {"max_polls_per_second": POLLS_PER_SECOND}
    connection = {"conn_type": "cometapi", "host": url, "password": key, "extra": extra}
    os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"] = json.dumps(connection)


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the best straight line; 0 without samples at two times."""
    middle = fmean(x for x, _ in samples), fmean(y for _, y in samples)
    spread = sum((x - middle[0]) ** 2 for x, _ in samples)
    return sum((x - middle[0]) * (y - middle[1]) for x, y in samples) / spread if spread else 0.0


@asynccontextmanager
async def counted() -> AsyncIterator[dict[str, float]]:
    """Count how many more tasks and sockets this process has afterwards, half a second after the block."""
    figures: dict[str, float] = {}
    for sign in (-1, 1):
        if sign > 0:
            yield figures
            await asyncio.sleep(0.5)
        gc.collect()
        figures["tasks_left"] = figures.get("tasks_left", 0) + sign * len(asyncio.all_tasks())
        figures["sockets_left"] = figures.get("sockets_left", 0) + sign * len(psutil.Process().net_connections("all"))


async def soak(server: Process, seconds: float) -> dict[str, float]:
    """Run the soak in this event loop and return its figures."""
    run = Soak(server, seconds)
    connect(server.hello["url"], server.hello["key"])
    await asyncio.to_thread(int)  # starts the threads of the loop before anything is counted
    used = psutil.Process().cpu_times()
    began = time.monotonic()
    async with counted() as figures:
        await run.run()
    took = time.monotonic() - began
    cpu = psutil.Process().cpu_times()
    steady = [(at, memory) for at, memory, _, _ in run.samples if WARM_SECONDS <= at <= seconds] or [(0.0, 0.0)]
    delays = run.delays()
    waits, results, doubled = run.counts
    counts = server.call()["counts"]
    return figures | {
        "seconds": took,
        "waits": waits,
        "results": results,
        "wrong_or_missing": waits - results,
        "doubled": doubled,
        "memory_slope_mb_per_10_minutes": slope(steady) * 600,
        "memory_at_5_minutes_mb": steady[0][1],
        "memory_at_the_end_mb": steady[-1][1],
        "cpu_share": (cpu.user + cpu.system - used.user - used.system) / took,
        "delay_median_seconds": median(delays),
        "delay_p99_seconds": delays[int(len(delays) * 0.99)],
        **{f"server_{name}": count for name, count in counts.items()},
    }


def run(seconds: float = 1800) -> Part:
    """Run the soak for this time, and return its part."""
    private_airflow()
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # thousands of waits write many log lines
    with Process("soak_server") as server:
        figures = asyncio.run(soak(server, seconds))
    return Part(
        title="Half an hour of 2,000 waits and random faults",
        tables=[Table(["", ""], [[name.replace("_", " "), number(value)] for name, value in figures.items()])],
        figures=figures,
        targets=[
            Target("results", f"of {WAITS:,} waits at a time: waits with their own result", WAITS, is_most=False),
            Target("wrong_or_missing", "waits with another result, or none", 0),
            Target("doubled", "waits that ended twice", 0),
            Target("tasks_left", "tasks left in the loop", 0),
            Target("sockets_left", "sockets left open", 0),
            Target("memory_slope_mb_per_10_minutes", "memory grows in 10 minutes by", SLOPE_LIMIT_MB, unit=" MB"),
        ],
        notes=NOTES,
    )
