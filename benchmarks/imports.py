"""Measure what importing a provider's operators and sensors costs a DAG file, on top of ``airflow.sdk``."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from benchmarks.report import Part, Table, Target, number
from tests.support import private_airflow

PROVIDERS = {
    "comet": (
        "this provider",
        "airflow_provider_comet.operators.prediction, airflow_provider_comet.operators.batch, "
        "airflow_provider_comet.operators.download, airflow_provider_comet.sensors.prediction",
    ),
    "http": (
        "apache-airflow-providers-http",
        "airflow.providers.http.operators.http, airflow.providers.http.sensors.http",
    ),
    "openai": ("apache-airflow-providers-openai", "airflow.providers.openai.operators.openai"),
    "dbt": (
        "apache-airflow-providers-dbt-cloud",
        "airflow.providers.dbt.cloud.operators.dbt, airflow.providers.dbt.cloud.sensors.dbt",
    ),
}
ROUNDS = 7
PROGRAM = """
import sys, time, json
sys.dont_write_bytecode = False
from airflow.sdk import DAG, dag, task
modules = len(sys.modules)
began, used = time.perf_counter(), time.process_time()
import {modules}
took = time.perf_counter() - began, time.process_time() - used
print(json.dumps({{"ms": took[0] * 1000, "cpu_ms": took[1] * 1000, "modules": len(sys.modules) - modules}}))
"""
NOTES = [
    "What the operators and sensors of a provider add to `from airflow.sdk import DAG, dag, task`, each time in a "
    f"fresh process, bytecode present, in turn, {ROUNDS} rounds; medians of the wall clock and of the process's CPU.",
]


def measure(modules: str) -> dict[str, float]:
    """Measure an import in a fresh process."""
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(modules=modules)], check=True, capture_output=True, text=True
    ).stdout
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured


def run(rounds: int = ROUNDS) -> Part:
    """Measure all providers, in turn; the first round only warms up the disk's cache."""
    private_airflow()
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in PROVIDERS}
    for turn in range(rounds + 1):
        for name, (_, modules) in PROVIDERS.items():
            result = measure(modules)
            if turn:
                measured[name].append(result)
    figures = {f"{name}_{key}": median(run[key] for run in runs) for name, runs in measured.items() for key in runs[0]}
    for name in PROVIDERS:
        figures[f"{name}_by_comet"] = median(
            peer["ms"] / ours["ms"] for peer, ours in zip(measured[name], measured["comet"], strict=True)
        )
    rows = [
        [title, *(number(figures[f"{name}_{key}"]) for key in ("ms", "cpu_ms", "modules", "by_comet"))]
        for name, (title, _) in PROVIDERS.items()
    ]
    return Part(
        title="Import cost",
        tables=[Table(["", "ms", "ms of CPU", "modules", "against ours"], rows)],
        figures=figures,
        ratios=[f"{name}_by_comet" for name in PROVIDERS],
        targets=[Target("comet_ms", "import on top of `airflow.sdk`", 15, unit=" ms")],
        notes=NOTES,
    )
