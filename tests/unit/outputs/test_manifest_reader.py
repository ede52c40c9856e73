"""``outputs/manifest_reader.py``: what is stored of a prediction already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.file_errors import DeliveryError, StorageError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from tests.support.file_server import FileServer
from tests.support.task_runner import Clock
from tests.unit.outputs.test_writer import store

PICTURE = b"RIFF....WEBP" * 1000


def reader_of(folder: Path, raise_if_aborted: Any = lambda: None) -> Any:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.outputs.manifest_reader import ManifestReader

    return ManifestReader(ObjectStoragePath(f"file://{folder}"), raise_if_aborted)


@pytest.fixture
def stored(comet: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The task's result for a prediction with two files, which are stored."""
    with FileServer(PICTURE) as server:
        output = [f"http://127.0.0.1:{server.port}/{number}.webp" for number in range(2)]
        prediction = Prediction("abc", "succeeded", output=output).summary()
        (result,) = store(tmp_path, Clock().install(monkeypatch), prediction)
    return result


def test_what_is_stored(stored: dict[str, Any], tmp_path: Path) -> None:
    """The files of a manifest are found, under the URIs that the task's folder has; the result is the task's own."""
    files = reader_of(tmp_path).check("abc")
    assert [file.uri for file in files] == [file["uri"] for file in stored["files"]]
    assert reader_of(tmp_path).result("abc") == reader_of(tmp_path).result_of("abc", files) == stored


def test_no_manifest(tmp_path: Path) -> None:
    """A prediction that is not stored is none, also if the folder does not exist."""
    for folder in (tmp_path, tmp_path / "missing"):
        assert reader_of(folder).check("abc") is None
        assert reader_of(folder).result("abc") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(PICTURE[:-1] + b"!"),
        lambda path: path.write_bytes(b""),
    ],
    ids=["gone", "altered", "emptied"],
)
def test_a_file_that_is_not_as_its_manifest_says(stored: dict[str, Any], tmp_path: Path, change: Any) -> None:
    """It is missing; the other file of the prediction is not."""
    change(tmp_path / "abc-1.webp")
    first, second = reader_of(tmp_path).check("abc")
    assert (first.uri, second) == (stored["files"][0]["uri"], None)


@pytest.mark.parametrize("name", ["def-0.webp", "..", "abc-0", "abc-1.webp", "abc-0.\0"])
def test_a_name_that_is_not_ours(stored: dict[str, Any], tmp_path: Path, name: str) -> None:
    """Whoever may write a manifest can't make another file pass for the prediction's own."""
    path = tmp_path / "abc.manifest.json"
    planted = json.loads(path.read_text())
    planted["files"][0]["uri"] = f"s3://bucket/{name}"
    path.write_text(json.dumps(planted))
    assert reader_of(tmp_path).check("abc")[0] is None
    assert reader_of(tmp_path).result("abc") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff"], ids=["empty", "object", "deep", "bytes"])
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    """It is left alone, and the prediction is stored anew."""
    (tmp_path / "abc.manifest.json").write_bytes(content)
    assert reader_of(tmp_path).check("abc") is None


def test_a_file_that_has_grown(stored: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content counts up to the size in the manifest: what somebody has put in its place may be endless."""
    from airflow_provider_comet.outputs import manifest_reader

    read: list[str] = []

    def endless(path: Any) -> Iterator[bytes]:
        while True:
            read.append(path.name)
            yield PICTURE

    monkeypatch.setattr(manifest_reader, "read_blocks", endless)
    assert reader_of(tmp_path).check("abc") == [None, None]
    assert read == ["abc-0.webp", "abc-0.webp", "abc-1.webp", "abc-1.webp"]


def test_the_result_of_what_was_checked_reads_no_file(stored: dict[str, Any], tmp_path: Path) -> None:
    """At the end of a task of a thousand predictions only manifests are read."""
    for number in range(2):
        (tmp_path / f"abc-{number}.webp").unlink()
    assert reader_of(tmp_path).result("abc") == stored


def test_an_error_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble with a storage is a metric, by its kind."""
    counted: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr("airflow_provider_comet.metrics.count", lambda name, **tags: counted.append((name, tags)))
    (tmp_path / "abc.manifest.json").mkdir()
    for read in (reader_of(tmp_path).check, reader_of(tmp_path).result):
        with pytest.raises(StorageError):
            read("abc")
    assert counted == [("comet.store_errors", {"error": "StorageError"})] * 2


def test_a_storage_that_can_not_be_read(tmp_path: Path) -> None:
    """The error names the prediction, and may be retried."""
    (tmp_path / "abc.manifest.json").mkdir()
    with pytest.raises(StorageError, match="Prediction abc") as caught:
        reader_of(tmp_path).check("abc")
    assert caught.value.retryable


def test_the_end_of_the_task(stored: dict[str, Any], tmp_path: Path) -> None:
    """A task that is killed does not read files to their end."""

    def raise_if_aborted() -> None:
        raise DeliveryError("the task was ended")

    with pytest.raises(DeliveryError, match="the task was ended"):
        reader_of(tmp_path, raise_if_aborted).check("abc")


def test_the_end_of_the_task_while_a_file_is_read(stored: dict[str, Any], tmp_path: Path) -> None:
    """A large file is not read to its end either: its next block is the last."""
    calls: list[None] = []

    def raise_if_aborted() -> None:
        calls.append(None)
        if len(calls) > 1:  # the first call comes before the manifest is read
            raise DeliveryError("the task was ended")

    with pytest.raises(DeliveryError, match="the task was ended"):
        reader_of(tmp_path, raise_if_aborted).check("abc")
    assert len(calls) == 2
