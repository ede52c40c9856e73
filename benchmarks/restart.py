"""A thousand waits outlive three triggerers: what is lost, how soon they go on, and how the API is treated meanwhile.

The scenario is that of ``tests/e2e/restart_run.py``: a mapped sensor in a real Airflow, whose triggerer is ended,
killed, and frozen for longer than Airflow waits for it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.report import Part, Table, Target, number
from tests.e2e.restart_run import Restarts, world

CAP = 50
PATIENCE = 1800.0
AGE_SECONDS = 20.0
FACTS = ("all_deferred_seconds", "all_finished_seconds", "attempts_lost")
NOTES = [
    f"A mapped sensor of 1,000 instances (`defer_after=0`) on `airflow standalone`, at most {CAP} looks a second; the "
    "triggerer gets SIGTERM, its successor SIGKILL, the next one SIGSTOP until another one has taken over, and then "
    "goes on beside it. Only then the predictions end. A result that is lost or another's fails the run.",
]


def run(waits: int = 1000) -> Part:
    """Run it; a lost or wrong result raises."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True) as home:
        settings = {"AIRFLOW__CORE__PARALLELISM": "8", "AIRFLOW__TRIGGERER__CAPACITY": str(max(1000, waits))}
        with world(Path(home) / "airflow", cap=CAP, **settings) as (airflow, emulator):
            began = time.monotonic()
            restarts = Restarts(airflow, emulator, waits, PATIENCE)
            restarts.until_deferred()
            figures["all_deferred_seconds"] = time.monotonic() - began
            time.sleep(AGE_SECONDS)
            restarts.terminate()
            restarts.kill()
            restarts.freeze()
            began = time.monotonic()
            tries = restarts.finish()
            figures["all_finished_seconds"] = time.monotonic() - began
    figures["missing"] = float(waits - len(tries))
    figures["attempts_lost"] = float(sum(one - 1 for one in tries.values()))
    rows, targets = [], [Target("missing", "waits without their own result", 0)]
    for one in restarts.takeovers:
        figures[f"{one.event}_rate"] = one.busiest
        targets.append(Target(f"{one.event}_rate", f"{one.event}: looks a second", one.triggerers * (CAP + 1)))
        rows.append([one.event, number(one.first_after), number(one.all_after), number(one.busiest)])
    header = ["triggerer gets", "first look after, s", "all looked at after, s", "looks in the busiest seconds, 1/s"]
    facts = [[name.replace("_", " "), number(figures[name])] for name in FACTS]
    return Part(
        title="A thousand waits outlive their triggerers",
        tables=[Table(header, rows), Table(["", ""], facts)],
        figures=figures,
        targets=targets,
        notes=NOTES,
    )
