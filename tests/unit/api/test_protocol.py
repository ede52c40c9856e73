"""``api/protocol.py``: which requests there are, and what every answer means to a query and to a create."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol

KEY = "sk-Abc123_def-456GHI789"
ID = "rgz4gtkqmnrma0cpj5k8v5a5q4"
REQUEST_ID = "20260205132859798638387SIHCnxzJ"
PAGE = "<!doctype html>\n<html><head><title>CometAPI</title></head><body>secret</body></html>"
GATEWAY_PAGE = "<html>\r\n<head><title>502 Bad Gateway</title></head></html>"

CREATE = protocol.create_prediction("black-forest-labs/flux-schnell", {"prompt": "x"})
QUERY = protocol.get_prediction(ID)
MODELS = protocol.list_models()

HTML = {"content-type": "text/html; charset=utf-8"}
CLOUDFLARE = {"cf-ray": "8f0-FRA"}


def envelope(message: str, code: object = "", **more: Any) -> dict[str, Any]:
    """CometAPI's error envelope."""
    return {"error": {"message": message, "type": "comet_api_error", "param": "", "code": code}, **more}


def answer(status: int, body: object, headers: Mapping[str, str] | None = None, key: str = KEY) -> protocol.Response:
    """An answer as a client takes it in."""
    text = body if isinstance(body, str) else json.dumps(body)
    return protocol.Response.received(status, headers or {}, text.encode(), key)


def refused(request: protocol.Request, response: protocol.Response) -> e.CometError:
    """The error that an answer means."""
    with pytest.raises(e.CometError) as caught:
        protocol.read_prediction(request, response)
    return caught.value


@dataclass(frozen=True)
class Row:
    """One answer and what it means.

    :param safe: whether it proves that a create was not accepted; otherwise the create is ambiguous.
    :param create: the class for a create where it differs from the query's.
    """

    name: str
    status: int
    body: object
    query: type[e.APIError]
    safe: bool
    code: str | None = None
    says: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    create: type[e.APIError] | None = None


