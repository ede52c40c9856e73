"""Search every place in which Airflow could show a secret, in every common encoding."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from cryptography.fernet import Fernet, InvalidToken

from tests.e2e.rest import AirflowRest, RestError

Contents = Iterator[tuple[str, bytes]]
"""Pairs of a location and the data there."""


@dataclass(frozen=True)
class Hit:
    """A needle that was found.

    :param place: the kind of place, such as "database".
    :param where: the location in that place.
    :param form: the encoding in which it was written.
    :param around: the text around it.
    """

    needle: str
    place: str
    where: str
    form: str
    around: str

    def __str__(self) -> str:
        """Return the location, the encoding and the text around it."""
        return f"{self.place}: {self.where} ({self.form}): {self.around}"


@cache
def forms(needle: str) -> dict[str, bytes]:
    """Return the bytes of a text in each encoding that can be read back, by the name of the encoding."""
    raw = needle.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "utf-16": needle.encode("utf-16-le"),
    }
    for shift in range(3):  # base64 depends on where the text begins within a group of three bytes
        for name, encode in (("base64", base64.b64encode), ("urlsafe", base64.urlsafe_b64encode)):
            coded = encode(b"\0" * shift + raw).rstrip(b"=")
            # The first and the last characters also carry bits of the neighbours.
            found[f"{name} shifted by {shift}"] = coded[(0, 2, 3)[shift] : len(coded) - bool((shift + len(raw)) % 3)]
    return found


def views(data: bytes) -> Contents:
    """Yield the data as it is, and with each common escaping undone."""
    yield "", data
    if b"%" in data:
        yield "URL-encoded ", urllib.parse.unquote_to_bytes(data)
    if b"\\" in data:
        # Twice: JSON in JSON.
        unescaped = _unescape(data)
        yield "escaped ", unescaped
        yield "escaped twice ", _unescape(unescaped)
    if b"&#" in data:
        yield "HTML-encoded ", html.unescape(data.decode("latin-1")).encode("latin-1", "replace")
    if b"\x1b[" in data:
        yield "coloured ", re.sub(rb"\x1b\[[0-9;]*m", b"", data)


def _unescape(data: bytes) -> bytes:
    data = re.sub(rb"\\u00([0-9a-fA-F]{2})|\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1] or m[2], 16)]), data)
    return re.sub(rb"\\(.)", rb"\1", data)


def search(needles: Iterable[str], place: str, contents: Contents) -> list[Hit]:
    """Return all occurrences of the needles in a place."""
    wanted = list(needles)
    hits = []
    for where, data in contents:
        for view, text in views(data):
            for needle in wanted:
                for form, pattern in forms(needle).items():
                    at = text.find(pattern)
                    if at >= 0:
                        around = text[max(0, at - 120) : at + len(pattern) + 60].decode(errors="replace")
                        hits.append(Hit(needle, place, where, f"{view}{form}", around))
    return hits


def database(path: Path, fernet_key: str) -> Contents:
    """Yield every column of every row of every table; values encrypted with the Fernet key are also decrypted."""
    fernet = Fernet(fernet_key)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
        connection.text_factory = bytes
        tables = [row[0].decode() for row in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            cursor = connection.execute(f'select * from "{table}"')
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                for column, value in zip(columns, row, strict=True):
                    data = value if isinstance(value, bytes) else str(value).encode()
                    yield f"{table}.{column}", data
                    for token in re.findall(rb"gAAAAA[\w-]+={0,2}", data):
                        with contextlib.suppress(InvalidToken):
                            yield f"{table}.{column} (decrypted)", fernet.decrypt(token)


def files(folder: Path) -> Contents:
    """Yield names and contents of all files below a folder."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path.relative_to(folder)}", str(path.relative_to(folder)).encode()
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a temporary file that was removed meanwhile
                yield str(path.relative_to(folder)), path.read_bytes()


GENERAL = (
    "/connections?limit=1000",
    "/eventLogs?limit=10000",
    "/importErrors?limit=1000",
    "/jobs?limit=1000",
    "/variables?limit=1000",
    "/pools?limit=1000",
    "/providers?limit=1000",
    "/plugins?limit=1000",
    "/dags?limit=1000",
    "/dags/~/dagRuns?limit=1000",
    "/dags/~/dagRuns/~/taskInstances?limit=10000",
)


def rest_answers(rest: AirflowRest, runs: Iterable[tuple[str, str]]) -> Contents:
    """Yield what Airflow's REST API answers about connections, events, DAGs and every task of the runs.

    Of each task these are the instance with rendered fields and trigger, all tries, XComs, links and logs.
    """

    def get(path: str) -> Any:
        return rest.send("GET", f"/api/v2{path}")

    def answer(path: str) -> tuple[str, bytes]:
        try:
            return path, json.dumps(get(path), ensure_ascii=False).encode()
        except RestError as error:
            return path, str(error).encode()

    for path in GENERAL:
        yield answer(path)
    for connection in get("/connections?limit=1000")["connections"]:
        yield answer(f"/connections/{connection['connection_id']}")
    for dag_id, run_id in runs:
        yield answer(f"/dags/{dag_id}/details")
        yield answer(f"/dagSources/{dag_id}")
        run = f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"
        yield answer(run)
        for task in rest.task_instances(dag_id, run_id):
            path = f"{run}/taskInstances/{task['task_id']}"
            yield answer(path)
            yield answer(f"{path}/tries")
            yield answer(f"{path}/links")
            for attempt in range(1, max(1, task["try_number"]) + 1):
                yield answer(f"{path}/logs/{attempt}?full_content=true")
            for entry in get(f"{path}/xcomEntries?limit=1000")["xcom_entries"]:
                yield answer(f"{path}/xcomEntries/{entry['key']}?stringify=false")


class Arguments:
    """Collects the arguments of every process that runs during a `with` block.

    :param interval: seconds between two checks of the processes.
    """

    def __init__(self, interval: float = 0.5) -> None:
        """Prepare; the block starts it."""
        self._arguments: set[tuple[str, str]] = set()
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def collect(self) -> None:
        """Add the processes that run now."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                self._arguments.add((process.name(), "\0".join(process.cmdline())))

    def _watch(self) -> None:
        while not self._end.wait(self._interval):
            self.collect()

    def __enter__(self) -> Arguments:
        """Start collecting in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the thread."""
        self._end.set()
        self._thread.join()

    def contents(self) -> Contents:
        """Yield program names and their arguments."""
        self.collect()
        for name, arguments in sorted(self._arguments):
            yield f"arguments of {name}", arguments.encode(errors="surrogateescape")
