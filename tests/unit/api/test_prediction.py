"""``api/prediction.py``: both wire shapes, every spelling of a status, every shape of an output."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.statuses import normalise_status
from tests.unit.api.test_statuses import SPELLINGS, TERMINAL

ID = "rgz4gtkqmnrma0cpj5k8v5a5q4"
URL = "https://replicate.delivery/xezq/abc/out-0.webp"
PNG = "data:image/png;base64,iVBORw0KGgo="
SUMMARY_KEYS = {
    "id",
    "model",
    "version",
    "status",
    "files",
    "output",
    "error",
    "metrics",
    "created_at",
    "started_at",
    "completed_at",
    "data_removed",
}


def flat(**fields: Any) -> dict[str, Any]:
    """The documented answer to a create, with fields replaced."""
    return {
        "id": ID,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": "a lighthouse"},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "starting",
        "created_at": "2026-03-12T11:27:18.258Z",
        "urls": {"get": f"https://api.replicate.com/v1/predictions/{ID}"},
        **fields,
    }


def wrapped(status: Any, inner: Any, **fields: Any) -> dict[str, Any]:
    """The task envelope around an inner prediction."""
    task = {
        "task_id": ID,
        "action": "generate",
        "status": status,
        "fail_reason": "",
        "submit_time": 1773366766,
        "start_time": 0,
        "finish_time": 0,
        "progress": "50%",
        "data": inner,
        **fields,
    }
    return {"code": "success", "message": "", "data": task}


def read(body: object) -> Prediction:
    """What a query makes of a body."""
    prediction = Prediction.from_body(body, prediction_id=ID)
    assert prediction is not None
    return prediction


@pytest.mark.parametrize(
    "change", [str, str.upper, str.title, lambda raw: f" {raw}\n"], ids=["as is", "upper", "title", "padded"]
)
@pytest.mark.parametrize(("raw", "status"), SPELLINGS, ids=[raw for raw, _ in SPELLINGS])
def test_every_spelling_of_a_status_is_understood(raw: str, status: str, change: Any) -> None:
    """A status is one of six words, whatever its case and spelling, in the flat and in the wrapped shape."""
    assert normalise_status(change(raw)) == status
    prediction = read(flat(status=change(raw)))
    assert (prediction.status, prediction.is_terminal, prediction.has_known_status) == (
        status,
        status in TERMINAL,
        True,
    )
    assert prediction.succeeded is (status == "succeeded")
    output = [URL] if status == "succeeded" else None
    assert read(wrapped(change(raw), {"output": output})).status == status


@pytest.mark.parametrize(
    ("raw", "kept"),
    [("Teleporting", "Teleporting"), ("UNKNOWN", "UNKNOWN"), ("", "unknown"), (None, "unknown"), (7, "unknown")],
)
def test_an_unknown_status_counts_as_running_and_is_kept(raw: object, kept: str) -> None:
    """A word that is not known is kept as the server said it, and never ends a wait."""
    assert normalise_status(raw) == kept
    prediction = Prediction(id=ID, status=normalise_status(raw))
    assert (prediction.is_terminal, prediction.succeeded, prediction.has_known_status) == (False, False, False)


def test_a_flat_body_is_read_whole() -> None:
    """All fields of a documented answer arrive in the prediction."""
    body = flat(
        status="succeeded",
        output=[URL],
        logs="Using seed: 1",
        metrics={"predict_time": 0.5},
        started_at="2026-03-12T11:27:19Z",
        completed_at="2026-03-12T11:27:20Z",
    )
    assert read(body) == Prediction(
        id=ID,
        status="succeeded",
        model="black-forest-labs/flux-schnell",
        version="hidden",
        output=[URL],
        error=None,
        logs="Using seed: 1",
        metrics={"predict_time": 0.5},
        created_at="2026-03-12T11:27:18.258Z",
        started_at="2026-03-12T11:27:19Z",
        completed_at="2026-03-12T11:27:20Z",
        data_removed=False,
    )


@pytest.mark.parametrize("status", ["SUCCESS", "IN_PROGRESS", "FAILURE"])
@pytest.mark.parametrize("own", ["succeeded", "failed", "canceled", "aborted"])
def test_the_wrapped_body_means_what_its_inner_prediction_says(own: str, status: str) -> None:
    """A terminal inner status wins over the envelope's, and both shapes give an equal prediction."""
    inner = flat(status=own, output=[URL], error="E1001" if own == "failed" else None)
    assert read(wrapped(status, inner)) == read(inner)


