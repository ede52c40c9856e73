"""``api/answers.py``: the tables of answers, row by row, and what keeps a careless row from costing money."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import answers, protocol
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.answers import CODES, CodeMeaning, check_codes
from airflow_provider_comet.api.response import Response

CREATE = protocol.create_prediction("a/b", {"prompt": "x"})
POLL = protocol.get_prediction("abc")
MODELS = protocol.list_models()
PAGE = "<!doctype html><html><head><title>Sorry</title></head><body>no</body></html>"
RAY = "9f140b785e57c458"
CF_RAY = {"cf-ray": f"{RAY}-FRA"}


def answer(status: int, body: object = "", headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a client takes it in."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Response.received(status, headers or {}, text.encode(), "sk-secret-0123456789")


def envelope(code: object) -> dict[str, Any]:
    """CometAPI's error envelope."""
    return {"error": {"message": "said so", "type": "comet_api_error", "param": "", "code": code}}


def error_of(request: protocol.Request, response: Response) -> e.CometError:
    """The error that an answer means."""
    with pytest.raises(e.CometError) as caught:
        protocol.read_prediction(request, response)
    return caught.value


# ---------------------------------------------------------------------------------------------------------------------
# The table of codes

EXPECTED: dict[str, tuple[type[e.APIError], str, bool]] = {
    "invalid_request": (e.BadRequestError, "creates", True),
    "convert_request_failed": (e.BadRequestError, "creates", True),
    "model_not_found": (e.ModelNotFoundError, "creates", True),
    "insufficient_user_quota": (e.BalanceExhaustedError, "creates", True),
    "pre_consume_token_quota_failed": (e.BalanceExhaustedError, "creates", True),
    "permission_denied": (e.PermissionDeniedError, "all", False),
    "task_not_exist": (e.PredictionNotFoundError, "polls", False),
}
"""Of each code: its error, what it is about, and whether a source says that nothing was accepted. Written by hand."""
STATUSES = [200, 400, 402, 403, 404, 429, 500, 502, 503, 504, 524]
UNCLEAR = {200, 500, 502, 504, 524}
codes = pytest.mark.parametrize("code", CODES)
statuses = pytest.mark.parametrize("status", STATUSES)


def test_each_code_is_meant_as_it_stands() -> None:
    """A row that is added or changed is also added or changed here, so that nobody claims a proof in passing."""
    assert {code: (row.error, row.about, row.proof is not None) for code, row in CODES.items()} == EXPECTED


@codes
def test_a_proof_names_its_source(code: str) -> None:
    """Whoever reads a row finds where it says that nothing was accepted: a page, a recorded answer, or a file."""
    proof = CODES[code].proof
    assert proof is None or any(source in proof for source in ("Error codes and retry strategy", "new-api, "))


@codes
@statuses
def test_a_create_is_never_repeated_because_of_its_code(code: str, status: int) -> None:
    """That a create may be sent again, a status has to prove: no row of the table does."""
    error = error_of(CREATE, answer(status, envelope(code)))
    if CODES[code].proof:
        assert type(error) is CODES[code].error
        assert not error.retryable
    elif status in UNCLEAR:
        assert type(error) is e.AmbiguousSubmissionError


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (CodeMeaning(e.ServerError, "creates", "new-api, some file: nothing was passed on"), "may pass"),
        (CodeMeaning(e.RateLimitedError, "all", "a page of CometAPI"), "may pass"),
        (CodeMeaning(e.BadRequestError, "creates", True), "name of a source"),  # type: ignore[arg-type]
        (CodeMeaning(e.BadRequestError, "creates", False), "name of a source"),  # type: ignore[arg-type]
        (CodeMeaning(e.BadRequestError, "creates", " "), "name of a source"),
        (CodeMeaning(e.BadRequestError, "create", None), "it is about one of"),  # type: ignore[arg-type]
    ],
    ids=["later", "slower", "true", "false", "blank", "typo"],
)
def test_a_careless_row_is_refused(row: CodeMeaning, says: str) -> None:
    """A proof without a source, or of an error that may pass, is a mistake that would be paid for."""
    with pytest.raises(TypeError, match=f"code 'new'.*{says}"):
        check_codes({**CODES, "new": row})


