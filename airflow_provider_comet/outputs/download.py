"""Files from delivery hosts: without the key, from public addresses only, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.client.common import innermost
from airflow_provider_comet.outputs import download_rules as delivery
from airflow_provider_comet.outputs.connections import Lines, Session
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS, Backoff

CHUNK_BYTES: Final = 1024 * 1024


class Delivery:
    """Fetches files; a context manager, which closes its connections.

    :param config: where the API is, and which hosts may deliver. Its key is not used.
    :param sleep: how to wait between two attempts; tests inject their own, with ``clock``.
    """

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self.clock = clock
        self._lines = Lines()
        self._session = Session(self._lines, is_local=config.is_local)
        self.sleep = sleep or self._lines.pause

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def end(self) -> None:
        """Break off everything on its way, at once. Callable from a signal handler and from any thread."""
        self._lines.cut()

    def check(self) -> None:
        """Refuse to go on after ``end``.

        :raises DeliveryError: it was called.
        """
        self._lines.check()

    def open(self, url: str, max_bytes: int) -> Download:
        """Ask for a file; only the first of its bytes have come when this returns.

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
            try:
                request = self._session.prepare_request(requests.Request("GET", url, headers))
                settings = self._session.merge_environment_settings(url, {}, True, None, None)
            except (requests.RequestException, ValueError):
                raise OutputRefusedError("a link is no URL") from None
            url = request.url or ""
            delivery.check_link(url, self._config.output_hosts, is_local=self._config.is_local)
            self.check()
            timeout = (self._config.connect_timeout, self._config.read_timeout)
            try:
                answer = self._session.send(request, timeout=timeout, allow_redirects=False, **settings)
            except (requests.RequestException, OSError) as error:
                self.check()
                raise failure(url, error, outside) from None
            if not answer.is_redirect:
                return answer
            answer.close()
            try:
                url = urljoin(url, answer.headers["Location"])
            except ValueError:
                raise OutputRefusedError("a redirect leads to what is no URL") from None
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
        self._blocks = self._whole()
        # An answer that breaks off before the file has begun gives way to another one, which may be of another type.
        self._begun = next(self._blocks, b"")

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
        yield self._begun
        self._begun = b""
        yield from self._blocks

    def _whole(self) -> Iterator[bytes]:
        while True:
            try:
                yield from self._rest()
            except DeliveryError as error:
                self.close()
                self._pause(error)
                self._answer = self._connect()
            except BaseException:
                self.close()
                raise
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
            asked_from = self.received if headers else 0
            head = delivery.read_head(answer.status_code, answer.headers, asked_from=asked_from, first=self._head)
            if self._max_bytes < (head.size or 0):
                raise OutputRefusedError(f"the file has {head.size} bytes; max_bytes is {self._max_bytes}")
        except BaseException as error:
            answer.close()
            if headers and isinstance(error, DeliveryError) and error.status in delivery.NO_RESUME:
                self._head = dataclasses.replace(self._first, tag=None)  # from now on all of it is asked for
            raise
        if self._head is None or not self.received:  # the one before may have broken off amid its length
            self._head = head
        elif self._head.size is None:
            self._head = dataclasses.replace(self._head, size=head.size)
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
        if not self.received:  # a picture that is not there yet, or was lost; it would count as stored
            raise DeliveryError("the delivery host sends an empty file")

    def _chunks(self) -> Iterator[bytes]:
        """What comes, while it comes fast enough. The time that the caller needs for a chunk does not count."""
        outside = sys.exc_info()[1]
        clock = self._delivery.clock
        arrived, waited = 0, 0.0
        while True:
            began = clock()
            try:
                chunk = self._answer.raw.read1(CHUNK_BYTES)
            except (HTTPError, OSError, ValueError) as error:  # ValueError: it was cut while it was read
                self._delivery.check()
                raise failure(self._url, error, outside) from None
            if not chunk:
                return
            arrived, waited = arrived + len(chunk), waited + clock() - began
            if arrived >= delivery.STRIDE:
                arrived, waited = 0, 0.0
            elif waited > RETRY_BUDGET_SECONDS:
                raise DeliveryError(f"fewer than {delivery.STRIDE} bytes came within {RETRY_BUDGET_SECONDS:.0f} s")
            yield bytes(chunk)

    def _pause(self, error: DeliveryError) -> None:
        self._delivery.sleep(self._retries.delay(error, self._delivery.clock()))


class _Retries:
    """How often a file is asked for again: for ``RETRY_BUDGET_SECONDS`` seconds from the first failure, anew whenever it
    has grown.
    """

    def __init__(self) -> None:
        self.are_over = False
        self._attempt = 0
        self._failed_at = 0.0
        self._grown_to = 0

    def note(self, received: int) -> None:
        """Take note of bytes that were new."""
        if received - self._grown_to >= delivery.STRIDE:
            self._attempt, self._grown_to = 0, received

    def delay(self, error: DeliveryError, now: float) -> float:
        """Seconds until the next attempt. What the attempts take counts too: each of them may run into a timeout.

        :raises DeliveryError: there is none; this was it.
        """
        self._attempt += 1
        if self._attempt == 1:
            self._failed_at = now
        elapsed = now - self._failed_at
        backoff = Backoff(RETRY_BUDGET_SECONDS, started_at=now - elapsed)
        backoff._failures = self._attempt - 1
        delay = backoff.next_pause(now, chance=random.random(), retry_after=error.retry_after)
        if delay is None or self.are_over:
            raise error
        return delay


def failure(url: str, error: BaseException, outside: BaseException | None) -> DeliveryError:
    """The error for a connection that failed. It names the host: the rest of a link may be a signature."""
    return DeliveryError(f"{urlsplit(url).hostname}: {innermost(error, outside)}")
