"""Faults between a delivery host and a storage: no partial file is ever visible, and a repeat stores everything."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.storage import BLOCK_BYTES
from airflow_provider_comet.outputs.writer import OutputWriter
from tests.support.file_server import Answer, FileServer
from tests.support.s3 import S3

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

ROOT = Path(__file__).parents[2]
KEY = "sk-store-0123456789"
SIZE = 2 * BLOCK_BYTES + 12345
FILM = random.Random(7).randbytes(SIZE)


@dataclass
class Store:
    """A storage under test.

    :param folder: where files are stored.
    :param visible: the files that everybody sees: content by name.
    :param hidden: partial files and unfinished uploads.
    """

    folder: ObjectStoragePath
    visible: Callable[[], dict[str, bytes]]
    hidden: Callable[[], list[str]]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    from airflow.sdk import ObjectStoragePath

    if request.param == "local":
        return Store(
            ObjectStoragePath(f"file://{tmp_path}"),
            lambda: {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")},
            lambda: [path.name for path in tmp_path.iterdir() if path.name.startswith(".")],
        )
    s3: S3 = request.getfixturevalue("s3")
    return Store(
        ObjectStoragePath("s3://store@bucket"),
        lambda: {key: s3.content(key) for key in s3.objects()},
        s3.unfinished,
    )


class Clock:
    """Time that passes while somebody sleeps, and by ``step`` whenever it is read."""

    def __init__(self) -> None:
        self.now = self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


LONGER: dict[str, str | None] = {"Content-Length": str(SIZE + 5), "Connection": "close"}
FAULTS: dict[str, tuple[Answer, type[e.CometError]]] = {
    **{f"broken off after {part}/4": (Answer(break_after=SIZE * part // 4), DeliveryError) for part in range(4)},
    "broken off between chunks": (Answer(break_after=SIZE // 2, chunked=True), DeliveryError),
    "shorter than promised": (Answer(headers=LONGER, break_after=SIZE), DeliveryError),
    "a drop at a time": (Answer(piece=1), DeliveryError),
    "500": (Answer(500), DeliveryError),
    "a page": (Answer(headers={"Content-Type": "text/html"}), DeliveryError),
    "a picture": (Answer(headers={"Content-Type": "image/png"}), OutputRefusedError),
    "larger than allowed": (Answer(chunked=True, body=FILM + b"x" * 1_000_000), OutputRefusedError),
    "to the machine's metadata": (Answer(302, {"Location": "http://169.254.169.254/latest/"}), OutputRefusedError),
    "expired": (Answer(404), OutputExpiredError),
}


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong(store: Store, name: str, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under each fault the error is of the expected type, no file or manifest is visible, and nothing hidden is left.
    When the fault is over, the same call stores file and manifest. The delivery host never gets the key."""
    answer, error = FAULTS[name]
    clock = Clock()
    with Emulator(duration=0, api_key=KEY) as comet, FileServer(FILM, ranges=ranges) as host:
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", comet.connection_json())
        comet.next_outcome(status="succeeded", output=f"http://127.0.0.1:{host.port}/film.mp4")
        host.otherwise = Answer(**{**vars(answer), "headers": {"Content-Type": "video/mp4", **answer.headers}})
        clock.step = 30.0 if name == "a drop at a time" else 0.0
        store_film = film_writer(store, clock)
        with pytest.raises(error):
            store_film()
        assert (store.visible(), store.hidden()) == ({}, [])
        host.otherwise, clock.step = Answer(headers={"Content-Type": "video/mp4"}), 0.0
        stored = store_film()
        (film, manifest) = sorted(store.visible().items())
        assert film == (f"{stored['prediction_id']}-0.mp4", FILM)
        assert manifest[0] == f"{stored['prediction_id']}.manifest.json"
        assert json.loads(manifest[1])["files"][0]["sha256"] == hashlib.sha256(FILM).hexdigest()
        assert store.hidden() == []
        assert KEY not in json.dumps(host.requests)


def film_writer(store: Store, clock: Clock) -> Callable[[], dict[str, Any]]:
    """Create a prediction, and return a function that stores it, as an attempt of a task does."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    hook = CometReplicateHook()
    made = hook.wait_for_prediction(hook.create_prediction("black-forest-labs/flux-schnell", {"prompt": "x"}).id)

    def store_film() -> dict[str, Any]:
        with (
            Downloader(hook.config, sleep=clock.sleep, clock=clock) as downloader,
            OutputWriter(
                store.folder, hook.get_prediction, downloader, max_bytes=SIZE + 10, write_input=True, stored_by={}
            ) as writer,
        ):
            return writer.store(made.summary())

    return store_film


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from airflow.sdk import ObjectStoragePath
from airflow_provider_comet.api.file_errors import StorageError
from airflow_provider_comet.outputs.storage import open_atomic
path = ObjectStoragePath("file://{folder}/film.mp4")
def write(size):
    with open_atomic(path) as file:
        for _ in range(size // 100_000):
            file.write(b"x" * 100_000)
write(300_000)
try:
    write(5_000_000)
except StorageError as error:
    assert error.retryable
    print(type(error.__cause__).__name__, error.__cause__.errno, error)
print(sorted((found.name, found.stat().st_size) for found in Path({folder!r}).iterdir()))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """On a disk of a megabyte that runs full the error says so; what was there before stays, and nothing else."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    try:
        subprocess.run([*inside, mount], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(
            f"this system lets no user mount a file system ({error}); test_a_full_disk in tests/unit/outputs/"
            "test_storage.py, which is never skipped, limits the size of a file instead"
        )
    program = FULL.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run(
        [*inside, f'{mount} && exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, files = done.stdout.splitlines()[-2:]
    assert said.startswith("OSError 28 ")
    assert "No space left on device" in said
    assert files == "[('film.mp4', 300000)]"
