"""Object storage for real: the bytes go through s3fs and Airflow's AWS connection to an S3-compatible server."""

from __future__ import annotations

import base64
import gc
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.outputs.storage import BLOCK_BYTES
from tests.support.file_server import Answer, FileServer
from tests.support.s3 import S3
from tests.support.sockets import unused_port
from tests.support.task_runner import TaskRunner, dag

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

ROOT = Path(__file__).parents[2]
FILM = random.Random(3).randbytes(2 * BLOCK_BYTES + 12345)


@pytest.fixture
def runner() -> TaskRunner:
    return TaskRunner()


def path_to(key: str) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(f"s3://store@bucket/{key}")


def write(key: str, content: bytes, error: BaseException | None = None) -> None:
    from airflow_provider_comet.outputs.storage import open_atomic

    with open_atomic(path_to(key)) as file:
        for position in range(0, len(content), 1 << 20):
            file.write(content[position : position + (1 << 20)])
        if error is not None:
            raise error


@pytest.mark.parametrize("size", [0, 1000, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES, len(FILM)])
def test_an_object_appears_at_the_end(s3: S3, size: int) -> None:
    """Whether it is sent at once or in parts: before the end nobody sees it, afterwards it is whole."""
    from airflow_provider_comet.outputs.storage import open_atomic

    with open_atomic(path_to("a/film.mp4")) as file:
        for position in range(0, size, 1 << 20):
            file.write(FILM[position : min(size, position + (1 << 20))])
        assert s3.objects() == {}
    assert s3.content("a/film.mp4") == FILM[:size]
    assert s3.unfinished() == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("size", [1000, len(FILM)])
def test_nothing_stays_of_a_failure(s3: S3, size: int, error: BaseException) -> None:
    """The object that was there stays, the upload is aborted, and the garbage collector commits nothing."""
    write("a/film.mp4", b"old")
    with pytest.raises(type(error)):
        write("a/film.mp4", FILM[:size], error)
    gc.collect()
    assert (s3.content("a/film.mp4"), s3.objects(), s3.unfinished()) == (b"old", {"a/film.mp4": 3}, [])


