"""How fast files are stored, beside ``curl -o``, and how much memory a task needs for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from airflow_provider_comet.outputs.storage import BLOCK_BYTES
from benchmarks.processes import Process
from benchmarks.report import Part, Table, Target, number
from tests.support.s3 import s3_server

SPEED_BYTES = 1_000_000_000
MEMORY_BYTES = 2_000_000_000
S3_FILES = {"s3": (500_000_000, 1), "s3_four": (200_000_000, 4), "s3_small": (1_000_000, 1)}
ROUNDS = 3
FILES_AT_ONCE = 4
AIM_MB = 8 * 2  # of a file that is being stored
NOTES = [
    f"A server in another process sends a file of {SPEED_BYTES / 1e9:g} GB over loopback, by `sendfile`, or over "
    "https, where it is the slowest part. `curl -o` and a fresh task process store it in the same folder, in turn; "
    "medians. Ours also hashes the file, and waits until the disk has it (`fsync`), which curl does not: in the second "
    "row it is followed by `sync` of that file.",
    f"Memory: `ru_maxrss` of a task process at its end, above what it was before the first byte (Airflow, requests and "
    f"the file system's library are loaded then), with one file of {MEMORY_BYTES / 1e9:g} GB, with {FILES_AT_ONCE} of "
    "them at once, and with S3 (moto). There s3fs and the HTTP library below it hold up to four parts of "
    f"{BLOCK_BYTES / 1024**2:g} MiB, the smallest that S3 takes, for each file; what a small file takes is s3fs's "
    "client.",
]


def store(url: str, folder: str, count: int = 1, **env: str) -> dict[str, float]:
    """Store ``count`` files in a fresh process, and return its figures."""
    command = [sys.executable, "-m", "benchmarks.store_files", url, folder, str(count)]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def curl(url: str, folder: Path, *, sync: bool, ca: str | None) -> float:
    """Return the seconds that curl needs."""
    path = folder / "curl.mp4"
    began = time.perf_counter()
    trust = ["--cacert", ca] if ca else []
    subprocess.run(["curl", "-sS", *trust, "-o", str(path), f"{url}/0.mp4"], check=True)
    if sync:
        subprocess.run(["sync", str(path)], check=True)
    took = time.perf_counter() - began
    path.unlink()
    return took


def made(path: Path, size: int) -> Path:
    """Make a file of this size that no file system can store as a hole."""
    block = os.urandom(1_000_000)
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
    return path


def speeds(film: Path, folder: Path, rounds: int, *tls: str) -> dict[str, float]:
    """Return the seconds for a file by each way, as medians of the rounds.

    :param tls: a folder for the certificate, for https.
    """
    times: dict[str, list[float]] = {"curl": [], "curl_sync": [], "ours": []}
    with Process("file_host", str(film), *tls) as host:
        url, ca = host.hello["url"], host.hello["ca"]
        trust = {"STORE_CA": ca} if ca else {}
        curl(url, folder, sync=True, ca=ca)  # the file is in the server's cache from here on
        for _ in range(rounds):
            times["curl"].append(curl(url, folder, sync=False, ca=ca))
            times["curl_sync"].append(curl(url, folder, sync=True, ca=ca))
            times["ours"].append(store(url, f"file://{folder}", **trust)["seconds"])
            shutil.rmtree(folder)
            folder.mkdir()
    return {way: median(seconds) for way, seconds in times.items()}


def run(rounds: int = ROUNDS) -> Part:
    """Measure speed, then memory."""
    peaks: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="comet-bench-") as home:
        folder = Path(home) / "stored"
        folder.mkdir()
        film = made(Path(home) / "film.mp4", SPEED_BYTES)
        seconds = {"http": speeds(film, folder, rounds), "https": speeds(film, folder, rounds, home)}
        with Process("file_host", str(made(Path(home) / "film.mp4", MEMORY_BYTES))) as host:
            peaks["one"] = store(host.hello["url"], f"file://{folder}")
            shutil.rmtree(folder)
            folder.mkdir()
            peaks["four"] = store(host.hello["url"], f"file://{folder}", FILES_AT_ONCE)
            shutil.rmtree(folder)
        for name, (size, count) in S3_FILES.items():
            with Process("file_host", str(made(Path(home) / "film.mp4", size))) as host, s3_server() as s3:
                url = host.hello["url"]
                peaks[name] = store(url, "s3://store@bucket/films", count, STORE_CONNECTION=s3.connection)
    figures = {f"{scheme}_{way}_seconds": took for scheme, ways in seconds.items() for way, took in ways.items()}
    figures |= {f"{name}_above_mb": peak["peak_mb"] - peak["before_mb"] for name, peak in peaks.items()}
    figures |= {f"{name}_before_mb": peak["before_mb"] for name, peak in peaks.items()}
    ratios = {
        f"{scheme}_speed_against_{way}": ways[way] / ways["ours"]
        for scheme, ways in seconds.items()
        for way in ("curl", "curl_sync")
    }
    figures |= ratios
    titles = {"curl": "`curl -o`", "curl_sync": "`curl -o`, then `sync`", "ours": "the download task's own part"}
    rows = [
        [f"{scheme}: {titles[way]}", number(took), number(SPEED_BYTES / 1e6 / took)]
        for scheme, ways in seconds.items()
        for way, took in ways.items()
    ]
    files = {
        "one": "one file of 2 GB",
        "four": "four at once",
        "s3": "one of 0.5 GB to S3",
        "s3_four": "four of 0.2 GB at once to S3",
        "s3_small": "one of 1 MB to S3",
    }
    memory = [
        [files[name], number(figures[f"{name}_before_mb"]), number(figures[f"{name}_above_mb"])] for name in files
    ]
    return Part(
        title="Storing outputs",
        tables=[
            Table(["a file of 1 GB", "s", "MB/s"], rows),
            Table(["memory of the task process", "before, MB", "most above it, MB"], memory),
        ],
        figures=figures,
        ratios=[*ratios],
        targets=[
            Target("http_speed_against_curl", "http: speed against `curl -o`", 0.8, is_most=False, unit="x"),
            Target("https_speed_against_curl", "https: speed against `curl -o`", 0.8, is_most=False, unit="x"),
            Target("one_above_mb", "memory for one file", AIM_MB, unit=" MB"),
            Target("four_above_mb", "memory for four at once", AIM_MB * FILES_AT_ONCE, unit=" MB"),
            Target("s3_above_mb", "memory for one file to S3", AIM_MB, unit=" MB"),
            Target("s3_four_above_mb", "memory for four at once to S3", AIM_MB * FILES_AT_ONCE, unit=" MB"),
        ],
        notes=NOTES,
    )
