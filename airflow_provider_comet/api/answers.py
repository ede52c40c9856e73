"""What an answer that is no result means: the tables, and the error that follows from them.

Every rule about an answer stands here, once, with the source that it rests on. Sources: CometAPI's pages "Create
predictions", "Get a Replicate prediction" and "Error codes and retry strategy" (apidoc.cometapi.com), answers that were
recorded, the code of the gateway family that CometAPI's errors come from (QuantumNous/new-api), Cloudflare's
documentation (developers.cloudflare.com), and RFC 9110.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import canonical_json

if TYPE_CHECKING:
    from airflow_provider_comet.api.protocol import Request
    from airflow_provider_comet.api.response import Response

About: TypeAlias = Literal["creates", "polls", "all"]


class CodeMeaning(NamedTuple):
    """What one ``error.code`` of an answer means. Each column has to be filled in.

    :param error: the error to raise.
    :param about: the requests that the code is about. To the other kind it says nothing: there the HTTP status decides.
    :param proof: who says that a create with this code was not accepted, and so not billed. ``None``: nobody does, and
        the HTTP status decides whether it may have been. An error that may pass has no proof, because its create would
        be sent again at whatever status the code comes with.
    """

    error: type[e.APIError]
    about: About
    proof: str | None


# The code decides before the HTTP status: the API answers 500 for a missing field and 503 for an unknown model.
CODES = {
    "invalid_request": CodeMeaning(
        e.BadRequestError,
        "creates",
        proof='"Error codes and retry strategy": 500 with this code is a malformed request',
    ),
    "convert_request_failed": CodeMeaning(
        e.BadRequestError, "creates", proof="new-api, relay: the request is converted before it is passed on"
    ),
    "model_not_found": CodeMeaning(
        e.ModelNotFoundError, "creates", proof="new-api, middleware/distributor.go: no channel, nothing was passed on"
    ),
    "insufficient_user_quota": CodeMeaning(
        e.BalanceExhaustedError, "creates", proof="new-api, relay/relay_task.go: charged before it is passed on"
    ),
    "pre_consume_token_quota_failed": CodeMeaning(
        e.BalanceExhaustedError, "creates", proof="new-api, relay/relay_task.go: charged before it is passed on"
    ),
    "permission_denied": CodeMeaning(e.PermissionDeniedError, "all", proof=None),
    "task_not_exist": CodeMeaning(e.PredictionNotFoundError, "polls", proof=None),
}
_BY_STATUS: dict[int, type[e.APIError]] = {
    401: e.AuthenticationError,
    402: e.BalanceExhaustedError,
    403: e.PermissionDeniedError,
    405: e.WrongURLError,
    408: e.ServerError,
    421: e.WrongURLError,
    429: e.RateLimitedError,
}
# What any web site answers for a path that it does not know. The API itself says these in JSON.
_PAGE_DECIDES = frozenset({400, 404, 410})
# "The server sends the result elsewhere" (RFC 9110, 15.4.4: after a POST it may have worked), and three that say that
# somebody on the way gave up: the request may be with the next server.
_MAY_BE_ACCEPTED = frozenset({303, 408, 460, 499})
# Cloudflare's own errors that say that it had no connection to the server behind it ("Cloudflare 5xx errors", "Error
# 1016", "Error 1033"). Not 520, 522 and 524, which also come after the request was sent.
_NOT_CONNECTED = frozenset({521, 523, 525, 526, 1016, 1033})

# Linear, because a server chooses what they read: each part stops where the next attempt could begin.
_REQUEST_ID = re.compile(r" ?\(request id: ([^()]++)\)")
_TITLE = re.compile(r"<title[^<>]*+>([^<]*+)</title>", re.IGNORECASE)


def check_codes(codes: Mapping[str, CodeMeaning]) -> None:
    """Refuse a row that says nothing, or that could make a create be sent again after it was accepted.

    :raises TypeError: by which this module can't be imported.
    """
    for code, row in codes.items():
        if row.about not in get_args(About):
            raise TypeError(f"code {code!r}: it is about one of {get_args(About)}, not {row.about!r}")
        proof: Any = row.proof
        if proof is not None and not (isinstance(proof, str) and proof.strip()):
            raise TypeError(f"code {code!r}: a proof is the name of a source, or None, not {proof!r}")
        if proof and row.error.retryable:
            raise TypeError(
                f"code {code!r}: {row.error.__name__} may pass, so its create would be sent again: no proof"
            )


check_codes(CODES)


def error_of(request: Request, response: Response) -> e.CometError:
    """Return the error that an answer means.

    For a create it is ``AmbiguousSubmissionError`` unless the answer proves that nothing was accepted.
    """
    body = response.json
    message, code, in_envelope = _message_and_code(body)
    request_id = response.headers.get("x-cometapi-request-id") or _request_id(message, body)
    error_class = classify(request, response)
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
    if request.may_cost_money and not _proves_rejection(response, _meaning(request, code), in_envelope):
        return _ambiguous(error)
    return error


def classify(request: Request, response: Response) -> type[e.APIError]:
    """Return the class of an answer's error: by its code, then its status, then its shape.

    A web page is taken for a wrong URL only where its status says no more than that: 2xx, 3xx, and what any site
    answers for an unknown path. Any other status outranks the page, because proxies answer by pages, too: 401, 402,
    403 and 429 mean what they mean in JSON, 5xx that a server failed, and every other 4xx that this one request was
    refused (413: its input is too large; another input may be accepted).
    """
    status, body = response.status, response.json
    meaning = _meaning(request, _message_and_code(body)[1])
    if meaning is not None:
        return meaning.error
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return e.ServerError
    if 300 <= status < 400 or (response.is_html and (status < 300 or status in _PAGE_DECIDES)):
        return e.WrongURLError
    if status == 404:
        return request.not_found
    if status >= 400:
        return e.BadRequestError
    if isinstance(body, Mapping) and body.get("code") == "success" and request.prediction_id:
        return e.PredictionNotFoundError  # an envelope without a task: not visible yet
    return e.ServerError


def _meaning(request: Request, code: str | None) -> CodeMeaning | None:
    """Return what a code means to this request; ``None``: nothing."""
    meaning = CODES.get(code) if code is not None else None
    if meaning is None:
        return None
    other = "polls" if request.may_cost_money else "creates" if request.prediction_id is not None else None
    return None if meaning.about == other else meaning


def _proves_rejection(response: Response, meaning: CodeMeaning | None, in_envelope: bool) -> bool:
    """Return whether this answer to a create proves that nothing was accepted, and so nothing is billed."""
    if meaning is not None and meaning.proof:
        return True
    if response.status < 300 or response.status in _MAY_BE_ACCEPTED:
        return False
    if response.status < 500:
        return True
    # 503 in the API's own envelope: its gateway found no channel. Any other 503 proves nothing: Envoy ("upstream
    # connect error or disconnect/reset before headers") and Varnish ("backend read error") answer so after the request
    # was sent, and Cloudflare passes it on. Everything else from 500 on may come from behind the point where a
    # prediction exists (524: the proxy stopped waiting, the server may have gone on).
    return (response.status == 503 and in_envelope) or _cloudflare_error(response) in _NOT_CONNECTED


def _cloudflare_error(response: Response) -> object:
    """Return the number of the error that the Cloudflare edge in front of the API has made itself, else ``None``.

    All that comes through that edge has the header ``cf-ray``; an edge between the gateway and its provider has another
    ray. Cloudflare's errors are JSON for a client that accepts it ("Error responses"), else a page or a line of text,
    whose number is the HTTP status: but for 530, which its documentation shows as a status for every 5xx of a site.
    """
    ray = response.headers.get("cf-ray", "").partition("-")[0]
    if not ray:
        return None
    if response.json is None:
        return response.status
    body = response.json if isinstance(response.json, Mapping) else {}
    is_own = body.get("cloudflare_error") is True and body.get("ray_id") == ray
    return number if is_own and isinstance(number := body.get("error_code"), int) else None


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
