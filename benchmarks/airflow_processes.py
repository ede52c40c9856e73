"""Measure the CPU, the memory and the worker slots that the processes of a real Airflow use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import psutil

SLOT_EVERY_SECONDS = 0.05
WORKER, IDLE = "LocalExecutor", "<idle>"
"""These stand in the title of a worker process, and of a worker that waits for a task."""


def cpu(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds of CPU of these processes and of their child processes that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory(processes: Iterable[psutil.Process]) -> float:
    """Return the bytes of these processes together; shared memory counts once (proportional set size)."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def workers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the LocalExecutor's processes and their child processes: their use depends only on the tasks."""
    found: dict[int, psutil.Process] = {}
    for process in processes:
        if WORKER in _title(process):
            found[process.pid] = process
            with suppress(psutil.Error):
                found |= {child.pid: child for child in process.children(recursive=True)}
    return [*found.values()]


class Slots:
    """Counts the seconds for which worker slots are taken during a `with` block.

    A worker of the LocalExecutor has its task in its title, from the moment it takes it until the task's process has
    ended.

    :param airflow: the processes of an Airflow.
    """

    def __init__(self, airflow: Iterable[psutil.Process]) -> None:
        """Find the scheduler, whose child processes are the workers."""
        self.seconds = 0.0
        self._scheduler = next(process for process in airflow if _title(process).endswith("airflow scheduler"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Slots:
        """Start counting in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(SLOT_EVERY_SECONDS):
            now = time.monotonic()
            titles = [_title(child) for child in _children(self._scheduler)]
            self.seconds += (now - before) * sum(WORKER in title and IDLE not in title for title in titles)
            before = now


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Return the direct children of a process.

    psutil would read all processes of the machine for it, twenty times a second.
    """
    children = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(OSError, psutil.Error):
            children += [psutil.Process(int(pid)) for pid in path.read_text().split()]
    return children


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


class Gate:
    """A proxy of the emulator for ``HttpSensorTrigger``: it answers 404 for a prediction that has not finished.

    :param url: the emulator.
    :param key: its key.
    """

    def __init__(self, url: str, key: str) -> None:
        """Bind a free port; the block serves it."""
        opener = build_opener(ProxyHandler({}))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                request = Request(url + self.path, headers={"Authorization": f"Bearer {key}"})
                try:
                    with opener.open(request, timeout=30) as answer:
                        body = answer.read()
                    status = 200 if b'"completed_at"' in body else 404
                except HTTPError as error:
                    body, status = error.read(), error.code
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore clients that have disconnected."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Gate:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
