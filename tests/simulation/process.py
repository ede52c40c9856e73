"""Processes and threads of a simulated world. A thread is a greenlet; ``kernel.py`` decides which one runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import greenlet

if TYPE_CHECKING:
    from tests.simulation.kernel import Kernel


class Killed(BaseException):
    """Ends the threads of a process that was killed. What they do on their way out has no effect any more."""


class Thread:
    """A thread of a process.

    :ivar raising: what is raised in it as soon as it runs again.
    :ivar item: of a batch, the key of the record that it works on; empty: not known.
    """

    def __init__(self, kernel: Kernel, process: Process, target: Callable[[], object], name: str) -> None:
        self.process = process
        self.name = name
        self.raising: BaseException | None = None
        self.item = ""
        self.is_main = not process.threads
        self.is_done = False
        self.error: BaseException | None = None
        self.is_ready = False
        self.halts_early = False
        self.joiners: list[Thread] = []
        self.signals: list[Callable[[], object]] = []
        self.greenlet = greenlet.greenlet(lambda: self._run(target), kernel.root)

    def _run(self, target: Callable[[], object]) -> None:
        try:
            self.process.raise_if_dead()
            target()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.is_done = True
            self.process.threads.remove(self)
            for thread in self.joiners:
                self.process.kernel.wake(thread)


class Process:
    """An operating system's process: it can be killed, or interrupted in its main thread.

    :param name: for the story.
    :ivar owner: the task instance that it runs; empty: a triggerer.
    :ivar effects: how many effects it had, by kind.
    :ivar is_orphan: whether its supervisor is gone, through which it reaches Airflow.
    """

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.threads: list[Thread] = []
        self.owner = ""
        self.number = 0
        self.is_dead = False
        self.is_orphan = False
        self.is_interruptible = True
        self.effects: dict[str, int] = {}
        self.memory: dict[str, Any] = {}
        """What modules keep in their globals: each process has its own."""

    @property
    def is_running(self) -> bool:
        return not self.is_dead and bool(self.threads)

    @property
    def main(self) -> Thread | None:
        return next((thread for thread in self.threads if thread.is_main), None)

    def raise_if_dead(self) -> None:
        if self.is_dead:
            raise Killed

    def kill(self) -> None:
        """End the process at once: SIGKILL. Its threads unwind without any effect."""
        self.is_dead = True
        for thread in [*self.threads]:
            self.kernel.throw(thread, Killed())

    def signal(self, handler: Callable[[], object]) -> None:
        """Call a signal handler in the main thread, wherever it is. Then the thread continues."""
        if self.main is not None:
            self.main.signals.append(handler)
            self.kernel.wake(self.main)

    def interrupt(self, error: BaseException) -> None:
        """Raise an exception in the main thread, as a signal handler does, wherever it is."""
        if self.main is not None and self.is_interruptible:
            self.kernel.throw(self.main, error)
