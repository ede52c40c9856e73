"""The memory that storing a long film needs: a block or two for each file at a time, however long it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_provider_comet.outputs.storage import BLOCK_BYTES
from tests.support.s3 import S3

ROOT = Path(__file__).parents[2]
GIGABYTE = 1_000_000_000
BLOCKS_IN_S3FS = 4
"""Of a file that is uploaded: s3fs's buffer, the part made of it, copies in the HTTP library below, and its client."""


@pytest.fixture
def film_host(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve films of the parametrized size, which are made up while they are sent; yields the URL."""
    block = bytes(1_000_000)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(request.param))
            self.end_headers()
            for _ in range(request.param // len(block)):
                self.wfile.write(block)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def taken(url: str, folder: str, count: int, **env: str) -> float:
    """Bytes that a fresh task process takes for so many films, at most, above what it had before the first byte."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.store_files", url, folder, str(count)],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    return float(measured["peak_mb"] - measured["before_mb"]) * 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize(("film_host", "count"), [(2 * GIGABYTE, 1), (GIGABYTE // 2, 4)], indirect=["film_host"])
def test_a_long_film_in_a_folder(film_host: str, count: int, tmp_path: Path) -> None:
    """Two gigabytes, in a single file or in four at once, take at most two blocks of memory for each file."""
    folder = tmp_path / "films"
    above = taken(film_host, f"file://{folder}", count)
    assert sum(path.stat().st_size for path in folder.glob("*.mp4")) == 2 * GIGABYTE
    shutil.rmtree(folder)
    print(f"{above / 1e6:.1f} MB for {count} at once")
    assert above < 2 * BLOCK_BYTES * count


@pytest.mark.slow
@pytest.mark.parametrize("film_host", [100_000_000], indirect=True)
def test_long_films_in_an_object_store(film_host: str, s3: S3) -> None:
    """There it is some blocks more, which are s3fs's own; it does not grow with the film either."""
    above = taken(film_host, "s3://store@bucket/films", 4, STORE_CONNECTION=s3.connection)
    sizes = [size for key, size in s3.objects().items() if key.endswith(".mp4")]
    assert sizes == [100_000_000] * 4
    print(f"{above / 1e6:.1f} MB for 4 at once")
    assert above < BLOCKS_IN_S3FS * BLOCK_BYTES * 4
