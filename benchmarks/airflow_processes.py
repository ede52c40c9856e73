"""What the processes of a real Airflow use: CPU, memory, and the worker slots that are taken."""

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
"""In the title of a process that takes tasks, and of one that waits for the next one."""


def cpu(processes: Iterable[psutil.Process]) -> float:
    """Seconds of CPU of these processes, and of all that they have started and seen end."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory(processes: Iterable[psutil.Process]) -> float:
    """Bytes of these processes together; what they share counts once (proportional set size)."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def workers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Of these processes, the LocalExecutor's and what they run: what depends on the tasks alone."""
    found: dict[int, psutil.Process] = {}
    for process in processes:
        if WORKER in _title(process):
            found[process.pid] = process
            with suppress(psutil.Error):
                found |= {one.pid: one for one in process.children(recursive=True)}
    return [*found.values()]


class Slots:
    """Counts how long worker slots are taken, while the block lasts.

    A worker of the LocalExecutor says in its title what it runs, from the moment it takes a task until that task's
    process has ended.
    """

    def __init__(self, airflow: Iterable[psutil.Process]) -> None:
        self.seconds = 0.0
        self._scheduler = next(one for one in airflow if _title(one).endswith("airflow scheduler"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Slots:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stop.wait(SLOT_EVERY_SECONDS):
            now = time.monotonic()
            titles = [_title(one) for one in _children(self._scheduler)]
            self.seconds += (now - before) * sum(WORKER in title and IDLE not in title for title in titles)
            before = now


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Its direct children; psutil would read all processes of the machine for it, twenty times a second."""
    found = []
    for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(OSError, psutil.Error):
            found += [psutil.Process(int(pid)) for pid in path.read_text().split()]
    return found


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


class Gate:
    """The emulator as ``HttpSensorTrigger`` needs it: a prediction that has not finished is a 404.

    :param url: the emulator.
    :param key: its key.
    """

    def __init__(self, url: str, key: str) -> None:
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
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Gate:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
