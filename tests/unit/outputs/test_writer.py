"""``outputs/writer.py`` over real sockets: several files at once, stored files stay, and an unreachable API costs no
link."""

from __future__ import annotations

import functools
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS
from tests.support.file_server import Answer, FileServer
from tests.support.task_runner import Clock
from tests.unit.outputs.stores import store_missing

PICTURE = b"RIFF....WEBP" * 1000
STORED_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(PICTURE) as server:
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes only during a pause."""
    return Clock().install(monkeypatch)


def store(
    folder: Path,
    clock: Clock,
    *summaries: Any,
    write_input: bool = False,
    at_once: int = 1,
    now: Callable[[], float] | None = None,
    max_bytes: int = 1 << 30,
) -> list[dict[str, Any]]:
    """Store these predictions as a task does; ``now`` replaces the time of ``clock``."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.download import Downloader
    from airflow_provider_comet.outputs.writer import OutputWriter

    hook = CometReplicateHook()
    assert hook.client is not None  # as the operator does
    path = ObjectStoragePath(f"file://{folder}")
    options: dict[str, Any] = {"max_bytes": max_bytes, "write_input": write_input, "stored_by": STORED_BY}
    with (
        Downloader(hook.config, sleep=clock.sleep, clock=now or clock.monotonic) as downloader,
        OutputWriter(path, hook.get_prediction, downloader, **options) as writer,
        ThreadPoolExecutor(at_once) as pool,
    ):
        return [*pool.map(functools.partial(store_missing, writer), summaries)]


def read(prediction_id: str) -> Prediction:
    """Return a prediction as the API describes it."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    return CometReplicateHook().get_prediction(prediction_id)


def summary(server: FileServer, prediction_id: str = "abc", files: int = 1) -> dict[str, Any]:
    output = [f"http://127.0.0.1:{server.port}/{prediction_id}/{number}.webp" for number in range(files)]
    return Prediction(prediction_id, "succeeded", output=output).summary()


def test_four_files_at_once(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """No file is sent before four are requested, and never more than four are downloaded at once."""
    gate = threading.Barrier(4, timeout=20)
    server.otherwise = Answer(gate=gate)
    (stored,) = store(tmp_path, clock, summary(server, files=8))
    assert [file["size"] for file in stored["files"]] == [len(PICTURE)] * 8
    assert (len(server.requests), gate.broken, gate.n_waiting) == (8, False, 0)
    # With five at once the barrier would open. With four at once it times out.
    server.otherwise = Answer(gate=threading.Barrier(5, timeout=1))
    with pytest.raises(DeliveryError):
        store(tmp_path, clock, summary(server, "def", files=5))


def test_a_long_file_logs_its_progress(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every half minute, with its size if that is known; a short file logs nothing."""
    caplog.set_level(logging.INFO)
    server.content = b"x" * 5_000_000

    def tick() -> float:
        clock.now += 10
        return clock.now

    store(tmp_path, clock, summary(server), now=tick)
    lines = re.findall(r"abc-0\.webp: (\d+) of 5 MB, \d+\.\d MB/s", caplog.text)
    assert lines
    assert [int(line) for line in lines] == sorted(int(line) for line in lines)
    server.otherwise = Answer(chunked=True)
    store(tmp_path, clock, summary(server, "def"), now=tick)
    assert re.search(r"def-0\.webp: \d+ MB, \d+\.\d MB/s", caplog.text)
    store(tmp_path, clock, summary(server, "ghi"))
    assert "ghi-0.webp: " not in caplog.text


