"""The blocking client, for workers: takes a ``Request``, returns a ``Response``."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from requests.auth import AuthBase

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import AmbiguousSubmissionError, CometError, RateLimitedError
from airflow_provider_comet.api.journal import Journal
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.client.body import Body
from airflow_provider_comet.client.common import HEADERS, root_cause, timeout_words
from airflow_provider_comet.client.connections import (
    Connections,
    GuardedAdapter,
    GuardedConnection,
    Session,
    TimeLimit,
    pools_of,
)
from airflow_provider_comet.client.uninterrupted import run_uninterrupted
from airflow_provider_comet.polling import clock, threads
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS, Backoff
from airflow_provider_comet.polling.rate_limiter import CONCURRENT_POLLS, CREATES_PER_SECOND, RateLimiter

READ_BYTES = 64 * 1024

T = TypeVar("T")


class CometClient:
    """Blocking client on ``requests``, for workers. Several threads may use it at once.

    :param config: where the API is, and the key.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._connections = Connections()
        self.session = _Session(config, self._connections)
        self._halted = threading.Event()
        self._poll_limiter = RateLimiter(config.max_polls_per_second)
        self._create_limiter = RateLimiter(CREATES_PER_SECOND)
        self._limiting = threads.Lock()

    def send(self, request: Request, *, journal: Journal | None = None) -> Response:
        """Send a request once, when the rate limit allows, and return the answer whatever it says.

        :param journal: is told what became of a create.
        :raises TransportError: there is no answer, and nothing was accepted.
        :raises AmbiguousSubmissionError: there is no answer to a create that may have been accepted.
        """
        limiter = self._create_limiter if request.may_cost_money else self._poll_limiter
        sent_at = self._acquire(limiter)
        if journal is None:
            response = self._exchange(request)
        else:
            response = run_uninterrupted(lambda: self._exchange_on_record(request, journal), journal.interrupted)
        if protocol.is_rate_limited(request, response):
            # Only the rate falls here. `retry` pauses all creates; its caller pauses a poll, and knows a deadline.
            with self._limiting:
                limiter.on_rate_limited(sent_at=sent_at, now=clock.monotonic(), retry_after=0.0, chance=0.0)
        return response

    def retry(self, request: Request, call: Callable[[], T]) -> T:
        """Return what a call returns, and repeat it for up to two minutes while its error says that a retry may help.

        :param request: what the call sends. After a 429 to a create all creates of this client pause with it.
        :raises CometError: no attempt succeeded.
        """
        backoff = Backoff(RETRY_BUDGET_SECONDS, started_at=clock.monotonic())
        while True:
            try:
                return call()
            except CometError as error:
                if not error.retryable:
                    raise
                now = clock.monotonic()
                pause = backoff.next_pause(now, chance=random.random(), retry_after=error.retry_after)
                if request.may_cost_money and isinstance(error, RateLimitedError):
                    self._pause_creates(now, pause or error.retry_after or 0.0)
                if pause is None or self._halted.is_set():
                    raise
            clock.wait(self._halted, pause)

    def halt(self) -> None:
        """End every sleep and every poll, also later ones: a task that ends must not wait for anything.

        A create that is being sent is not ended: its answer says what was paid for. It may be called from a signal
        handler and from any thread.
        """
        self._halted.set()
        self._connections.abort()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _acquire(self, limiter: RateLimiter) -> float:
        """Wait until the limiter lets a request through, and return when that was."""
        while True:
            with self._limiting:
                slot_at, pauses = limiter.acquire(clock.monotonic()), limiter.pauses
            if (delay := slot_at - clock.monotonic()) > 0.001:  # less is a rounding of the clock
                clock.wait(self._halted, delay)
            if limiter.pauses == pauses:  # otherwise a pause has begun meanwhile, and the slot is void
                return slot_at

    def _pause_creates(self, now: float, seconds: float) -> None:
        with self._limiting:  # the rate was halved when the answer came
            self._create_limiter.on_rate_limited(sent_at=float("-inf"), now=now, retry_after=seconds, chance=0.0)

    def _exchange_on_record(self, request: Request, journal: Journal) -> Response:
        body = _RequestBody(request.body or b"")
        journal.sending(self.config.key_from)
        try:
            response = self._exchange(request, body)
        except BaseException as error:
            _note_failure(journal, error, was_sent=body.was_read)
            raise
        try:
            prediction = protocol.read_prediction(request, response)
        except CometError as error:  # the caller gets it from the response
            _note_failure(journal, error, was_sent=True)
        else:
            journal.accepted(prediction.id)
        return response

    def _exchange(self, request: Request, body: _RequestBody | None = None) -> Response:
        outside = sys.exc_info()[1]
        connections, session = self._connections, self.session
        if request.may_cost_money:
            # A kept-alive connection may be dead already, and a create that fails on it would count as possibly
            # accepted: each create goes out on a connection of its own.
            connections = Connections()
            session = _Session(self.config, connections)
        if body is None and request.body is not None:
            body = _RequestBody(request.body)
        limit = TimeLimit(self.config.read_timeout)
        try:
            if connections.is_aborted:
                raise ConnectionAbortedError("the task was ended")  # as an exchange that is cut off
            with connections.limited(limit):
                answer = session.request(
                    request.method,
                    self.config.base_url + request.path,
                    data=body,
                    headers={"Content-Type": "application/json"} if body else None,
                    stream=True,
                )
                content = _read(answer)
            response = Response.received(answer.status_code, answer.headers, content, self.config.api_key)
            if response.json is None and (limit.is_over or connections.is_aborted):
                raise ConnectionAbortedError  # http.client takes headers that broke off for complete
        except Exception as error:  # whatever it is: a create that may have arrived must not look like one that did not
            detail = root_cause(error, self.config, outside)
            if limit.is_over:
                detail = timeout_words(self.config)
            elif connections.is_aborted:
                detail = "the task was ended"
            # No chain: it holds URLs and headers; the root cause is in the message.
            sent = body is not None and body.was_read
            raise protocol.transport_error(request, detail, sent=sent) from None
        finally:
            if session is not self.session:
                session.close()
        return response