PROBLEM_401 = {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token", "status": 401}
THROTTLED = {"detail": "Request was throttled. Your rate limit resets in ~30s.", "status": 429, "retry_after": 5}
FASTAPI = {"detail": [{"loc": ["body", "input", "prompt"], "msg": "Field required", "type": "missing"}]}
NO_CHANNEL = "no available channel for group default and model sora-2-all (distributor)"
TASK = {"code": "task_not_exist", "message": "task_not_exist", "data": None}

ROWS = [
    # rejected: a create is not repeated; a code that is about creates says nothing about a query
    Row("400", 400, envelope("model name is required"), e.BadRequestError, True, says="model name is required"),
    Row(
        "400 without code",
        400,
        {"error": {"message": "not priced", "type": "comet_api_error"}},
        e.BadRequestError,
        True,
        says="not priced",
    ),
    Row("400 null code", 400, envelope("no", None), e.BadRequestError, True, says="no"),
    Row("400 unknown code", 400, envelope("no", "odd_code"), e.BadRequestError, True, "odd_code", "no"),
    Row("400 text", 400, "bad request", e.BadRequestError, True, says="bad request"),
    Row("400 empty", 400, "", e.BadRequestError, True),
    Row("401", 401, envelope("Invalid token"), e.AuthenticationError, True, says="Invalid token"),
    Row("401 problem", 401, PROBLEM_401, e.AuthenticationError, True, says="You did not pass a valid"),
    Row(
        "401 page", 401, PAGE, e.AuthenticationError, True, headers=HTML, says="a web page came back, titled 'CometAPI'"
    ),
    Row("402", 402, envelope("pay"), e.BalanceExhaustedError, True, says="pay"),
    Row("403", 403, envelope("not allowed"), e.PermissionDeniedError, True, says="not allowed"),
    Row(
        "403 permission_denied",
        403,
        envelope("no", "permission_denied"),
        e.PermissionDeniedError,
        True,
        "permission_denied",
        "no",
    ),
    Row(
        "403 quota",
        403,
        envelope("user quota is not enough", "insufficient_user_quota"),
        e.PermissionDeniedError,
        True,
        "insufficient_user_quota",
        "user quota",
        create=e.BalanceExhaustedError,
    ),
    Row(
        "403 token quota",
        403,
        envelope("token quota is not enough", "pre_consume_token_quota_failed"),
        e.PermissionDeniedError,
        True,
        "pre_consume_token_quota_failed",
        "token quota",
        create=e.BalanceExhaustedError,
    ),
    Row("405", 405, "", e.WrongURLError, True),
    Row("409", 409, {"detail": "conflict"}, e.BadRequestError, True, says="conflict"),
    Row("413", 413, "Payload Too Large", e.BadRequestError, True, says="Payload Too Large"),
    Row(
        "422",
        422,
        {"title": "Input validation failed", "detail": "- input: prompt is required", "status": 422},
        e.BadRequestError,
        True,
        says="prompt is required",
    ),
    Row("422 cog", 422, FASTAPI, e.BadRequestError, True, says="Field required"),
    Row(
        "422 title only", 422, {"title": "Unprocessable", "status": 422}, e.BadRequestError, True, says="Unprocessable"
    ),
    Row(
        "500 invalid_request",
        500,
        envelope("field messages is required", "invalid_request"),
        e.ServerError,
        True,
        "invalid_request",
        "field messages is required",
        create=e.BadRequestError,
    ),
    Row(
        "500 convert",
        500,
        envelope("not supported model for image generation", "convert_request_failed"),
        e.ServerError,
        True,
        "convert_request_failed",
        "not supported",
        create=e.BadRequestError,
    ),
    Row(
        "503 model_not_found",
        503,
        envelope(NO_CHANNEL, "model_not_found"),
        e.ServerError,
        True,
        "model_not_found",
        NO_CHANNEL,
        create=e.ModelNotFoundError,
    ),
    Row(
        "200 invalid_request",
        200,
        envelope("field prompt is required", "invalid_request"),
        e.ServerError,
        True,
        "invalid_request",
        "field prompt",
        create=e.BadRequestError,
    ),
    # not found: the model for a create, the prediction for a query
    Row(
        "404",
        404,
        {"detail": "The requested resource could not be found.", "status": 404},
        e.PredictionNotFoundError,
        True,
        says="could not be found",
        create=e.ModelNotFoundError,
    ),
    Row(
        "400 task_not_exist",
        400,
        TASK,
        e.PredictionNotFoundError,
        True,
        "task_not_exist",
        "task_not_exist",
        create=e.BadRequestError,
    ),
    Row("200 task_not_exist", 200, TASK, e.PredictionNotFoundError, False, "task_not_exist", "task_not_exist"),
    Row("200 data null", 200, {"code": "success", "message": "", "data": None}, e.PredictionNotFoundError, False),
    # wrong address
    Row("200 page", 200, PAGE, e.WrongURLError, False, says="titled 'CometAPI'", headers=HTML),
    Row("200 page, no type", 200, "\n  " + PAGE, e.WrongURLError, False, says="titled 'CometAPI'"),
    Row(
        "200 page, upper case", 200, "<HTML><BODY>x</BODY></HTML>", e.WrongURLError, False, says="a web page came back"
    ),
    Row("404 page", 404, PAGE, e.WrongURLError, True, says="a web page", headers=HTML),
    Row("301", 301, "", e.WrongURLError, True, headers={"location": "https://elsewhere.example/"}),
    Row("302 page", 302, PAGE, e.WrongURLError, True, headers=HTML),
    Row("308", 308, "", e.WrongURLError, True),
    # may pass: a query continues; a create is repeated only where nothing can have been accepted
    Row("429", 429, envelope("slow down", "rate_limited"), e.RateLimitedError, True, "rate_limited", "slow down"),
    Row(
        "429 header",
        429,
        envelope("slow down"),
        e.RateLimitedError,
        True,
        says="slow",
        headers={"Retry-After": "7"},
        retry_after=7,
    ),
    Row("429 body", 429, THROTTLED, e.RateLimitedError, True, says="Request was throttled", retry_after=5),
    Row("429 page", 429, PAGE, e.RateLimitedError, True, headers=HTML),
    Row("503 envelope", 503, envelope("all channels are busy"), e.ServerError, True, says="all channels are busy"),
    Row(
        "503 envelope, code",
        503,
        envelope("overloaded", "system_busy"),
        e.ServerError,
        True,
        "system_busy",
        "overloaded",
    ),
    Row("503 text", 503, "Service Unavailable", e.ServerError, False, says="Service Unavailable"),
    Row("503 page", 503, PAGE, e.ServerError, False, headers=HTML, says="a web page"),
    Row("503 problem", 503, {"detail": "busy", "status": 503}, e.ServerError, False, says="busy"),
    Row("503 hint", 503, envelope("busy"), e.ServerError, True, headers={"retry-after": "3"}, retry_after=3),
    Row("500 envelope", 500, envelope("do request failed"), e.ServerError, False, says="do request failed"),
    Row(
        "500 lost answer",
        500,
        envelope("read", "read_response_body_failed"),
        e.ServerError,
        False,
        "read_response_body_failed",
    ),
    Row("500 no answer", 500, envelope("do", "do_request_failed"), e.ServerError, False, "do_request_failed"),
    Row("500 empty", 500, "", e.ServerError, False),
    Row("500 JSON", 500, {"detail": "Internal Server Error"}, e.ServerError, False, says="Internal Server Error"),
    Row("502", 502, GATEWAY_PAGE, e.ServerError, False, headers=HTML, says="titled '502 Bad Gateway'"),
    Row("502 envelope", 502, envelope("bad gateway"), e.ServerError, False, says="bad gateway"),
    Row("504", 504, "", e.ServerError, False),
    Row("504 envelope", 504, envelope("timeout"), e.ServerError, False, says="timeout"),
    Row("520", 520, PAGE, e.ServerError, False, headers=HTML | CLOUDFLARE),
    Row("522", 522, PAGE, e.ServerError, False, headers=HTML | CLOUDFLARE),
    Row("524", 524, PAGE, e.ServerError, False, headers=HTML | CLOUDFLARE),
    Row("524 envelope", 524, envelope("timeout"), e.ServerError, False, says="timeout"),
    *[Row(f"{n}", n, "", e.ServerError, False) for n in (521, 523, 525, 526, 530)],
    *[Row(f"{n} by Cloudflare", n, PAGE, e.ServerError, True, headers=HTML | CLOUDFLARE) for n in (521, 523, 525, 526)],
    Row("530 by Cloudflare", 530, PAGE, e.ServerError, False, headers=HTML | CLOUDFLARE),
    Row("408", 408, "", e.ServerError, False),
    # 2xx that says nothing
    Row("200 empty", 200, "", e.ServerError, False),
    Row("204", 204, "", e.ServerError, False),
    Row("200 text", 200, "OK", e.ServerError, False, says="OK"),
    Row("200 {}", 200, {}, e.ServerError, False),
    Row("200 list", 200, [1], e.ServerError, False),
    Row("200 cut", 200, '{"id": "abc", "status": "star', e.ServerError, False),
    Row("200 envelope", 200, envelope("odd"), e.ServerError, False, says="odd"),
]
BY_NAME = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


@BY_NAME
def test_what_an_answer_means_to_a_query(row: Row) -> None:
    """Each answer to a query becomes the documented class with its status, code, hint, words and next step."""
    error = refused(QUERY, answer(row.status, row.body, row.headers))
    assert type(error) is row.query
    assert (error.status, error.code, error.retry_after) == (row.status, row.code, row.retry_after)
    assert error.prediction_id == ID
    text = str(error)
    assert text.startswith(f"Prediction {ID}: {row.query.summary} (HTTP {row.status}")
    assert row.says in text
    assert text.endswith(row.query.next_step)
    assert "secret" not in text


@BY_NAME
def test_what_an_answer_means_to_a_create(row: Row) -> None:
    """An answer that does not prove a rejection makes a create ambiguous, so that it is never sent a second time."""
    error = refused(CREATE, answer(row.status, row.body, row.headers))
    expected = (row.create or row.query) if row.safe else e.AmbiguousSubmissionError
    assert type(error) is expected
    assert (error.status, error.code, error.prediction_id) == (row.status, row.code, None)
    assert row.says in str(error)
    if row.safe:
        assert error.retry_after == row.retry_after
    else:
        assert error.retryable is False
        assert "may have been accepted and billed" in str(error)


@BY_NAME
def test_an_answers_request_id_is_found_in_its_header(row: Row) -> None:
    """The header ``x-cometapi-request-id`` is the request id of any error, whatever its class and shape."""
    headers = {**row.headers, "X-CometAPI-Request-Id": REQUEST_ID}
    for request in (QUERY, CREATE):
        error = refused(request, answer(row.status, row.body, headers))
        assert error.request_id == REQUEST_ID
        assert f"request id {REQUEST_ID}" in str(error)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if isinstance(row.body, dict) and row.says], ids=lambda row: row.name
)
def test_an_answers_request_id_is_found_in_its_message(row: Row) -> None:
    """The id in ``(request id: ...)`` is found, and shown once: not again in the message."""

    def signed(value: object) -> object:
        if isinstance(value, dict):
            return {name: signed(item) for name, item in value.items()}
        return f"{value} (request id: {REQUEST_ID})" if isinstance(value, str) and row.says in value else value

    body = signed(row.body)
    if isinstance(body, dict) and isinstance(row.body, dict) and "code" in row.body:
        body["code"] = row.body["code"]
    for request in (QUERY, CREATE):
        if "Field required" in row.says:
            continue
        error = refused(request, answer(row.status, body, row.headers))
        assert error.request_id == REQUEST_ID
        assert str(error).count(REQUEST_ID) == 1


