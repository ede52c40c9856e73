"""The event loop of a simulated triggerer: its timers go by the world's time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from tests.simulation.kernel import Kernel
from tests.simulation.process import Thread

LEAST_SECONDS = 1e-6
"""Less is lost when it is added to the seconds since 1970."""
MAX_TURNS = 20
"""So often the tasks of a killed process are canceled until they end."""


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
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._monotonic()

    def rest(self, timeout: float | None) -> None:
        """Block until a timer is due, or until somebody has handed something to the loop."""
        self._thread = self._kernel.current
        if timeout is None:
            self._kernel.block()
        elif timeout > 0:
            self._kernel.sleep(max(timeout, LEAST_SECONDS), can_halt=True)
        while self.is_frozen:
            self._kernel.block()

    def hand_over(self, function: Callable[[], object]) -> None:
        """Call a function in the loop; may be called from outside."""
        self.call_soon(function)
        if self._thread is not None:
            self._kernel.wake(self._thread)

    def unwind(self) -> None:
        """End all tasks of a loop whose process was killed, before anything else happens in the world.

        What they do on their way out has no effect any more. Left alone, they would do it whenever Python collects
        garbage, maybe in the next story.
        """
        self.is_frozen = False
        for _ in range(MAX_TURNS):
            self.call_soon(self.stop)  # it turns once, and does not rest
            self.run_forever()
            if not (tasks := asyncio.all_tasks(self)):
                break
            for task in tasks:
                task.cancel()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call the function at once: what triggers do in threads has no effects."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future
