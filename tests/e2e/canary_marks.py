"""Marks that the canary test plants in every place that it searches.

Without them, a search that finds no key could be a search that sees nothing.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.canary_search import Hit

# By mark: the places in which the search has to find it, and a pattern of the location there.
PLANTS = {
    "xcom": {"database": r"^xcom\.value$", "rest": r"/plant/xcomEntries/plant"},
    "rendered field": {"database": r"^rendered_task_instance_fields\.", "rest": r"/taskInstances/plant$"},
    "trigger kwargs": {"database": r"^trigger\.kwargs"},
    "task log": {"files": r"task_id=plant/attempt=1\.log$", "rest": r"/plant/logs/1"},
    "task debug log": {"files": r"task_id=plant/attempt=1\.log$", "rest": r"/plant/logs/1"},
    "trigger log": {"files": r"task_id=plant/.*trigger\.\d+\.log$", "rest": r"/plant/logs/1"},
    "trigger debug log": {"files": r"task_id=plant/.*trigger\.\d+\.log$", "rest": r"/plant/logs/1"},
    "run conf": {"database": r"^dag_run\.conf$", "rest": r"/dagRuns/"},
    "connection": {"database": r"^connection\.password \(decrypted\)$"},
    "argument": {"arguments": r"^arguments of "},
    "command": {"commands": r"tasks render"},
    "file": {"files": r"^planted/"},
    "demo file": {"demo": r"^picture\.txt$"},
}


def planted_files(mark: str) -> dict[str, str]:
    """Return a mark in each encoding in which a key could be written, by the name of the encoding."""
    escaped = "".join(f"\\u{ord(character):04X}" for character in mark)
    return {
        "raw": f"key={mark}",
        "url": "".join(f"%{ord(character):02x}" for character in mark),
        "escaped": json.dumps({"a": f'"{escaped}"'}),
        "html": "".join(f"&#x{ord(character):x};" for character in mark),
        "hex": mark.encode().hex(),
        **{f"base64-{n}": base64.b64encode(f"{'x' * n}Bearer {mark}!".encode()).decode() for n in range(3)},
        "utf-16": mark.encode("utf-16-le").decode("latin-1"),
        "coloured": f"{mark[:5]}\x1b[0m\x1b[1;31m{mark[5:]}",
    }


@contextmanager
def process_with(argument: str) -> Iterator[None]:
    """Run a process with this argument."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", argument])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def report(hits: list[Hit]) -> str:
    """Return the hits as text."""
    return f"{len(hits)} hits\n" + "\n".join(dict.fromkeys(str(hit) for hit in hits))


def check_marks(hits: list[Hit], marks: dict[str, str]) -> None:
    """Check that every mark was found in every place in which it was planted, in every encoding."""
    for name, places in PLANTS.items():
        found = [hit for hit in hits if hit.needle == marks[name]]
        for place, where in places.items():
            assert any(hit.place == place and re.search(where, hit.where) for hit in found), (
                f"the mark for {name!r} was not found in {place} ({where}) but in: {report(found)}"
            )
    encodings = {hit.where.removeprefix("planted/") for hit in hits if hit.needle == marks["file"]}
    assert encodings >= set(planted_files(marks["file"])), encodings
