"""How much may happen in one turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

STEPS_PER_TURN = 20
"""Steps of about a tenth to half a millisecond each: a turn must stay well below Airflow's warning at 0.2 s."""


class Turnstile:
    """Lets so many tasks pass in each turn of the event loop, in the order in which they came.

    A loop runs everything that is ready in one turn, and nothing else meanwhile. Thousands of waits that become ready
    together (a triggerer that starts, a deadline, the end of a pause) would block it.

    :param per_turn: how many tasks pass in a turn.
    """

    def __init__(self, per_turn: int = STEPS_PER_TURN) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a turn that has room. Without others that is this turn."""
        loop = asyncio.get_running_loop()
        if self._left == self._per_turn:  # the first in this turn
            loop.call_soon(self._next_turn)
        if self._left:
            self._left -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        self._left = self._per_turn
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # otherwise its task was cancelled
                turn.set_result(None)
                self._left -= 1
        if self._left < self._per_turn:
            asyncio.get_running_loop().call_soon(self._next_turn)
