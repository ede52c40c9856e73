"""Every place where Airflow could show a secret, and how to find one there in whatever encoding."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import sqlite3
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from cryptography.fernet import Fernet, InvalidToken

from tests.e2e.rest import AirflowRest, RestError

Found = Iterator[tuple[str, bytes]]
"""Where something stands, and what stands there."""


@dataclass(frozen=True)
class Hit:
    """A needle that was found: in which place, where exactly, and how it was written."""

    needle: str
    place: str
    where: str
    form: str
    around: str

    def __str__(self) -> str:
        return f"{self.place}: {self.where} ({self.form}): {self.around}"


@cache
def forms(needle: str) -> dict[str, bytes]:
    """How a text may be written so that anybody could read it back, in the form's name -> bytes."""
    raw = needle.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "utf-16": needle.encode("utf-16-le"),
    }
    for shift in range(3):  # where the text begins within a group of three bytes decides what its base64 looks like
        for name, encode in (("base64", base64.b64encode), ("urlsafe", base64.urlsafe_b64encode)):
            coded = encode(b"\0" * shift + raw).rstrip(b"=")
            # The first and the last characters also carry bits of the neighbours.
            found[f"{name} shifted by {shift}"] = coded[(0, 2, 3)[shift] : len(coded) - bool((shift + len(raw)) % 3)]
    return found


def views(data: bytes) -> Found:
    """The data as it is, and with each common escaping taken off."""
    yield "", data
    if b"%" in data:
        yield "URL-encoded ", urllib.parse.unquote_to_bytes(data)
    if b"\\" in data:
        # Twice: JSON in JSON.
        once = _unescape(data)
        yield "escaped ", once
        yield "escaped twice ", _unescape(once)
    if b"&#" in data:
        yield "HTML-encoded ", html.unescape(data.decode("latin-1")).encode("latin-1", "replace")
    if b"\x1b[" in data:
        yield "coloured ", re.sub(rb"\x1b\[[0-9;]*m", b"", data)


def _unescape(data: bytes) -> bytes:
    data = re.sub(rb"\\u00([0-9a-fA-F]{2})|\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1] or m[2], 16)]), data)
    return re.sub(rb"\\(.)", rb"\1", data)


def search(needles: Iterable[str], place: str, found: Found) -> list[Hit]:
    """All occurrences of the needles in a place."""
    wanted = list(needles)
    hits = []
    for where, data in found:
        for view, text in views(data):
            for needle in wanted:
                for form, pattern in forms(needle).items():
                    at = text.find(pattern)
                    if at >= 0:
                        around = text[max(0, at - 120) : at + len(pattern) + 60].decode(errors="replace")
                        hits.append(Hit(needle, place, where, f"{view}{form}", around))
    return hits


def database(path: Path, fernet_key: str) -> Found:
    """Every column of every row of every table; what is encrypted with the deployment's own key also decrypted."""
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


def files(folder: Path) -> Found:
    """Names and contents of all files below a folder."""
    for path in sorted(folder.rglob("*")):
        yield f"name of {path.relative_to(folder)}", str(path.relative_to(folder)).encode()
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a temporary one that has gone meanwhile
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


def rest_answers(rest: AirflowRest, runs: Iterable[tuple[str, str]]) -> Found:
    """What Airflow's REST API says about connections, events, DAGs, and every task of the runs: instance with rendered
    fields and trigger, all tries, XComs, links and log."""

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
    """`with Arguments() as watched:` collects the arguments of every process that runs meanwhile."""

    def __init__(self, interval: float = 0.5) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        """Note what runs now."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                self._seen.add((process.name(), "\0".join(process.cmdline())))

    def _watch(self) -> None:
        while not self._end.wait(self._interval):
            self.look()

    def __enter__(self) -> Arguments:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def found(self) -> Found:
        """Program names and their arguments."""
        self.look()
        for name, arguments in sorted(self._seen):
            yield f"arguments of {name}", arguments.encode(errors="surrogateescape")


Place = Callable[[], Found]
