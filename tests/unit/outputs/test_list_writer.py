"""``outputs/list_writer.py`` over real sockets: many predictions, some stored earlier than others."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.errors import CometError, PredictionFailedError
from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.outputs.store_progress import READ_AT_ONCE, StoreProgress
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

        from airflow_provider_comet.airflow_errors import is_final
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
            yield ListWriter(
                writer,
                progress,
                names={"abc": "B-17"},
                read=self._read,
                find_schema=lambda model: None,
                is_final=is_final,
            )


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


def test_a_prediction_that_is_stored_in_part(world: World) -> None:
    """Of its files only the missing one is fetched, and the result and the manifest have both."""
    links = [f"http://127.0.0.1:{world.server.port}/abc-{letter}.webp" for letter in "xy"]
    world.predictions["abc"] = Prediction("abc", "succeeded", output=links)
    with world.open(StoreProgress(["abc"])) as writer:
        writer.store({"abc": world.predictions["abc"]})
    before = writer.results["abc"]
    (world.folder / "abc-1.webp").unlink()
    world.server.requests.clear()
    progress = StoreProgress(["abc"])
    with world.open(progress) as writer:
        writer.check()
    assert (fetched(world), progress.missing) == (["abc-y.webp"], [])
    assert writer.results["abc"] == before
    assert (world.folder / "abc-1.webp").read_bytes() == PICTURE


def test_a_repair_that_fails(world: World) -> None:
    """Its data has gone from the API, too: that is its error, the prediction is not waited for, and the others are."""
    with world.open(StoreProgress(IDS)) as writer:
        writer.store({key: world.predictions[key] for key in ("abc", "def")})
    (world.folder / "def-0.webp").unlink()
    world.predictions["def"] = CometError("the data was removed")
    progress = StoreProgress(IDS)
    with world.open(progress) as writer:
        writer.check()
    assert (progress.stored, progress.delayed, progress.missing) == ({"abc"}, {"def"}, ["ghi"])
    assert "the data was removed" in str(writer.errors["def"])


def test_nothing_is_stored_yet(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The first attempt finds nothing, reads nothing from the API, and says nothing."""
    caplog.set_level(logging.INFO)
    progress = StoreProgress(IDS)
    with world.open(progress) as writer:
        writer.check()
    assert (progress.missing, world.read, fetched(world)) == (IDS, [], [])
    assert "are stored already" not in caplog.text


def test_a_download_that_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is noted for the end, with its reason in the log now; the others are stored."""
    world.predictions["def"] = Prediction("def", "succeeded", output=["http://127.0.0.1:1/def.webp"])
    progress = StoreProgress(IDS)
    with world.open(progress) as writer:
        writer.store(world.predictions)
    assert (progress.stored, progress.delayed, progress.missing) == ({"abc", "ghi"}, {"def"}, [])
    assert [*writer.errors] == ["def"]
    assert str(writer.errors["def"]) in caplog.text


def test_an_error_that_has_passed(world: World) -> None:
    """A prediction that was stored in the end has no error."""
    progress = StoreProgress(["abc"])
    with world.open(progress) as writer:
        writer.store({"abc": CometError("no storage")})
        assert ([*writer.errors], progress.delayed) == (["abc"], {"abc"})
        writer.store({"abc": world.predictions["abc"]})
    assert (writer.errors, progress.delayed, progress.stored) == ({}, set(), {"abc"})


def test_a_manifest_that_can_not_be_read_at_the_end(world: World) -> None:
    """It is the error of that prediction, which is not fetched again: its files may well be there."""
    with world.open(StoreProgress(IDS)) as writer:
        writer.store(world.predictions)
    path = world.folder / "def.manifest.json"
    path.unlink()
    path.mkdir()
    world.server.requests.clear()
    with world.open(StoreProgress(IDS, stored=IDS)) as writer:
        writer.finish()
    assert (sorted(writer.results), [*writer.errors]) == (["abc", "ghi"], ["def"])
    assert writer.errors["def"].prediction_id == "def"
    assert (world.read, fetched(world)) == ([], [])


def test_a_prediction_that_is_checked_late(world: World) -> None:
    """If its manifest could not be read at first, only its missing file is fetched when its turn comes."""
    links = [f"http://127.0.0.1:{world.server.port}/abc-{letter}.webp" for letter in "xy"]
    done = Prediction("abc", "succeeded", output=links)
    with world.open(StoreProgress(["abc"])) as writer:
        writer.store({"abc": done})
    path = world.folder / "abc.manifest.json"
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (world.folder / "abc-0.webp").unlink()
    world.server.requests.clear()
    with world.open(StoreProgress(["abc"])) as writer:
        writer.check()
        path.rmdir()
        path.write_bytes(content)
        writer.store({"abc": done})
    assert (fetched(world), len(writer.results["abc"]["files"]), writer.errors) == (["abc-x.webp"], 2, {})


def test_names(world: World) -> None:
    """A manifest has the user's own name for its prediction, or null."""
    with world.open(StoreProgress(IDS)) as writer:
        writer.store(world.predictions)
    manifests = {key: json.loads((world.folder / f"{key}.manifest.json").read_text()) for key in IDS}
    assert {key: manifest["name"] for key, manifest in manifests.items()} == {"abc": "B-17", "def": None, "ghi": None}


