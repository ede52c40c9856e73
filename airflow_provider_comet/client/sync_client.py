"""The only module that touches the network. It loops and sends; ``api`` decides."""

from __future__ import annotations

import io
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from airflow_provider_comet import __version__
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import (
    AmbiguousSubmissionError,
    CometError,
    RateLimitedError,
)
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.polling import schedule as polling
from airflow_provider_comet.polling.rate_limiter import CREATES_PER_SECOND, LOOKS_AT_ONCE, Pace
from airflow_provider_comet.submissions.record import Journal

HEADERS: Final = {"User-Agent": f"airflow-provider-comet/{__version__}", "Accept": "application/json"}


class CometClient:
    """Blocking client on ``requests``, for workers.

    :param config: where the API is.
    :param sleep: how to wait between two attempts, instead of until ``halt``; tests inject their own, with ``clock``.
    """

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.session = _Session(config)
        self._halted = threading.Event()
        self._sleep = sleep or self._halted.wait
        self._clock = clock
        self._looks = Pace(config.max_polls_per_second)
        self._creates = Pace(CREATES_PER_SECOND)
        self._pacing = threading.Lock()

    def create_prediction(self, model: object, input: object, *, journal: Journal | None = None) -> Prediction:
        """Submit a prediction, once; it is repeated only when it certainly was not accepted.

        Several threads may create at once: a 429 for one of them slows all of them down.

        :param journal: is told before and after each time it is sent.
        :raises AmbiguousSubmissionError: it may have been accepted.
        :raises CometError: it was not.
        """
        request = protocol.create_prediction(model, input)
        sent = 0.0

        def create() -> Prediction:
            nonlocal sent
            sent = self._turn(self._creates)
            return self._create(request, journal)

        def limited(delay: float) -> None:
            with self._pacing:
                self._creates.limited(sent=sent, now=self._clock(), retry_after=delay, chance=0.0)

        return self._patiently(create, limited)

    def get_prediction(self, prediction_id: object) -> Prediction:
        """Return the prediction as it is now; trouble that may pass is waited out for up to two minutes.

        :raises CometError: it can't be read.
        """
        return self._patiently(lambda: self.look(prediction_id))

    def look(self, prediction_id: object) -> Prediction:
        """Ask once, when its turn has come: several threads may look at once.

        :raises CometError: no prediction came back.
        """
        request = protocol.get_prediction(prediction_id)
        sent = self._turn(self._looks)
        try:
            return protocol.read_prediction(request, self._exchange(request))
        except RateLimitedError:
            with self._pacing:
                # No pause here: whoever called waits for as long as the error says, and knows a deadline.
                self._looks.limited(sent=sent, now=self._clock(), retry_after=0.0, chance=0.0)
            raise

    def count_models(self) -> int:
        """Return how many models the key can see: a free call that tells whether URL and key are right.

        :raises CometError: they are not.
        """
        request = protocol.list_models()
        return protocol.read_models(request, self._exchange(request))

    def halt(self) -> None:
        """Let nobody sleep any more: a task that ends must not wait for a rate limit to pass."""
        self._halted.set()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _turn(self, pace: Pace) -> float:
        """Wait for a turn: when it was."""
        while True:
            with self._pacing:
                at, pauses = pace.turn(self._clock()), pace.pauses
            if (delay := at - self._clock()) > 0.001:  # less is a rounding of the clock
                self._sleep(delay)
            if pace.pauses == pauses:  # otherwise a pause has begun meanwhile
                return at

    def _patiently(
        self, call: Callable[[], Prediction], limited: Callable[[float], None] = lambda delay: None
    ) -> Prediction:
        started, attempt = self._clock(), 0
        while True:
            try:
                return call()
            except CometError as error:
                attempt += 1
                delay = polling.retry_delay(
                    error, attempt=attempt, elapsed=self._clock() - started, chance=random.random()
                )
                if isinstance(error, RateLimitedError):
                    limited(delay or error.retry_after or 0.0)
                if delay is None or self._halted.is_set():
                    raise
            self._sleep(delay)

    def _create(self, request: protocol.Request, journal: Journal | None) -> Prediction:
        if journal is None:
            return protocol.read_prediction(request, self._exchange(request))
        body = _Body(request.body or b"")
        journal.sending()
        try:
            return protocol.read_prediction(request, self._exchange(request, body))
        except AmbiguousSubmissionError as error:
            journal.unclear(error)
            raise
        except BaseException as error:  # also Airflow's task timeout: what never left can't have been accepted
            if isinstance(error, CometError) or not body.was_read:
                journal.rejected()
            raise

    def _exchange(self, request: protocol.Request, body: _Body | None = None) -> Response:
        """Send a request, with this body if it has one, and take the answer in, whatever it says."""
        outside = sys.exc_info()[1]
        # A kept-alive connection may be dead already, and a create that dies on it would look as if it might have been
        # accepted: each one goes out on a connection of its own.
        session = _Session(self.config) if request.is_create else self.session
        if body is None and request.body is not None:
            body = _Body(request.body)
        try:
            answer = session.request(
                request.method,
                self.config.base_url + request.path,
                data=body,
                headers={"Content-Type": "application/json"} if body else None,
            )
            return Response.received(answer.status_code, answer.headers, answer.content, self.config.api_key)
        except Exception as error:  # whatever it is: a create that may have arrived must not look like one that did not
            raise protocol.transport_error(
                request, root_cause(error, self.config, outside), sent=body is not None and body.was_read
            ) from None  # the chain holds URLs and headers; the root cause is in the message
        finally:
            if session is not self.session:
                session.close()


class _OriginAuth(AuthBase):
    """Attach the key to requests for the configured origin only. Being there at all, it also keeps netrc out."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._config.is_own(request.url or ""):
            request.headers["Authorization"] = f"Bearer {self._config.api_key}"
        return request


class _Session(requests.Session):
    """A session that follows no redirect: one would carry the call, and with http.client's rules a key, elsewhere."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.headers.update(HEADERS)
        self.auth = _OriginAuth(config)
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=LOOKS_AT_ONCE))
        self._timeout = (config.connect_timeout, config.read_timeout)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:  # requests would wait for ever
            kwargs["timeout"] = self._timeout
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class _Body(io.BytesIO):
    """A request body that knows whether it was asked for: before that, no server can have accepted it.

    This holds for every way in which a connection can fail to come about (DNS, refusal, proxy, TLS, timeout), without a
    list of the exceptions that stand for them.
    """

    was_read = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.was_read = True
        return super().read(size)


def root_cause(error: BaseException, config: Config, outside: BaseException | None) -> str:
    """The innermost reason, and where it happened.

    :param outside: what was being handled when the call began; it has nothing to do with it.
    """
    return f"{config.base_url}: {innermost(error, outside)}".replace(config.api_key, "***")


def innermost(error: BaseException, outside: BaseException | None) -> str:
    """The innermost reason that has words; the outer ones of both libraries repeat URLs and object addresses.

    :param outside: as for ``root_cause``.
    """
    reason = error
    inner: BaseException | None = error
    while inner is not None and inner is not outside:
        reason = inner if str(inner) else reason
        inner = inner.__cause__ or inner.__context__
    return f"{type(reason).__name__}: {reason}"
