"""Pools, futures and locks of a simulated world, in place of those of ``polling/threads.py``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

from tests.simulation.kernel import Kernel
from tests.simulation.process import Killed, Process, Thread


class Future(futures.Future[Any]):
    """A future whose waiters are threads of the world.

    Its hash is a number, so that a set of futures has the same order in each run.
    """

    kernel: Kernel

    def __init__(self) -> None:
        super().__init__()
        self._number = self.kernel.number()

    def __hash__(self) -> int:
        return self._number

    def result(self, timeout: float | None = None) -> Any:
        _until(self.kernel, self.done, [self])
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        _until(self.kernel, self.done, [self])
        return super().exception(0)


def wait(
    fs: Iterable[futures.Future[Any]], timeout: float | None = None, return_when: str = futures.ALL_COMPLETED
) -> tuple[set[Any], set[Any]]:
    """Wait as ``concurrent.futures.wait`` does. The sets are ordered as the futures were given."""
    pending = [*fs]
    kernel: Kernel = pending[0].kernel  # type: ignore[attr-defined]
    ends = None if timeout is None else kernel.now + timeout

    def is_over() -> bool:
        done = [future for future in pending if future.done()]
        if len(done) == len(pending) or (ends is not None and kernel.now >= ends):
            return True
        if return_when == futures.FIRST_EXCEPTION:
            return any(future.cancelled() or future.exception() is not None for future in done)
        return bool(done) and return_when == futures.FIRST_COMPLETED

    _until(kernel, is_over, pending, ends)
    done = [future for future in pending if future.done()]
    left = [future for future in pending if not future.done()]
    return OrderedFutures(done), OrderedFutures(left)  # type: ignore[return-value]


class OrderedFutures(list[Any]):
    """A set would be walked through in the order of addresses in memory."""


class Pool(futures.Executor):
    """A pool of threads of the world."""

    kernel: Kernel
    future: type[Future]

    def __init__(self, max_workers: int, thread_name_prefix: str = "pool") -> None:
        self._max_workers = max_workers
        self._name = thread_name_prefix
        self._queue: deque[tuple[str, Future, Callable[[], Any]]] = deque()
        self._threads: list[Thread] = []
        self._idle: list[Thread] = []
        self._is_closed = False
        current = self.kernel.current
        assert current is not None
        self._process: Process = current.process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:  # type: ignore[override]
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self.future()
        item = getattr(args[0], "key", "") if args else ""
        self._queue.append((item, future, lambda: fn(*args, **kwargs)))
        if self._idle:
            self.kernel.wake(self._idle.pop())
        elif len(self._threads) < self._max_workers:
            name = f"{self._name}-{len(self._threads)}"
            self._threads.append(self.kernel.start(self._process, self._work, name))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._is_closed = True
        if cancel_futures:
            while self._queue:
                self._queue.popleft()[1].cancel()
        for thread in self._idle:
            self.kernel.wake(thread)
        if wait:
            self.kernel.join(self._threads)

    def _work(self) -> None:
        current = self.kernel.current
        assert current is not None
        while True:
            while self._queue:
                item, future, call = self._queue.popleft()
                current.item = f"comet_submission.{item}" if item else ""
                run(future, call)
            if self._is_closed:
                return
            self._idle.append(current)
            self.kernel.block()
            if current in self._idle:
                self._idle.remove(current)


class Lock:
    """A lock of the world. Whoever wants it while it is held waits; taking it is an effect."""

    kernel: Kernel
    effect: Callable[[str, str], None]
    made: list[Lock]

    def __init__(self) -> None:
        self.made.append(self)
        self.holder: Thread | None = None
        self._waiting: deque[Thread] = deque()

    def __enter__(self) -> Lock:
        type(self).effect("lock", "")
        thread = self.kernel.current
        assert thread is not None
        while self.holder is not None:
            self._waiting.append(thread)
            try:
                self.kernel.block()
            finally:
                if thread in self._waiting:
                    self._waiting.remove(thread)
        self.holder = thread
        return self

    def __exit__(self, *_: object) -> None:
        self.holder = None
        if self._waiting:
            self.kernel.wake(self._waiting.popleft())


class ProcessLock:
    """A lock in a module: each process has its own."""

    kernel: Kernel

    def __init__(self, name: str, kind: type[Lock]) -> None:
        self._name = name
        self._kind = kind

    def _own(self) -> Lock:
        assert self.kernel.current is not None
        lock: Lock = self.kernel.current.process.memory.setdefault(self._name, self._kind())
        return lock

    def __enter__(self) -> Lock:
        return self._own().__enter__()

    def __exit__(self, *details: object) -> None:
        self._own().__exit__(*details)


def run(future: Future, call: Callable[[], Any]) -> None:
    """Make a call, and put what comes of it into a future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except Killed:
        raise
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _until(
    kernel: Kernel, is_over: Callable[[], bool], fs: Iterable[futures.Future[Any]], ends: float | None = None
) -> None:
    thread = kernel.current
    if thread is None or is_over():
        return
    thread.process.raise_if_dead()
    for future in fs:
        future.add_done_callback(lambda _: kernel.wake(thread))
    timer = None if ends is None else kernel.call_at(ends, lambda: kernel.wake(thread))
    try:
        while not is_over():
            kernel.block()
    finally:
        if timer is not None:
            timer.cancel()
