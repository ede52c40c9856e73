"""Programs that a test or the demo starts, and that are always stopped afterwards."""

from __future__ import annotations

import os
import pwd
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
from typing import Any

import psutil


class Interrupted(BaseException):
    """A signal told this process to end; as with KeyboardInterrupt, no `except Exception` catches it."""

    def __init__(self, signum: int) -> None:
        """Derive the exit code from the signal."""
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
    """Ignore Ctrl-C and SIGTERM while processes are stopped: a second Ctrl-C would leave some running."""
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
    """Return different ports on which no process listens.

    They are below the range of outgoing connections, so that none of these takes a port before the program listens.
    """
    ports: list[int] = []
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))  # on every address: Airflow's log servers listen on all of them
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no free port was found")


def as_user(name: str | None) -> dict[str, Any]:
    """Return what `subprocess` needs to run a program as another user; `None` is this process's own user."""
    if name is None:
        return {}
    user = pwd.getpwnam(name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a log, for an error message."""
    if not path.exists():
        return f"({path.name} was not written)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


class Program:
    """A program in a session of its own, together with every process that it starts.

    The session decides which processes belong to it, not the process group: Airflow gives the children that it
    supervises groups of their own, and they survive when their parent is killed.

    :param log: the file for its output.
    :param marker: an environment variable whose value only this program has; it finds processes in other sessions, such
        as a BashOperator's command.
    :param user: the name of the user to run it as, if this process is root.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        marker: str,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Prepare the program; :meth:`start` starts it."""
        self.command = list(command)
        self.log = log
        self.env = dict(env)
        self._mark = (marker, self.env[marker])
        self._cwd = cwd
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> psutil.Process:
        """Start the program."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self._cwd,
                start_new_session=True,
                **as_user(self._user),
            )
        return psutil.Process(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """The exit code; `None` as long as it runs."""
        return self._process.poll() if self._process else None

    def members(self) -> list[psutil.Process]:
        """Return its running processes, the oldest first."""
        processes = [process for process in psutil.process_iter() if self._owns(process)]
        return sorted(processes, key=lambda process: (process.create_time(), process.pid))

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

    def stop(self, grace: float = 15.0, first: int = signal.SIGTERM) -> None:
        """Terminate all its processes, kill those that do not end, and return when none is left.

        :param first: the signal that terminates them.
        """
        with uninterrupted():
            for number, patience in ((first, grace), (signal.SIGKILL, 10.0)):
                end = time.monotonic() + patience
                signaled: set[psutil.Process] = set()
                while members := self.members():
                    # A process that started while the others got the signal gets it in the next round.
                    for process in members:
                        if process not in signaled:
                            signaled.add(process)
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
