"""Processes that get commands as lines of JSON: a server, and a client for each way to wait."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 300.0
"""Seconds after which a process that does not answer is killed."""


class NoAnswer(RuntimeError):
    """A process was killed because it did not answer in time."""


class Process:
    """A module of this folder that runs in a process; as a context manager it ends with the block.

    ``hello`` is the first line that the module prints.

    :param arguments: the module below ``benchmarks`` and its arguments.
    :ivar patience: seconds after which it is killed if it does not answer; ``PATIENCE`` at first.
    """

    def __init__(self, *arguments: str) -> None:
        """Start the process and read its first line."""
        module, *rest = arguments
        self.patience = PATIENCE
        self._name = module
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *rest],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.hello = self._answer()

    def call(self, **command: Any) -> Any:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        watch = threading.Timer(self.patience, end)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if line:
            return json.loads(line)
        self._process.wait()
        if is_late.is_set():
            raise NoAnswer(f"benchmarks.{self._name} has not answered within {self.patience:g} s")
        self._errors.seek(0)
        raise RuntimeError(f"benchmarks.{self._name} has ended:\n{self._errors.read()[-3000:]}")

    def __enter__(self) -> Process:
        """Return the running process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def client(way: str, ca: str | None = None) -> Process:
    """Start a process that waits in a way of ``ways.WAYS``."""
    return Process("client", way, *(["--ca", ca] if ca else []))


def server(tls: Path | None = None, slow_share: float = 0.0, slow_seconds: float = 0.0) -> Process:
    """Start a server; its ``hello`` has the URL.

    :param tls: serve https; a folder for the authority's certificate.
    :param slow_share: the share of slow answers.
    :param slow_seconds: how long slow answers take.
    """
    options = ["--slow-share", str(slow_share), "--slow-seconds", str(slow_seconds)]
    return Process("server", *options, *(["--tls", str(tls)] if tls else []))