def _read(answer: requests.Response) -> bytes:
    """Return the body of an answer within the limit of its size, and release its connection."""
    body = Body(answer.headers.get("Content-Encoding", ""))
    with contextlib.closing(answer):
        while (piece := answer.raw.read1(READ_BYTES, decode_content=False)) and body.add(piece):
            pass
    return body.read()


def _note_failure(journal: Journal, error: BaseException, *, was_sent: bool) -> None:
    if isinstance(error, AmbiguousSubmissionError):
        journal.unclear(error)
    elif isinstance(error, CometError) or not was_sent:  # also Airflow's task timeout: what never left is not accepted
        journal.rejected()


class _OriginAuth(AuthBase):
    """Attaches the key to requests for the configured origin only. Its presence also keeps netrc out."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._config.is_own(request.url or ""):
            request.headers["Authorization"] = f"Bearer {self._config.api_key}"
        return request


class _Session(Session):
    """A session that sends the key to its own origin, and to no other host by a redirect.

    :param connections: where its connections are registered.
    """

    def __init__(self, config: Config, connections: Connections) -> None:
        pools = pools_of(GuardedConnection, connections=connections)
        super().__init__(GuardedAdapter(pools, pools, CONCURRENT_POLLS))
        self.headers.update(HEADERS)
        self.auth = _OriginAuth(config)
        self._timeout = (config.connect_timeout, config.read_timeout)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:  # requests would wait for ever
            kwargs["timeout"] = self._timeout
        return super().send(request, **kwargs)


class _RequestBody(io.BytesIO):
    """A request body that knows whether it was read: before that, no server can have accepted it.

    This holds for every way in which a connection can fail (DNS, refusal, proxy, TLS, timeout), without a list of the
    exceptions that stand for them.
    """

    was_read = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.was_read = True
        return super().read(size)
