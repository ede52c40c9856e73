"""``inputs/input_files.py``: an `ObjectStoragePath` is sent as a data URI, and nothing else is ever read."""

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
from airflow_provider_comet.inputs.input_files import check_files, embed_files
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
    """A path at any depth is replaced by the file's content, with the media type that belongs to its suffix."""
    path = stored(tmp_path / name, PICTURE)
    uri = f"data:{media_type};base64,{ENCODED}"
    input = {"prompt": "a lighthouse", "image": path, "more": [{"frames": (path, 1)}], "seed": None}
    assert embed_files(input) == {"prompt": "a lighthouse", "image": uri, "more": [{"frames": [uri, 1]}], "seed": None}
    assert input["image"] is path


def test_a_stand_in_has_the_form_of_the_data_uri(tmp_path: Path) -> None:
    """In place of a path, a check has a text with the media type and the length of the data URI."""
    for size in (1, 2, 3, 47, 48, 49, 1000):
        input = {"more": [{"frames": (stored(tmp_path / "a.png", bytes(size)), 1)}]}
        (uri, _), (stand_in, number) = (replace(input)["more"][0]["frames"] for replace in (embed_files, check_files))
        assert (len(stand_in), number) == (len(uri), 1)
        assert stand_in.startswith("data:image/png;base64,")
        assert base64.b64decode(stand_in.partition(",")[2], validate=True)


@pytest.mark.parametrize("template", ["file://{path}", "{path}", "@{path}", "data:{path}"])
def test_text_is_never_a_path(picture: ObjectStoragePath, template: str) -> None:
    """Text is sent as text, even if it is the path of a file: a template may have rendered it."""
    text = template.format(path=picture.path)
    assert embed_files({"image": text}) == {"image": text}


def test_a_path_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A `pathlib` path is neither read nor sent as text: the error names the class to use."""
    with pytest.raises(
        e.InvalidInputError, match=r"input\.image is of type \w*Path; .* airflow\.sdk\.ObjectStoragePath"
    ):
        embed_files({"image": tmp_path / "start.png"})


def test_an_input_that_contains_itself_is_not_followed_forever() -> None:
    """An input that contains itself is copied to a limited depth; the request contract refuses it afterwards."""
    input: dict[str, Any] = {"prompt": "a lighthouse"}
    input["more"] = [input]
    assert embed_files(input)["prompt"] == "a lighthouse"


class EndpointError(Exception):
    """Like the error of botocore that s3fs raises, which is no ``OSError``."""


@pytest.mark.parametrize("error", [ConnectionResetError, EndpointError])
def test_storage_that_does_not_answer(
    picture: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Trouble in reading a file may pass: a retry can help, and the error says that nothing was paid."""

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
    """CometAPI gets the content; rendered templates, XCom, record and log hold at most the path."""
    from airflow.sdk import ObjectStoragePath

    caplog.set_level(logging.DEBUG)
    template = str(picture).replace("start", "{{ 'start' }}")
    outcome = runner.run(operator({"prompt": "the same by night", "image": ObjectStoragePath(template)}))
    assert (outcome.state, outcome.error) == ("success", None)
    (made,) = comet.ledger()["creates"]
    assert made["input"] == {"prompt": "the same by night", "image": f"data:image/png;base64,{ENCODED}"}
    assert str(picture) in json.dumps(outcome.rendered)
    printed = capfd.readouterr()
    stored_texts = [json.dumps(outcome.rendered), json.dumps(outcome.xcoms), json.dumps(runner.record())]
    for text in [*stored_texts, caplog.text, printed.out, printed.err]:
        assert ENCODED[:64] not in text
    assert len(stored_texts[0]) < 1000


def test_a_paid_prediction_no_longer_needs_its_file(
    comet: Emulator, runner: TaskRunner, picture: ObjectStoragePath
) -> None:
    """A retry continues with the paid prediction, even if the file no longer exists."""
    task = operator({"prompt": "the same by night", "image": picture}, wait_for_completion=True, deferrable=True)
    first = runner.run(task)
    assert first.state == "deferred"
    picture.unlink()
    again = runner.run(task, try_number=2)
    assert (again.state, again.error) == ("success", None)
    assert again.result == comet.ledger()["creates"][0]["id"]
    assert len(comet.ledger()["creates"]) == 1


def test_a_missing_file_costs_nothing(comet: Emulator, runner: TaskRunner, picture: ObjectStoragePath) -> None:
    """If the file is missing, nothing is sent or recorded, and the task is not retried."""
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