@pytest.mark.parametrize(
    ("status", "inner", "expected"),
    [
        ("SUCCESS", None, "processing"),
        ("SUCCESS", {}, "processing"),
        ("SUCCESS", flat(status="processing"), "processing"),
        ("SUCCESS", flat(status="starting"), "processing"),
        ("FAILURE", None, "failed"),
        ("FAILURE", flat(status="processing"), "failed"),
        ("CANCELLED", None, "canceled"),
        ("QUEUED", {"id": ID, "status": "PENDING"}, "starting"),
        ("IN_PROGRESS", "", "processing"),
        ("NOT_START", [], "starting"),
        ("UNKNOWN", None, "UNKNOWN"),
        ("UNKNOWN", flat(status="warming_up"), "warming_up"),
        ("SUCCESS", {"output": [URL]}, "succeeded"),
        ("SUCCESS", flat(status=None, output=[URL]), "succeeded"),
        ("SUCCESS", flat(status="", output=[URL]), "succeeded"),
        ("SUCCESS", flat(status="processing", output=["Here"]), "processing"),
        ("IN_PROGRESS", flat(status=None, output=["Here"]), "processing"),
    ],
)
def test_the_envelope_decides_where_the_inner_prediction_does_not(status: str, inner: object, expected: str) -> None:
    """Without a terminal inner status the envelope's counts, but a success without output yet is still running."""
    assert read(wrapped(status, inner)).status == expected


NO_STATUS = {"id": ID, "output": None}
MISSING_OUTPUT: list[tuple[dict[str, Any], str | None]] = [
    (wrapped("SUCCESS", None), "the task says SUCCESS, its data is null"),
    (wrapped("completed", "not yet"), 'the task says completed, its data is "not yet"'),
    (wrapped("SUCCESS", ""), 'the task says SUCCESS, its data is ""'),
    (wrapped("SUCCESS", []), "the task says SUCCESS, its data is []"),
    (wrapped("SUCCESS", 7), "the task says SUCCESS, its data is 7"),
    (wrapped("SUCCESS", {}), "the task says SUCCESS, its data has no output"),
    (wrapped("SUCCESS", NO_STATUS), "the task says SUCCESS, its data has no output"),
    (
        wrapped("SUCCESS", flat(status="starting")),
        'the task says SUCCESS, its data has the status "starting" and no output',
    ),
    (wrapped("SUCCESS", flat(status=None)), "the task says SUCCESS, its data has the status null and no output"),
    ({"code": "success", "data": {"task_id": ID, "status": "SUCCESS"}}, "the task says SUCCESS, it has no data"),
    (wrapped("SUCCESS", flat(status="processing", output=["Here"])), None),
    (wrapped("SUCCESS", flat(status="succeeded")), None),
    (wrapped("SUCCESS", {"output": [URL]}), None),
    (wrapped("IN_PROGRESS", None), None),
    (wrapped("FAILURE", None), None),
    (flat(status="processing"), None),
    (flat(status="succeeded"), None),
]


@pytest.mark.parametrize(("body", "words"), MISSING_OUTPUT, ids=[str(words) for _, words in MISSING_OUTPUT])
def test_a_success_without_output_says_what_came(body: dict[str, Any], words: str | None) -> None:
    """If the envelope says that a task has succeeded, and there is no output, words say what is there instead."""
    prediction = read(body)
    assert prediction.missing_output == words
    if words is not None:
        assert (prediction.status, prediction.is_terminal) == ("processing", False)
        ended = prediction.without_output()
        assert (ended.status, ended.output, ended.error, ended.missing_output) == ("succeeded", None, words, None)


def test_words_about_a_missing_output_are_short_and_hold_no_secret() -> None:
    """What came in place of an output is shown as an excerpt."""
    words = read(wrapped("SUCCESS", "key sk-0123456789abcdef " + "x" * 1_000_000)).missing_output
    assert words is not None
    assert "sk-0123456789" not in words
    assert len(words) < 200


def test_the_envelopes_reason_explains_a_failure() -> None:
    """``fail_reason`` is the error of a failed task, unless the inner prediction has words of its own."""
    assert read(wrapped("FAILURE", None, fail_reason="NSFW content")).error == "NSFW content"
    inner = flat(status="failed", error="CUDA out of memory")
    assert read(wrapped("FAILURE", inner, fail_reason="upstream failed")).error == "CUDA out of memory"
    assert read(wrapped("FAILURE", None)).error is None


def test_an_error_that_is_no_text_is_kept_as_json() -> None:
    """A provider's error object is not lost: it becomes JSON text."""
    error = read(flat(status="failed", error={"code": "E1000", "detail": ["x"]})).error
    assert error is not None
    assert json.loads(error) == {"code": "E1000", "detail": ["x"]}


@pytest.mark.parametrize("output", [[URL], URL, ["\n\n", "Here"]])
@pytest.mark.parametrize("status", ["starting", "processing"])
def test_output_does_not_end_a_prediction(status: str, output: object) -> None:
    """A prediction with output is still running while its status says so: tokens arrive one by one."""
    prediction = read(flat(status=status, output=output))
    assert (prediction.is_terminal, prediction.output) == (False, output)


def test_a_success_whose_data_was_removed_is_still_a_success() -> None:
    """``data_removed`` with a null output is read as such, in both shapes."""
    body = flat(status="succeeded", data_removed=True)
    for prediction in (read(body), read(wrapped("SUCCESS", body))):
        assert (prediction.succeeded, prediction.data_removed, prediction.output) == (True, True, None)


