"""The rows of the error table as answers that echo the key wherever a server could put it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_comet.api import errors as e

Fault = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A kind of error, or a success.

    :param name: is also the name of the model and the beginning of the prediction's id.
    :param answer: returns the emulator's fault for a key; `None` if the emulator answers as usual or is not reached.
    :param create: the outcome of a create: an error class, "success", or `None` if a create never gets this answer.
    :param wait: the outcome of a wait.
    :param connection: which of a source's connections the tasks use.
    """

    name: str
    answer: Callable[[str], Fault] | None
    create: type[e.CometError] | str | None
    wait: type[e.CometError] | str | None
    connection: str = ""

    def timeout(self, mode: str) -> float:
        """Return the timeout of a wait in seconds: short if the wait can only end by it."""
        ends_by_timeout = self.wait in {"timeout", e.PredictionNotFoundError} or getattr(self.wait, "retryable", False)
        if ends_by_timeout:
            return 15.0 if mode == "deferrable" else 4.0  # it takes some seconds from the worker to the triggerer
        # On a busy machine it takes more than a minute. Odd answers about a prediction that was seen end a wait after
        # another minute; a refused key is waited out until the deadline.
        is_refused = self.wait in {e.AuthenticationError, e.PermissionDeniedError}
        return 120.0 if is_refused else 300.0


def echo(key: str) -> str:
    """Return what a careless server writes into an error message."""
    return f"refused: Authorization: Bearer {key}, key={key}, https://x.test/?api_key={key}&a=1"


def answer(status: int, body: Any, key: str, headers: Mapping[str, str] | None = None) -> Fault:
    """Return a fault whose headers echo the key too."""
    echoed = {"x-cometapi-request-id": key, "Location": f"https://elsewhere.test/{key}?key={key}", "X-Echo": echo(key)}
    return {"status": status, "body": body, "headers": {**echoed, **(headers or {})}, "count": None}


def envelope(status: int, code: str | None, **headers: str) -> Callable[[str], Fault]:
    """Return an error envelope with the key in its message and, if `code` is "echo", in its code."""

    def fault(key: str) -> Fault:
        error = {"message": f"{echo(key)} (request id: {key})", "type": "comet_api_error", "code": code}
        if code == "echo":
            error["code"] = key
        named = {name.replace("_", "-"): fill(value, key) for name, value in headers.items()}
        return answer(status, {"error": error}, key, named)

    return fault


def page(status: int) -> Callable[[str], Fault]:
    """Return a web page with the key in title and text."""
    text = "<!doctype html><html><head><title>{0}</title></head><body>{0}</body></html>"
    return lambda key: answer(status, text.format(echo(key)), key)


def prediction(status: str, **fields: Any) -> Callable[[str], Fault]:
    """Return a prediction with the key in every field; `{key}` in `fields` stands for the key."""

    def fault(key: str) -> Fault:
        body = {
            "id": "given-by-the-query",
            "status": fill(status, key),
            "model": f"canary/{key}",
            "version": key,
            "output": None,
            "error": None,
            "logs": echo(key),
            "metrics": {"predict_time": 1.0, key: echo(key)},
            "created_at": key,
            "data_removed": False,
            **{name: fill(value, key) for name, value in fields.items()},
        }
        return answer(200, body, key)

    return fault


def fill(value: Any, key: str) -> Any:
    """Replace `{key}` in a value by the key."""
    if isinstance(value, str):
        return value.replace("{key}", key)
    return [fill(item, key) for item in value] if isinstance(value, list) else value


def escaped(body: str, status: int) -> Callable[[str], Fault]:
    """Return a JSON text in which every character of the key is written as a JSON escape."""
    return lambda key: answer(
        status, body.replace("{key}", "".join(f"\\u{ord(character):04x}" for character in key)), key
    )


