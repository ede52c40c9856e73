"""``polling/deadline_sweeper.py``: one timer for many deadlines, and a slot that is released once."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from typing import cast

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


def test_a_thousand_deadlines_do_not_block_the_loop() -> None:
    """Callbacks that are due together are called a few in each turn of the loop, in their order, and none is lost."""

    async def run() -> tuple[list[int], Counter[int]]:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        called: list[int] = []
        turns: Counter[int] = Counter()

        def call(number: int) -> None:
            called.append(number)
            turns[loop.turn] += 1

        sweeper = DeadlineSweeper(10)
        for number in range(1000):
            sweeper.start(functools.partial(call, number))
        await asyncio.sleep(10.5)
        assert not sweeper
        return called, turns

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        called, turns = runner.run(run())
    assert called == [*range(1000)]
    assert max(turns.values()) <= 20


def test_a_close_ends_a_sweep_midway() -> None:
    """After a close no callback is called, also if some that were due together were called already."""

    async def run() -> int:
        called: list[int] = []
        sweeper = DeadlineSweeper(10)

        def call(number: int) -> None:
            called.append(number)
            asyncio.get_running_loop().call_soon(sweeper.close)

        for number in range(1000):
            sweeper.start(functools.partial(call, number))
        await asyncio.sleep(60)
        return len(called)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert 0 < runner.run(run()) < 1000


def test_a_slot_is_released_once() -> None:
    """A slot that the deadline has released already is not released again when its request ends."""
    semaphore = asyncio.Semaphore(0)
    slot = Slot(semaphore)
    slot.release()
    slot.release()
    assert semaphore._value == 1
