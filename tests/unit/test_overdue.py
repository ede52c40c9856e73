"""`Overdue`: one timer calls back for whatever lasted too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_provider_comet.overdue import Overdue


def test_what_lasts_too_long() -> None:
    """Each is called once, when its own time is over, in the order in which they began; what has ended is not."""

    async def run() -> tuple[list[str], int]:
        loop = asyncio.get_running_loop()
        called: list[str] = []
        calls: dict[str, Callable[[], None]] = {
            name: (lambda name=name: called.append(name)) for name in ("first", "ended", "later", "never")
        }
        overdue = Overdue(0.05)
        overdue.begin(calls["first"])
        overdue.begin(calls["ended"])
        await asyncio.sleep(0.03)
        overdue.begin(calls["later"])
        overdue.end(calls["ended"])
        while called != ["first"]:
            await asyncio.sleep(0.001)
        while called != ["first", "later"]:
            await asyncio.sleep(0.001)
        overdue.begin(calls["never"])
        overdue.close()
        overdue.end(calls["never"])
        timers = len([timer for timer in loop._scheduled if not timer.cancelled()])  # type: ignore[attr-defined]
        await asyncio.sleep(0.06)
        return called, timers

    assert asyncio.run(run()) == (["first", "later"], 0)
