"""``inputs/prepare.py``: an input is checked before anything is paid, and each file in it is read once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.inputs.input_files import MAX_DATA_URI_CHARACTERS
from airflow_provider_comet.inputs.prepare import check_input, prepare_request
from airflow_provider_comet.inputs.schemas import InputSchema, InputSchemaError
from tests.support.task_runner import Clock, TaskRunner, dag

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

SCHNELL = "black-forest-labs/flux-schnell"
SCHEMAS = Path(__file__).parents[3] / "example_dags" / "schemas"
SCHEMA = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "num_outputs": {"type": "integer"},
        "image": {"type": "string", "format": "uri", "pattern": "^data:image/png;base64,"},
        "frames": {"type": "array", "uniqueItems": True},
    },
}
BOTH = pytest.mark.parametrize("check", [check_input, prepare_request], ids=["check_input", "prepare_request"])
Check = Callable[..., Any]


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that were opened, in order."""
    from airflow.sdk import ObjectStoragePath

    paths: list[str] = []
    original = ObjectStoragePath.open

    def open(path: Any, *args: Any, **kwargs: Any) -> Any:
        paths.append(path.name)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(ObjectStoragePath, "open", open)
    return paths


def stored(path: Path, content: bytes) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    path.write_bytes(content)
    return ObjectStoragePath(f"file://{path}")


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


