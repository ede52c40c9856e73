"""The HTTP contract: which requests there are, and what each answer means.

Every rule about an answer stands in the tables below, once. Sources: CometAPI's pages "Create predictions",
"Get a Replicate prediction" and "Error codes and retry strategy" (apidoc.cometapi.com), and answers that were recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import canonical_json
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import SMALL_BYTES, Response
from airflow_provider_comet.api.validation import check_create, check_prediction_id


class CodeMeaning(NamedTuple):
    """What one ``error.code`` of an answer means.

    :param error: the error to raise.
    :param proves_rejection: whether an answer with this code proves that a create was not accepted, and so not billed.
        Without a source that says so: ``False``. Then a create with this code has no clear answer.
    """

    error: type[e.APIError]
    proves_rejection: bool


# The code decides before the HTTP status: the API answers 500 for a missing field and 503 for an unknown model.
_BY_CODE = {
    "invalid_request": CodeMeaning(e.BadRequestError, proves_rejection=True),
    "convert_request_failed": CodeMeaning(e.BadRequestError, proves_rejection=True),
    "model_not_found": CodeMeaning(e.ModelNotFoundError, proves_rejection=True),
    "insufficient_user_quota": CodeMeaning(e.BalanceExhaustedError, proves_rejection=True),
    "pre_consume_token_quota_failed": CodeMeaning(e.BalanceExhaustedError, proves_rejection=True),
    "permission_denied": CodeMeaning(e.PermissionDeniedError, proves_rejection=True),
    "task_not_exist": CodeMeaning(e.PredictionNotFoundError, proves_rejection=True),
}
_BY_STATUS: dict[int, type[e.APIError]] = {
    401: e.AuthenticationError,
    402: e.BalanceExhaustedError,
    403: e.PermissionDeniedError,
    405: e.WrongURLError,
    408: e.ServerError,
    429: e.RateLimitedError,
}
# Cloudflare could not connect to the API's server: with its "cf-ray" header these prove that nothing was accepted.
_NOT_CONNECTED = frozenset({521, 523, 525, 526, 530})

# Linear, because a server chooses what they read: each part stops where the next attempt could begin.
_REQUEST_ID = re.compile(r" ?\(request id: ([^()]++)\)")
_TITLE = re.compile(r"<title[^<>]*+>([^<]*+)</title>", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent to ``base_url + path``.

    :param not_found: what a plain 404 means for this request.
    :param may_cost_money: whether sending it may create something that is billed. Such a request is never repeated
        unless it certainly was not accepted.
    :param body: JSON; not in the repr, because it holds prompts and files.
    :param prediction_id: the prediction that the request is about.
    """

    method: str
    path: str
    not_found: type[e.APIError]
    may_cost_money: bool
    body: bytes | None = field(default=None, repr=False)
    prediction_id: str | None = None


def create_prediction(model: object, input: object) -> Request:
    """Build ``POST /replicate/v1/models/{owner}/{name}/predictions``, the only documented create.

    :raises InvalidInputError: it could only fail; nothing is sent.
    """
    check_create(model, input)
    body = json.dumps({"input": input}, allow_nan=False, ensure_ascii=False).encode()
    path = f"/replicate/v1/models/{model}/predictions"
    return Request("POST", path, e.ModelNotFoundError, may_cost_money=True, body=body)


def get_prediction(prediction_id: object) -> Request:
    """Build ``GET /replicate/v1/predictions/{id}``. ``urls.get`` of an answer is not used: it leads to another host.

    :raises InvalidInputError: this can't be an id.
    """
    checked = check_prediction_id(prediction_id)
    path = f"/replicate/v1/predictions/{checked}"
    return Request("GET", path, e.PredictionNotFoundError, may_cost_money=False, prediction_id=checked)


def list_models() -> Request:
    """Build ``GET /v1/models``, which is read-only and free, and needs a valid key."""
    return Request("GET", "/v1/models", e.WrongURLError, may_cost_money=False)


def read_prediction(request: Request, response: Response) -> Prediction:
    """Return the prediction that an answer describes.

    :raises CometError: by the tables of this module; for a create, ``AmbiguousSubmissionError`` unless the answer
        proves that nothing was accepted.
    """
    if 200 <= response.status < 300:
        prediction = Prediction.from_body(
            response.json,
            prediction_id=request.prediction_id,
            seen_at=response.headers.get("date"),
            is_large=response.size > SMALL_BYTES,
        )
        if prediction is not None:
            return prediction
    raise _error(request, response)


