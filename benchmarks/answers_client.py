"""A process that gets hostile answers, for ``benchmarks.answers``: ``python -m benchmarks.answers_client``.

It reads commands as lines of JSON and answers each with its measurements.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

from benchmarks.ways import KEY, UNLIMITED
from tests.support import private_airflow

TICK = 0.002


class Watch:
    """Measures the longest block of the event loop, with and without the garbage collections in it."""

    def __init__(self) -> None:
        """Start without a block."""
        self.longest = self.longest_net = self.longest_cpu = self.collected = self.collected_cpu = 0.0
        self._began = self._began_cpu = 0.0

    async def run(self) -> None:
        """Measure until canceled."""
        loop = asyncio.get_running_loop()
        while True:
            due, collected = loop.time() + TICK, self.collected
            cpu, collected_cpu = time.thread_time(), self.collected_cpu
            await asyncio.sleep(TICK)
            late = loop.time() - due
            cpu = time.thread_time() - cpu - (self.collected_cpu - collected_cpu)
            self.longest_cpu = max(self.longest_cpu, cpu)
            self.longest = max(self.longest, late)
            self.longest_net = max(self.longest_net, late - (self.collected - collected))

    def on_collection(self, phase: str, info: dict[str, int]) -> None:
        """Add up the garbage collections: each stops the loop, whoever made the garbage."""
        if phase == "start":
            self._began, self._began_cpu = time.perf_counter(), time.thread_time()
        else:
            self.collected += time.perf_counter() - self._began
            self.collected_cpu += time.thread_time() - self._began_cpu


def connect(url: str, **extra: float) -> None:
    """Let the connection of all waits lead to this server."""
    connection = {"conn_type": "cometapi", "host": url, "password": KEY, "extra": extra}
    os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"] = json.dumps(connection)


async def wait(lists: list[list[str]], *, seconds: float, is_paced: bool, grace: float = 10.0) -> dict[str, Any]:
    """Wait by a ``PredictionTrigger`` for each list of ids, all started together.

    :param seconds: until the deadline of all of them.
    :param grace: seconds after the deadline when those that have not ended are canceled.
    :param is_paced: start them as a triggerer does, which lets the loop turn twice for each; otherwise in one step.
    """
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    triggers = [PredictionTrigger(ids, deadline=time.time() + seconds) for ids in lists]
    gc.collect()
    watch = Watch()
    gc.callbacks.append(watch.on_collection)
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(10 * TICK)

    events: list[Any] = []
    all_ended = asyncio.Event()

    async def run(trigger: Any) -> None:
        events.extend([event.payload async for event in trigger.run()])
        if len(events) == len(triggers):
            all_ended.set()

    began = time.perf_counter()
    tasks = []
    for trigger in triggers:
        tasks.append(asyncio.create_task(run(trigger)))
        if is_paced:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    # Not asyncio.wait: to begin and to end it takes tens of milliseconds with so many tasks.
    with suppress(TimeoutError):
        await asyncio.wait_for(all_ended.wait(), seconds + grace)
    took = time.perf_counter() - began
    watching.cancel()
    gc.callbacks.remove(watch.on_collection)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "block": watch.longest,
        "net": watch.longest_net,
        "cpu": watch.longest_cpu,
        "seconds": took,
        "ended": len(events),
        "outcome": _outcome(events[0]) if events else "no event",
    }


def _outcome(event: dict[str, Any]) -> str:
    """Return how a wait ended: a prediction's status, or the name of an error."""
    if "error" in event:
        return str(event["error"]["type"])
    outcome: dict[str, Any] = next(iter(event["outcomes"].values()), {})
    if "error" in outcome:
        return str(outcome["error"]["type"])
    return str(outcome["summary"]["status"]) if outcome else "left to the worker"


def block(url: str, prediction_id: str, read_timeout: float) -> dict[str, Any]:
    """Poll once by the blocking client of a worker."""
    from airflow_provider_comet.api import protocol
    from airflow_provider_comet.api.config import Config
    from airflow_provider_comet.client.sync_client import CometClient

    client = CometClient(Config(KEY, url, read_timeout=read_timeout))
    request = protocol.get_prediction(prediction_id)
    began = time.perf_counter()
    try:
        result: str | Exception = protocol.read_prediction(request, client.send(request)).status
    except Exception as error:
        result = error
    seconds = time.perf_counter() - began
    client.close()
    return {"seconds": seconds, "outcome": result if isinstance(result, str) else type(result).__name__}


def memory(name: str) -> float:
    """Return a line of ``/proc/self/status`` in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith(name))


def main() -> None:
    """Answer commands until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to the standard output, which must hold only the answers
    private_airflow()
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
    import_module("airflow.triggers.base")
    import_module("airflow_provider_comet.client.async_client")
    import_module("airflow_provider_comet.client.sync_client")
    import_module("airflow_provider_comet.hooks.shared_client")
    print(json.dumps({"pid": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        before = memory("VmRSS:")
        url, extra = command.pop("url"), command.pop("extra", {"max_polls_per_second": UNLIMITED})
        if "prediction_id" in command:
            result = block(url, **command)
        else:
            connect(url, **extra)
            result = asyncio.run(wait(**command))
        print(json.dumps({**result, "memory": memory("VmHWM:") - before}), file=answers, flush=True)


if __name__ == "__main__":
    main()
