"""What many prompts cost a whole Airflow, from create to stored file: a task group mapped over them, and batches."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlparse

from airflow_provider_comet.emulator import Emulator
from benchmarks.end_to_end import MEASURES, Measured, Runs
from benchmarks.report import Part, Table, Target, number
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "airflow_dags" / "prompts"
PROMPTS = {"mapped": 300, "sensor": 1000, "store": 1000}
"""How many each way gets. A thousand mapped groups keep Airflow's scheduler busy for hours, see ``NOTES``."""
SECONDS = 8
FILE_BYTES = 100_000
CREATES_AT_ONCE = 4
ROUNDS = {"sensor": 2, "store": 2, "mapped": 1}
"""How often each way runs."""
TITLES = {
    "mapped": "a mapped task group: create, wait, store",
    "sensor": "batch, one sensor, one store",
    "store": "batch, one store that waits",
}
TIMES_BELOW = 30
NOTES = [
    f"Predictions of {SECONDS} s, a picture of {FILE_BYTES // 1000} kB each, stored in a local folder, on one `airflow "
    "standalone` (LocalExecutor, sqlite, parallelism 8), one way after the other in one run. CPU and slot-seconds as "
    "above. All figures are divided by the number of prompts, the time from start to end of all, too. Mapped creates "
    f"have a pool of {CREATES_AT_ONCE} slots. The batches run twice (medians), the mapped group once. After each run, "
    "as many predictions must have been bought as there are prompts, and each must have its manifest and a file "
    "with the SHA-256 of what was sent.",
    f"The mapped group gets {PROMPTS['mapped']} prompts, because what Airflow's scheduler does for each of its tasks "
    "grows with their number: of a thousand, 436 creates had ended after 16 minutes, and no wait had begun, when that "
    "run was given up (something else took one of the two cores). So with a thousand prompts each, the ways would be "
    "further apart.",
]


def run(prompts: Mapping[str, int] = PROMPTS, rounds: Mapping[str, int] = ROUNDS) -> Part:
    """Measure all ways, in turn."""
    measured: dict[str, list[Measured]] = {way: [] for way in TITLES}
    with (
        Emulator(duration=SECONDS, file_bytes=FILE_BYTES) as emulator,
        tempfile.TemporaryDirectory(prefix="comet-bench-", ignore_cleanup_errors=True) as home,
    ):
        folder = Path(home) / "pictures"
        with Standalone(dags_folder=DAGS, home=Path(home) / "airflow", env=env(emulator, prompts, folder)) as airflow:
            runs = Runs(airflow)
            for way in TITLES:
                airflow.rest.wait_for_dag(way)
            airflow.rest.make_pool("cometapi", CREATES_AT_ONCE)
            runs.measure("store")  # what is loaded once
            for turn in range(max(rounds.values())):
                idle = runs.idle()
                for way in (way for way, count in rounds.items() if turn < count):
                    emulator.reset()
                    shutil.rmtree(folder / way, ignore_errors=True)
                    result = runs.measure(way)
                    check(way, prompts[way], emulator.ledger(), folder / way)
                    measured[way].append(result._replace(cpu=result.cpu - idle * result.watched))
                    print(f"{TITLES[way]}: {measured[way][-1]}", flush=True)
    return report(measured, prompts)


def env(emulator: Emulator, prompts: Mapping[str, int], folder: Path) -> dict[str, str]:
    """Return the settings of the Airflow."""
    return {
        "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
        "BENCHMARK_PROMPTS": json.dumps(dict(prompts)),
        "BENCHMARK_FOLDER": str(folder),
        "AIRFLOW__CORE__PARALLELISM": "8",
        # Otherwise the DAG processor would use more CPU than a run.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }


def check(way: str, prompts: int, ledger: Mapping[str, Any], folder: Path) -> None:
    """Raise an error if not each prompt was bought once, and stored as it was sent."""
    sent = {served["id"]: served["sha256"] for served in ledger["served"]}
    stored: dict[str, str] = {}
    pictures = set()
    for path in folder.glob("*.manifest.json"):
        manifest = json.loads(path.read_bytes())
        [file] = manifest["files"]
        content = Path(urlparse(file["uri"]).path).read_bytes()
        if file["sha256"] == hashlib.sha256(content).hexdigest():
            stored[manifest["prediction_id"]] = file["sha256"]
            pictures.add(manifest["input"]["prompt"])
    counts = [ledger["accepted"], len(ledger["served"]), len(pictures)]
    if counts != [prompts] * 3 or stored != sent:
        raise RuntimeError(f"{way}: bought, sent and stored {counts}, and not {prompts} of each, the same ones")


def report(measured: Mapping[str, list[Measured]], prompts: Mapping[str, int]) -> Part:
    """Return the figures of a prediction, and how far the ways are below the mapped group."""
    figures = {
        f"{way}_{measure}": median(getattr(result, measure) for result in results) / prompts[way]
        for way, results in measured.items()
        for measure in MEASURES
    }
    ratios = {
        f"{way}_{measure}_below": figures[f"mapped_{measure}"] / figures[f"{way}_{measure}"]
        for way in ("sensor", "store")
        for measure in ("cpu", "slot", "time")
    }
    header = ["for each prompt", "prompts", "CPU, s", "of it workers", "slot-seconds", "start to end of all, s"]
    rows = [
        [title, f"{prompts[way]:,}", *(number(figures[f"{way}_{measure}"]) for measure in MEASURES)]
        for way, title in TITLES.items()
    ]
    header_below = ["times below the mapped group", "CPU", "slot-seconds", "start to end"]
    rows_below = [
        [TITLES[way], *(number(ratios[f"{way}_{measure}_below"]) for measure in ("cpu", "slot", "time"))]
        for way in ("sensor", "store")
    ]
    return Part(
        title="A thousand prompts",
        tables=[Table(header, rows), Table(header_below, rows_below)],
        figures=figures | ratios,
        ratios=[*ratios],
        targets=[
            Target("store_cpu_below", "batch and store: CPU below the mapped group", TIMES_BELOW, False, "x"),
            Target("store_slot_below", "batch and store: slot-seconds below it", TIMES_BELOW, False, "x"),
            Target("store_time_below", "batch and store: time below it", TIMES_BELOW, False, "x"),
        ],
        notes=NOTES,
    )
