"""``outputs/list_writer.py`` over real sockets: many predictions, some stored earlier than others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.errors import CometError, PredictionFailedError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.outputs.store_progress import StoreProgress
from tests.support.file_server import FileServer
from tests.support.task_runner import Clock

PICTURE = b"RIFF....WEBP" * 1000
STORED_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
IDS = ["abc", "def", "ghi"]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(PICTURE) as server:
        yield server


class World:
    """What the writer can read, and what it has asked for.

    :ivar predictions: by id, as the API describes them.
    :ivar read: the ids that were read from the API.
    """

    def __init__(self, server: FileServer, folder: Path, clock: Clock) -> None:
        self.server, self.folder, self.clock = server, folder, clock
        self.predictions: dict[str, Any] = {key: self.done(key) for key in IDS}
        self.read: list[str] = []

    def done(self, key: str) -> Prediction:
        return Prediction(key, "succeeded", output=[f"http://127.0.0.1:{self.server.port}/{key}.webp"])

    def _read(self, ids: Sequence[str]) -> Mapping[str, Any]:
        self.read += ids
        return {key: self.predictions[key] for key in ids}

    @contextlib.contextmanager
    def open(self, progress: StoreProgress) -> Iterator[Any]:
        """A process of the attempt, which knows what an earlier one has left."""
        from airflow.sdk import ObjectStoragePath

        from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
        from airflow_provider_comet.outputs.download import Downloader
        from airflow_provider_comet.outputs.list_writer import ListWriter
        from airflow_provider_comet.outputs.writer import OutputWriter

        hook = CometReplicateHook()
        assert hook.client is not None
        folder = ObjectStoragePath(f"file://{self.folder}")
        options: dict[str, Any] = {"max_bytes": 1 << 30, "write_input": False, "stored_by": STORED_BY}
        with (
            Downloader(hook.config, sleep=self.clock.sleep, clock=self.clock.monotonic) as downloader,
            OutputWriter(folder, hook.get_prediction, downloader, **options) as writer,
        ):
            yield ListWriter(writer, progress, names={"abc": "B-17"}, read=self._read, find_schema=lambda model: None)


@pytest.fixture
def world(comet: Emulator, monkeypatch: pytest.MonkeyPatch, server: FileServer, tmp_path: Path) -> World:
    return World(server, tmp_path, Clock().install(monkeypatch))


def fetched(world: World) -> list[str]:
    return sorted(headers["path"].strip("/") for headers in world.server.requests)


def test_some_earlier_than_others(world: World) -> None:
    """What is stored while others run is stored once; the end has the result of each, in whatever process it came."""
    progress = StoreProgress(IDS)
    with world.open(progress) as writer:
        writer.check()
        writer.store({"def": world.predictions["def"]})
    assert (progress.missing, progress.stored) == (["abc", "ghi"], {"def"})
    later = StoreProgress.read(IDS, progress.to_kwargs())
    assert later is not None
    with world.open(later) as writer:
        writer.store({key: world.predictions[key] for key in ("abc", "ghi")})
        writer.finish()
    assert (sorted(writer.results), writer.errors, later.missing) == (IDS, {}, [])
    assert (fetched(world), world.read) == (["abc.webp", "def.webp", "ghi.webp"], [])


def test_a_later_attempt(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It finds what is stored by the manifests, and repairs what has gone since, without a wait."""
    caplog.set_level(logging.INFO)
    with world.open(StoreProgress(IDS)) as writer:
        writer.store({key: world.predictions[key] for key in ("abc", "def")})
    (world.folder / "def-0.webp").unlink()
    world.server.requests.clear()
    progress = StoreProgress(IDS)
    with world.open(progress) as writer:
        writer.check()
    assert (progress.missing, fetched(world), world.read) == (["ghi"], ["def.webp"], ["def"])
    assert "1 of 3 predictions are stored already" in caplog.text


def test_what_failed_is_tried_once_more(world: World) -> None:
    """At the end of the attempt, by whatever process: the trouble may have passed. Then its errors are the task's."""
    failed = {"abc": CometError("no storage"), "def": PredictionFailedError("out of memory", prediction_id="def")}
    progress = StoreProgress(IDS, stored=[], failed=["abc", "def"])
    world.predictions["def"] = Prediction("def", "failed", error="out of memory")
    with world.open(progress) as writer:
        writer.store({"ghi": world.predictions["ghi"]})
        writer.finish()
    assert ([*writer.results], [*writer.errors]) == (["ghi", "abc"], ["def"])
    assert isinstance(writer.errors["def"], type(failed["def"]))
    assert (progress.stored, progress.failed) == ({"abc", "ghi"}, {"def"})


def test_an_error_of_this_process_is_not_tried_again(world: World) -> None:
    """It was seen a moment ago."""
    with world.open(StoreProgress(IDS)) as writer:
        writer.store({"abc": CometError("not finished"), **{key: world.predictions[key] for key in ("def", "ghi")}})
        writer.finish()
    assert ([*writer.errors], world.read) == (["abc"], [])


def test_a_manifest_that_has_gone(world: World) -> None:
    """Somebody has removed it since it was written: the prediction is stored again."""
    progress = StoreProgress(IDS[:1])
    with world.open(progress) as writer:
        writer.store({"abc": world.predictions["abc"]})
    (world.folder / "abc.manifest.json").unlink()
    with world.open(StoreProgress(IDS[:1], stored=["abc"])) as writer:
        writer.finish()
    assert ([*writer.results], writer.errors, world.read) == (["abc"], {}, ["abc"])
    assert (world.folder / "abc.manifest.json").exists()


def test_a_manifest_that_can_not_be_read(world: World) -> None:
    """It is no reason to wait for nothing: the others are found, and this prediction is checked again when its turn
    comes."""
    with world.open(StoreProgress(IDS)) as writer:
        writer.store({"abc": world.predictions["abc"]})
    path = world.folder / "abc.manifest.json"
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    progress = StoreProgress(IDS)
    world.server.requests.clear()
    with world.open(progress) as writer:
        writer.check()
        assert progress.missing == IDS
        path.rmdir()
        path.write_bytes(content)
        writer.store(world.predictions)
    assert (sorted(writer.results), fetched(world)) == (IDS, ["def.webp", "ghi.webp"])


def test_an_unexpected_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of one item does not stop the others, and its traceback is in the log."""
    world.predictions["def"] = {"id": "def", "status": "succeeded", "output": {1, 2}}
    with world.open(StoreProgress(IDS)) as writer:
        broken: Any = writer._writer
        store = broken.store
        broken.store = lambda outcome, *rest: 1 / 0 if isinstance(outcome, dict) else store(outcome, *rest)
        writer.store(world.predictions)
    assert (sorted(writer.results), [*writer.errors]) == (["abc", "ghi"], ["def"])
    assert "ZeroDivisionError" in str(writer.errors["def"])
    assert "Traceback" in caplog.text
