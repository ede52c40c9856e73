"""What was paid, by two witnesses: Airflow's logs and the emulator's ledger."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from airflow_provider_comet.emulator import Emulator

_DOCS = Path(__file__).resolve().parents[2] / "docs" / "spending.md"
_CREATED = re.compile(r"comet\.created (id=.*? reason=\w+)")


def logged_creates(home: Path) -> list[dict[str, str]]:
    """The fields of all `comet.created` lines in the task logs under an AIRFLOW_HOME."""
    lines = [line for path in sorted((home / "logs").rglob("*.log")) for line in _CREATED.findall(path.read_text())]
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in lines]


def assert_logs_agree(home: Path, emulator: Emulator, *, unlogged: int = 0) -> list[dict[str, str]]:
    """Every prediction that the emulator accepted is one line in the logs, and nothing else is.

    :param unlogged: accepted creates whose process died before it could say so.
    """
    logged = logged_creates(home)
    paid: list[dict[str, Any]] = emulator.ledger()["creates"]
    ids = [line["id"] for line in logged]
    assert len(ids) == len(set(ids)), f"logged more than once: {ids}"
    assert set(ids) <= {create["id"] for create in paid}, "the logs name a create that the emulator never accepted"
    assert len(paid) - len(ids) == unlogged, f"{len(paid)} paid, {len(ids)} logged, {unlogged} of them lost as expected"
    return logged


def assert_documented_command_agrees(home: Path, logged: list[dict[str, str]]) -> None:
    """The command of docs/spending.md, as it stands there, counts the same creates by model and reason."""
    found = re.search(r"```bash\n(.*?)```", _DOCS.read_text(), re.DOTALL)
    assert found
    env = {**os.environ, "AIRFLOW_HOME": str(home)}
    done = subprocess.run(["bash", "-c", found[1]], env=env, capture_output=True, text=True, timeout=60, check=True)
    counted = {tuple(line.split()[1:]): int(line.split()[0]) for line in done.stdout.splitlines()}
    assert counted == Counter((f"model={create['model']}", f"reason={create['reason']}") for create in logged)
