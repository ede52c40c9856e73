"""Processes and threads in virtual time: one of them runs at a time, and nothing sleeps.

A thread is a greenlet. It runs until it blocks; then the kernel chooses the next one, or lets time pass. Everything
that happens in a simulated world happens in this order, so the same choices give the same story.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from asyncio import events
from collections.abc import Callable
from itertools import count

import greenlet

from tests.simulation.process import Killed, Process, Thread

START = 1_767_225_600.0
"""When every story begins: 2026-01-01 00:00:00 UTC."""
MAX_SWITCHES = 200_000
"""A story with more of them does not come to an end."""


class Stuck(Exception):
    """The story does not come to an end, or a thread waits for what never comes."""


class Timer:
    """A function that is called at a time, unless it is canceled before."""

    def __init__(self, time: float, function: Callable[[], object]) -> None:
        self.time = time
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        self.function = None


class Kernel:
    """Runs threads one at a time and moves the time.

    :param order: chooses which of several ready threads runs first; 0: the one that has been ready for longest.
    :ivar now: seconds since 1970.
    """

    def __init__(self, order: int = 0) -> None:
        self.now = START
        self.current: Thread | None = None
        self.root = greenlet.getcurrent()
        self.processes: list[Process] = []
        self.switches = 0
        self._ready: list[Thread] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._choose = random.Random(order).random if order else lambda: 0.0

    def number(self) -> int:
        """Return the next of the numbers that identify things in the order in which they were made."""
        return next(self._numbers)

    def process(self, name: str) -> Process:
        self.processes.append(process := Process(self, name))
        return process

    def start(self, process: Process, target: Callable[[], object], name: str = "main") -> Thread:
        """Start a thread. It runs as soon as the current one blocks."""
        thread = Thread(self, process, target, name)
        process.threads.append(thread)
        self._make_ready(thread)
        return thread

    def call_at(self, time: float, function: Callable[[], object]) -> Timer:
        """Call a function at a time, outside of all threads."""
        timer = Timer(time, function)
        heapq.heappush(self._timers, (time, next(self._numbers), timer))
        return timer

    def run(self, until: float = float("inf")) -> None:
        """Run until nothing is left to do, or until a time."""
        while True:
            while self._ready:
                self.switches += 1
                if self.switches > MAX_SWITCHES:
                    raise Stuck("the story does not come to an end")
                thread = self._ready.pop(int(self._choose() * len(self._ready)))
                thread.is_ready = False
                self.current = thread
                thread.greenlet.switch()
                self.current = None
                if thread.error is not None:
                    raise thread.error
            if not self._timers or self._timers[0][0] > until:
                return
            time, _, timer = heapq.heappop(self._timers)
            if timer.function is not None:
                self.now = max(self.now, time)
                timer.function()

    def end(self) -> None:
        """Let the threads unwind that were killed, and forget what was planned."""
        self._timers.clear()
        self.switches = 0
        while self._ready:
            with contextlib.suppress(Exception):
                self.run()

    # What a thread calls.

    def block(self) -> None:
        """Wait until somebody calls ``wake``.

        :raises BaseException: what was thrown into this thread meanwhile.
        """
        loop = events._get_running_loop()
        events._set_running_loop(None)  # type: ignore[arg-type]  # others may run a loop meanwhile
        self.root.switch()
        events._set_running_loop(loop)  # type: ignore[arg-type]
        self.checkpoint()

    def checkpoint(self) -> None:
        """Handle the signals that have reached this thread, and raise what was thrown into it."""
        thread = self._current()
        thread.process.raise_if_dead()
        while thread.signals:
            thread.signals.pop(0)()
        if thread.raising is not None:
            error, thread.raising = thread.raising, None
            raise error

    def join(self, threads: list[Thread]) -> None:
        """Wait until threads have ended."""
        thread = self._current()
        while left := [other for other in threads if not other.is_done]:
            left[0].joiners.append(thread)
            self.block()

    def sleep(self, seconds: float, *, can_halt: bool = False) -> None:
        """Let time pass for this thread.

        :param can_halt: whatever wakes the thread ends the sleep.
        """
        thread = self._current()
        self.checkpoint()
        thread.halts_early = can_halt
        ends = self.now + max(0.0, seconds)
        timer = self.call_at(ends, lambda: self.wake(thread))
        try:
            self.block()
            while self.now < ends and not can_halt:  # a signal was handled meanwhile
                self.block()
        finally:
            timer.cancel()
            thread.halts_early = False

    def halt(self, process: Process) -> None:
        """Wake the threads of a process that wait for an event which was set."""
        for thread in process.threads:
            if thread.halts_early:
                self.wake(thread)

    def wake(self, thread: Thread) -> None:
        """Let a blocked thread run again."""
        if not thread.is_ready and not thread.is_done and thread is not self.current:
            self._make_ready(thread)

    def throw(self, thread: Thread, error: BaseException) -> None:
        """Raise an exception in a thread, where it is blocked; of the current thread: when it blocks next."""
        if thread.raising is None or isinstance(error, Killed):
            thread.raising = error
        self.wake(thread)

    def _current(self) -> Thread:
        if self.current is None:
            raise Stuck("only a thread can wait")
        return self.current

    def _make_ready(self, thread: Thread) -> None:
        thread.is_ready = True
        self._ready.append(thread)
