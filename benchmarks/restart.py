"""Measure a thousand waits while triggerers are lost: lost results, the time until they are polled again, poll rates.

The scenario is that of ``tests/e2e/restart_run.py``: a mapped sensor in a real Airflow, whose triggerer is stopped,
killed, and suspended for longer than Airflow waits for it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.report import Part, Table, Target, number
from tests.e2e.restart_run import Restarts, airflow_and_emulator_with_cap

CAP = 50
PATIENCE = 1800.0
AGE_SECONDS = 20.0
FACTS = ("all_deferred_seconds", "all_finished_seconds", "attempts_lost")
NOTES = [
    f"A mapped sensor of 1,000 instances (`defer_after=0`) on `airflow standalone`, at most {CAP} polls a second; the "
    "triggerer gets SIGTERM, its successor SIGKILL, and the next triggerer SIGSTOP until a fourth has taken over; then "
    "it resumes beside it. Only then the predictions end. A lost or wrong result fails the run.",
]


def run(waits: int = 1000) -> Part:
    """Run the scenario; a lost or wrong result raises an error."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True) as home:
        settings = {"AIRFLOW__CORE__PARALLELISM": "8", "AIRFLOW__TRIGGERER__CAPACITY": str(max(1000, waits))}
        with airflow_and_emulator_with_cap(Path(home) / "airflow", cap=CAP, **settings) as (airflow, emulator):
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
    figures["attempts_lost"] = float(sum(count - 1 for count in tries.values()))
    rows, targets = [], [Target("missing", "waits without their own result", 0)]
    for takeover in restarts.takeovers:
        event, limit = takeover.event, takeover.triggerers * (CAP + 1)
        figures[f"{event}_rate"] = takeover.busiest
        targets.append(Target(f"{event}_rate", f"{event}: polls a second", limit))
        rows.append([event, number(takeover.first_after), number(takeover.all_after), number(takeover.busiest)])
    header = ["triggerer gets", "first poll after, s", "all polled after, s", "polls in the busiest seconds, 1/s"]
    facts = [[name.replace("_", " "), number(figures[name])] for name in FACTS]
    return Part(
        title="A thousand waits outlive their triggerers",
        tables=[Table(header, rows), Table(["", ""], facts)],
        figures=figures,
        targets=targets,
        notes=NOTES,
    )
