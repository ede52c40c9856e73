"""Files in a prediction's input: an `ObjectStoragePath` is sent as a data URI, and nothing else is ever read."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.inputs.input_files import MAX_DATA_URI_CHARACTERS, embed_files
from tests.support.task_runner import Clock, TaskRunner, dag

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

SCHNELL = "black-forest-labs/flux-schnell"
PICTURE = bytes(range(256)) * 4
ENCODED = base64.b64encode(PICTURE).decode()


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


@pytest.fixture
def picture(tmp_path: Path) -> ObjectStoragePath:
    return stored(tmp_path / "start.png", PICTURE)


def stored(path: Path, content: bytes) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    path.write_bytes(content)
    return ObjectStoragePath(f"file://{path}")


def operator(input: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        return CreatePredictionOperator(task_id="create", model=SCHNELL, input=input, retries=2, **options)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.mp4", "video/mp4"),
        ("a.wav", "audio/wav"),
        ("a.safetensors", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_a_path_becomes_a_data_uri(tmp_path: Path, name: str, media_type: str) -> None:
    """The file's bytes are in the place of its path, at any depth, with the media type that its name tells."""
    path = stored(tmp_path / name, PICTURE)
    uri = f"data:{media_type};base64,{ENCODED}"
    given = {"prompt": "a lighthouse", "image": path, "more": [{"frames": (path, 1)}], "seed": None}
    assert embed_files(given) == {"prompt": "a lighthouse", "image": uri, "more": [{"frames": [uri, 1]}], "seed": None}
    assert given["image"] is path


@pytest.mark.parametrize("given", ["file://{path}", "{path}", "@{path}", "data:{path}"])
def test_text_is_never_a_path(picture: ObjectStoragePath, given: str) -> None:
    """Text stays what it is, also where it is the path of a file: a template may have rendered it."""
    text = given.format(path=picture.path)
    assert embed_files({"image": text}) == {"image": text}


def test_a_path_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A `pathlib` path is neither read nor sent as text: the error names the class that is."""
    with pytest.raises(
        e.InvalidInputError, match=r"input\.image is of type \w*Path; .* airflow\.sdk\.ObjectStoragePath"
    ):
        embed_files({"image": tmp_path / "start.png"})


def test_what_contains_itself_comes_to_an_end() -> None:
    """An input that contains itself is left to the validation."""
    given: dict[str, Any] = {"prompt": "a lighthouse"}
    given["more"] = [given]
    assert embed_files(given)["prompt"] == "a lighthouse"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"input\.list\[1\]: there is no file .*/start\.png \(FileNotFoundError\)"),
        (b"", r"input\.list\[1\]: the file .*/start\.png is empty"),
        (bytes(7_500_000), r"input\.list\[1\]: the file .*/start\.png is larger than 7\.5 MB.* its https URL"),
    ],
    ids=["missing", "empty", "too large"],
)
def test_a_file_that_can_not_be_sent(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The error says where in the input it is, which file, why, and what to do; trying again does not help."""
    path = stored(tmp_path / "start.png", content or b"")
    if content is None:
        path.unlink()
    with pytest.raises(e.InvalidInputError, match=words):
        embed_files({"list": [1, path]})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A path that leads to a folder is refused as one that does not exist."""
    from airflow.sdk import ObjectStoragePath

    with pytest.raises(e.InvalidInputError, match=r"input\.image: there is no file .* \(IsADirectoryError\)"):
        embed_files({"image": ObjectStoragePath(f"file://{tmp_path}")})


def test_the_largest_file(tmp_path: Path) -> None:
    """The longest data URI that is sent is as long as the limit, give or take the three bytes of base64."""
    (uri,) = embed_files([stored(tmp_path / "film.mp4", bytes(7_499_980))])
    assert MAX_DATA_URI_CHARACTERS - 8 <= len(uri) <= MAX_DATA_URI_CHARACTERS


class EndpointError(Exception):
    """As botocore has it, which s3fs passes on: no ``OSError``."""


@pytest.mark.parametrize("error", [ConnectionResetError, EndpointError])
def test_storage_that_does_not_answer(
    picture: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """What may pass is an error that a retry may get over, and says that nothing was paid."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error("gone")

    monkeypatch.setattr(type(picture), "open", fail)
    with pytest.raises(InputFileError, match=rf"nothing was paid.* input\.image: .*{error.__name__}: gone") as caught:
        embed_files({"image": picture})
    assert caught.value.retryable


def test_the_operator_sends_the_file(
    comet: Emulator,
    runner: TaskRunner,
    picture: ObjectStoragePath,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """CometAPI gets the bytes; rendered templates, XCom, record and log get the path at most."""
    from airflow.sdk import ObjectStoragePath

    caplog.set_level(logging.DEBUG)
    template = str(picture).replace("start", "{{ 'start' }}")
    outcome = runner.run(operator({"prompt": "the same by night", "image": ObjectStoragePath(template)}))
    assert (outcome.state, outcome.error) == ("success", None)
    (made,) = comet.ledger()["creates"]
    assert made["input"] == {"prompt": "the same by night", "image": f"data:image/png;base64,{ENCODED}"}
    assert str(picture) in json.dumps(outcome.rendered)
    said = capfd.readouterr()
    kept = [json.dumps(outcome.rendered), json.dumps(outcome.xcoms), json.dumps(runner.record())]
    for text in [*kept, caplog.text, said.out, said.err]:
        assert ENCODED[:64] not in text
    assert len(kept[0]) < 1000


def test_a_paid_prediction_needs_its_file_no_more(
    comet: Emulator, runner: TaskRunner, picture: ObjectStoragePath
) -> None:
    """A retry goes on with what was paid, also if the file is gone."""
    task = operator({"prompt": "the same by night", "image": picture}, wait_for_completion=True, deferrable=True)
    first = runner.run(task)
    assert first.state == "deferred"
    picture.unlink()
    again = runner.run(task, try_number=2)
    assert (again.state, again.error) == ("success", None)
    assert again.result == comet.ledger()["creates"][0]["id"]
    assert len(comet.ledger()["creates"]) == 1


def test_a_missing_file_costs_nothing(comet: Emulator, runner: TaskRunner, picture: ObjectStoragePath) -> None:
    """Without its file nothing is sent, nothing is on record, and the task is not retried."""
    picture.unlink()
    outcome = runner.run(operator({"prompt": "the same by night", "image": picture}))
    assert outcome.state == "failed"
    assert "Not sent, nothing was paid" in outcome.message
    assert comet.ledger()["requests"] == []
    assert runner.record() is None


def test_a_mapped_path_survives_the_dag_file(picture: ObjectStoragePath) -> None:
    """A DAG with paths in an operator's input and in a mapped one can be serialized and read back."""
    from airflow.serialization.serialized_objects import DagSerialization

    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag() as made:
        CreatePredictionOperator(task_id="one", model=SCHNELL, input={"image": picture})
        CreatePredictionOperator.partial(task_id="many", model=SCHNELL).expand(input=[{"image": picture}])
    serialized = json.loads(json.dumps(DagSerialization.to_dict(made)))
    assert json.loads(json.dumps(DagSerialization.to_dict(made))) == serialized
    assert str(picture) in json.dumps(serialized)
    assert set(DagSerialization.from_dict(serialized).task_dict) == {"one", "many"}
