"""One timer for many things that may take too long, each for the same time; and the place that one of them holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Overdue:
    """Calls back for what has lasted too long.

    A timer for each of thousands of looks, made, moved and canceled again, would cost as much as all else that is done
    for a look. What begins later is due later, so that one timer for the oldest one does.

    :param seconds: that it may last.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, act: Callable[[], None]) -> None:
        """``act`` is called when the time is over, unless it has ended before."""
        loop = asyncio.get_running_loop()
        self._begun[act] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, act: Callable[[], None]) -> None:
        """It is over, or was called already."""
        self._begun.pop(act, None)

    def __bool__(self) -> bool:
        """Whether anything lasts that is not overdue."""
        return bool(self._begun)

    def close(self) -> None:
        """Call nobody any more."""
        self._begun.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for act, since in [*self._begun.items()]:
            if since + self._seconds > loop.time():
                self._timer = loop.call_at(since + self._seconds, self._look)
                return
            del self._begun[act]
            act()


class Place:
    """One of the places on the way, given back once: when its time is over, or in the end."""

    __slots__ = ("_slots",)

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def leave(self) -> None:
        """Give it back, if that was not done before."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None
