"""``api/protocol.py`` against answers that are made to break whoever reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.outcome import judge
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import Response
from tests.support.characters import acting
from tests.support.growth import assert_linear

CREATE = protocol.create_prediction("a/b", {"prompt": "x"})
POLL = protocol.get_prediction("abc")
MODELS = protocol.list_models()

SHAPES = [
    *(
        " ",
        "\n",
        "a",
        "(",
        "(request id: ",
        "(request id: x",
        " (request id",
        "(request id: a)",
        "<",
        "<title",
        "<TITLE ",
    ),
    *("<title>", "<title>a", "<title></", "</title>", "data:", "://", "https://a", "sk-", "bearer ", "\u202e"),
]


def read(request: protocol.Request, response: Response) -> Prediction | e.CometError:
    try:
        return protocol.read_prediction(request, response)
    except e.CometError as error:
        return error


@pytest.mark.parametrize("shape", SHAPES, ids=ascii)
def test_an_answer_is_read_in_linear_time(shape: str) -> None:
    """Megabytes of anything, as a web page or as an error's message, keep no triggerer busy."""

    def web_page(text: str) -> None:
        read(POLL, Response(404, {"content-type": "text/html"}, "<html>" + text))

    def message(text: str) -> None:
        read(CREATE, Response(500, {}, json.dumps({"error": {"message": text, "code": text}, "detail": text})))

    for call in (web_page, message):
        assert_linear(call, shape, sizes=(1_000, 10_000, 100_000, 1_000_000))


def test_a_request_id_is_found_wherever_it_stands() -> None:
    """At the end of megabytes, too: support asks for it."""
    body = {"error": {"message": "(request id: " * 100_000 + "no (request id: 2026ABC)", "code": "x"}}
    error = read(POLL, Response(500, {}, json.dumps(body)))
    assert isinstance(error, e.ServerError)
    assert error.request_id == "2026ABC"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("succeeded"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *(
        "error",
        "code",
        "message",
        "detail",
        "title",
        "data",
        "id",
        "task_id",
        "status",
        "output",
        "metrics",
        "request_id",
    ),
    *("model", "version", "fail_reason", "logs", "retry_after", "created_at", "completed_at", "data_removed", "input"),
)
BODIES = st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6), max_leaves=12)
HEADERS = st.dictionaries(
    st.sampled_from(["date", "retry-after", "ratelimit-reset", "content-type", "x-cometapi-request-id", "cf-ray"]),
    st.text(max_size=20),
)


def deep(levels: int) -> Any:
    """A value in so many lists."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@settings(max_examples=60)
@given(BODIES, st.integers(100, 999), HEADERS, st.sampled_from([CREATE, POLL]))
def test_every_answer_is_a_prediction_or_an_error(
    body: Any, status: int, headers: dict[str, str], request: protocol.Request
) -> None:
    """Whatever JSON comes with whatever status: a prediction, or an error that is plain JSON, and nothing else."""
    response = Response(status, headers, json.dumps(body))
    check(read(request, response))
    assert protocol.is_rate_limited(request, response) in {True, False}
    try:
        assert protocol.read_models(MODELS, response) >= 0
    except e.CometError as error:
        check(error)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("levels", [199, 400, 800, 100_000])
def test_a_deep_answer_is_a_prediction_or_an_error(field: str, levels: int) -> None:
    """Nesting that Python can't walk is no exception of its own, in whatever field."""
    text = json.dumps({"id": "abc", "status": "succeeded", field: 0})
    hostile = text.replace(f'"{field}": 0', f'"{field}": {"[" * levels + "]" * levels}')
    for status in (200, 400, 500):
        for error in (hostile, f'{{"error": {hostile}}}'):
            check(read(POLL, Response(status, {}, error)))


def check(result: Prediction | e.CometError) -> None:
    """It can be shown, judged, and carried."""
    if isinstance(result, Prediction):
        json.dumps(result.summary())
        try:
            judge(result, allow_empty=False)
        except e.CometError as error:
            result = error
        else:
            return
    assert acting(str(result)) == []
    assert len(str(result)) < 1_500
    carried = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert e.CometError.from_dict(carried).to_dict() == result.to_dict()