@pytest.mark.parametrize("value", [None, "true", 1, "false"])
def test_only_true_means_removed(value: object) -> None:
    """Anything but ``true`` in ``data_removed`` is no removal."""
    assert read(flat(data_removed=value)).data_removed is False


@pytest.mark.parametrize(
    "body", [{"status": "error"}, {"status": "failed", "error": "maintenance"}, {"data": {"status": "failure"}}]
)
def test_a_bad_end_of_nothing_is_no_prediction(body: dict[str, Any]) -> None:
    """A proxy's JSON may say "error" about itself: without any id it is no end, after which a retry would buy again."""
    assert Prediction.from_body(body, prediction_id=ID) is None


@pytest.mark.parametrize("status", ["succeeded", "IN_PROGRESS"])
def test_no_field_but_the_status_is_needed(status: str) -> None:
    """A query's answer with nothing but a status is a prediction with the id that was asked for."""
    assert read({"status": status}) == Prediction(id=ID, status=normalise_status(status))


def test_fields_of_a_wrong_type_are_left_out() -> None:
    """A field of an unexpected type becomes ``None`` instead of breaking the answer."""
    prediction = read(flat(model=7, version=["x"], logs={}, created_at=1773366766))
    assert (prediction.model, prediction.version, prediction.logs, prediction.created_at) == (None, None, None, None)


def test_the_id_that_was_asked_for_wins() -> None:
    """A query answers about the id in its path, whatever id stands in the body."""
    assert read(flat(id="another")).id == ID
    assert read(wrapped("QUEUED", None, task_id="another")).id == ID


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (flat(), "starting"),
        ({"id": ID}, "starting"),
        ({"data": {"id": ID}}, "starting"),
        ({"code": "success", "data": {"id": ID, "status": "processing"}}, "processing"),
        ({"code": "success", "data": {"task_id": ID}}, "unknown"),
        (wrapped("SUBMITTED", None), "starting"),
        (flat(status="processing", output=[URL]), "processing"),
        (flat(status="succeeded", output=URL), "succeeded"),
    ],
    ids=["flat", "id", "data id", "data flat", "task id", "wrapped", "output already", "done already"],
)
def test_a_create_is_accepted_in_every_shape_with_an_id(body: object, status: str) -> None:
    """A create's answer needs an id and nothing else, at the top or in ``data``."""
    prediction = Prediction.from_body(body)
    assert prediction is not None
    assert (prediction.id, prediction.status) == (ID, status)
    assert prediction.is_terminal is (status == "succeeded")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "",
        7,
        {},
        {"id": ""},
        {"id": None},
        {"id": 7},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"code": "success", "data": None},
        {"error": {"message": "x", "code": ""}},
        {"detail": "Request was throttled.", "status": 429},
    ],
    ids=repr,
)
def test_what_describes_no_prediction_is_none(body: object) -> None:
    """A body without an id is no prediction, neither for a create nor for a query."""
    assert Prediction.from_body(body) is None
    assert Prediction.from_body(body, prediction_id=ID) is None


def test_a_query_needs_a_status() -> None:
    """An id alone is no answer to a query: it says nothing about the prediction."""
    assert Prediction.from_body({"id": ID}, prediction_id=ID) is None


FILES = [
    ("none", None, []),
    ("list", [URL, URL + "?2"], [URL, URL + "?2"]),
    ("one URL", URL, [URL]),
    ("http", "http://127.0.0.1:1/x.png", ["http://127.0.0.1:1/x.png"]),
    ("data URI", PNG, [PNG]),
    ("list of data URIs", [PNG, URL], [PNG, URL]),
    ("tokens", ["\n\n", "Here is", " a ha", "iku…"], []),
    ("text", "Here is a haiku", []),
    ("object", {"image": URL, "seed": 7, "mask": PNG}, [URL, PNG]),
    ("nested", {"frames": [{"url": URL}, [PNG, None, 1.5, True]], "caption": "a https://x"}, [URL, PNG]),
    ("number", 7, []),
    ("true", True, []),
    ("empty list", [], []),
    ("empty text", "", []),
]


@pytest.mark.parametrize(("output", "files"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_files_are_every_url_in_order(output: object, files: list[str]) -> None:
    """``files`` holds all URLs and data URIs in order, whatever the output's shape."""
    assert Prediction(ID, "succeeded", output=output).files == files


@pytest.mark.parametrize(
    "text", ["data: the results, in short", "https://example.com is a good place to start, I think", "data:,\nand more"]
)
def test_text_that_begins_like_a_url_is_no_file(text: str) -> None:
    """A language model's prose is text, even if its first word looks like a URL."""
    prediction = Prediction(ID, "succeeded", output=text)
    assert prediction.files == []
    assert prediction.summary()["output"] == text


def test_a_prediction_can_not_be_changed() -> None:
    """A prediction is a value: its fields are frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(flat()).status = "succeeded"  # type: ignore[misc]