def test_a_file_of_the_input_comes_from_there(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object in the input is sent along; a missing object is an error before anything is sent."""
    from airflow_provider_comet.api.errors import InvalidInputError
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    write("start.png", FILM[:1000])
    with Emulator(duration=0) as comet:
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", comet.connection_json())
        hook = CometReplicateHook()
        hook.create_prediction("black-forest-labs/flux-schnell", {"prompt": "by night", "image": path_to("start.png")})
        (made,) = comet.ledger()["creates"]
        assert made["input"]["image"] == f"data:image/png;base64,{base64.b64encode(FILM[:1000]).decode()}"
        with pytest.raises(InvalidInputError, match=r"there is no file s3://.*/none\.png"):
            hook.create_prediction(
                "black-forest-labs/flux-schnell", {"prompt": "by night", "image": path_to("none.png")}
            )
        assert len(comet.ledger()["requests"]) == 1


def test_a_check_of_the_input_finds_bad_files(s3: S3) -> None:
    """Before anything is paid, a file that is missing, empty, too large or a folder is found."""
    from airflow_provider_comet.api.errors import InvalidInputError
    from airflow_provider_comet.inputs.input_files import MAX_DATA_URI_CHARACTERS
    from airflow_provider_comet.inputs.prepare import check_input

    contents = {"in/a.png": b"abc", "in/empty.png": b"", "in/film.mp4": bytes(MAX_DATA_URI_CHARACTERS)}
    for key, content in contents.items():
        s3.client.put_object(Bucket="bucket", Key=key, Body=content)

    def check(key: str) -> list[str]:
        return check_input("a/b", {"image": path_to(key)}, None, strict=False)

    assert check("in/a.png") == []
    for key, words in {
        "in/none.png": "there is no file",
        "in": "there is no file",
        "in/empty.png": "is empty",
        "in/film.mp4": "larger than 7.5 MB",
    }.items():
        with pytest.raises(InvalidInputError, match=words):
            check(key)


def test_no_such_bucket(s3: S3) -> None:
    """A missing bucket is an error of the storage, which a retry may cure."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.api.file_errors import StorageError
    from airflow_provider_comet.outputs.storage import open_atomic

    path = ObjectStoragePath("s3://store@no-such-bucket/film.mp4")
    with pytest.raises(StorageError, match="no-such-bucket"), open_atomic(path) as file:
        file.write(b"x")


def test_nobody_there(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of botocore are errors of the storage, although they are no ``OSError``."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.api.file_errors import StorageError
    from airflow_provider_comet.outputs.storage import open_atomic

    connection = json.loads(s3.connection)
    connection["extra"] |= {
        "endpoint_url": f"http://127.0.0.1:{unused_port()}",
        "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(connection))
    path = ObjectStoragePath("s3://nobody@bucket/film.mp4")
    with pytest.raises(StorageError, match=r"film\.mp4: EndpointConnectionError") as caught, open_atomic(path) as file:
        file.write(b"x")
    assert not isinstance(caught.value.__cause__, OSError)


def test_a_killed_process_leaves_no_visible_half(s3: S3) -> None:
    """SIGKILL during an upload: the object does not exist, and the next process writes it whole."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from airflow.sdk import ObjectStoragePath
from airflow_provider_comet.outputs.storage import open_atomic
with open_atomic(ObjectStoragePath("s3://store@bucket/film.mp4")) as file:
    file.write(b"x" * {2 * BLOCK_BYTES})
    file.finish()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert (s3.objects(), s3.unfinished()) == ({}, ["film.mp4"])
    write("film.mp4", b"whole")
    assert s3.objects() == {"film.mp4": 5}


def test_the_operator(s3: S3, comet: Emulator, runner: TaskRunner) -> None:
    """A film whose connection breaks is stored whole, with its manifest; a repeat fetches nothing."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with FileServer(FILM) as host:
        host.answers = [Answer(200, {"Content-Type": "video/mp4"}, break_after=BLOCK_BYTES + 5)]
        comet.next_outcome(status="succeeded", output=f"http://127.0.0.1:{host.port}/film")
        hook = CometReplicateHook()
        prediction = hook.wait_for_prediction(
            hook.create_prediction("black-forest-labs/flux-schnell", {"prompt": "x"}).id
        )
        with dag():
            task = DownloadPredictionOutputOperator(
                task_id="store", prediction=prediction.summary(), output_path="s3://store@bucket/films"
            )
        result: dict[str, Any] = runner.run(task).result
        assert runner.run(task).result == result
        assert len(host.requests) == 2
    (file,) = result["files"]
    assert file["uri"] == f"s3://store@bucket/films/{prediction.id}-0.mp4"
    assert s3.content(f"films/{prediction.id}-0.mp4") == FILM
    assert s3.objects().keys() == {f"films/{prediction.id}-0.mp4", f"films/{prediction.id}.manifest.json"}
    text = s3.content(f"films/{prediction.id}.manifest.json").decode()
    assert f'"s3://bucket/films/{prediction.id}-0.mp4"' in text
    assert "store@" not in text


def test_a_table_of_what_is_stored(
    s3: S3, comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows lead to the files by the reader's own connection; a listing and one request for each manifest are sent."""
    import s3fs
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
    from airflow_provider_comet.outputs.manifests import read_manifests

    folder = "s3://store@bucket/pictures"
    hook = CometReplicateHook()
    inputs = [{"prompt": "a fox", "seed": seed, "num_outputs": 2} for seed in range(2)]
    ids = [hook.create_prediction("black-forest-labs/flux-schnell", input).id for input in inputs]
    predictions = [hook.wait_for_prediction(prediction_id).summary() for prediction_id in ids]
    with dag():
        task = DownloadPredictionOutputOperator(task_id="store", prediction=predictions, output_path=folder)
    stored = runner.run(task).result
    assert read_manifests("s3://store@bucket/none") == []
    assert len(read_manifests(folder)) == 4
    # Another process stores more; a foreign file and an object that stands for the folder do no harm.
    (manifest,) = [key for key in s3.objects() if key.endswith(f"{ids[0]}.manifest.json")]
    for number in range(70):
        copy = s3.content(manifest).replace(ids[0].encode(), f"copy{number}".encode())
        s3.client.put_object(Bucket="bucket", Key=f"pictures/copy{number}.manifest.json", Body=copy)
    s3.client.put_object(Bucket="bucket", Key="pictures/empty.manifest.json", Body=b"")
    s3.client.put_object(Bucket="bucket", Key="pictures/", Body=b"")
    sent: list[str] = []
    original = s3fs.S3FileSystem._call_s3

    async def call(fs: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(method)
        return await original(fs, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    rows = read_manifests(ObjectStoragePath(folder))
    assert sent == ["list_objects_v2", *73 * ["get_object"]]
    assert len(rows) == 2 * 72
    assert "1 of 73 manifests" in caplog.text
    by_uri = {row["uri"]: row for row in rows}
    for input, result in zip(inputs, stored, strict=True):
        for file in result["files"]:
            row = by_uri[file["uri"]]
            assert {name: row[f"input.{name}"] for name in input} == input
            assert len(ObjectStoragePath(row["uri"]).read_bytes()) == row["size"]


def test_a_table_of_storage_that_does_not_answer(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of the storage, and no empty table."""
    from airflow_provider_comet.api.file_errors import StorageError
    from airflow_provider_comet.outputs.manifests import read_manifests

    connection = json.loads(s3.connection)
    connection["extra"] |= {
        "endpoint_url": f"http://127.0.0.1:{unused_port()}",
        "config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SILENT", json.dumps(connection))
    with pytest.raises(StorageError, match=r"written or read: s3://.*bucket/pictures: EndpointConnectionError"):
        read_manifests("s3://silent@bucket/pictures")


def test_a_manifest_that_is_empty(s3: S3) -> None:
    """Somebody has left an empty object under its name: it is no manifest, and no trouble of the storage."""
    from airflow_provider_comet.outputs.manifest_reader import ManifestReader

    s3.client.put_object(Bucket="bucket", Key="a/abc.manifest.json", Body=b"")
    assert ManifestReader(path_to("a"), lambda: None).check("abc") is None