def test_the_headers_request_id_wins() -> None:
    """Where header and message name different ids, the header's counts."""
    body = envelope("no (request id: from-the-message)")
    error = refused(QUERY, answer(400, body, {"x-cometapi-request-id": "from-the-header"}))
    assert (error.request_id, error.detail) == ("from-the-header", "no")


def test_an_answers_request_id_is_found_beside_the_error() -> None:
    """The gateway's third place for it, ``request_id`` at the top of the body, is read too."""
    body = {"type": "error", "error": {"type": "x", "message": "overloaded"}, "request_id": REQUEST_ID}
    assert refused(QUERY, answer(529, body)).request_id == REQUEST_ID


def test_no_request_id_is_none() -> None:
    """Without an id anywhere, none is claimed."""
    error = refused(QUERY, answer(500, envelope("x")))
    assert error.request_id is None
    assert "request id" not in str(error).removesuffix(error.next_step)


@pytest.mark.parametrize("status", [200, 201, 202, 299])
@pytest.mark.parametrize(
    "body",
    [{"id": ID, "status": "starting"}, {"code": "success", "data": {"task_id": ID, "status": "NOT_START"}}],
    ids=["flat", "wrapped"],
)
def test_every_2xx_with_a_prediction_is_one(status: int, body: object) -> None:
    """Any 2xx status is an acceptance if the body holds a prediction, in both shapes, for create and query."""
    for request in (CREATE, QUERY):
        prediction = protocol.read_prediction(request, answer(status, body))
        assert (prediction.id, prediction.status) == (ID, "starting")


