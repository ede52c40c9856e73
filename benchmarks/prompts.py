"""What many prompts cost a whole Airflow: a task group mapped over them, against a batch with one sensor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from airflow_provider_comet.emulator import Emulator
from benchmarks.end_to_end import Measured, Runs
from benchmarks.report import Part, Table, number
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "airflow_dags" / "prompts"
PROMPTS = 200
SECONDS = 8
ROUNDS = 2
TITLES = {
    "mapped": "a mapped task group of create and wait",
    "batch": "`CreatePredictionBatchOperator` and one `PredictionSensor`",
}
NOTES = [
    f"{PROMPTS} prompts, predictions of {SECONDS} s, on one `airflow standalone` (LocalExecutor, sqlite, parallelism "
    "8), in turn; measured as above.",
]


def run(rounds: int = ROUNDS) -> Part:
    """Measure both, in turn."""
    measured: dict[str, list[Measured]] = {name: [] for name in TITLES}
    idle: list[float] = []
    with (
        Emulator(duration=SECONDS) as emulator,
        tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True) as home,
    ):
        env = {
            "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
            "BENCHMARK_PROMPTS": str(PROMPTS),
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        }
        with Standalone(dags_folder=DAGS, home=Path(home) / "airflow", env=env) as airflow:
            runs = Runs(airflow)
            for name in TITLES:
                airflow.rest.wait_for_dag(name)
            runs.measure("batch")  # what is loaded once
            for _ in range(rounds):
                idle.append(runs.idle())
                for name in TITLES:
                    emulator.reset()
                    measured[name].append(runs.measure(name))
                    if (accepted := emulator.ledger()["accepted"]) != PROMPTS:
                        raise RuntimeError(f"{name}: {accepted} predictions were bought, not {PROMPTS}")
    rest = median(idle)
    figures = {
        f"{name}_{measure}": median(
            result.cpu - rest * result.watched if measure == "cpu" else getattr(result, measure)
            for result in measured[name]
        )
        for name in TITLES
        for measure in ("cpu", "workers", "slot", "time")
    }
    ratios = [f"batch_{measure}_share" for measure in ("cpu", "slot", "time")]
    for name in ratios:
        measure = name.split("_")[1]
        figures[name] = figures[f"batch_{measure}"] / figures[f"mapped_{measure}"]
    rows = [
        [title, *(number(figures[f"{name}_{measure}"]) for measure in ("cpu", "workers", "slot", "time"))]
        for name, title in TITLES.items()
    ]
    return Part(
        title="Two hundred prompts",
        tables=[Table(["", "CPU, s", "of it workers", "slot-seconds", "start to end, s"], rows)],
        figures=figures,
        ratios=ratios,
        notes=NOTES,
    )