@pytest.mark.parametrize(
    "row",
    [
        '"new": CodeMeaning(e.ServerError, "creates", proof="a page"),',
        '"new": CodeMeaning(e.ServerError, "creates"),',
        '"new": CodeMeaning(e.ServerError, proof=None),',
    ],
)
def test_a_careless_row_fails_at_import(row: str) -> None:
    """Nobody needs a test for it: the module can't be imported."""
    source = Path(answers.__file__).read_text(encoding="utf-8")
    assert source.count("CODES = {\n") == 1
    with pytest.raises(TypeError):
        exec(compile(source.replace("CODES = {\n", f"CODES = {{\n    {row}\n"), "x", "exec"), {"__name__": "x"})


@statuses
@pytest.mark.parametrize("error", [e.ServerError, e.RateLimitedError])
def test_a_code_that_means_later_costs_no_money(
    monkeypatch: pytest.MonkeyPatch, status: int, error: type[e.APIError]
) -> None:
    """A row for it decides what a poll and the rate make of it; whether a create may be repeated, the status says."""
    row = CodeMeaning(error, "all", proof=None)
    check_codes({"try_later": row})
    before = error_of(CREATE, answer(status, envelope("unheard_of")))
    monkeypatch.setitem(CODES, "try_later", row)
    response = answer(status, envelope("try_later"))
    assert type(error_of(POLL, response)) is error
    assert protocol.is_rate_limited(POLL, response) is protocol.is_rate_limited(CREATE, response)
    assert protocol.is_rate_limited(CREATE, response) is (error is e.RateLimitedError)
    after = error_of(CREATE, response)
    was_unclear = isinstance(before, e.AmbiguousSubmissionError)
    assert type(after) is (e.AmbiguousSubmissionError if was_unclear else error)
    assert was_unclear is (status in UNCLEAR)


@codes
@statuses
@pytest.mark.parametrize("task_error", [False, True], ids=["envelope", "task"])
def test_a_code_about_the_other_kind_of_request_says_nothing(code: str, status: int, task_error: bool) -> None:
    """A poll that gets a code of creates, or the reverse, is judged by its status, as with a code nobody has heard of.

    Its advice is then about the poll, and not about the model, the input or the balance; the code is still shown.
    """

    def body(code: str) -> Any:
        return {"code": code, "message": "said so", "data": None} if task_error else envelope(code)

    for request, other in ((POLL, "creates"), (CREATE, "polls")):
        error = error_of(request, answer(status, body(code)))
        unknown = error_of(request, answer(status, body("unheard_of")))
        assert error.code == code
        if CODES[code].about == other:
            assert (type(error), error.detail) == (type(unknown), unknown.detail)
        elif request is POLL:
            assert type(error) is CODES[code].error


@codes
def test_the_test_of_a_connection_understands_every_code(code: str) -> None:
    """Whoever checks a connection learns that the balance is exhausted, or the key not allowed."""
    with pytest.raises(CODES[code].error):
        protocol.read_models(MODELS, answer(500, envelope(code)))


# ---------------------------------------------------------------------------------------------------------------------
# Web pages

NOT_OURS = [200, 201, 204, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 421]
BY_STATUS = {
    401: e.AuthenticationError,
    402: e.BalanceExhaustedError,
    403: e.PermissionDeniedError,
    408: e.ServerError,
    429: e.RateLimitedError,
}


@pytest.mark.parametrize("status", [*range(200, 227), *range(300, 309), *range(400, 452), 460, 499, *range(500, 531)])
def test_the_status_outranks_a_page(status: int) -> None:
    """A page means a wrong base URL only where the status says no more than that; 413 is about this one input."""
    expected: type[e.CometError]
    if status in NOT_OURS or status < 400:
        expected = e.WrongURLError
    elif status in BY_STATUS:
        expected = BY_STATUS[status]
    else:
        expected = e.ServerError if status >= 500 else e.BadRequestError
    response = answer(status, PAGE, {"content-type": "text/html"})
    for request in (POLL, CREATE):
        assert answers.classify(request, response) is expected
        assert "a web page came back, titled 'Sorry'" in str(error_of(request, response))


