"""Download files from delivery hosts: without the API key, from public addresses only, and complete or not at all."""

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
from airflow_provider_comet.outputs import download_rules as rules
from airflow_provider_comet.outputs.connections import Connections, Session
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS, Backoff

CHUNK_BYTES: Final = 1024 * 1024


class Downloader:
    """Opens downloads over shared connections; a context manager that closes them.

    :param config: which hosts may deliver, and the timeouts. The API key in it is not used.
    :param sleep: pauses between two attempts; by default a pause that ``abort`` ends. Tests inject their own.
    :param clock: seconds, monotonic. Tests inject their own.
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
        self._connections = Connections()
        self._session = Session(self._connections, config)
        self.sleep = sleep or self._connections.pause

    def __enter__(self) -> Downloader:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def abort(self) -> None:
        """Abort every download at once. It may be called from a signal handler and from any thread."""
        self._connections.abort()

    def raise_if_aborted(self) -> None:
        """Raise an error if ``abort`` was called.

        :raises DeliveryError: it was.
        """
        self._connections.raise_if_aborted()

    def open(self, url: str, max_bytes: int) -> Download:
        """Request a file, and return when its first bytes were received.

        :param url: the link.
        :param max_bytes: a larger file is refused: by the size that the server announces, or while it is received.
        :raises OutputExpiredError: the link has expired.
        :raises OutputRefusedError: the link leads where it must not, or to something that can't be stored.
        :raises DeliveryError: no file within two minutes.
        """
        return Download(self, url, max_bytes)

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send one request and follow its redirects, each of which is checked like the link itself.

        :raises OutputRefusedError: the link, or a redirect, leads where it must not.
        :raises DeliveryError: no response.
        """
        outside = sys.exc_info()[1]
        for _ in range(rules.MAX_REDIRECTS + 1):
            try:
                request = self._session.prepare_request(requests.Request("GET", url, headers))
                settings = self._session.merge_environment_settings(url, {}, True, None, None)
            except (requests.RequestException, ValueError):
                raise OutputRefusedError("a link is no URL") from None
            url = request.url or ""
            rules.check_link(url, self._config)
            self.raise_if_aborted()
            timeout = (self._config.connect_timeout, self._config.read_timeout)
            try:
                response = self._session.send(request, timeout=timeout, allow_redirects=False, **settings)
            except (requests.RequestException, OSError, ValueError) as error:  # ValueError: names that can't be encoded
                self.raise_if_aborted()
                raise _connection_error(url, error, outside) from None
            if not response.is_redirect:
                return response
            response.close()
            try:
                url = urljoin(url, response.headers["Location"])
            except ValueError:
                raise OutputRefusedError("a redirect leads to what is no URL") from None
        raise OutputRefusedError(f"more than {rules.MAX_REDIRECTS} redirects")


