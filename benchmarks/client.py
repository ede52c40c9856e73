"""A process that waits for predictions: ``python -m benchmarks.client WAY``.

It reads commands as lines of JSON and answers each with its measurements. The process lives as long as its part of the
benchmark, so its start is not measured. Between two commands it sleeps and leaves the machine to the other ways.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.ways import WAYS, Way
from tests.support import private_airflow

PAGE = resource.getpagesize()
LAG_INTERVAL = 0.01
MEMORY_EVERY = 10
"""Ticks of the watch between two measurements of the memory."""


class Watch:
    """Measures how late a timer of the event loop fires, and how much memory the process has."""

    def __init__(self) -> None:
        """Measure the memory before the waits."""
        self.lags: list[float] = []
        gc.collect()
        self.before = resident()
        self.peak = self.before

    async def run(self) -> None:
        """Measure until canceled."""
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(MEMORY_EVERY):
                due = loop.time() + LAG_INTERVAL
                await asyncio.sleep(LAG_INTERVAL)
                self.lags.append(loop.time() - due)
            self.peak = max(self.peak, resident())

    def report(self) -> dict[str, Any]:
        """Return the lags in seconds and the memory in bytes."""
        lags = sorted(self.lags)
        return {
            "lag_p99": lags[int(len(lags) * 0.99)],
            "lag_max": lags[-1],
            "memory": max(self.peak, resident()) - self.before,
        }


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def cpu() -> float:
    """Return the seconds of user and system CPU of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def wait_for_all(
    way: Way, *, url: str, ids: list[str], interval: float, spread: float, watch: bool = False
) -> dict[str, Any]:
    """Wait for all ids in this event loop.

    :param spread: seconds over which the waits begin, evenly.
    :param watch: also report the loop's lag and the memory.
    :returns: when each wait ended, in seconds since 1970, by id.
    """
    ends: dict[str, float] = {}
    watcher = Watch() if watch else None
    watching = asyncio.create_task(watcher.run()) if watcher else None

    async def begin(position: int, prediction_id: str) -> None:
        await asyncio.sleep(spread * position / len(ids))
        await wait(prediction_id)
        ends[prediction_id] = time.time()

    async with way(url, interval) as wait, asyncio.TaskGroup() as group:
        for position, prediction_id in enumerate(ids):
            group.create_task(begin(position, prediction_id))
    if watcher is None or watching is None:
        return {"ends": ends}
    watching.cancel()
    return {"ends": ends, **watcher.report()}


def main() -> None:
    """Answer commands until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--ca", metavar="FILE", help="the authority that the server's certificate is from")
    arguments = parser.parse_args()
    # Airflow logs to the standard output, which must hold only the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    private_airflow()
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"  # the cost of a log line depends on where it is written
    if arguments.ca:
        os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = arguments.ca
    # Every way runs with Airflow's modules loaded, as in a triggerer: the garbage collector scans them, too.
    import_module("airflow.triggers.base")
    print(json.dumps({"pid": os.getpid()}), file=answers, flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            began, used = time.monotonic(), cpu()
            result = runner.run(wait_for_all(WAYS[arguments.way], **json.loads(line)))
            result |= {"cpu": cpu() - used, "elapsed": time.monotonic() - began}
            print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
