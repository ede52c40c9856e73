"""The HTTP contract: which requests there are, and how their answers are read.

What an answer means that is no result, ``answers`` says. Sources: CometAPI's pages "Create predictions" and "Get a
Replicate prediction" (apidoc.cometapi.com).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_comet.api import answers
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import SMALL_BYTES, Response
from airflow_provider_comet.api.validation import check_create, check_prediction_id


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

    :raises CometError: by the tables of ``answers``; for a create, ``AmbiguousSubmissionError`` unless the answer
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
    raise answers.error_of(request, response)


def read_models(request: Request, response: Response) -> int:
    """Return the number of models that the key can see.

    :raises CometError: as ``read_prediction``.
    """
    body = response.json
    if 200 <= response.status < 300 and isinstance(body, Mapping) and isinstance(body.get("data"), list):
        return len(body["data"])
    raise answers.error_of(request, response)


def is_rate_limited(request: Request, response: Response) -> bool:
    """Return whether an answer is the error ``RateLimitedError``, by its code or its status."""
    return answers.classify(request, response) is e.RateLimitedError


def transport_error(request: Request, detail: str, *, sent: bool) -> e.CometError:
    """Return the error for a request without an answer.

    :param sent: whether any byte of the body may have left; a create that did not is safe to repeat.
    """
    if request.may_cost_money and sent:
        return e.AmbiguousSubmissionError(detail)
    return e.TransportError(detail, prediction_id=request.prediction_id)
