"""``polling/deadline_sweeper.py``: one timer for many deadlines, and a slot that is released once."""

from __future__ import annotations

import asyncio
import functools

from airflow_provider_comet.polling.deadline_sweeper import DeadlineSweeper, Slot
from tests.support.virtual_loop import VirtualLoop


def test_each_callback_is_called_at_its_own_deadline() -> None:
    """Each callback is called once, when its own time is over; not if it was stopped before, nor after the close."""

    async def run() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        called: list[tuple[str, float]] = []

        def call(name: str) -> None:
            called.append((name, loop.time() - began))

        sweeper = DeadlineSweeper(10)
        first, stopped, later, never = (
            functools.partial(call, name) for name in ("first", "stopped", "later", "never")
        )
        sweeper.start(first)
        sweeper.start(stopped)
        await asyncio.sleep(6)
        sweeper.start(later)
        sweeper.stop(stopped)
        await asyncio.sleep(60)
        sweeper.stop(first)
        sweeper.start(never)
        sweeper.close()
        await asyncio.sleep(60)
        return called

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == [("first", 10), ("later", 16)]


def test_a_slot_is_released_once() -> None:
    """A slot that the deadline has released already is not released again when its request ends."""
    semaphore = asyncio.Semaphore(0)
    slot = Slot(semaphore)
    slot.release()
    slot.release()
    assert semaphore._value == 1