@pytest.mark.parametrize(
    ("status", "unclear"),
    [
        *((status, True) for status in (200, 201, 303, 408, 460, 499, 500, 502, 503, 504, 520, 522, 524, 530)),
        *((status, False) for status in (301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 414, 415)),
        *((status, False) for status in (418, 422, 429, 431, 451)),
    ],
)
@pytest.mark.parametrize("body", [PAGE, "no", ""], ids=["page", "text", "empty"])
def test_which_status_alone_proves_a_rejection(status: int, unclear: bool, body: str) -> None:
    """4xx and redirects do, but for those that can follow upon an accepted request: a 303, and who gave up waiting."""
    assert isinstance(error_of(CREATE, answer(status, body)), e.AmbiguousSubmissionError) is unclear


# ---------------------------------------------------------------------------------------------------------------------
# Cloudflare's own errors


def cloudflare(status: int, number: int | None = None, **fields: Any) -> dict[str, Any]:
    """Cloudflare's error for a client that accepts JSON, as its page "Error responses" shows it."""
    return {
        "type": "https://developers.cloudflare.com/support/troubleshooting/http-status-codes/",
        "title": f"Error {number or status}: something",
        "status": status,
        "detail": "Cloudflare could not reach the origin server.",
        "instance": RAY,
        "error_code": number or status,
        "error_category": "origin",
        "ray_id": RAY,
        "zone": "api.cometapi.com",
        "cloudflare_error": True,
        "retryable": True,
        "retry_after": 120,
        **fields,
    }


@pytest.mark.parametrize(
    ("status", "number"), [(521, 521), (523, 523), (525, 525), (526, 526), (530, 1016), (530, 1033)]
)
def test_cloudflare_says_that_it_had_no_connection(status: int, number: int) -> None:
    """Its own JSON about that proves that nothing was accepted, and names how long to wait."""
    error = error_of(CREATE, answer(status, cloudflare(status, number), CF_RAY))
    assert (type(error), error.retry_after) == (e.ServerError, 120)
    assert "could not reach the origin" in str(error)


@pytest.mark.parametrize(
    "response",
    [
        *(answer(status, cloudflare(status), CF_RAY) for status in (500, 502, 503, 504, 520, 522, 524, 530)),
        *(answer(530, cloudflare(530, number), CF_RAY) for number in (1101, 1102, 1200, 530)),
        answer(530, PAGE, CF_RAY),
        answer(530, {"message": "A server error occurred."}, CF_RAY),
        answer(530, "error code: 530", CF_RAY),
        answer(521, cloudflare(521, ray_id="a28817ceee58faca"), CF_RAY),
        answer(521, cloudflare(521, cloudflare_error="true"), CF_RAY),
        answer(521, cloudflare(521)),
        answer(521, cloudflare(521, 524), CF_RAY),
        answer(521, envelope("fail_to_fetch_task"), CF_RAY),
        answer(521, {"code": "fail_to_fetch_task", "message": "error code: 521", "data": None}, CF_RAY),
        answer(521, [], CF_RAY),
        answer(521, "error code: 521"),
        answer(521, "error code: 521", {"cf-ray": ""}),
        *(answer(503, PAGE, headers) for headers in ({}, CF_RAY, {"server": "cloudflare", **CF_RAY})),
        answer(503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        answer(503, {"success": False, "message": "maintenance"}, CF_RAY),
    ],
    ids=lambda response: f"{response.status} {response.text[:300]}"[-60:],
)
def test_nothing_else_from_500_on_is_taken_for_a_proof(response: Response) -> None:
    """Neither Cloudflare's other errors, nor a number that comes from behind it, nor a plain 503 prove anything."""
    assert type(error_of(CREATE, response)) is e.AmbiguousSubmissionError


@pytest.mark.parametrize("body", [PAGE, "error code: 521"], ids=["page", "text"])
@pytest.mark.parametrize("status", [521, 523, 525, 526])
def test_cloudflares_page_or_line_is_understood_too(body: str, status: int) -> None:
    """Where a site has a page of its own for them, the status is the number of the error."""
    assert type(error_of(CREATE, answer(status, body, CF_RAY))) is e.ServerError