class Download:
    """One file that is being downloaded. Iterate over it once: it yields every byte in order, or raises an error.

    A lost connection is replaced, and the download resumes where it broke off. Where the server can't resume, it sends
    the file from its start: the bytes that were received before are compared and not yielded again.

    :ivar info: what the server announced: media type and size.
    :ivar received: how many bytes were received.
    """

    def __init__(self, downloader: Downloader, url: str, max_bytes: int) -> None:
        self._downloader = downloader
        self._url = url
        self._max_bytes = max_bytes
        self._backoff = Backoff(RETRY_BUDGET_SECONDS)
        self._progress_at = 0
        self._has_changed = False
        self._digest = hashlib.sha256()
        self.info = rules.FileInfo(0, None, None, None)
        self.received = 0
        self._response = self._connect()
        self._chunks = self._read_with_retries()
        # An earlier response that broke off without a byte may have announced another type: `info` is right from here.
        self._first_chunk = next(self._chunks, b"")

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes received so far, in hexadecimal digits."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Release the connection."""
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        yield self._first_chunk
        self._first_chunk = b""
        yield from self._chunks

    def _connect(self) -> requests.Response:
        while True:
            try:
                return self._request()
            except DeliveryError as error:
                self._pause(error)

    def _request(self) -> requests.Response:
        headers = rules.resume_headers(self.received, self.info.etag)
        response = self._downloader.get(self._url, headers)
        try:
            range_start = self.received if headers else 0
            first = self.info if self.received else None
            info = rules.read_file_info(response.status_code, response.headers, range_start=range_start, first=first)
            if self._max_bytes < (info.size or 0):
                raise OutputRefusedError(f"the file has {info.size} bytes; max_bytes is {self._max_bytes}")
        except BaseException as error:
            response.close()
            if headers and isinstance(error, DeliveryError) and error.status in rules.NO_RESUME_STATUSES:
                self.info = dataclasses.replace(self.info, etag=None)  # the next request is for the whole file
            raise
        if not self.received:
            self.info = info
        elif self.info.size is None:
            self.info = dataclasses.replace(self.info, size=info.size)
        self._repeated = self.received - info.start
        return response

    def _read_with_retries(self) -> Iterator[bytes]:
        while True:
            try:
                yield from self._read_new_bytes()
            except DeliveryError as error:
                self.close()
                self._pause(error)
                self._response = self._connect()
            except BaseException:
                self.close()
                raise
            else:
                return

    def _read_new_bytes(self) -> Iterator[bytes]:
        """Yield what the response adds to the bytes received before; compare what it repeats of them."""
        repeated_digest = hashlib.sha256()
        for chunk in self._read_response():
            repeated, new = chunk[: self._repeated], chunk[self._repeated :]
            if repeated:
                repeated_digest.update(repeated)
                self._repeated -= len(repeated)
                if not self._repeated and repeated_digest.digest() != self._digest.digest():
                    self._has_changed = True
                    raise DeliveryError("the file has changed while it was fetched")
            if new:
                self.received += len(new)
                if self.received > self._max_bytes:
                    raise OutputRefusedError(f"the file has more bytes than max_bytes, {self._max_bytes}")
                self._digest.update(new)
                if self.received - self._progress_at >= rules.MIN_PROGRESS_BYTES:
                    self._progress_at = self.received
                    self._backoff.reset()
                yield new
        if self._repeated or self.received != (self.info.size or self.received):
            raise DeliveryError(f"the connection ended after {self.received} of {self.info.size} bytes")
        if not self.received:  # stored, it would count as complete, and the paid result would be lost with its link
            raise DeliveryError("the delivery host sends an empty file")

    def _read_response(self) -> Iterator[bytes]:
        """Yield the body as it arrives, while it arrives fast enough. The caller's own time does not count."""
        outside = sys.exc_info()[1]
        clock = self._downloader.clock
        arrived, waited = 0, 0.0
        while True:
            started = clock()
            try:
                chunk = self._response.raw.read1(CHUNK_BYTES)
            except (HTTPError, OSError, ValueError) as error:  # ValueError: aborted during the read
                self._downloader.raise_if_aborted()
                raise _connection_error(self._url, error, outside) from None
            if not chunk:
                return
            arrived, waited = arrived + len(chunk), waited + clock() - started
            if arrived >= rules.MIN_PROGRESS_BYTES:
                arrived, waited = 0, 0.0
            elif waited > RETRY_BUDGET_SECONDS:
                limit = f"{rules.MIN_PROGRESS_BYTES} bytes came within {RETRY_BUDGET_SECONDS:.0f} s"
                raise DeliveryError(f"fewer than {limit}")
            yield bytes(chunk)

    def _pause(self, error: DeliveryError) -> None:
        """Wait before the next attempt.

        :raises DeliveryError: ``error``, because there is no next attempt.
        """
        now, chance = self._downloader.clock(), random.random()
        pause = self._backoff.next_pause(now, chance=chance, retry_after=error.retry_after)
        if pause is None or self._has_changed:
            raise error
        self._downloader.sleep(pause)


def _connection_error(url: str, error: BaseException, outside: BaseException | None) -> DeliveryError:
    """Return the error for a failed connection. It names the host only: the rest of a link may hold a signature."""
    return DeliveryError(f"{urlsplit(url).hostname}: {innermost(error, outside)}")
