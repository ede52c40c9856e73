"""``inputs/schema_files.py``: where the schema of an input comes from, and what is refused as a schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag

SCHNELL = "black-forest-labs/flux-schnell"
SCHEMAS = Path(__file__).parents[3] / "example_dags" / "schemas"
SCHEMA = {"type": "object", "properties": {"prompt": {"type": "string"}, "num_outputs": {"type": "integer"}}}


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


def operator(input: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        return CreatePredictionOperator(**{
            "task_id": "create",
            "model": SCHNELL,
            "input": input,
            "retries": 2,
            **options,
        })


def path_of(kind: str, path: Path) -> Any:
    from airflow.sdk import ObjectStoragePath

    return {
        "text": str(path),
        "path": path,
        "url": f"file://{path}",
        "object storage": ObjectStoragePath(f"file://{path}"),
        "dict": json.loads(path.read_text()),
    }[kind]


@pytest.mark.parametrize("kind", ["text", "path", "url", "object storage", "dict"])
def test_the_forms_of_input_schema(comet: Emulator, runner: TaskRunner, kind: str) -> None:
    """A document, or where it is stored: an input that does not fit is not sent, and all violations are named."""
    schema = path_of(kind, SCHEMAS / f"{SCHNELL}.json")
    outcome = runner.run(operator({"prompt": "x", "num_outputs": 9, "output_format": "gif"}, input_schema=schema))
    assert outcome.state == "failed"
    assert "nothing was paid" in outcome.message
    assert "input.num_outputs must be at most 4; got 9" in outcome.message
    assert 'input.output_format must be one of "webp", "jpg", "png"; got "gif"' in outcome.message
    assert comet.ledger()["requests"] == []
    assert runner.record() is None
    assert runner.run(operator({"prompt": "x", "num_outputs": 4}, input_schema=schema)).state == "success"


@pytest.mark.parametrize("folder", ["{}", "{}/", "file://{}"])
def test_a_folder_of_schemas(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """A setting of Airflow names a folder: models that have a file there are checked, others are not."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", folder.format(SCHEMAS))
    outcome = runner.run(operator({"prompt": "x", "num_outputs": 9}))
    assert outcome.state == "failed"
    assert f"{SCHNELL}.json" in outcome.message
    for model, state in {"meta/meta-llama-3-8b-instruct": "success", "../flux-schnell": "failed"}.items():
        task = operator({"prompt": "x", "num_outputs": 9}, model=model, task_id=f"create_{state}")
        assert runner.run(task).state == state


@pytest.mark.parametrize("folder", ["{}/none", "file://{}/none"])
def test_a_folder_that_does_not_exist(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """A setting that names no existing folder fails the task: otherwise inputs would silently stay unchecked."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", folder.format(tmp_path))
    outcome = runner.run(operator({"prompt": "x"}))
    assert outcome.state == "failed"
    assert "[comet] input_schemas names" in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_relative_folder(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that depends on where a worker was started is refused."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", "schemas")
    outcome = runner.run(operator({"prompt": "x"}))
    assert outcome.state == "failed"
    assert "[comet] input_schemas must be an absolute path or a URL; it is 'schemas'" in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_folder_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that can't be read now is not treated as a folder without the schema."""
    from airflow_provider_comet.inputs.schema_files import find_schema

    (tmp_path / "schemas").write_text("x")
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(tmp_path / "schemas"))
    with pytest.raises(InputFileError, match="NotADirectoryError"):
        find_schema(SCHNELL, None)


def test_one_schema_for_a_batch(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch prepares its schema once, however many inputs it has."""
    from airflow_provider_comet.inputs.schemas import InputSchema
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    made: list[object] = []
    original = InputSchema.__init__

    def init(self: InputSchema, document: object, source: str) -> None:
        made.append(document)
        original(self, document, source)

    monkeypatch.setattr(InputSchema, "__init__", init)
    with dag():
        inputs = [{"prompt": f"number {number}"} for number in range(5)]
        task = CreatePredictionBatchOperator(task_id="batch", model=SCHNELL, inputs=inputs, input_schema=SCHEMA)
    assert runner.run(task).state == "success"
    assert (len(made), len(comet.ledger()["creates"])) == (1, 5)


@pytest.mark.parametrize("url", ["gopher://x/a.json", "nothing://x/a.json"])
def test_an_unknown_protocol(comet: Emulator, runner: TaskRunner, url: str) -> None:
    """A URL that no installed package can read fails the task for good."""
    outcome = runner.run(operator({"prompt": "x"}, input_schema=url))
    assert outcome.state == "failed"
    assert f"{url} can't be read" in outcome.message


def test_a_file_of_other_bytes(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused as JSON."""
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    outcome = runner.run(operator({"prompt": "x"}, input_schema=tmp_path / "a.json"))
    assert (outcome.state, "is not JSON" in outcome.message) == ("failed", True)


def test_a_task_s_own_schema_comes_first(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's own schema is used instead of the file in the folder."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(SCHEMAS))
    assert runner.run(operator({"prompt": "x", "num_outputs": 9}, input_schema=SCHEMA)).state == "success"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        ("{", "is not JSON"),
        ("{}", "is neither a JSON Schema"),
        ("[]", "must be a JSON object"),
    ],
)
def test_a_file_that_is_no_schema(
    comet: Emulator, runner: TaskRunner, tmp_path: Path, content: str | None, words: str
) -> None:
    """The error names the file and the fault; nothing is sent, and the task is not retried."""
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    outcome = runner.run(operator({"prompt": "x"}, input_schema=path))
    assert outcome.state == "failed"
    assert str(path) in outcome.message
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_relative_path(comet: Emulator, runner: TaskRunner) -> None:
    """A relative path depends on where a worker was started: it is refused, and the error shows what to write."""
    outcome = runner.run(operator({"prompt": "x"}, input_schema="schemas/a.json"))
    assert outcome.state == "failed"
    assert "Path(__file__).parent" in outcome.message


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """A path that can't be read now is an error that a retry may solve."""
    from airflow_provider_comet.inputs.schema_files import find_schema

    with pytest.raises(InputFileError, match="IsADirectoryError"):
        find_schema(SCHNELL, tmp_path)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_storage_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """An error of the storage that is no ``OSError``, as s3fs raises, is an error that a retry may solve."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.inputs.schema_files import find_schema

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("gone")

    for name in ("read_bytes", "exists"):
        monkeypatch.setattr(ObjectStoragePath, name, fail)
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", "file:///schemas" if place == "folder" else "")
    with pytest.raises(InputFileError, match="RuntimeError: gone"):
        find_schema(SCHNELL, "file:///schemas/a.json" if place == "file" else None)


def test_a_paid_prediction_is_not_checked_again(comet: Emulator, runner: TaskRunner) -> None:
    """A retry continues with the paid prediction, even if the input no longer fits the schema."""
    first = runner.run(operator({"prompt": "x", "num_outputs": 9}, wait_for_completion=True))
    assert first.state == "deferred"
    task = operator(
        {"prompt": "x", "num_outputs": 9}, wait_for_completion=True, input_schema=SCHEMAS / f"{SCHNELL}.json"
    )
    again = runner.run(task, try_number=2)
    assert (again.state, again.error) == ("success", None)
    assert len(comet.ledger()["creates"]) == 1
