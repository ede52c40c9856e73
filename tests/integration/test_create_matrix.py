"""Every answer and every connection failure against a paid create, over real sockets, with the record it leaves.

A row says what the other side does and what that means for the create: that it certainly was not accepted (and may be
next time, or won't), or that nobody knows. The tests below say what an attempt makes of each meaning: what it sends,
what it writes down and when, what it raises; and what the next try and a clear then do, for both policies. The last
part lets the store of the record fail instead. Time is injected.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.answers import CODES, CodeMeaning, check_codes
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.record import MalformedRecordError
from tests.integration.conftest import KEY
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import private_ca
from tests.support.sockets import full_backlog, raw_server, reset, unused_port
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag

SCHNELL = "black-forest-labs/flux-schnell"
REQUEST_ID = "20261123061943001308SIHCnxzJ"
PAGE = "<!doctype html><html><head><title>Bad gateway</title></head><body>cloud</body></html>"
CF_RAY = {"cf-ray": "8f1d2c3b4a596877-FRA"}
RETRY_BUDGET = 120.0  # seconds for which one attempt repeats a create
STORE_BUDGET = 300.0  # seconds within which it begins the last access to the record; it pauses for 5 in between

Policy = Literal["fail", "retry"]
Meaning = Literal["final", "passing", "unclear"]


# ---------------------------------------------------------------------------------------------------------------------
# What the other side does


@dataclass(frozen=True)
class Place:
    """Where creates go while something is broken there.

    :param tries: how many came as far as that; `None`: nobody can count them.
    """

    url: str
    tries: Callable[[], int] | None = None


@dataclass(frozen=True)
class Tools:
    """What it takes to break a connection."""

    comet: Emulator
    monkeypatch: pytest.MonkeyPatch
    folder: Path


Breakage = Callable[[Tools], AbstractContextManager[Place]]


@contextlib.contextmanager
def unknown_host(tools: Tools) -> Iterator[Place]:
    """The host's name does not resolve."""
    asked: list[str] = []

    def look_up(host: Any, *args: Any, original: Callable[..., Any] = socket.getaddrinfo, **kwargs: Any) -> Any:
        if host != "comet.invalid":
            return original(host, *args, **kwargs)
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    tools.monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield Place("https://comet.invalid", lambda: len(asked))


@contextlib.contextmanager
def refused(tools: Tools) -> Iterator[Place]:
    """Nobody listens."""
    yield Place(f"http://127.0.0.1:{unused_port()}")


@contextlib.contextmanager
def connects_never(tools: Tools) -> Iterator[Place]:
    """The connection is neither accepted nor refused."""
    with full_backlog() as port:
        yield Place(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def untrusted(tools: Tools) -> Iterator[Place]:
    """A whole API behind a certificate that nobody trusts; not one request may get in."""
    with Emulator(duration=0, api_key=KEY, ssl_context=private_ca(tools.folder).server) as emulator:
        yield Place(emulator.base_url)
        assert emulator.ledger()["requests"] == []


@contextlib.contextmanager
def mute_handshake(tools: Tools) -> Iterator[Place]:
    """The connection is accepted, and no TLS handshake answered."""
    with raw_server(lambda connection: None) as (port, _):
        yield Place(f"https://127.0.0.1:{port}")


@contextlib.contextmanager
def no_tunnel(tools: Tools) -> Iterator[Place]:
    """A proxy that opens no tunnel."""
    with forward_proxy(refuse=502) as proxy:
        tools.monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield Place("https://comet.invalid", lambda: len(proxy.asked))


@contextlib.contextmanager
def no_proxy_there(tools: Tools) -> Iterator[Place]:
    """A proxy that is down."""
    tools.monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_port()}")
    yield Place("https://comet.invalid")


def talks(talk: Callable[[socket.socket], None], scheme: str = "http") -> Breakage:
    """A server that treats each connection like this."""

    @contextlib.contextmanager
    def breakage(tools: Tools) -> Iterator[Place]:
        with raw_server(talk) as (port, accepted):
            yield Place(f"{scheme}://127.0.0.1:{port}", lambda: len(accepted))

    return breakage


