"""One timer for the deadlines of many requests; and the concurrency slot that a request holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

from airflow_provider_comet.polling.turnstile import STEPS_PER_TURN


class DeadlineSweeper:
    """Calls back for everything that has lasted too long.

    A timer for each of thousands of polls, made and canceled again, costs more: 15 to 20 microseconds of CPU for each
    poll with ``asyncio.timeout`` and ``call_later``, of some 80 for all of a poll. All deadlines here are equally long,
    so what begins later is due later, and one timer for the oldest suffices.

    :param seconds: how long anything may last.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started_at: dict[Callable[[], None], float] = {}
        self._timer: asyncio.Handle | None = None

    def start(self, on_timeout: Callable[[], None]) -> None:
        """Call ``on_timeout`` when the time is over, unless ``stop`` comes first."""
        loop = asyncio.get_running_loop()
        self._started_at[on_timeout] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep)

    def stop(self, on_timeout: Callable[[], None]) -> None:
        """Forget a callback; nothing happens if it was called already."""
        self._started_at.pop(on_timeout, None)

    def __bool__(self) -> bool:
        """Return whether anything is running whose time is not over."""
        return bool(self._started_at)

    def close(self) -> None:
        """Forget all callbacks."""
        self._started_at.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for on_timeout, started_at in [*islice(self._started_at.items(), STEPS_PER_TURN)]:
            if started_at + self._seconds > loop.time():
                self._timer = loop.call_at(started_at + self._seconds, self._sweep)
                return
            del self._started_at[on_timeout]
            on_timeout()
        if self._started_at:  # the others in the next turn: each callback wakes a task, which may do much
            self._timer = loop.call_soon(self._sweep)


class Slot:
    """A slot of a semaphore that is released once: when its time is over, or when its request has ended."""

    __slots__ = ("_semaphore",)

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore

    def release(self) -> None:
        """Release the slot, unless that was done before."""
        if self._semaphore is not None:
            self._semaphore.release()
            self._semaphore = None