@pytest.mark.parametrize("status", [300, 301, 400, 401, 404, 429, 500, 503])
def test_a_prediction_in_an_error_answer_is_not_believed(status: int) -> None:
    """A status other than 2xx is an error, also if the body looks like a prediction."""
    assert isinstance(refused(QUERY, answer(status, {"id": ID, "status": "succeeded"})), e.APIError)
    assert isinstance(refused(CREATE, answer(status, {"id": ID, "status": "starting"})), e.CometError)


def test_a_byte_order_mark_does_not_hide_an_accepted_create() -> None:
    """A body that begins with a byte order mark is JSON all the same: its prediction is paid for."""
    body = b"\xef\xbb\xbf" + json.dumps({"id": ID}).encode()
    assert protocol.read_prediction(CREATE, protocol.Response.received(201, {}, body, KEY)).id == ID


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """A body that is no UTF-8 is an unreadable answer, not a crash."""
    error = refused(QUERY, protocol.Response.received(200, {}, b"\xff\xfe\x00{", KEY))
    assert type(error) is e.ServerError


def test_a_body_too_deep_to_read_is_an_unreadable_answer() -> None:
    """JSON nested too deep to parse makes a create ambiguous: after a crash a retry of the task would pay again."""
    assert type(refused(CREATE, answer(201, "[" * 200_000))) is e.AmbiguousSubmissionError