def test_a_page_is_no_picture(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Nothing is stored under the picture's name, also after a connection that was lost without a byte."""
    server.answers = [Answer(break_after=0), Answer(200, {"Content-Type": "text/html"}, body=b"<p>Sign in")]
    with pytest.raises(DeliveryError, match="the link promises image/webp, and the server sends text/html"):
        store(tmp_path, clock, summary(server))
    assert [*tmp_path.iterdir()] == []
    store(tmp_path, clock, summary(server))
    assert (tmp_path / "abc-0.webp").read_bytes() == PICTURE


def test_only_what_is_missing_is_fetched(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Files that exist as their manifest says are not fetched again."""
    first = store(tmp_path, clock, summary(server, files=4))
    (tmp_path / "abc-1.webp").unlink()
    (tmp_path / "abc-2.webp").write_bytes(b"half")
    (tmp_path / "abc-3.webp").write_bytes(PICTURE[:-1] + b"!")  # altered, and as long as before
    server.requests.clear()
    assert store(tmp_path, clock, summary(server, files=4)) == first
    assert sorted(headers["path"] for headers in server.requests) == ["/abc/1.webp", "/abc/2.webp", "/abc/3.webp"]
    server.requests.clear()
    assert store(tmp_path, clock, summary(server, files=4)) == first
    assert server.requests == []
    assert {path.read_bytes() for path in tmp_path.glob("*.webp")} == {PICTURE}


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://bucket/..", "s3://bucket/other.webp", "def-0.webp", "abc-1.webp", ""),
        *("abc-0.\0", "abc-0." + "x" * 300, "abc-0.\ud800"),  # no names of files
    ],
    ids=lambda uri: ascii(uri)[:20],
)
def test_a_manifest_by_somebody_else(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path, uri: str
) -> None:
    """A planted manifest does not make another file pass for a file of the prediction."""
    (stored,) = store(tmp_path, clock, summary(server))
    mark = tmp_path / "abc.manifest.json"
    planted = json.loads(mark.read_text())
    for name in ("other.webp", "def-0.webp", "abc-1.webp"):
        (tmp_path / name).write_bytes(b"planted")
    size = tmp_path.parent.stat().st_size if uri.endswith("..") else len(b"planted")
    planted["files"][0] |= {"uri": uri, "size": size}
    mark.write_text(json.dumps(planted))
    assert store(tmp_path, clock, summary(server)) == [stored]
    assert len(server.requests) == 2


def test_links_do_not_wait_for_an_api_that_is_down(
    comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path
) -> None:
    """All files of a prediction are fetched before its input is read. The API is waited for once, not for each
    prediction anew."""
    comet.fault(method="GET", path="/predictions/", status=503, count=None)
    waited: list[tuple[float, int]] = []
    clock.on_sleep = lambda seconds: waited.append((seconds, len(server.requests)))
    summaries = [summary(server, f"p{number}", files=2) for number in range(30)]
    stored = store(tmp_path, clock, *summaries, write_input=True)
    assert [len(item["files"]) for item in stored] == [2] * 30
    assert waited[0][1] == 2
    assert sum(seconds for seconds, _ in waited) <= 2 * RETRY_BUDGET_SECONDS
    inputs = [json.loads((tmp_path / f"p{number}.manifest.json").read_text())["input"] for number in range(30)]
    assert inputs == [None] * 30


def test_an_api_that_is_up_again(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Two minutes after the wait failed, the API is requested again. Each error names its own prediction."""
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
    assert not [request for request in comet.ledger()["requests"] if request["path"].endswith("/def")]
    comet.reset()
    created = hook.create_prediction("black-forest-labs/flux-schnell", {"prompt": "x"}).id
    clock.sleep(RETRY_BUDGET_SECONDS)
    assert reader.read(created).id == created
    assert reader.read(created).id == created


def api(server: FileServer, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    """Let the server answer the API's requests, with a succeeded prediction that has these fields of raw JSON."""
    body = f'{{"id": "abc", "status": "succeeded", {fields}}}'.encode()
    server.otherwise = Answer(headers={"Content-Type": "application/json"}, body=body)
    base_url = f"http://127.0.0.1:{server.port}"
    connection = {"conn_type": "cometapi", "host": base_url, "password": "sk-writer-0123456789"}
    monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", json.dumps(connection))


NESTED = "[" * 450 + '"x"' + "]" * 450


@pytest.mark.parametrize(
    ("output", "name", "content", "is_changed"),
    [
        (r'"a\u0000b"', "abc-0.txt", b"a\0b", False),
        (r'["a\u0000", "b\r\n", "\u001f"]', "abc-0.txt", b"a\0b\r\n\x1f", False),
        (r'["\ud83d", "\ude00"]', "abc-0.txt", "\U0001f600".encode(), False),
        ("[NaN, Infinity, -Infinity, 1e400, 0.5]", "abc-0.json", b"[\n null,\n null,\n null,\n null,\n 0.5\n]", True),
        ("[18446744073709551617]", "abc-0.json", b"[\n 18446744073709551617\n]", False),
        (f"[{NESTED}, 1e999]", "abc-0.json", f"[{NESTED}, null]".encode(), True),
    ],
    ids=["nul", "controls", "pair", "no numbers", "integer", "deep"],
)
def test_what_is_stored_is_exact(
    server: FileServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    output: str,
    name: str,
    content: bytes,
    is_changed: bool,
) -> None:
    """Text is written byte for byte; JSON is strict, and the manifest says what that has changed."""
    api(server, monkeypatch, f'"output": {output}')
    store(tmp_path, clock, read("abc"), write_input=True)
    assert (tmp_path / name).read_bytes() == content
    assert json.loads((tmp_path / "abc.manifest.json").read_text())["non_finite_as_null"] is is_changed


def test_a_summary_of_what_xcom_can_not_hold(
    server: FileServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Halves of characters are lost in a summary, so the text is read from the API once more."""
    api(server, monkeypatch, r'"output": ["\ud83d", "\ude00"]')
    store(tmp_path, clock, Prediction("abc", "succeeded", output=["\ud83d", "\ude00"]).summary())
    assert (tmp_path / "abc-0.txt").read_text() == "\U0001f600"


def test_a_manifest_is_strict_json(
    server: FileServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Input and metrics are the server's words, too."""
    api(server, monkeypatch, '"output": "x", "metrics": {"predict_time": NaN}, "input": {"seeds": [1e999, 7]}')
    store(tmp_path, clock, read("abc"), write_input=True)
    stored = json.loads((tmp_path / "abc.manifest.json").read_text(), parse_constant=pytest.fail)
    assert (stored["metrics"], stored["input"]) == ({"predict_time": None}, {"seeds": [None, 7]})
    assert stored["non_finite_as_null"] is True


def test_all_files_of_a_prediction_together(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Four files that are fetched at once share a single limit; files that are stored already count."""
    limit = 4 * len(PICTURE)
    store(tmp_path, clock, summary(server, files=4), summary(server, "def", files=4), max_bytes=limit)
    (tmp_path / "abc-2.webp").unlink()
    with pytest.raises(OutputRefusedError, match=f"its files have {limit} bytes so far; max_bytes is {limit - 1}"):
        store(tmp_path, clock, summary(server, files=4), max_bytes=limit - 1)
    assert not (tmp_path / "abc-2.webp").exists()
    inline = Prediction("ghi", "succeeded", output={"image": server.url, "mask": "data:,abc"})
    with pytest.raises(OutputRefusedError, match="for all files of a prediction together"):
        store(tmp_path, clock, {**inline.summary(), "output": inline.output}, max_bytes=len(PICTURE) + 2)


def test_a_thousand_files(comet: Emulator, clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """More are refused before a single file is requested."""
    with pytest.raises(OutputRefusedError, match="consists of 1001 files, and at most 1000 are stored"):
        store(tmp_path, clock, summary(server, files=1001))
    assert server.requests == []
