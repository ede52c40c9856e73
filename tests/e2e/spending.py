"""What was paid, by the two witnesses that there are: Airflow's logs and the emulator's ledger."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from airflow_provider_comet.emulator import Emulator

_CREATE = re.compile(r"comet\.create (id=.*? reason=\w+)")


def logged_creates(home: Path) -> list[dict[str, str]]:
    """The fields of all `comet.create` lines in the task logs under an AIRFLOW_HOME, as docs/spending.md finds them."""
    lines = [line for path in sorted((home / "logs").rglob("*.log")) for line in _CREATE.findall(path.read_text())]
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in lines]


def assert_logs_agree(home: Path, emulator: Emulator, *, unlogged: int = 0) -> list[dict[str, str]]:
    """Every prediction that the emulator accepted is one line in the logs, and nothing else is.

    :param unlogged: accepted creates whose process died before it could say so.
    """
    logged = logged_creates(home)
    paid: list[dict[str, Any]] = emulator.ledger()["creates"]
    ids = [line["id"] for line in logged]
    assert len(ids) == len(set(ids)), f"logged more than once: {ids}"
    assert set(ids) <= {one["id"] for one in paid}, "the logs name a create that the emulator never accepted"
    assert len(paid) - len(ids) == unlogged, f"{len(paid)} paid, {len(ids)} logged, {unlogged} of them lost as expected"
    return logged
