"""``DownloadPredictionOutputOperator``: the description of a model decides what is a file, where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.emulator import Emulator
from tests.support.file_server import Answer, FileServer
from tests.support.task_runner import Clock, TaskRunner, dag

PAGE = Answer(headers={"Content-Type": "text/html"}, body=b"<!doctype html><html>")
URI = {"type": "string", "format": "uri"}
TEXT = {"type": "string"}


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(b"RIFF....WEBP" * 9) as server:
        yield server


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Put the description of a model's output into the folder of Airflow's setting."""
    folder = tmp_path / "schemas"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(folder))

    def describe(model: str, output: Any) -> None:
        path = folder / f"{model}.json"
        path.parent.mkdir(exist_ok=True)
        document = {"components": {"schemas": {"Input": {"type": "object"}, "Output": output}}}
        path.write_text(output if isinstance(output, str) else json.dumps(document))

    return describe


def store(runner: TaskRunner, folder: Path, predictions: Any) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        task = DownloadPredictionOutputOperator(
            task_id="store", prediction=predictions, output_path=str(folder), write_input=False
        )
    return runner.run(task)


def summary(prediction_id: str, output: Any, model: str | None = "a/b") -> dict[str, Any]:
    return Prediction(prediction_id, "succeeded", model=model, output=output).summary()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*-*"))


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "list"])
def test_a_text_that_is_a_link(
    runner: TaskRunner, server: FileServer, describe: Any, tmp_path: Path, is_list: bool
) -> None:
    """Of a model that makes text, no link is requested, however much it looks like a picture's."""
    describe("a/b", TEXT)
    describe("a/tokens", {"type": "array", "items": TEXT, "x-cog-array-display": "concatenate"})
    items = [summary("abc", server.url), summary("def", [server.url], "a/tokens")]
    outcome = store(runner, tmp_path, items if is_list else items[0])
    assert outcome.state == "success"
    assert names(tmp_path) == ["abc-0.txt", "def-0.txt"][: 1 + is_list]
    assert {path.read_text() for path in tmp_path.glob("*.txt")} == {server.url}
    assert server.requests == []


def test_a_dead_link_that_is_text(runner: TaskRunner, server: FileServer, describe: Any, tmp_path: Path) -> None:
    """A link that nobody can follow fails the task; the model's description is the way to have it as text."""
    server.otherwise = Answer(404)
    item = summary("abc", f"http://127.0.0.1:{server.port}/page")
    outcome = store(runner, tmp_path, item)
    assert (outcome.state, names(tmp_path)) == ("up_for_retry", [])
    describe("a/b", TEXT)
    assert store(runner, tmp_path, item).state == "success"
    assert names(tmp_path) == ["abc-0.txt"]


def test_a_web_page_in_place_of_a_file(runner: TaskRunner, server: FileServer, describe: Any, tmp_path: Path) -> None:
    """Of a model that makes files, a link is a file without doubt, and a web page is not stored in its place."""
    describe("a/b", URI)
    server.answers = [PAGE]
    item = summary("abc", f"http://127.0.0.1:{server.port}/page")
    outcome = store(runner, tmp_path, item)
    assert (outcome.state, names(tmp_path)) == ("up_for_retry", [])
    assert store(runner, tmp_path, item).state == "success"
    assert names(tmp_path) == ["abc-0.webp"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"type": "object"}', "[" * 200_000], ids=["broken", "list", "input", "deep"]
)
def test_a_description_that_can_not_be_used(
    runner: TaskRunner, server: FileServer, describe: Any, tmp_path: Path, content: str
) -> None:
    """What is paid for is stored by its shape all the same."""
    describe("a/b", content)
    outcome = store(runner, tmp_path, summary("abc", [server.url, server.url]))
    assert outcome.state == "success"
    assert names(tmp_path) == ["abc-0.webp", "abc-1.webp"]


def test_a_folder_that_is_not_there(
    runner: TaskRunner,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is worth a warning, not the paid result."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(tmp_path / "nothing"))
    outcome = store(runner, tmp_path, summary("abc", server.url))
    assert (outcome.state, names(tmp_path)) == ("success", ["abc-0.webp"])
    assert "The description of model a/b is not used: " in caplog.text