def test_the_create_is_the_documented_request() -> None:
    """The create is a POST to the model's path with the input alone in the body, in UTF-8."""
    request = protocol.create_prediction("a/b", {"prompt": "Türme 🗼"})
    assert (request.method, request.path) == ("POST", "/replicate/v1/models/a/b/predictions")
    assert request.may_cost_money
    assert request.body == '{"input": {"prompt": "Türme 🗼"}}'.encode()
    assert request.prediction_id is None


def test_the_query_is_the_documented_request() -> None:
    """The query is a GET without body, built from the id, and costs nothing."""
    assert (QUERY.method, QUERY.path, QUERY.body) == ("GET", f"/replicate/v1/predictions/{ID}", None)
    assert (QUERY.may_cost_money, QUERY.prediction_id) == (False, ID)


def test_the_models_are_counted() -> None:
    """The list of models is a GET whose answer is counted."""
    assert (MODELS.method, MODELS.path, MODELS.may_cost_money) == ("GET", "/v1/models", False)
    assert protocol.read_models(MODELS, answer(200, {"object": "list", "data": [{"id": "a"}, {"id": "b"}]})) == 2
    assert protocol.read_models(MODELS, answer(200, {"data": []})) == 0


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (401, envelope("Invalid token"), {}, e.AuthenticationError),
        (403, envelope("no"), {}, e.PermissionDeniedError),
        (404, {"detail": "Not Found"}, {}, e.WrongURLError),
        (404, PAGE, HTML, e.WrongURLError),
        (200, PAGE, HTML, e.WrongURLError),
        (301, "", {}, e.WrongURLError),
        (429, "", {}, e.RateLimitedError),
        (500, "", {}, e.ServerError),
        (200, {"data": None}, {}, e.ServerError),
        (200, [], {}, e.ServerError),
    ],
)
def test_what_an_answer_means_to_the_list_of_models(
    status: int, body: object, headers: Mapping[str, str], expected: type[e.CometError]
) -> None:
    """A wrong key, a wrong URL and a server in trouble are told apart by a free call."""
    with pytest.raises(e.CometError) as caught:
        protocol.read_models(MODELS, answer(status, body, headers))
    assert type(caught.value) is expected
    assert caught.value.prediction_id is None


@pytest.mark.parametrize(
    ("request_", "sent", "expected", "identity"),
    [
        (CREATE, True, e.AmbiguousSubmissionError, None),
        (CREATE, False, e.TransportError, None),
        (QUERY, True, e.TransportError, ID),
        (QUERY, False, e.TransportError, ID),
        (MODELS, True, e.TransportError, None),
    ],
    ids=["create sent", "create not sent", "query sent", "query not sent", "models"],
)
def test_a_lost_connection(
    request_: protocol.Request, sent: bool, expected: type[e.CometError], identity: str | None
) -> None:
    """Without an answer only a create that may have left is ambiguous; everything else may be repeated."""
    error = protocol.transport_error(request_, "connection reset", sent=sent)
    assert (type(error), error.prediction_id, error.detail) == (expected, identity, "connection reset")
    assert error.retryable is (expected is e.TransportError)


