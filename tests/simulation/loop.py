"""The event loop of a simulated triggerer: its timers go by the world's time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from tests.simulation.kernel import Kernel, Thread

LEAST_SECONDS = 1e-6
"""Less is lost when it is added to the seconds since 1970."""


class _Selector(selectors.BaseSelector):
    """Waits for nothing but the time, and for what others hand to the loop."""

    loop: KernelLoop

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Any:
        return self._keys

    def select(self, timeout: float | None = None) -> list[Any]:
        self.loop.rest(timeout)
        return []


class KernelLoop(asyncio.SelectorEventLoop):
    """An event loop that runs in a thread of the world.

    :param kernel: whose time it is.
    :param monotonic: the clock of the loop.
    """

    def __init__(self, kernel: Kernel, monotonic: Callable[[], float]) -> None:
        self._kernel = kernel
        self._monotonic = monotonic
        self._thread: Thread | None = None
        self.is_frozen = False
        self._is_ended = False
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._monotonic()

    def rest(self, timeout: float | None) -> None:
        """Block until a timer is due, or until somebody has handed something to the loop."""
        if self._is_ended:
            return
        self._thread = self._kernel.current
        if timeout is None:
            self._kernel.block()
        elif timeout > 0:
            self._kernel.sleep(max(timeout, LEAST_SECONDS), can_halt=True)
        while self.is_frozen:
            self._kernel.block()

    def end(self) -> None:
        """Cancel all tasks and close the loop, outside of all threads: its process is dead."""
        self._is_ended = True
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self.run_until_complete(_wait_for(tasks))
        self.close()

    def hand_over(self, function: Callable[[], object]) -> None:
        """Call a function in the loop; may be called from outside."""
        self.call_soon(function)
        if self._thread is not None:
            self._kernel.wake(self._thread)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call the function at once: what triggers do in threads has no effects."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


async def _wait_for(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