def test_what_failed_is_read_in_parts(world: World) -> None:
    """Hundreds that failed earlier are not held in memory together when they are tried again."""
    ids = [f"prediction{number:02}" for number in range(2 * READ_AT_ONCE + 1)]
    parts: list[int] = []

    def read(part: Sequence[str]) -> Mapping[str, Any]:
        parts.append(len(part))
        return {key: CometError("still broken", prediction_id=key) for key in part}

    with world.open(StoreProgress(ids, failed=ids)) as writer:
        writer._read = read
        writer.finish()
    assert (parts, [*writer.errors]) == ([READ_AT_ONCE, READ_AT_ONCE, 1], ids)


def test_the_end_of_the_task_is_no_error_of_an_item(world: World) -> None:
    """Airflow's timeout, or a kill, ends all downloads at once and passes, instead of being noted as a failed item."""
    progress = StoreProgress(IDS)

    def end_task(*args: object) -> None:
        raise KeyboardInterrupt

    with world.open(progress) as writer:
        broken: Any = writer._writer
        broken.store = end_task
        with pytest.raises(KeyboardInterrupt):
            writer.store(world.predictions)
        with pytest.raises(DeliveryError):
            broken._downloader.raise_if_aborted()
    assert (progress.stored, progress.failed, writer.errors) == (set(), set(), {})


def test_schemas_are_read_in_the_thread_of_the_task(world: World) -> None:
    """Other threads can't read Airflow's connection, which a folder of schemas may need."""
    threads: list[threading.Thread] = []

    def find_schema(model: str) -> None:
        threads.append(threading.current_thread())

    with world.open(StoreProgress(IDS)) as writer:
        writer._find_schema = find_schema
        writer.store({**world.predictions, "ghi": CometError("not finished")})
    assert threads == [threading.current_thread()] * 2


def test_what_failed_for_now_is_tried_at_each_return(world: World) -> None:
    """A storage that was away for a moment keeps no result back until the last prediction has ended."""
    progress = StoreProgress(IDS)
    path = world.folder / "abc-0.webp"
    path.mkdir()
    with world.open(progress) as writer:
        writer.store({"abc": world.predictions["abc"]})
    assert (progress.delayed, progress.failed, progress.missing) == ({"abc"}, set(), IDS[1:])
    path.rmdir()
    later = StoreProgress.read(IDS, progress.to_kwargs())
    assert later is not None
    with world.open(later) as writer:
        writer.store_delayed()
    assert (later.stored, later.delayed, later.missing) == ({"abc"}, set(), IDS[1:])
    assert path.read_bytes() == PICTURE


def test_a_manifest_that_could_not_be_read_before_a_hand_over(world: World) -> None:
    """The next process asks for it again before it stores anything: what is there is not fetched once more."""
    progress = StoreProgress(["abc"])
    with world.open(progress) as writer:
        writer.store({"abc": world.predictions["abc"]})
    manifest = world.folder / "abc.manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    manifest.mkdir()
    progress = StoreProgress(["abc"])
    with world.open(progress) as writer:
        writer.check()
    assert (progress.unchecked, progress.missing) == ({"abc"}, ["abc"])
    manifest.rmdir()
    manifest.write_bytes(content)
    later = StoreProgress.read(["abc"], progress.to_kwargs())
    assert later is not None
    with world.open(later) as writer:
        writer.store({"abc": world.predictions["abc"]})
    assert (later.stored, later.unchecked) == ({"abc"}, set())
    assert fetched(world) == ["abc.webp"]