def read_models(request: Request, response: Response) -> int:
    """Return the number of models that the key can see.

    :raises CometError: as ``read_prediction``.
    """
    body = response.json
    if 200 <= response.status < 300 and isinstance(body, Mapping) and isinstance(body.get("data"), list):
        return len(body["data"])
    raise _error(request, response)


def is_rate_limited(request: Request, response: Response) -> bool:
    """Return whether an answer is the error ``RateLimitedError``, by its code or its status."""
    body = response.json
    return _classify(request, response, body, _message_and_code(body)[1]) is e.RateLimitedError


def transport_error(request: Request, detail: str, *, sent: bool) -> e.CometError:
    """Return the error for a request without an answer.

    :param sent: whether any byte of the body may have left; a create that did not is safe to repeat.
    """
    if request.may_cost_money and sent:
        return e.AmbiguousSubmissionError(detail)
    return e.TransportError(detail, prediction_id=request.prediction_id)


def _error(request: Request, response: Response) -> e.CometError:
    body = response.json
    message, code, in_envelope = _message_and_code(body)
    request_id = response.headers.get("x-cometapi-request-id") or _request_id(message, body)
    error_class = _classify(request, response, body, code)
    if response.is_html:
        title = _TITLE.search(response.text)
        message = f"a web page came back, titled {title[1].strip()!r}" if title else "a web page came back"
    error = error_class(
        _REQUEST_ID.sub("", message) or response.text,
        status=response.status,
        code=code,
        request_id=request_id,
        prediction_id=request.prediction_id,
        retry_after=response.retry_after,
    )
    if request.may_cost_money and not _proves_rejection(response, code, in_envelope):
        return _ambiguous(error)
    return error


def _classify(request: Request, response: Response, body: Any, code: str | None) -> type[e.APIError]:
    status = response.status
    if code in _BY_CODE:
        return _BY_CODE[code].error
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return e.ServerError
    if 300 <= status < 400 or response.is_html:
        return e.WrongURLError
    if status == 404:
        return request.not_found
    if status >= 400:
        return e.BadRequestError
    if isinstance(body, Mapping) and body.get("code") == "success" and request.prediction_id:
        return e.PredictionNotFoundError  # an envelope without a task: not visible yet
    return e.ServerError


def _proves_rejection(response: Response, code: str | None, in_envelope: bool) -> bool:
    """Return whether this answer to a create proves that nothing was accepted, and so nothing is billed."""
    if code in _BY_CODE:
        return _BY_CODE[code].proves_rejection
    if response.status < 300 or response.status == 408:
        return False
    if response.status < 500:
        return True
    # 503 in the API's own envelope: its gateway found no channel. Everything else from 500 on may come from behind the
    # point where a prediction exists (524: the proxy stopped waiting, the server may have gone on).
    return (response.status == 503 and in_envelope) or (
        response.status in _NOT_CONNECTED and "cf-ray" in response.headers
    )


def _ambiguous(error: e.CometError) -> e.AmbiguousSubmissionError:
    hint = "; the connection's base URL is probably wrong" if isinstance(error, e.WrongURLError) else ""
    detail = error.detail + hint
    return e.AmbiguousSubmissionError(detail, status=error.status, code=error.code, request_id=error.request_id)


def _message_and_code(body: Any) -> tuple[str, str | None, bool]:
    """Return message, code, and whether they came in CometAPI's own envelope: it sends five shapes of error bodies."""
    if not isinstance(body, Mapping):
        return "", None, False
    error = body.get("error")
    if isinstance(error, Mapping):
        return _words(error.get("message")), _word(error.get("code")), True
    if isinstance(body.get("code"), str) and body["code"] != "success":
        return _words(body.get("message")), body["code"], True
    return _words(error or body.get("detail") or body.get("title")), None, False


def _request_id(message: str, body: Any) -> str | None:
    found = _REQUEST_ID.search(message)
    return found[1] if found else _word(body.get("request_id")) if isinstance(body, Mapping) else None


def _words(value: object) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else canonical_json(value) if value else ""


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
