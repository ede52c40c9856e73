"""Programs that a test or the demo starts, and that are gone afterwards whatever happened."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil


class Interrupted(BaseException):
    """A signal asked this process to end; like KeyboardInterrupt no `except Exception` may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into `Interrupted`, so that every `finally` runs."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    # Set for SIGINT too: a shell starts background jobs with SIGINT ignored.
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let nothing stop the stopping: an impatient second Ctrl-C would leave processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now.

    Below those that the kernel gives to outgoing connections: one of these may take a port in the seconds until the
    program that it was chosen for listens.
    """
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))  # on every address: Airflow's log servers listen on all of them
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free port was found")


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return f"({path.name} was not written)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


class Program:
    """A program in a session of its own, together with every process that it starts.

    The session and not the process group decides who belongs to it: Airflow gives the children it supervises groups of
    their own, and leaves them behind when their parent is killed. `marker` is an environment variable with a value of
    this program's own: it finds those that started a session as well (a BashOperator's command, say).
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str], marker: str, cwd: Path | None = None
    ) -> None:
        self.command = list(command)
        self.log = log
        self.env = dict(env)
        self._mark = (marker, self.env[marker])
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> psutil.Process:
        """Start it; its output goes to the log."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self._cwd,
                start_new_session=True,
            )
        return psutil.Process(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """None as long as it runs."""
        return self._process.poll() if self._process else None

    def members(self) -> list[psutil.Process]:
        """Its processes that are alive now, the oldest first."""
        found = [process for process in psutil.process_iter() if self._owns(process)]
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def _owns(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        name, value = self._mark
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if self._process and os.getsid(process.pid) == self._process.pid:
                return True
            return bool(process.environ().get(name) == value)
        except (psutil.Error, OSError):
            return False

    def stop(self, grace: float = 15.0) -> None:
        """Ask all its processes to end, kill those that do not, and return when none is left."""
        with uninterrupted():
            for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
                end = time.monotonic() + patience
                asked: set[psutil.Process] = set()
                while members := self.members():
                    # A process that was being started while the others were told is told in the next round.
                    for process in members:
                        if process not in asked:
                            asked.add(process)
                            _signal(process, number)
                    if time.monotonic() > end:
                        break
                    time.sleep(0.1)
                    if self._process:
                        self._process.poll()
            if self._process:
                self._process.wait(timeout=10)
            if left := self.members():
                raise RuntimeError(f"cannot stop {[process.pid for process in left]}")


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
