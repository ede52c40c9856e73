"""Files from delivery hosts: without the key, from public addresses only, whole or not at all."""

from __future__ import annotations

import hashlib
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Final
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from airflow_provider_comet.api import delivery, polling
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.output_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.client import HEADERS, innermost

CHUNK_BYTES: Final = 1024 * 1024
# "identity": a packed body would make its length and its ranges say nothing about the file.
_FILE_HEADERS: Final = {**HEADERS, "Accept": "*/*", "Accept-Encoding": "identity"}


class Delivery:
    """Fetches files; a context manager, which closes its connections.

    :param config: where the API is, and which hosts may deliver. Its key is not used.
    :param sleep: how to wait between two attempts; tests inject their own, with ``clock``.
    """

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self.sleep = sleep
        self.clock = clock
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers.update(_FILE_HEADERS)
        self._session.auth = _no_auth
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(config.is_local)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def open(self, url: str, max_bytes: int) -> Download:
        """Ask for a file; its body is still to be read.

        :param max_bytes: a larger file is refused, at the latest when it has sent so much.
        :raises OutputExpiredError: the link is no longer good.
        :raises OutputRefusedError: it leads where it must not, or to something that can't be stored.
        :raises DeliveryError: no file within two minutes.
        """
        return Download(self, url, max_bytes)

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send one request, and follow redirects: each of them is checked like the link itself."""
        outside = sys.exc_info()[1]
        for _ in range(delivery.MOST_HOPS + 1):
            delivery.check_link(url, self._config.output_hosts, is_local=self._config.is_local)
            try:
                answer = self._session.get(
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._config.connect_timeout, self._config.read_timeout),
                )
            except (requests.RequestException, OSError) as error:
                raise failure(url, error, outside) from None
            if not answer.is_redirect:
                return answer
            answer.close()
            url = urljoin(url, answer.headers["Location"])
        raise OutputRefusedError(f"more than {delivery.MOST_HOPS} redirects")


class Download:
    """One file on its way. Iterate over it, once: every byte in order, or an error.

    A connection that is lost is made again, and goes on where the other one ended. Where the server can't do that, what
    it sends again is compared with what was there, and left out.
    """

    def __init__(self, delivery_: Delivery, url: str, max_bytes: int) -> None:
        self._delivery = delivery_
        self._url = url
        self._max_bytes = max_bytes
        self._retries = _Retries()
        self._digest = hashlib.sha256()
        self._head: delivery.Head | None = None
        self.received = 0
        self._answer = self._connect()

    @property
    def media_type(self) -> str | None:
        """What the server says it is."""
        return self._first.media_type

    @property
    def size(self) -> int | None:
        """Bytes, if the server said so before it sent them."""
        return self._first.size

    @property
    def sha256(self) -> str:
        """Of what was received, in hexadecimal digits."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Give the connection back."""
        self._answer.close()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                yield from self._rest()
            except DeliveryError as error:
                self.close()
                self._pause(error)
                self._answer = self._connect()
            else:
                return

    @property
    def _first(self) -> delivery.Head:
        assert self._head is not None
        return self._head

    def _connect(self) -> requests.Response:
        while True:
            try:
                return self._ask()
            except DeliveryError as error:
                self._pause(error)

    def _ask(self) -> requests.Response:
        headers = delivery.resume_headers(self.received, self._head.tag if self._head else None)
        answer = self._delivery.get(self._url, headers)
        try:
            head = delivery.read_head(answer.status_code, answer.headers, asked_from=self.received if headers else 0)
            if self._max_bytes < (head.size or 0):
                raise OutputRefusedError(f"the file has {head.size} bytes; max_bytes is {self._max_bytes}")
        except BaseException:
            answer.close()
            raise
        self._head = self._head or head
        self._skip = self.received - head.start
        return answer

    def _rest(self) -> Iterator[bytes]:
        again = hashlib.sha256()
        for chunk in self._chunks():
            seen, new = chunk[: self._skip], chunk[self._skip :]
            if seen:
                again.update(seen)
                self._skip -= len(seen)
                if not self._skip and again.digest() != self._digest.digest():
                    self._retries.are_over = True
                    raise DeliveryError("the file has changed while it was fetched")
            if new:
                self.received += len(new)
                if self.received > self._max_bytes:
                    raise OutputRefusedError(f"the file has more bytes than max_bytes, {self._max_bytes}")
                self._digest.update(new)
                self._retries.note(self.received)
                yield new
        if self._skip or self.received != (self.size or self.received):
            raise DeliveryError(f"the connection ended after {self.received} of {self.size} bytes")

    def _chunks(self) -> Iterator[bytes]:
        """What comes, while it comes fast enough. The time that the caller needs for a chunk does not count."""
        outside = sys.exc_info()[1]
        clock = self._delivery.clock
        arrived, waited = 0, 0.0
        while True:
            began = clock()
            try:
                chunk = self._answer.raw.read1(CHUNK_BYTES)
            except (HTTPError, OSError) as error:
                raise failure(self._url, error, outside) from None
            if not chunk:
                return
            arrived, waited = arrived + len(chunk), waited + clock() - began
            if arrived >= delivery.STRIDE:
                arrived, waited = 0, 0.0
            elif waited > polling.PATIENCE:
                raise DeliveryError(f"fewer than {delivery.STRIDE} bytes came within {polling.PATIENCE:.0f} s")
            yield bytes(chunk)

    def _pause(self, error: DeliveryError) -> None:
        self._delivery.sleep(self._retries.delay(error))


class _Retries:
    """How often a file is asked for again: for ``polling.PATIENCE`` seconds, anew whenever it has grown."""

    def __init__(self) -> None:
        self.are_over = False
        self._attempt = 0
        self._slept = 0.0
        self._grown_to = 0

    def note(self, received: int) -> None:
        """Take note of bytes that were new."""
        if received - self._grown_to >= delivery.STRIDE:
            self._attempt, self._slept, self._grown_to = 0, 0.0, received

    def delay(self, error: DeliveryError) -> float:
        """Seconds until the next attempt.

        :raises DeliveryError: there is none; this was it.
        """
        self._attempt += 1
        delay = polling.retry_delay(error, attempt=self._attempt, elapsed=self._slept, chance=random.random())
        if delay is None or self.are_over:
            raise error
        self._slept += delay
        return delay


def failure(url: str, error: BaseException, outside: BaseException | None) -> DeliveryError:
    """The error for a connection that failed. It names the host: the rest of a link may be a signature."""
    return DeliveryError(f"{urlsplit(url).hostname}: {innermost(error, outside)}")


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Attach nothing. Being there at all, it keeps netrc out."""
    return request


class _Adapter(HTTPAdapter):
    """Checks the address that each connection has really come to: a name may lead to another one each time it is looked
    up. Connections to a proxy are not made here: behind one, the list of hosts decides alone.

    :param is_local: this machine's own addresses are allowed.
    """

    def __init__(self, is_local: bool) -> None:
        super().__init__()

        class Checked(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _checked(super()._new_conn(), is_local)

        class CheckedTLS(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _checked(super()._new_conn(), is_local)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Checked

        class TLSPool(HTTPSConnectionPool):
            ConnectionCls = CheckedTLS

        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": TLSPool}


def _checked(connection: socket.socket, is_local: bool) -> socket.socket:
    """The connection, before anything is sent over it, if its other end may be spoken to."""
    try:
        delivery.check_address(connection.getpeername()[0], is_local=is_local)
    except BaseException:
        connection.close()
        raise
    return connection
