"""The time and the sleeps of everything in this package that waits. Tests replace these functions, and no others."""

from __future__ import annotations

import asyncio
import threading
import time


def now() -> float:
    """Return seconds since 1970."""
    return time.time()


def monotonic() -> float:
    """Return seconds of a clock that only moves forward."""
    return time.monotonic()


def loop_time() -> float:
    """Return seconds by the clock of the running event loop, which only moves forward."""
    return asyncio.get_running_loop().time()


def sleep(seconds: float) -> None:
    """Block for some seconds."""
    time.sleep(seconds)


def wait(event: threading.Event, seconds: float) -> None:
    """Block for some seconds, or until an event is set."""
    event.wait(seconds)


async def async_sleep(seconds: float) -> None:
    """Let the event loop do other things for some seconds."""
    await asyncio.sleep(seconds)
