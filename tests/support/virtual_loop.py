"""An event loop whose time is virtual."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

BEGIN = 1000.0
"""The loop's time when it starts."""


class _Selector(selectors.DefaultSelector):
    """Waits for sockets in real time while a request is running, and otherwise lets virtual time pass."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        self.loop.turn += 1
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.loop.busy:
            return super().select(0.02)
        if ready := super().select(0):
            return ready
        self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour of sleep takes no time.

    :ivar now: the loop's time. A test may set it forward, as if something had blocked the loop.
    :ivar turn: the number of the turn: a loop runs everything that is ready in one turn, and nothing else meanwhile.
    :ivar busy: how many requests and look-ups are running: time stands still meanwhile.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.turn = 0
        self.busy = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time."""
        return self.now
