"""``polling/turnstile.py``: how much may happen in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, cast

from airflow_provider_comet.polling.turnstile import Turnstile
from tests.support.virtual_loop import VirtualLoop


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns, on a loop that numbers its turns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def turn() -> int:
    """Return the number of this turn of the loop."""
    return cast(VirtualLoop, asyncio.get_running_loop()).turn


def test_a_herd_passes_in_order_a_few_in_each_turn() -> None:
    """A thousand tasks that come together pass in their order, ten in each turn, and no turn is left out."""

    async def main() -> list[tuple[int, int]]:
        turnstile, passed = Turnstile(10), list[tuple[int, int]]()

        async def enter(number: int) -> None:
            await turnstile.enter()
            passed.append((number, turn()))

        await asyncio.gather(*(enter(number) for number in range(1000)))
        return passed

    passed = run(main())
    assert [number for number, _ in passed] == [*range(1000)]
    counts = Counter(passed_in for _, passed_in in passed)
    assert {*counts.values()} == {10}
    assert max(counts) - min(counts) <= 101


def test_a_single_task_does_not_wait() -> None:
    """A task that comes alone passes in the same turn, however often."""

    async def main() -> None:
        turnstile = Turnstile(1)
        for _ in range(20):
            before = turn()
            await turnstile.enter()
            assert turn() == before
            await asyncio.sleep(1)

    run(main())


def test_cancelled_tasks_take_no_room() -> None:
    """Tasks that are cancelled while they wait keep nobody back."""

    async def main() -> list[int]:
        turnstile, passed = Turnstile(1), list[int]()

        async def enter(number: int) -> None:
            await turnstile.enter()
            passed.append(number)

        tasks = [asyncio.create_task(enter(number)) for number in range(6)]
        await asyncio.sleep(0)
        for task in tasks[1:5]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turnstile.enter()
        return passed

    assert run(main()) == [0, 5]