def test_an_html_type_does_not_hide_the_servers_words() -> None:
    """A JSON error that was labelled as HTML is still the API's own answer: code and message count."""
    error = refused(QUERY, answer(400, envelope("model name is required"), HTML))
    assert (type(error), error.detail) == (e.BadRequestError, "model name is required")


def test_a_long_answer_is_cut_in_the_message() -> None:
    """However long the server's answer, the message shows at most 300 characters of it."""
    for body in ("x" * 100_000, envelope("y" * 100_000), {"detail": ["z" * 100_000]}):
        error = refused(QUERY, answer(500, body))
        assert len(error.detail) == 300


KEYS = st.from_regex(r"sk-[A-Za-z0-9_-]{8,40}", fullmatch=True) | st.from_regex(r"[A-Za-z0-9]{12,40}", fullmatch=True)
PARTS = st.lists(st.text(max_size=40), min_size=2, max_size=5)


@given(
    KEYS,
    PARTS,
    st.sampled_from(["text", "message", "detail", "code", "title", "odd"]),
    st.sampled_from([200, 400, 401, 429, 500, 503]),
)
def test_an_echoed_key_is_gone_at_the_door(key: str, parts: list[str], place: str, status: int) -> None:
    """Wherever an answer holds the key, neither the taken-in text, nor a header, nor the error holds it."""
    text = key.join(parts)
    body: Any = {
        "text": text,
        "message": envelope(text),
        "detail": {"detail": [text]},
        "code": envelope("x", text),
        "title": f"<html><title>{text}</title>",
        "odd": {text: text},
    }[place]
    raw = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    response = protocol.Response.received(
        status, {"X-CometAPI-Request-Id": text, "Retry-After": text}, raw.encode("utf-8", "replace"), key
    )
    assert key not in response.text
    assert not any(key in value for value in response.headers.values())
    for request in (QUERY, CREATE):
        error = refused(request, response)
        assert key not in str(error)
        assert key not in repr(error)
        assert key not in json.dumps(error.to_dict())


@given(KEYS, PARTS)
def test_an_echoed_key_is_not_in_the_prediction(key: str, parts: list[str]) -> None:
    """A key in a prediction's output, error or logs does not reach its summary either."""
    text = key.join(parts)
    body = json.dumps({"id": ID, "status": "failed", "output": [text], "error": text, "logs": text}, ensure_ascii=False)
    prediction = protocol.read_prediction(QUERY, protocol.Response.received(200, {}, body.encode(), key))
    assert key not in json.dumps(prediction.summary())
    assert key not in repr(prediction)


def test_a_key_that_was_escaped_in_json_is_hidden_too() -> None:
    """JSON may spell the key with escapes: decoded, it is as secret as before."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    body = f'{{"id": "{ID}", "status": "failed", "error": "key {escaped} refused"}}'
    prediction = protocol.read_prediction(QUERY, answer(200, body))
    assert KEY not in json.dumps(prediction.summary())
    assert KEY not in str(refused(QUERY, answer(401, f'{{"error": {{"message": "{escaped}", "code": "{escaped}"}}}}')))


STATUSES = st.integers(200, 599)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "detail", "data", "status", "title", "retry_after"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(STATUSES, BODIES, st.sampled_from([CREATE, QUERY]))
def test_every_answer_is_a_prediction_or_an_error_of_ours(
    status: int, body: object, request_: protocol.Request
) -> None:
    """No answer breaks the tables, and a create is repeated after nothing but a 429 or a 503."""
    response = answer(status, body)
    try:
        protocol.read_prediction(request_, response)
    except e.CometError as error:
        json.dumps(error.to_dict())
        if request_.may_cost_money and error.retryable:
            assert status in {429, 503}
    else:
        assert 200 <= status < 300


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 503])
def test_other_answers_are_no_rate_limit(status: int) -> None:
    """A prediction, and every error of another meaning, leaves the rate as it is."""
    body = {"id": "abc", "status": "starting"} if status < 300 else {"error": {"message": "no", "code": None}}
    assert not protocol.is_rate_limited(protocol.get_prediction("abc"), answer(status, body))
