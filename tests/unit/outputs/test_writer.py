"""`OutputWriter` over real sockets: many files at once, what is there stays, and an API that is down costs no link."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS
from tests.support.file_server import Answer, FileServer
from tests.support.task_runner import Clock

PICTURE = b"RIFF....WEBP" * 1000
STORED_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(PICTURE) as server:
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes only while somebody waits for the API or for another attempt."""
    return Clock().install(monkeypatch)


def store(folder: Path, clock: Clock, *given: Any, write_input: bool = False, at_once: int = 1) -> list[dict[str, Any]]:
    """What a task does with these predictions."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.download import Downloader
    from airflow_provider_comet.outputs.writer import OutputWriter

    hook = CometReplicateHook()
    assert hook.client is not None  # as the operator does
    path = ObjectStoragePath(f"file://{folder}")
    options: dict[str, Any] = {"max_bytes": 1 << 30, "write_input": write_input, "stored_by": STORED_BY}
    with (
        Downloader(hook.config, sleep=clock.sleep, clock=clock.monotonic) as downloader,
        OutputWriter(path, hook.get_prediction, downloader, **options) as writer,
        ThreadPoolExecutor(at_once) as pool,
    ):
        return [*pool.map(writer.store, given)]


def summary(server: FileServer, prediction_id: str = "abc", files: int = 1) -> dict[str, Any]:
    output = [f"http://127.0.0.1:{server.port}/{prediction_id}/{number}.webp" for number in range(files)]
    return Prediction(prediction_id, "succeeded", output=output).summary()


def test_four_files_at_once(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """None of them is answered before four have been asked for; more than four are never on their way."""
    gate = threading.Barrier(4, timeout=20)
    server.otherwise = Answer(gate=gate)
    (stored,) = store(tmp_path, clock, summary(server, files=8))
    assert [file["size"] for file in stored["files"]] == [len(PICTURE)] * 8
    assert (len(server.asked), gate.broken, gate.n_waiting) == (8, False, 0)
    # A fifth one would have been let in with the others, and three would have waited in vain.
    server.otherwise = Answer(gate=threading.Barrier(5, timeout=1))
    with pytest.raises(DeliveryError):
        store(tmp_path, clock, summary(server, "def", files=5))


def test_a_long_file_says_how_far_it_is(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every half minute, with its size if that is known; a short one says nothing."""
    caplog.set_level(logging.INFO)
    server.content = b"x" * 5_000_000

    def tick() -> float:
        clock.now += 10
        return clock.now

    monotonic = clock.monotonic
    clock.monotonic = tick  # type: ignore[method-assign]
    store(tmp_path, clock, summary(server))
    lines = re.findall(r"abc-0\.webp: (\d+) of 5 MB, \d+\.\d MB/s", caplog.text)
    assert lines
    assert [int(one) for one in lines] == sorted(int(one) for one in lines)
    server.otherwise = Answer(chunked=True)
    store(tmp_path, clock, summary(server, "def"))
    assert re.search(r"def-0\.webp: \d+ MB, \d+\.\d MB/s", caplog.text)
    clock.monotonic = monotonic  # type: ignore[method-assign]
    store(tmp_path, clock, summary(server, "ghi"))
    assert "ghi-0.webp: " not in caplog.text


def test_a_page_is_no_picture(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Also where the connection before it was lost without a byte: nothing is stored under the picture's name."""
    server.answers = [Answer(cut=0), Answer(200, {"Content-Type": "text/html"}, body=b"<p>Sign in")]
    with pytest.raises(DeliveryError, match="the link promises image/webp, and the server sends text/html"):
        store(tmp_path, clock, summary(server))
    assert [*tmp_path.iterdir()] == []
    store(tmp_path, clock, summary(server))
    assert (tmp_path / "abc-0.webp").read_bytes() == PICTURE


def test_only_what_is_missing_is_fetched(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Of several files those that are there as the manifest says stay as they are."""
    first = store(tmp_path, clock, summary(server, files=4))
    (tmp_path / "abc-1.webp").unlink()
    (tmp_path / "abc-2.webp").write_bytes(b"half")
    server.asked.clear()
    assert store(tmp_path, clock, summary(server, files=4)) == first
    assert sorted(headers["path"] for headers in server.asked) == ["/abc/1.webp", "/abc/2.webp"]
    assert {path.read_bytes() for path in tmp_path.glob("*.webp")} == {PICTURE}


@pytest.mark.parametrize("uri", ["s3://bucket/..", "s3://bucket/other.webp", "def-0.webp", "abc-1.webp", ""], ids=repr)
def test_a_manifest_by_somebody_else(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path, uri: str
) -> None:
    """Whoever can write into the bucket makes no other file pass for one of the prediction's."""
    (stored,) = store(tmp_path, clock, summary(server))
    mark = tmp_path / "abc.manifest.json"
    planted = json.loads(mark.read_text())
    for name in ("other.webp", "def-0.webp", "abc-1.webp"):
        (tmp_path / name).write_bytes(b"planted")
    size = tmp_path.parent.stat().st_size if uri.endswith("..") else len(b"planted")
    planted["files"][0] |= {"uri": uri, "size": size}
    mark.write_text(json.dumps(planted))
    assert store(tmp_path, clock, summary(server)) == [stored]
    assert len(server.asked) == 2


def test_links_do_not_wait_for_an_api_that_is_down(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path
) -> None:
    """All files of a prediction are fetched before it is asked for its input; that is waited for once for all, not for
    each prediction anew."""
    comet.fault(method="GET", path="/predictions/", status=503, count=None)
    waited: list[tuple[float, int]] = []
    clock.on_sleep = lambda seconds: waited.append((seconds, len(server.asked)))
    given = [summary(server, f"p{number}", files=2) for number in range(30)]
    stored = store(tmp_path, clock, *given, write_input=True)
    assert [len(one["files"]) for one in stored] == [2] * 30
    assert waited[0][1] == 2
    assert sum(seconds for seconds, _ in waited) <= 2 * RETRY_BUDGET_SECONDS
    inputs = [json.loads((tmp_path / f"p{number}.manifest.json").read_text())["input"] for number in range(30)]
    assert inputs == [None] * 30


def test_an_api_that_is_up_again_is_asked_again(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path
) -> None:
    """Two minutes after it was waited for in vain; what was asked for is told which prediction it is about."""
    from airflow_provider_comet.api.errors import ServerError
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.prediction_reader import PredictionReader

    comet.fault(method="GET", path="/predictions/", status=503, count=None)
    hook = CometReplicateHook()
    reader = PredictionReader(hook.get_prediction, clock.monotonic)
    for prediction_id in ("abc", "def"):
        with pytest.raises(ServerError) as caught:
            reader.read(prediction_id)
        assert caught.value.prediction_id == prediction_id
    assert not [one for one in comet.ledger()["requests"] if one["path"].endswith("/def")]
    comet.reset()
    created = hook.create_prediction("black-forest-labs/flux-schnell", {"prompt": "x"}).id
    clock.sleep(RETRY_BUDGET_SECONDS)
    assert reader.read(created).id == created
    assert reader.read(created).id == created