def test_the_request_has_the_file_in_it(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The request carries the content of the file, which is read once, and the request contract is checked once."""
    checked: list[object] = []
    check_create = protocol.check_create

    def check(model: object, input: object) -> None:
        checked.append(input)
        check_create(model, input)

    monkeypatch.setattr(protocol, "check_create", check)
    input = {"prompt": "x", "image": stored(tmp_path / "a.png", b"abc"), "nun_outputs": 2}
    request, warnings = prepare_request(SCHNELL, input, InputSchema(SCHEMA, "the schema"), strict=False)
    complete = {"prompt": "x", "image": "data:image/png;base64,YWJj", "nun_outputs": 2}
    assert (request.may_cost_money, request.path) == (True, f"/replicate/v1/models/{SCHNELL}/predictions")
    assert json.loads(request.body or b"") == {"input": complete}
    (warning,) = warnings
    assert warning.startswith("input.nun_outputs is not a parameter that the schema knows (did you mean")
    assert warning.endswith("it is sent anyway (strict=True refuses it)")
    assert (checked, opened) == ([complete], ["a.png"])


def test_a_check_loads_no_file(tmp_path: Path, opened: list[str]) -> None:
    """A check finds what the schema refuses, such as a media type or a length, without loading the file."""
    schema = InputSchema(SCHEMA, "the schema")
    input = {"prompt": "x", "image": stored(tmp_path / "a.png", b"abc"), "nun_outputs": 2}
    (warning,) = check_input(SCHNELL, input, schema, strict=False)
    assert "input.nun_outputs is not a parameter" in warning
    for other in (input | {"image": stored(tmp_path / "a.webp", b"abc")}, input | {"num_outputs": "2"}):
        with pytest.raises(InputSchemaError):
            check_input(SCHNELL, other, schema, strict=False)
    with pytest.raises(InputSchemaError, match="nun_outputs"):
        check_input(SCHNELL, input, schema, strict=True)
    assert opened == []


def test_a_file_that_cannot_be_read_is_found_before_anything_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that lists a file and refuses to give it shows in the check, and not between the creates of a batch."""
    path = stored(tmp_path / "a.png", b"abc")

    def refuse(*args: object, **kwargs: object) -> bytes:
        raise PermissionError("no GET for you")

    monkeypatch.setattr(type(path.fs), "open", refuse)
    with pytest.raises(InputFileError, match="no GET for you"):
        check_input(SCHNELL, {"prompt": "x", "image": path}, None, strict=False)


@pytest.mark.parametrize("size", [1, 3, 4, 100, 1000])
def test_a_check_knows_the_length_of_the_data_uri(tmp_path: Path, size: int) -> None:
    """A schema's limit on the length of a text says the same of the check and of the request."""
    input = {"image": stored(tmp_path / "a.png", bytes(size))}
    request, _ = prepare_request(SCHNELL, input, None, strict=False)
    length = len(json.loads(request.body or b"")["input"]["image"])
    for limit in ({"minLength": length}, {"maxLength": length}):
        check_input(SCHNELL, input, InputSchema({"properties": {"image": limit}}, "the schema"), strict=False)
    for limit in ({"minLength": length + 1}, {"maxLength": length - 1}):
        with pytest.raises(InputSchemaError):
            check_input(SCHNELL, input, InputSchema({"properties": {"image": limit}}, "the schema"), strict=False)


def test_a_check_tells_files_apart(tmp_path: Path) -> None:
    """A schema that wants unique items takes two files of the same size, but not the same file twice."""
    first, second = stored(tmp_path / "a.png", b"a" * 99), stored(tmp_path / "b.png", b"b" * 99)
    schema = InputSchema(SCHEMA, "the schema")
    for check in (check_input, prepare_request):
        check(SCHNELL, {"frames": [first, second]}, schema, strict=True)
        with pytest.raises(InputSchemaError):
            check(SCHNELL, {"frames": [first, first]}, schema, strict=True)


@BOTH
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"input\.list\[1\]: there is no file .*/start\.png \(FileNotFoundError\)"),
        (b"", r"input\.list\[1\]: the file .*/start\.png is empty"),
        (bytes(7_500_000), r"input\.list\[1\]: the file .*/start\.png is larger than 7\.5 MB.* its https URL"),
    ],
    ids=["missing", "empty", "too large"],
)
def test_a_file_that_can_not_be_sent(tmp_path: Path, check: Check, content: bytes | None, text: str) -> None:
    """The error says where in the input the file is, which file, why, and what to do."""
    path = stored(tmp_path / "start.png", content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(e.InvalidInputError, match=text):
        check(SCHNELL, {"list": [1, path]}, None, strict=False)


@BOTH
def test_a_folder_is_no_file(tmp_path: Path, check: Check) -> None:
    """A path that leads to a folder is refused like a path that leads nowhere."""
    from airflow.sdk import ObjectStoragePath

    with pytest.raises(e.InvalidInputError, match=r"input\.image: there is no file .* \(IsADirectoryError\)"):
        check(SCHNELL, {"image": ObjectStoragePath(f"file://{tmp_path}")}, None, strict=False)


@BOTH
def test_the_largest_file(tmp_path: Path, check: Check) -> None:
    """A file whose data URI is just as long as the limit can be sent."""
    size = (MAX_DATA_URI_CHARACTERS - len("data:video/mp4;base64,")) // 4 * 3
    check(SCHNELL, {"film": stored(tmp_path / "film.mp4", bytes(size))}, None, strict=False)
    with pytest.raises(e.InvalidInputError, match="is larger than"):
        check(SCHNELL, {"film": stored(tmp_path / "film.mp4", bytes(size + 1))}, None, strict=False)


def test_a_check_of_storage_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble in reading the size of a file may pass: a retry can help, and nothing was paid."""
    path = stored(tmp_path / "a.png", b"abc")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(type(path.fs), "info", fail)
    with pytest.raises(
        InputFileError, match=r"nothing was paid.* input\.image: .*ConnectionResetError: gone"
    ) as caught:
        check_input(SCHNELL, {"image": path}, None, strict=False)
    assert caught.value.retryable


@pytest.mark.parametrize("size", [None, 0])
def test_storage_that_does_not_tell_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    """A web server, or a special file, need not tell a size: the first byte says whether the file is empty."""
    full, empty = stored(tmp_path / "a.png", b"abc"), stored(tmp_path / "b.png", b"")
    monkeypatch.setattr(type(full.fs), "info", lambda *args: {"type": "file", "size": size})
    assert check_input(SCHNELL, {"image": full}, InputSchema(SCHEMA, "the schema"), strict=True) == []
    with pytest.raises(e.InvalidInputError, match="is empty"):
        check_input(SCHNELL, {"image": empty}, None, strict=False)


@BOTH
@pytest.mark.parametrize("input", [None, [], {}, "{}", {"prompt": None}, {"prompt": float("nan")}], ids=repr)
def test_the_contract_comes_before_the_schema(check: Check, input: Any) -> None:
    """What no model takes is refused by the request contract: the schema would say less, or nothing."""
    with pytest.raises(e.InvalidInputError) as caught:
        check(SCHNELL, input, InputSchema({"type": "object"}, "the schema"), strict=True)
    assert type(caught.value) is e.InvalidInputError
    assert "does not fit" not in str(caught.value)
    with pytest.raises(e.InvalidInputError, match="owner/name"):
        check("flux-schnell", {"prompt": "x"}, None, strict=False)


@BOTH
def test_a_check_without_a_schema(check: Check) -> None:
    """Without a schema any input of the right form passes, and a strict check is refused."""
    request = protocol.create_prediction(SCHNELL, {"prompt": 7})
    assert check(SCHNELL, {"prompt": 7}, None, strict=False) == ([] if check is check_input else (request, []))
    with pytest.raises(e.InvalidInputError, match=f"strict=True, but there is no schema for {SCHNELL}"):
        check(SCHNELL, {"prompt": "x"}, None, strict=True)


def test_a_batch_reads_each_file_once(comet: Emulator, runner: TaskRunner, tmp_path: Path, opened: list[str]) -> None:
    """A batch checks all its inputs without reading their files, and reads each file right before its create."""
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    inputs: list[Any] = [{"prompt": "x", "image": stored(tmp_path / f"{name}.png", b"abc")} for name in "ab"]
    with dag():
        task = CreatePredictionBatchOperator(task_id="batch", model=SCHNELL, inputs=inputs)
    assert runner.run(task).state == "success"
    assert sorted(opened) == ["a.png", "b.png"]
    (tmp_path / "b.png").unlink()
    with dag():
        task = CreatePredictionBatchOperator(task_id="again", model=SCHNELL, inputs=inputs)
    outcome = runner.run(task)
    assert (outcome.state, "there is no file" in outcome.message) == ("failed", True)
    assert len(comet.ledger()["creates"]) == 2
    assert len(opened) == 2


@pytest.mark.parametrize("folder", ["", str(SCHEMAS)])
def test_strict_without_a_schema(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A strict check without a schema fails the task before anything is paid."""
    monkeypatch.setenv("AIRFLOW__COMET__INPUT_SCHEMAS", folder)
    outcome = runner.run(operator({"prompt": "x"}, model="meta/meta-llama-3-8b-instruct", strict=True))
    assert outcome.state == "failed"
    assert "strict=True, but there is no schema for meta/meta-llama-3-8b-instruct" in outcome.message
    assert comet.ledger()["requests"] == []


def test_unknown_keys(comet: Emulator, runner: TaskRunner, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that the schema does not know is sent with a warning in the task's log, or refused by `strict`."""
    input = {"prompt": "x", "num_output": 2}
    assert runner.run(operator(input, input_schema=SCHEMA)).state == "success"
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "is not a parameter" in line]
    assert "[warning" in warning
    assert 'input.num_output is not a parameter that input_schema knows (did you mean "num_outputs"?)' in warning
    outcome = runner.run(operator(input, input_schema=SCHEMA, strict=True, task_id="other"))
    assert outcome.state == "failed"
    assert 'did you mean "num_outputs"?' in outcome.message
    assert len(comet.ledger()["creates"]) == 1


def test_a_file_of_the_input_is_a_url(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """A file of the input fits where the schema wants a URL."""
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
def test_a_task_whose_input_is_no_object(comet: Emulator, runner: TaskRunner, input: Any) -> None:
    """The operator fails by the request contract, which comes before the schema."""
    outcome = runner.run(operator(input, input_schema={"type": "object"}))
    assert outcome.state == "failed"
    assert isinstance(outcome.error, Exception)
    assert e.InvalidInputError.summary in outcome.message
    assert "does not fit" not in outcome.message