AMBIGUOUS = e.AmbiguousSubmissionError
OUTPUT = ["https://files.test/{key}/0.webp?signature={key}", "Bearer {key}", {"nested": 1}]
ROWS = (
    Row("401", envelope(401, ""), e.AuthenticationError, e.AuthenticationError),
    Row("402", envelope(402, ""), e.BalanceExhaustedError, e.BalanceExhaustedError),
    Row("403", envelope(403, ""), e.PermissionDeniedError, e.PermissionDeniedError),
    Row("400", envelope(400, "echo"), e.BadRequestError, e.BadRequestError),
    Row(
        "422",
        lambda key: answer(422, {"detail": [{"loc": ["body"], "msg": echo(key), "input": {key: key}}]}, key),
        e.BadRequestError,
        e.BadRequestError,
    ),
    Row("404", lambda key: answer(404, {"detail": echo(key)}, key), e.ModelNotFoundError, e.PredictionNotFoundError),
    Row("500-invalid_request", envelope(500, "invalid_request"), e.BadRequestError, e.ServerError),
    Row("503-model_not_found", envelope(503, "model_not_found"), e.ModelNotFoundError, e.ServerError),
    Row("503-envelope", envelope(503, "get_channel_failed"), e.ServerError, e.ServerError),
    Row("500-without-code", envelope(500, None), AMBIGUOUS, e.ServerError),
    Row("500-text", lambda key: answer(500, echo(key), key), AMBIGUOUS, e.ServerError),
    Row("502-html", page(502), AMBIGUOUS, e.ServerError),
    Row("504-html", page(504), AMBIGUOUS, e.ServerError),
    Row("524", lambda key: answer(524, f"error code: 524 {echo(key)}", key), AMBIGUOUS, e.ServerError),
    Row("429", envelope(429, "", Retry_After="1"), e.RateLimitedError, e.RateLimitedError),
    Row("429-echo", envelope(429, "", Retry_After="{key}"), e.RateLimitedError, e.RateLimitedError),
    Row("301", lambda key: answer(301, "", key), e.WrongURLError, e.WrongURLError),
    Row("200-html", page(200), AMBIGUOUS, e.WrongURLError),
    Row("200-garbage", lambda key: answer(200, f"}}{{ {echo(key)}", key), AMBIGUOUS, e.ServerError),
    Row("dropped", lambda key: {"drop": "after", "count": None}, AMBIGUOUS, e.TransportError),
    Row("read-timeout", lambda key: {"delay": 1.5, "count": None}, AMBIGUOUS, e.TransportError, "slow"),
    Row("refused", None, e.TransportError, e.TransportError, "refused"),
    Row("unknown-host", None, e.TransportError, e.TransportError, "unknown"),
    Row("wrong-type", None, e.ConfigurationError, e.ConfigurationError, "type"),
    Row("key-with-space", None, e.ConfigurationError, e.ConfigurationError, "space"),
    Row("wrong-key", None, e.AuthenticationError, e.AuthenticationError, "wrong"),
    Row("wrong-key-echo", envelope(401, ""), e.AuthenticationError, e.AuthenticationError, "wrong"),
    Row(
        "400-escaped",
        escaped('{"error": {"message": "no: {key}", "code": "{key}"}}', 400),
        e.BadRequestError,
        e.BadRequestError,
    ),
    Row("success", prediction("succeeded", output=OUTPUT), "success", "success"),
    Row("success-large", prediction("succeeded", output=["x" * 9_000, *OUTPUT]), "success", "success"),
    Row(
        "success-escaped",
        escaped(
            '{"id": "a", "status": "succeeded", "output": ["{key}"], "metrics": {"{key}": "{key}"}, "model": "{key}"}',
            200,
        ),
        "success",
        "success",
    ),
    Row("failed", prediction("failed", error="out of memory: {key}, Bearer {key}"), None, e.PredictionFailedError),
    Row("refused-input", prediction("failed", error="NSFW: {key}, Bearer {key}"), None, e.PredictionRefusedError),
    Row("canceled", prediction("canceled", error="{key}"), None, e.PredictionCanceledError),
    Row("aborted", prediction("aborted", error="{key}"), None, e.PredictionAbortedError),
    Row("expired", prediction("succeeded", data_removed=True, error="{key}"), None, e.PredictionExpiredError),
    Row("empty", prediction("succeeded", error="{key}"), None, e.EmptyOutputError),
    Row("unknown-status", prediction("{key}"), None, "timeout"),
)
