"""The time and the sleeps of all waits and retries, but those of downloads, which get theirs as parameters.

Tests replace these names, and no others.
"""

from __future__ import annotations

import asyncio
import threading
import time

now = time.time
"""Seconds since 1970."""
monotonic = time.monotonic
"""Seconds of a clock that only moves forward."""
sleep = time.sleep
async_sleep = asyncio.sleep


def loop_time() -> float:
    """Return the seconds of the running event loop's clock, which only moves forward."""
    return asyncio.get_running_loop().time()


def wait(event: threading.Event, seconds: float) -> None:
    """Block for some seconds, or until an event is set."""
    event.wait(seconds)