def no_tls(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no TLS")
    connection.close()


def reset_in_handshake(connection: socket.socket) -> None:
    connection.recv(65_536)
    reset(connection)


def read_headers(connection: socket.socket) -> bytes:
    """Read up to the end of the headers, and no byte of the body."""
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, read
        read += byte
    return read


def read_all(connection: socket.socket) -> None:
    """Read the whole request."""
    headers = read_headers(connection).lower()
    left = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
    while left:
        left -= len(connection.recv(left))


def close_unread(connection: socket.socket) -> None:
    read_headers(connection)
    connection.close()


def reset_unread(connection: socket.socket) -> None:
    read_headers(connection)
    reset(connection)


def answers(sent: bytes, end: Callable[[socket.socket], None] = socket.socket.close) -> Breakage:
    """A server that reads the request, sends these bytes and ends the connection so."""

    def talk(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(sent)
        end(connection)

    return talks(talk)


def hold(connection: socket.socket) -> None:
    """Say nothing more, and do not hang up."""


# ---------------------------------------------------------------------------------------------------------------------
# The table


@dataclass(frozen=True)
class Row:
    """One thing that can happen to a create.

    :param breaks: what the emulator does to every POST, or what is in the emulator's place.
    :param meaning: `final`: certainly not accepted, and a repetition can't help; `passing`: certainly not accepted, a
        repetition may help; `unclear`: it may have been accepted.
    :param error: the class of the error.
    :param says: words that its message has to pass on.
    :param accepted: predictions that one attempt makes exist.
    :param request_id: CometAPI's id of the request, as far as the answer names it.
    :param wait: seconds that the server asks for.
    :param timeouts: extras of the connection.
    :param raw_status: the status that a raw answer tells, if any does.
    """

    name: str
    breaks: Mapping[str, Any] | Breakage
    meaning: Meaning
    error: type[e.CometError]
    says: str = ""
    accepted: int = 0
    request_id: str | None = REQUEST_ID
    wait: float | None = None
    timeouts: Mapping[str, float] | None = None
    raw_status: int | None = None

    @property
    def status(self) -> int | None:
        """The status that comes through."""
        return self.breaks.get("status") if isinstance(self.breaks, Mapping) else self.raw_status

    @property
    def left(self) -> str:
        """The record's state afterwards."""
        return "sending" if self.meaning == "unclear" else "rejected"


def answer(status: int, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "body": body, "headers": {"x-cometapi-request-id": REQUEST_ID, **(headers or {})}, **more}


def envelope(message: str, **fields: Any) -> dict[str, Any]:
    """CometAPI's own: `code` may be "", null, missing or a word."""
    return {"error": {"message": f"{message} (request id: {REQUEST_ID})", "type": "comet_api_error", **fields}}


def task_error(message: str, code: str) -> dict[str, Any]:
    return {"code": code, "message": message, "data": None}


def problem(status: int, detail: str) -> dict[str, Any]:
    return {"title": "A problem", "detail": detail, "status": status, "type": "about:blank", "instance": "/x"}


def typed(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "some_error", "message": message}, "request_id": REQUEST_ID}


def cloudflare(number: int) -> dict[str, Any]:
    """Cloudflare's own error, for a client that accepts JSON."""
    ray = CF_RAY["cf-ray"].partition("-")[0]
    return {"title": "An error", "detail": "no origin", "error_code": number, "ray_id": ray, "cloudflare_error": True}


FASTAPI = {"detail": [{"loc": ["body", "input", "prompt"], "msg": "Field required", "type": "missing"}]}
ENVELOPES: dict[str, dict[str, Any]] = {
    "code-empty": envelope("said so", param="", code=""),
    "code-null": envelope("said so", param="", code=None),
    "code-missing": envelope("said so"),
    "other-code": envelope("said so", param="", code="do_request_failed"),
}
NO_HEADER = {"x-cometapi-request-id": ""}


def final(name: str, breaks: Mapping[str, Any], error: type[e.CometError], says: str = "", **more: Any) -> Row:
    return Row(name, breaks, "final", error, says, **more)


def passing(name: str, breaks: Mapping[str, Any] | Breakage, error: type[e.CometError], says: str, **more: Any) -> Row:
    return Row(name, breaks, "passing", error, says, **more)


def unclear(name: str, breaks: Mapping[str, Any] | Breakage, says: str = "", **more: Any) -> Row:
    return Row(name, breaks, "unclear", e.AmbiguousSubmissionError, says, **more)


FINAL = [
    *(final(f"400-{name}", answer(400, body), e.BadRequestError, "said so") for name, body in ENVELOPES.items()),
    final("400-task-error", answer(400, task_error("said so", "invalid_request")), e.BadRequestError, "said so"),
    final("400-task-error-other", answer(400, task_error("said so", "who_knows")), e.BadRequestError, "said so"),
    final("400-problem", answer(400, problem(400, "said so")), e.BadRequestError, "said so"),
    final("400-fastapi", answer(400, FASTAPI), e.BadRequestError, "Field required"),
    final("400-type-error", answer(400, typed("said so"), NO_HEADER), e.BadRequestError, "said so"),
    final("400-text", answer(400, "Bad Request"), e.BadRequestError, "Bad Request"),
    final("400-empty", answer(400), e.BadRequestError),
    final("400-html", answer(400, PAGE), e.WrongURLError, "'Bad gateway'"),
    final("401", answer(401, envelope("Invalid token", code="")), e.AuthenticationError, "Invalid token"),
    final("401-problem", answer(401, problem(401, "no valid token")), e.AuthenticationError, "no valid token"),
    final("401-html", answer(401, PAGE), e.AuthenticationError, "'Bad gateway'"),
    final("401-empty", answer(401), e.AuthenticationError),
    final("402", answer(402, envelope("pay first", code="")), e.BalanceExhaustedError, "pay first"),
    final("403", answer(403, envelope("not allowed", code="")), e.PermissionDeniedError, "not allowed"),
    final("403-html", answer(403, PAGE), e.PermissionDeniedError, "'Bad gateway'"),
    final(
        "403-permission_denied",
        answer(403, envelope("not for you", code="permission_denied")),
        e.PermissionDeniedError,
        "not for you",
    ),
    final(
        "403-insufficient_user_quota",
        answer(403, envelope("user quota is not enough", code="insufficient_user_quota")),
        e.BalanceExhaustedError,
        "user quota is not enough",
    ),
    final(
        "403-pre_consume_token_quota_failed",
        answer(403, envelope("token quota is not enough", code="pre_consume_token_quota_failed")),
        e.BalanceExhaustedError,
        "token quota is not enough",
    ),
    final("404", answer(404, {"detail": "does not exist", "status": 404}), e.ModelNotFoundError, "does not exist"),
    final("404-envelope", answer(404, envelope("not here", code="")), e.ModelNotFoundError, "not here"),
    final("404-html", answer(404, PAGE), e.WrongURLError, "'Bad gateway'"),
    final("405", answer(405, {"detail": "Method Not Allowed"}), e.WrongURLError, "Method Not Allowed"),
    final("409", answer(409, envelope("a conflict", code="")), e.BadRequestError, "a conflict"),
    final("413", answer(413, "Payload Too Large"), e.BadRequestError, "Payload Too Large"),
    *(
        final(f"{status}-html", answer(status, PAGE), e.BadRequestError, "'Bad gateway'")
        for status in (409, 413, 414, 415, 418, 422, 431, 451)
    ),
    *(final(f"{status}-html", answer(status, PAGE), e.WrongURLError, "'Bad gateway'") for status in (405, 410, 421)),
    final("422-fastapi", answer(422, FASTAPI), e.BadRequestError, "Field required"),
    final("422-problem", answer(422, problem(422, "prompt is required")), e.BadRequestError, "prompt is required"),
    final("451", answer(451, "not where you are"), e.BadRequestError, "not where you are"),
    # The code comes before the status.
    final(
        "429-insufficient_user_quota",
        answer(429, envelope("nothing left", code="insufficient_user_quota"), {"Retry-After": "1"}),
        e.BalanceExhaustedError,
        "nothing left",
        wait=1.0,
    ),
    final(
        "500-invalid_request",
        answer(500, envelope("field prompt is required", code="invalid_request")),
        e.BadRequestError,
        "field prompt is required",
    ),
    final(
        "500-convert_request_failed",
        answer(500, envelope("not supported model", code="convert_request_failed")),
        e.BadRequestError,
        "not supported model",
    ),
    final(
        "500-task-invalid_request",
        answer(500, task_error("a bad one", "invalid_request")),
        e.BadRequestError,
        "a bad one",
    ),
    final(
        "503-model_not_found",
        answer(503, envelope("no available channel for group default", code="model_not_found")),
        e.ModelNotFoundError,
        "no available channel",
    ),
    final("200-invalid_request", answer(200, task_error("a bad one", "invalid_request")), e.BadRequestError, "bad one"),
    *(
        final(str(status), answer(status, "", {"Location": "/somewhere"}), e.WrongURLError)
        for status in (300, 301, 302, 307, 308)
    ),
    final("304", answer(304), e.WrongURLError),
    final("301-html", answer(301, PAGE, {"Location": "https://comet.invalid/"}), e.WrongURLError, "'Bad gateway'"),
]

PASSING = [
    *(passing(f"429-{name}", answer(429, body), e.RateLimitedError, "said so") for name, body in ENVELOPES.items()),
    passing("429-text", answer(429, "slow down"), e.RateLimitedError, "slow down"),
    passing("429-empty", answer(429), e.RateLimitedError, ""),
    passing("429-html", answer(429, PAGE), e.RateLimitedError, "'Bad gateway'"),
    passing("429-type-error", answer(429, typed("slow down"), NO_HEADER), e.RateLimitedError, "slow down"),
    passing(
        "429-retry-after",
        answer(429, envelope("slow down", code=""), {"Retry-After": "17"}),
        e.RateLimitedError,
        "slow down",
        wait=17.0,
    ),
    passing(
        "429-retry-after-date",
        answer(
            429,
            envelope("slow down", code=""),
            {"Date": "Mon, 23 Nov 2026 06:19:43 GMT", "Retry-After": "Mon, 23 Nov 2026 06:20:04 GMT"},
        ),
        e.RateLimitedError,
        "slow down",
        wait=21.0,
    ),
    passing(
        "429-body-retry_after",
        answer(429, {"detail": "Request was throttled.", "status": 429, "retry_after": 35}),
        e.RateLimitedError,
        "Request was throttled.",
        wait=35.0,
    ),
    passing(
        "429-ratelimit-reset",
        answer(429, problem(429, "slow down"), {"ratelimit-reset": "40"}),
        e.RateLimitedError,
        "slow down",
        wait=40.0,
    ),
    passing(
        "429-retry-after-too-long",
        answer(429, envelope("slow down", code=""), {"Retry-After": "600"}),
        e.RateLimitedError,
        "slow down",
        wait=600.0,
    ),
    *(passing(f"503-{name}", answer(503, body), e.ServerError, "said so") for name, body in ENVELOPES.items()),
    passing("503-task-error", answer(503, task_error("too busy", "get_channel_failed")), e.ServerError, "too busy"),
    passing("503-type-error", answer(503, typed("too busy"), NO_HEADER), e.ServerError, "too busy"),
    passing(
        "503-retry-after",
        answer(503, envelope("too busy", code=""), {"Retry-After": "50"}),
        e.ServerError,
        "too busy",
        wait=50.0,
    ),
    *(
        passing(f"{status}-cf-ray", answer(status, PAGE, CF_RAY), e.ServerError, "'Bad gateway'")
        for status in (521, 523, 525, 526)
    ),
    *(
        passing(f"{status}-cloudflare-{number}", answer(status, cloudflare(number), CF_RAY), e.ServerError, "no origin")
        for status, number in [(521, 521), (523, 523), (525, 525), (526, 526), (530, 1016), (530, 1033)]
    ),
    passing(
        "521-cloudflare-retry_after",
        answer(521, {**cloudflare(521), "retry_after": 120}, CF_RAY),
        e.ServerError,
        "no origin",
        wait=120.0,
    ),
    *(
        passing(name, breaks, e.TransportError, says, request_id=None, timeouts=timeouts)
        for name, breaks, says, timeouts in [
            ("dns", unknown_host, "Name or service not known", None),
            ("refused", refused, "refused", None),
            ("connect-timeout", connects_never, "timed out", {"connect_timeout": 0.02}),
            ("tls-untrusted", untrusted, "certificate", None),
            ("tls-is-plain-http", talks(no_tls, "https"), "SSL", None),
            ("tls-reset", talks(reset_in_handshake, "https"), "reset", None),
            ("tls-mute", mute_handshake, "timed out", {"connect_timeout": 0.02, "read_timeout": 0.02}),
            ("proxy-without-tunnel", no_tunnel, "502", None),
            ("proxy-down", no_proxy_there, "refused", None),
        ]
    ),
]

UNCLEAR = [
    unclear("408", answer(408, "Request Timeout"), "Request Timeout"),
    *(unclear(f"500-{name}", answer(500, body), "said so") for name, body in ENVELOPES.items()),
    *(unclear(f"502-{name}", answer(502, body), "said so") for name, body in ENVELOPES.items()),
    *(unclear(f"504-{name}", answer(504, body), "said so") for name, body in ENVELOPES.items()),
    *(
        unclear(f"{status}-{name}", answer(status, body), says)
        for status in (500, 502, 503, 504)
        for name, body, says in [
            ("empty", None, ""),
            ("text", "upstream request timeout", "upstream request timeout"),
            ("html", PAGE, "'Bad gateway'"),
            ("problem", problem(status, "said so"), "said so"),
            ("fastapi", FASTAPI, "Field required"),
            ("error-text", {"error": "said so"}, "said so"),
        ]
    ),
    unclear("500-task-error", answer(500, task_error("lost the answer", "read_response_body_failed")), "lost the"),
    unclear("500-type-error", answer(500, typed("said so"), NO_HEADER), "said so"),
    unclear("500-id-in-message-only", answer(500, ENVELOPES["code-empty"], NO_HEADER), "said so"),
    unclear("500-without-id", answer(500, "said so", NO_HEADER), "said so", request_id=None),
    unclear("500-cf-ray", answer(500, PAGE, CF_RAY), "'Bad gateway'"),
    unclear("500-accepted", answer(500, ENVELOPES["other-code"], accept=True), "said so", accepted=1),
    unclear("502-accepted", answer(502, PAGE, accept=True), "'Bad gateway'", accepted=1),
    unclear("504-accepted", answer(504, "upstream request timeout", accept=True), "upstream", accepted=1),
    *(
        unclear(f"{status}-{name}", answer(status, f"error code: {status}", headers), f"error code: {status}")
        for status in (520, 522, 524)
        for name, headers in [("plain", {}), ("cf-ray", CF_RAY)]
    ),
    unclear("524-accepted", answer(524, PAGE, CF_RAY, accept=True), "'Bad gateway'", accepted=1),
    unclear("303", answer(303, "", {"Location": "/somewhere"}, accept=True), "base URL is probably wrong", accepted=1),
    unclear("499", answer(499, "client closed request", accept=True), "client closed request", accepted=1),
    # The gateway passes on what its provider's Cloudflare said; Cloudflare's page for all 5xx of a site.
    unclear("521-task-error-cf-ray", answer(521, task_error("error code: 521", "fail_to_fetch_task"), CF_RAY), "521"),
    unclear("521-cloudflare-other-ray", answer(521, {**cloudflare(521), "ray_id": "1"}, CF_RAY), "no origin"),
    unclear("530-cf-ray", answer(530, PAGE, CF_RAY, accept=True), "'Bad gateway'", accepted=1),
    *(
        unclear(
            f"{status}-cloudflare", answer(status, cloudflare(status), CF_RAY, accept=True), "no origin", accepted=1
        )
        for status in (500, 502, 503, 504, 520, 522, 524)
    ),
    unclear("503-cf-ray", answer(503, PAGE, CF_RAY, accept=True), "'Bad gateway'", accepted=1),
    unclear("503-envoy", answer(503, "upstream connect error or disconnect/reset before headers"), "before headers"),
    *(
        unclear(f"{status}-plain", answer(status, f"error code: {status}"), f"error code: {status}")
        for status in (521, 523, 525, 526, 530)
    ),
    unclear("200-no-id", answer(200, {"status": "starting"}), "starting"),
    unclear("201-no-id-accepted", answer(201, {"status": "starting"}, accept=True), "starting", accepted=1),
    unclear("201-id-null", answer(201, {"id": None, "status": "starting"}), "starting"),
    unclear("201-id-empty", answer(201, {"id": "", "status": "starting"}), "starting"),
    unclear("201-id-number", answer(201, {"id": 17, "status": "starting"}), "starting"),
    unclear("200-object", answer(200, {"hello": "world"}), "hello"),
    unclear("200-list", answer(200, [{"id": "abc", "status": "starting"}]), "starting"),
    unclear("200-without-task", answer(200, {"code": "success", "data": None})),
    unclear("200-envelope", answer(200, ENVELOPES["other-code"]), "said so"),
    unclear("200-type-error", answer(200, typed("said so"), NO_HEADER), "said so"),
    unclear("200-html", answer(200, PAGE), "base URL is probably wrong"),
    unclear("201-html-accepted", answer(201, PAGE, accept=True), "base URL is probably wrong", accepted=1),
    unclear("200-text", answer(200, "...not json"), "not json"),
    unclear("200-half-json", answer(200, '{"id": "abc", "sta'), "sta"),
    unclear("200-empty", answer(200)),
    unclear("201-garbled", answer(201, "no gzip at all", {"Content-Encoding": "gzip"}), "no gzip at all"),
    unclear("204", answer(204)),
]


def cut(name: str, breaks: Mapping[str, Any] | Breakage, says: str = "", **more: Any) -> Row:
    return unclear(name, breaks, says, request_id=None, **more)


HALF = b'HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"id": "abc", "status": "sta'
HALF_REJECTION = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 99\r\n\r\n{"error": {"message"'
HALF_CHUNK = b'HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n{"id": "abc"'
HALF_HEADERS = b"HTTP/1.1 201 Created\r\nContent-Le"
NO_ANSWER = [
    cut("closed-unread", talks(close_unread)),
    cut("reset-unread", talks(reset_unread)),
    cut("dropped-before", {"drop": "before"}),
    cut("dropped-after", {"drop": "after"}, accepted=1),
    cut("no-answer-closed", answers(b""), "without response"),
    cut("no-answer-reset", answers(b"", reset), "reset"),
    cut("read-timeout", answers(b"", hold), "timed out", timeouts={"read_timeout": 0.1}),
    cut(
        "read-timeout-accepted",
        {"drop": "after", "delay": 0.4},
        "timed out",
        accepted=1,
        timeouts={"read_timeout": 0.2},
    ),
    cut("cut-in-status-line", answers(b"HTTP/1.1 20")),
    cut("cut-in-headers", answers(HALF_HEADERS), raw_status=201),
    cut("cut-in-body", answers(HALF), "IncompleteRead"),
    cut("cut-in-body-reset", answers(HALF, reset)),
    cut("cut-in-rejection", answers(HALF_REJECTION), "IncompleteRead"),
    cut("cut-in-chunk", answers(HALF_CHUNK)),
    cut("stalled-in-body", answers(HALF, hold), "timed out", timeouts={"read_timeout": 0.1}),
    cut("no-http", answers(b"\x16\x03\x01 what?\r\n\r\n")),
]

CODE_STATUSES = (200, 500, 502, 504, 524)
BY_CODE = [
    final(f"{status}-code-{code}", answer(status, envelope("said so", code=code)), row.error, "said so")
    if row.proof
    else unclear(
        f"{status}-code-{code}", answer(status, envelope("said so", code=code), accept=True), "said so", accepted=1
    )
    for code, row in CODES.items()
    for status in CODE_STATUSES
]
"""Every code of the table at the statuses that can come from behind the point where a prediction exists."""

ROWS = [*FINAL, *PASSING, *UNCLEAR, *BY_CODE, *NO_ANSWER]
assert len({row.name for row in ROWS}) == len(ROWS)


# ---------------------------------------------------------------------------------------------------------------------
# The stage


class Stage:
    """A task that creates, the world it does so in, and what was written about it.

    :param clock: Airflow's retry delay and all waiting pass on it.
    :ivar written: each access to the store, in order: `read` or the state that is about to be written, and how many
        creates had been sent by then (`None`: nobody can count them).
    :ivar place: where creates go.
    """

    def __init__(self, comet: Emulator, clock: Clock, runner: TaskRunner, point_to: Callable[..., None]) -> None:
        self.comet, self.clock, self.runner = comet, clock, runner
        self.written: list[tuple[str, int | None]] = []
        self.refusal: Callable[[str], int] = lambda state: 200  # the store's answer, by what would be written
        self._point_to = point_to
        runner.on_store = self._on_store
        self.heal()

    def heal(self) -> None:
        """Let everything work from now on."""
        self.comet.clear_faults()
        self._point_to(self.comet.base_url)
        self.place = Place(self.comet.base_url, lambda: self.posts)

    def send_to(self, place: Place, timeouts: Mapping[str, float]) -> None:
        self.place = place
        self._point_to(place.url, **timeouts)

    def hurry(self) -> None:
        """Let each wait take 50 seconds longer: fewer creates make an attempt give up."""
        self.clock.on_sleep = lambda seconds: setattr(self.clock, "now", self.clock.now + 50)

    def run(self, policy: Policy, *, try_number: int = 1, max_tries: int = 2) -> Outcome:
        """One attempt; the list of what was written begins anew."""
        from airflow_provider_comet.operators.prediction import CreatePredictionOperator

        with dag():
            task = CreatePredictionOperator(
                task_id="create",
                model=SCHNELL,
                input={"prompt": "a lighthouse"},
                on_ambiguous_submit=policy,
                retries=max_tries,
            )
        self.written.clear()
        return self.runner.run(task, try_number=try_number, max_tries=max_tries)

    def next_try(self, policy: Policy) -> Outcome:
        """Airflow's own retry: five minutes later, in the same cycle."""
        self.clock.now += 300
        self.clock.sleeps.clear()
        return self.run(policy, try_number=2)

    def clear(self, policy: Policy) -> Outcome:
        """A user's clear: a day later, with as many retries again."""
        self.clock.now += 86_400
        self.clock.sleeps.clear()
        return self.run(policy, try_number=2, max_tries=3)

    @property
    def posts(self) -> int:
        """POSTs that the emulator got."""
        return sum(entry["method"] == "POST" for entry in self.comet.ledger()["requests"])

    @property
    def accepted(self) -> list[str]:
        """The ids of all predictions that exist."""
        return [made["id"] for made in self.comet.ledger()["creates"]]

    @property
    def record(self) -> Any:
        return self.runner.record("create")

    @property
    def now(self) -> str:
        """The time as a record has it."""
        return dt.datetime.fromtimestamp(self.clock.now, dt.UTC).isoformat(timespec="milliseconds")[:-6] + "Z"

    def _on_store(self, method: str, value: Any) -> int:
        state = value["state"] if method == "PUT" else "read"
        self.written.append((state, None if self.place.tries is None else self.place.tries()))
        return self.refusal(state)


@pytest.fixture
def stage(
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    point_to: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    """Everything works; the keeping of the record, and Airflow's client with its API server, wait on the clock, too."""
    from airflow.sdk.api.client import Client

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(Client.request.retry, "sleep", sleep)
    return Stage(comet, clock, runner, point_to)


@pytest.fixture
def broken(row: Row, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    """Everything works but what the row is about, for ever."""
    with contextlib.ExitStack() as stack:
        if isinstance(row.breaks, Mapping):
            stage.comet.fault(method="POST", count=None, **row.breaks)
            place = stage.place
        else:
            place = stack.enter_context(row.breaks(Tools(stage.comet, monkeypatch, tmp_path)))
        stage.send_to(place, row.timeouts or {})
        yield stage


def rows(some: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", some, ids=[row.name for row in some])


both_policies = pytest.mark.parametrize("policy", ["fail", "retry"])


def counted(stage: Stage, *written: tuple[str, int]) -> list[tuple[str, int | None]]:
    """What a list of accesses looks like where creates can be counted, or can't."""
    return [(state, None if stage.place.tries is None else tries) for state, tries in written]


def cause_of(outcome: Outcome) -> e.CometError:
    """This package's error."""
    return next(error for error in outcome.chain if isinstance(error, e.CometError))


def assert_failed_for_good(outcome: Outcome) -> None:
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert outcome.message.startswith(str(cause_of(outcome)))
    assert outcome.result is None


def assert_failed_for_now(outcome: Outcome) -> None:
    assert (outcome.state, outcome.error) == ("up_for_retry", cause_of(outcome))
    assert outcome.result is None


def assert_bought(stage: Stage, outcome: Outcome, *, posts: int, accepted: int, reason: str) -> None:
    """The attempt sent one create, it was accepted, and the record says so.

    :param posts: that there were before.
    :param accepted: that there were before.
    """
    assert (outcome.state, outcome.error) == ("success", None)
    assert len(stage.accepted) == accepted + 1
    assert outcome.result == stage.accepted[-1]
    assert stage.written == [
        ("read", posts),
        ("sending", posts),
        ("accepted", posts + 1),
        ("delivered", posts + 1),
    ]
    facts = {name: stage.record[name] for name in ("state", "id", "reason", "at", "answer", "request_id", "earlier")}
    assert facts == {
        "state": "delivered",
        "id": outcome.result,
        "reason": reason,
        "at": stage.now,
        "answer": None,
        "request_id": None,
        "earlier": [],
    }


# ---------------------------------------------------------------------------------------------------------------------
# One attempt, and the next one


def check_attempt(row: Row, policy: Policy, stage: Stage) -> None:
    """A first attempt: what it sends, raises and writes down, and when."""
    clock = stage.clock
    started = stage.now
    while_waiting: list[str] = []
    clock.on_sleep = lambda seconds: while_waiting.append(stage.record["state"])
    outcome = stage.run(policy)

    error = cause_of(outcome)
    assert type(error) is row.error
    assert (error.status, error.request_id, error.retry_after) == (
        row.status,
        row.request_id,
        row.wait,
    )
    assert row.says in str(error)
    assert str(error).endswith(error.next_step)

    if row.meaning == "passing" or (row.meaning == "unclear" and policy == "retry"):
        assert_failed_for_now(outcome)
    else:
        assert_failed_for_good(outcome)

    tries = len(clock.sleeps) + 1
    if row.meaning != "passing" or (row.wait or 0.0) >= RETRY_BUDGET:
        assert tries == 1
    else:
        longest = 30.0 if row.wait is None else 1.1 * row.wait
        assert RETRY_BUDGET - longest <= sum(clock.sleeps) <= RETRY_BUDGET
        assert min(clock.sleeps) >= (row.wait or 0.5)
        assert tries >= (6 if row.wait is None else 2)
    assert while_waiting == ["rejected"] * len(clock.sleeps)

    written = [("read", 0)]
    for number in range(tries):
        written += [("sending", number), (row.left, number + 1)]
    assert stage.written == counted(stage, *written)
    assert stage.posts == (tries if isinstance(row.breaks, Mapping) else 0)
    assert len(stage.accepted) == row.accepted

    assert list(stage.record["input"]) == ["prompt"]
    assert "lighthouse" not in str(stage.record)
    answered = f"HTTP {row.status}" if row.status else error.detail
    expected = {
        "version": 1,
        "state": row.left,
        "id": None,
        "reason": "first",
        "model": SCHNELL,
        "max_tries": 2,
        "at": started if row.meaning == "unclear" else stage.now,
        "answer": answered if row.meaning == "unclear" else None,
        "request_id": row.request_id if row.meaning == "unclear" else None,
        "earlier": [],
    }
    assert {name: stage.record[name] for name in expected} == expected


@both_policies
@rows(ROWS)
def test_attempt_and_next_try(row: Row, policy: Policy, broken: Stage) -> None:
    """An attempt that gets nothing else sends once, or for two minutes where nothing can have been accepted.

    Each create is preceded by `sending` on record, and each rejection is on record before anybody waits or gives up.

    Once the trouble is over, Airflow's next try submits after a rejection; after an unclear end it does so only if the
    policy takes the risk. Otherwise it sends nothing and names what is known about the create: when, for which model,
    and the request id; then a clear still submits.
    """
    check_attempt(row, policy, broken)
    before, posts = broken.record, broken.posts
    broken.heal()
    outcome = broken.next_try(policy)
    if row.meaning != "unclear":
        assert_bought(broken, outcome, posts=posts, accepted=0, reason="first")
    elif policy == "retry":
        assert_bought(broken, outcome, posts=posts, accepted=row.accepted, reason="retry_ambiguous")
    else:
        assert_failed_for_good(outcome)
        error = cause_of(outcome)
        assert type(error) is e.AmbiguousSubmissionError
        assert before["at"] in error.detail
        assert before["at"] < broken.now
        assert SCHNELL in error.detail
        assert (f"got HTTP {row.status}" if row.status else row.says) in error.detail
        assert (error.request_id, error.prediction_id) == (row.request_id, None)
        assert ("request id" in outcome.message) == (row.request_id is not None)
        assert broken.written == [("read", posts)]
        assert (broken.posts, len(broken.accepted), broken.clock.sleeps) == (posts, row.accepted, [])
        assert broken.record == before
        outcome = broken.clear(policy)
        assert_bought(broken, outcome, posts=posts, accepted=row.accepted, reason="clear")


LATER = [CodeMeaning(error, "all", proof=None) for error in (e.ServerError, e.RateLimitedError)]
"""What somebody may add for a code that means "try again later"."""


@both_policies
@pytest.mark.parametrize("status", CODE_STATUSES)
@pytest.mark.parametrize(
    ("code", "meaning"),
    [*CODES.items(), *(("try_later", meaning) for meaning in LATER)],
    ids=[*CODES, *(f"try_later-{meaning.error.__name__}" for meaning in LATER)],
)
def test_no_code_pays_twice(
    code: str, meaning: CodeMeaning, status: int, policy: Policy, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the code and its row: a create that was accepted all the same is sent once, and billed once, an attempt.

    That nothing is owed for it, the record says only where the row names who says so.
    """
    check_codes({code: meaning})
    monkeypatch.setitem(CODES, code, meaning)
    stage.comet.fault(method="POST", count=None, **answer(status, envelope("said so", code=code), accept=True))
    outcome = stage.run(policy)
    assert (stage.posts, len(stage.accepted), stage.clock.sleeps) == (1, 1, [])
    assert stage.record["state"] == ("rejected" if meaning.proof else "sending")
    if meaning.proof or policy == "fail":
        assert_failed_for_good(outcome)


@rows([row for row in PASSING if isinstance(row.breaks, Mapping) and (row.wait or 0.0) < RETRY_BUDGET])
def test_attempt_recovers(row: Row, stage: Stage) -> None:
    """After two rejections that pass, the same attempt succeeds and pays once."""
    stage.comet.fault(method="POST", count=2, **row.breaks)  # type: ignore[arg-type]  # the mark lets only these in
    while_waiting: list[str] = []
    stage.clock.on_sleep = lambda seconds: while_waiting.append(stage.record["state"])
    outcome = stage.run("fail")
    assert (outcome.state, outcome.error) == ("success", None)
    assert stage.accepted == [outcome.result]
    assert while_waiting == ["rejected", "rejected"]
    assert stage.written == [
        ("read", 0),
        ("sending", 0),
        ("rejected", 1),
        ("sending", 1),
        ("rejected", 2),
        ("sending", 2),
        ("accepted", 3),
        ("delivered", 3),
    ]
    assert (stage.record["state"], stage.record["id"]) == ("delivered", outcome.result)


def test_attempt_recovers_from_dns(
    stage: Stage, point_to: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is found at the third time of asking costs one create, and one prediction."""
    asked: list[str] = []

    def look_up(host: Any, *args: Any, original: Callable[..., Any] = socket.getaddrinfo, **kwargs: Any) -> Any:
        if host != "localhost":
            return original(host, *args, **kwargs)
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return original("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    point_to(stage.comet.base_url.replace("127.0.0.1", "localhost"))
    outcome = stage.run("fail")
    assert (outcome.state, outcome.error) == ("success", None)
    assert stage.accepted == [outcome.result]
    assert (stage.posts, len(asked), len(stage.clock.sleeps)) == (1, 3, 2)
    assert [state for state, _ in stage.written] == [
        "read",
        *["sending", "rejected"] * 2,
        "sending",
        "accepted",
        "delivered",
    ]


@both_policies
@pytest.mark.parametrize("row", [FINAL[0], UNCLEAR[0], NO_ANSWER[3]], ids=lambda row: row.name)
def test_last_answer_decides(row: Row, policy: Policy, stage: Stage) -> None:
    """What follows upon rejections that pass is judged like a first answer."""
    stage.comet.fault(method="POST", count=1, **answer(429, "slow down"))
    stage.comet.fault(method="POST", count=1, **answer(503, ENVELOPES["code-empty"]))
    stage.comet.fault(method="POST", count=None, **row.breaks)  # type: ignore[arg-type]  # all of them are of the emulator
    outcome = stage.run(policy)
    assert type(cause_of(outcome)) is row.error
    assert outcome.state == ("up_for_retry" if (row.meaning, policy) == ("unclear", "retry") else "failed")
    assert (stage.posts, len(stage.clock.sleeps)) == (3, 2)
    assert stage.record["state"] == row.left


def test_attempt_without_trouble(stage: Stage) -> None:
    """A create that nothing happens to is on record before it is sent, once accepted, and once handed over."""
    assert_bought(stage, stage.run("fail"), posts=0, accepted=0, reason="first")
    assert stage.clock.sleeps == []


@pytest.mark.parametrize(("status", "left"), [(401, "rejected"), (None, "delivered")], ids=["rejected", "delivered"])
def test_record_tells_the_time(status: int | None, left: str, stage: Stage) -> None:
    """Each state on record carries the time at which it was reached."""
    if status is not None:
        stage.comet.fault(method="POST", **answer(status))
    note, told = stage.runner.on_store, []

    def on_store(method: str, value: Any) -> int:
        if method == "PUT":
            told.append((value["state"], value["at"], stage.now))
        stage.clock.now += 3
        return note(method, value)

    stage.runner.on_store = on_store
    stage.run("fail")
    assert [at for _, at, _ in told] == [now for _, _, now in told]
    assert [state for state, _, _ in told] == ["sending", *(["accepted"] if status is None else []), left]
    assert stage.record["at"] == told[-1][1]


# ---------------------------------------------------------------------------------------------------------------------
# More tries, and a clear


CLEARED = {"400-code-empty", "401", "301", "429-retry-after", "503-code-null", "521-cf-ray", "dns", "refused"}


@both_policies
@rows([row for row in ROWS if row.meaning == "unclear" or row.name in CLEARED])
def test_clear(row: Row, policy: Policy, broken: Stage) -> None:
    """A user's clear submits anew, whatever happened before and whatever the policy."""
    broken.hurry()
    broken.run(policy)
    broken.heal()
    posts = broken.posts
    outcome = broken.clear(policy)
    reason = "clear" if row.meaning == "unclear" else "first"
    assert_bought(broken, outcome, posts=posts, accepted=row.accepted, reason=reason)
    assert broken.record["max_tries"] == 3


@rows([row for row in ROWS if row.meaning == "unclear"])
def test_unclear_again(row: Row, broken: Stage) -> None:
    """With the policy `retry` each try sends one create, and not more, while the answers stay unclear."""
    assert_failed_for_now(broken.run("retry"))
    assert_failed_for_now(broken.next_try("retry"))
    assert broken.written == counted(broken, ("read", 1), ("sending", 1), ("sending", 2))
    assert (len(broken.accepted), broken.clock.sleeps) == (2 * row.accepted, [])
    assert (broken.record["state"], broken.record["reason"]) == ("sending", "retry_ambiguous")


@both_policies
def test_next_try_after_a_delivery(policy: Policy, stage: Stage) -> None:
    """A try that follows upon a finished one, because Airflow never heard of its end, sends nothing."""
    first = stage.run(policy)
    outcome = stage.next_try(policy)
    assert (outcome.state, outcome.result) == ("success", first.result)
    assert stage.posts == 1


# ---------------------------------------------------------------------------------------------------------------------
# The store of the record fails

# An answer that Airflow's client passes on at once, and two that it repeats before.
STATUSES = [422, 500, 503]
statuses = pytest.mark.parametrize("status", STATUSES)


def fails(state: str, status: int) -> Callable[[str], int]:
    """The store refuses this one kind of access."""
    return lambda access: status if access == state else 200


def returns_after(stage: Stage, state: str, seconds: float, status: int = 422) -> None:
    """The store refuses this kind of access until so many seconds have passed."""
    since = stage.clock.now
    stage.refusal = lambda access: status if access == state and stage.clock.now < since + seconds else 200


def states(stage: Stage) -> list[str]:
    """What was accessed, repetitions told once."""
    accessed = [state for state, _ in stage.written]
    return [state for number, state in enumerate(accessed) if accessed[:number][-1:] != [state]]


@both_policies
@statuses
@pytest.mark.parametrize("access", ["read", "write"])
def test_store_is_down_before_the_create(access: str, status: int, policy: Policy, stage: Stage) -> None:
    """Without a word on record nothing is sent: five minutes later the task fails for now, and the next try pays."""
    started = stage.clock.now
    stage.refusal = lambda kind: status if (kind == "read") == (access == "read") else 200
    outcome = stage.run(policy)
    assert_failed_for_now(outcome)
    assert type(outcome.error) is e.SubmissionRecordError
    assert set(stage.clock.sleeps) == {5.0}
    assert STORE_BUDGET - 5 < stage.clock.now - started <= STORE_BUDGET + 150
    assert states(stage)[:2] == (["read"] if access == "read" else ["read", "sending"])
    assert (stage.comet.ledger()["requests"], stage.record) == ([], None)
    stage.refusal = lambda access: 200
    assert_bought(stage, stage.next_try(policy), posts=0, accepted=0, reason="first")


@both_policies
@statuses
def test_store_takes_the_intent_and_does_not_say_so(status: int, policy: Policy, stage: Stage) -> None:
    """A `sending` that is on record although its write failed, and after which nothing was sent, holds nobody back."""
    note = stage.runner.on_store

    def on_store(method: str, value: Any) -> int:
        if method == "PUT" and value["state"] == "sending":
            stage.runner.store["create/-1/comet_submission"] = value
        return note(method, value)

    stage.runner.on_store = on_store
    stage.refusal = fails("sending", status)
    assert_failed_for_now(stage.run(policy))
    assert (stage.comet.ledger()["requests"], stage.record["state"]) == ([], "rejected")
    stage.refusal = lambda access: 200
    assert_bought(stage, stage.next_try(policy), posts=0, accepted=0, reason="first")


@statuses
@pytest.mark.parametrize("state", ["read", "sending", "accepted", "delivered"])
def test_store_comes_back(state: str, status: int, stage: Stage) -> None:
    """A store that is back within five minutes costs nothing but time: one create, and its id."""
    returns_after(stage, state, 280, status)
    outcome = stage.run("fail")
    assert (outcome.state, outcome.error) == ("success", None)
    assert stage.accepted == [outcome.result]
    assert stage.posts == 1
    assert states(stage) == ["read", "sending", "accepted", "delivered"]
    assert set(stage.clock.sleeps) == {5.0}
    assert (stage.record["state"], stage.record["id"]) == ("delivered", outcome.result)


@both_policies
def test_store_does_not_know_the_task(policy: Policy, stage: Stage) -> None:
    """A 404 to everything reads like an empty store; what can't be written is not sent all the same."""
    stage.refusal = lambda access: 404
    outcome = stage.run(policy)
    assert_failed_for_now(outcome)
    assert type(outcome.error) is e.SubmissionRecordError
    assert stage.comet.ledger()["requests"] == []


@both_policies
def test_store_refuses_an_attempt_that_was_given_up(policy: Policy, stage: Stage) -> None:
    """A try that Airflow has replaced by the next one can't write any more (409), so it sends nothing."""
    stage.refusal = lambda access: 200 if access == "read" else 409
    assert_failed_for_now(stage.run(policy))
    assert (stage.comet.ledger()["requests"], stage.record) == ([], None)


@both_policies
@statuses
def test_store_is_down_after_the_create(status: int, policy: Policy, stage: Stage) -> None:
    """A paid id that can't be put on record is tried for five minutes and then handed to the user, not lost.

    No try may follow by itself, under either policy; with the id in the record, a clear continues with it.
    """
    started = stage.clock.now
    stage.refusal = fails("accepted", status)
    outcome = stage.run(policy)
    assert_failed_for_good(outcome)
    (made,) = stage.accepted
    error = cause_of(outcome)
    assert type(error) is e.UnrecordedPredictionError
    assert error.prediction_id == made
    assert made in outcome.message
    assert "comet_submission" in outcome.message
    assert outcome.xcoms["prediction_id"] == made
    assert set(stage.clock.sleeps) == {5.0}
    assert STORE_BUDGET - 5 < stage.clock.now - started <= STORE_BUDGET + 150
    assert states(stage) == ["read", "sending", "accepted"]
    assert stage.posts == 1
    assert (stage.record["state"], stage.record["id"]) == ("sending", None)

    stage.refusal = lambda access: 200
    stage.runner.store["create/-1/comet_submission"] = {"version": 1, "state": "accepted", "id": made}
    outcome = stage.clear(policy)
    assert (outcome.state, outcome.result) == ("success", made)
    assert (stage.posts, stage.accepted) == (1, [made])


def test_store_is_down_after_the_create_and_a_try_follows(stage: Stage) -> None:
    """Should a try follow nevertheless, the record's `sending` holds it back."""
    stage.refusal = fails("accepted", 422)
    stage.run("fail")
    stage.refusal = lambda access: 200
    outcome = stage.next_try("fail")
    assert_failed_for_good(outcome)
    assert type(cause_of(outcome)) is e.AmbiguousSubmissionError
    assert (stage.posts, len(stage.accepted)) == (1, 1)


@both_policies
@statuses
def test_store_is_down_at_the_handover(status: int, policy: Policy, stage: Stage) -> None:
    """Where only the last word can't be written, the next try continues with the paid id and sends nothing."""
    stage.refusal = fails("delivered", status)
    outcome = stage.run(policy)
    assert outcome.state == "up_for_retry"
    assert type(outcome.error) is e.SubmissionRecordError
    (made,) = stage.accepted
    assert (stage.record["state"], stage.record["id"]) == ("accepted", made)
    stage.refusal = lambda access: 200
    outcome = stage.next_try(policy)
    assert (outcome.state, outcome.result) == ("success", made)
    assert (stage.posts, stage.accepted) == (1, [made])
    assert stage.record["state"] == "delivered"


@both_policies
@rows([row for row in ROWS if row.name in {"401", "429-text", "503-code-empty", "500-invalid_request"}])
def test_store_is_down_after_a_rejection(row: Row, policy: Policy, broken: Stage) -> None:
    """A rejection that can't be put on record is not followed by another create; the record stays on the safe side.

    The error is the rejection: it says what has to be done.
    """
    broken.refusal = fails("rejected", 422)
    outcome = broken.run(policy)
    assert outcome.state == ("failed" if row.meaning == "final" else "up_for_retry")
    assert type(cause_of(outcome)) is row.error
    assert states(broken) == ["read", "sending", "rejected"]
    assert (broken.posts, broken.record["state"]) == (1, "sending")
    broken.refusal = lambda access: 200
    broken.heal()
    outcome = broken.next_try(policy)
    if policy == "fail":
        assert_failed_for_good(outcome)
        assert (broken.posts, broken.accepted) == (1, [])
    else:
        assert_bought(broken, outcome, posts=1, accepted=0, reason="retry_ambiguous")


def test_store_comes_back_after_a_rejection(stage: Stage) -> None:
    """A rejection that gets on record within the attempt's two minutes is followed by the create that succeeds."""
    stage.comet.fault(method="POST", count=1, **answer(429, "slow down"))
    returns_after(stage, "rejected", 60)
    outcome = stage.run("fail")
    assert outcome.state == "success"
    assert (stage.posts, stage.accepted) == (2, [outcome.result])
    assert states(stage) == ["read", "sending", "rejected", "sending", "accepted", "delivered"]


@both_policies
@rows([row for row in ROWS if row.name in {"502-accepted", "dropped-after", "200-html", "cut-in-body"}])
def test_store_is_down_after_an_unclear_answer(row: Row, policy: Policy, broken: Stage) -> None:
    """The record says `sending` already: nobody waits for the store, and the error stays the one that counts."""

    def refuse(access: str) -> int:
        return 422 if access == "sending" and len(broken.written) == 3 else 200

    broken.refusal = refuse
    outcome = broken.run(policy)
    error = cause_of(outcome)
    assert type(error) is e.AmbiguousSubmissionError
    assert (error.request_id, broken.clock.sleeps) == (row.request_id, [])
    assert [state for state, _ in broken.written] == ["read", "sending", "sending"]
    assert (broken.record["state"], broken.record["answer"]) == ("sending", None)
    broken.heal()
    posts = broken.posts
    outcome = broken.next_try(policy)
    if policy == "fail":
        assert_failed_for_good(outcome)
        assert "ended before there was an answer" in outcome.message
        assert broken.posts == posts
    else:
        assert_bought(broken, outcome, posts=posts, accepted=row.accepted, reason="retry_ambiguous")


UNREADABLE = {
    "text": "accepted",
    "number": 17,
    "list": [{"version": 1, "state": "rejected"}],
    "empty-object": {},
    "false": False,
    "empty-text": "",
    "no-version": {"state": "rejected"},
    "version-as-text": {"version": "1", "state": "rejected"},
    "newer-version": {"version": 2, "state": "rejected", "id": None},
    "newer-version-accepted": {"version": 2, "state": "accepted", "id": "abc"},
    "older-version": {"version": 0, "state": "rejected"},
    "no-state": {"version": 1},
    "unknown-state": {"version": 1, "state": "canceled"},
    "state-of-wrong-type": {"version": 1, "state": ["rejected"]},
    "accepted-without-id": {"version": 1, "state": "accepted"},
    "delivered-with-empty-id": {"version": 1, "state": "delivered", "id": ""},
    "id-is-a-number": {"version": 1, "state": "accepted", "id": 17},
    "reason-is-a-list": {"version": 1, "state": "rejected", "reason": ["first"]},
    "max_tries-is-text": {"version": 1, "state": "sending", "max_tries": "2"},
    "earlier-is-text": {"version": 1, "state": "rejected", "earlier": "abc"},
    "input-is-text": {"version": 1, "state": "rejected", "input": "abc"},
}


@both_policies
@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_record_is_unreadable(value: Any, policy: Policy, stage: Stage) -> None:
    """A record that says nothing is not the same as no record: no try and no clear sends anything, or changes it."""
    stage.runner.store["create/-1/comet_submission"] = value
    for attempt in (stage.run, stage.next_try, stage.clear):
        outcome = attempt(policy)
        assert_failed_for_good(outcome)
        assert type(cause_of(outcome)) is MalformedRecordError
        assert "comet_submission" in outcome.message
        assert stage.written == [("read", 0)]
        assert stage.clock.sleeps == []
    assert stage.comet.ledger()["requests"] == []
    assert stage.record == value
