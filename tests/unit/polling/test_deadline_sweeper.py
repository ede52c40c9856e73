"""`Overdue`: one timer calls back for whatever lasts too long."""

from __future__ import annotations

import asyncio
import functools

from airflow_provider_comet.polling.deadline_sweeper import Overdue
from tests.support.virtual_loop import VirtualLoop


def test_what_lasts_too_long() -> None:
    """Each is called once, when its own time is over; what has ended before is not, and nothing is after the end."""

    async def run() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        called: list[tuple[str, float]] = []

        def call(name: str) -> None:
            called.append((name, loop.time() - began))

        overdue = Overdue(10)
        first, ended, later, never = (functools.partial(call, name) for name in ("first", "ended", "later", "never"))
        overdue.begin(first)
        overdue.begin(ended)
        await asyncio.sleep(6)
        overdue.begin(later)
        overdue.end(ended)
        await asyncio.sleep(60)
        overdue.end(first)
        overdue.begin(never)
        overdue.close()
        await asyncio.sleep(60)
        return called

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(run()) == [("first", 10), ("later", 16)]
