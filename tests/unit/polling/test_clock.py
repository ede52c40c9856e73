"""``polling/clock.py``: the real time and the real sleeps, which all other tests replace."""

from __future__ import annotations

import asyncio
import threading
import time

from airflow_provider_comet.polling import clock


def test_the_clocks_are_those_of_the_machine_and_of_the_loop() -> None:
    """Absolute times count from 1970; the other two clocks are those that never jump."""

    async def loop_times() -> tuple[float, float]:
        return asyncio.get_running_loop().time(), clock.loop_time()

    assert abs(clock.now() - time.time()) < 5
    assert abs(clock.monotonic() - time.monotonic()) < 5
    expected, found = asyncio.run(loop_times())
    assert abs(found - expected) < 5


def test_sleeps_last_as_long_as_they_should() -> None:
    """Both sleeps block for the given seconds."""
    began = time.monotonic()
    clock.sleep(0.02)
    asyncio.run(clock.async_sleep(0.02))
    assert 0.04 <= time.monotonic() - began < 5


def test_a_wait_ends_when_its_event_is_set() -> None:
    """A wait for an event does not last longer than the event takes; without the event it ends by itself."""
    event = threading.Event()
    clock.wait(event, 0.01)
    assert not event.is_set()
    event.set()
    began = time.monotonic()
    clock.wait(event, 30)
    assert time.monotonic() - began < 5
