"""Where schemas of inputs come from, and `CreatePredictionOperator` that checks by them before it pays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
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
def test_what_a_task_may_be_given(comet: Emulator, runner: TaskRunner, kind: str) -> None:
    """A document, or where one is: what does not fit fails for good, all of it is said, and nothing is sent."""
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
def test_a_folder_that_is_not_there(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """A setting that names no folder would check nothing without a word: the task fails instead."""
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
    """What can't be read now is not taken for what is not there."""
    from airflow_provider_comet.inputs.schema_files import find_schema

    (tmp_path / "schemas").write_text("x")
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(tmp_path / "schemas"))
    with pytest.raises(InputFileError, match="NotADirectoryError"):
        find_schema(SCHNELL, None)


@pytest.mark.parametrize("folder", ["", str(SCHEMAS)])
def test_strict_without_a_schema(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A check that was asked for and can't be made fails the task, before anything is paid."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", folder)
    outcome = runner.run(operator({"prompt": "x"}, model="meta/meta-llama-3-8b-instruct", strict=True))
    assert outcome.state == "failed"
    assert "strict=True, but there is no schema for meta/meta-llama-3-8b-instruct" in outcome.message
    assert comet.ledger()["requests"] == []


def test_one_schema_for_a_batch(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema of a task is made once, however many inputs it has."""
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


@pytest.mark.parametrize("given", ["gopher://x/a.json", "nothing://x/a.json"])
def test_a_place_that_nobody_knows(comet: Emulator, runner: TaskRunner, given: str) -> None:
    """A URL that can't be read is an error in words, which a retry would not cure."""
    outcome = runner.run(operator({"prompt": "x"}, input_schema=given))
    assert outcome.state == "failed"
    assert f"{given} can't be read" in outcome.message


def test_a_file_of_other_bytes(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """A file that is no text is no JSON."""
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    outcome = runner.run(operator({"prompt": "x"}, input_schema=tmp_path / "a.json"))
    assert (outcome.state, "is not JSON" in outcome.message) == ("failed", True)


def test_a_task_s_own_schema_comes_first(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the task names is used in place of the folder's."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", str(SCHEMAS))
    assert runner.run(operator({"prompt": "x", "num_outputs": 9}, input_schema=SCHEMA)).state == "success"


def test_unknown_keys(comet: Emulator, runner: TaskRunner, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that the schema does not know is sent with a warning in the task's log, or refused if asked."""
    given = {"prompt": "x", "num_output": 2}
    assert runner.run(operator(given, input_schema=SCHEMA)).state == "success"
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "is not a parameter" in line]
    assert "[warning" in warning
    assert 'input.num_output is not a parameter that input_schema knows (did you mean "num_outputs"?)' in warning
    outcome = runner.run(operator(given, input_schema=SCHEMA, strict=True, task_id="other"))
    assert outcome.state == "failed"
    assert 'did you mean "num_outputs"?' in outcome.message
    assert len(comet.ledger()["creates"]) == 1


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
    """The error names the file and what is wrong with it; nothing is sent, and a retry would not help."""
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    outcome = runner.run(operator({"prompt": "x"}, input_schema=path))
    assert outcome.state == "failed"
    assert str(path) in outcome.message
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_relative_path(comet: Emulator, runner: TaskRunner) -> None:
    """A path that depends on where a worker was started is refused, with what to write instead."""
    outcome = runner.run(operator({"prompt": "x"}, input_schema="schemas/a.json"))
    assert outcome.state == "failed"
    assert "Path(__file__).parent" in outcome.message


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """What can't be read now may be readable later."""
    from airflow_provider_comet.inputs.schema_files import find_schema

    with pytest.raises(InputFileError, match="IsADirectoryError"):
        find_schema(SCHNELL, tmp_path)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_storage_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Errors of a store that are no ``OSError`` (botocore's, which s3fs passes on) may pass, too."""
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
    """A retry goes on with what was paid, also if the schema is another one by then."""
    first = runner.run(operator({"prompt": "x", "num_outputs": 9}, wait_for_completion=True))
    assert first.state == "deferred"
    task = operator(
        {"prompt": "x", "num_outputs": 9}, wait_for_completion=True, input_schema=SCHEMAS / f"{SCHNELL}.json"
    )
    again = runner.run(task, try_number=2)
    assert (again.state, again.error) == ("success", None)
    assert len(comet.ledger()["creates"]) == 1


def test_a_file_of_the_input_is_a_url(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """A file that is sent along fits where a URL is wanted."""
    from airflow.sdk import ObjectStoragePath

    (tmp_path / "start.png").write_bytes(b"x")
    task = operator(
        {"prompt": "x", "input_image": ObjectStoragePath(f"file://{tmp_path}/start.png")},
        model="black-forest-labs/flux-kontext-pro",
        input_schema=SCHEMAS / "black-forest-labs" / "flux-kontext-pro.json",
        strict=True,
    )
    assert runner.run(task).state == "success"


@pytest.mark.parametrize("input", [None, [], {}, "{}", {"prompt": None}], ids=repr)
def test_what_is_no_input_at_all(comet: Emulator, runner: TaskRunner, input: Any) -> None:
    """The general rules come before the schema, which would say less."""
    outcome = runner.run(operator(input, input_schema={"type": "object"}))
    assert outcome.state == "failed"
    assert isinstance(outcome.error, Exception)
    assert e.InvalidInputError.summary in outcome.message
    assert "does not fit" not in outcome.message
