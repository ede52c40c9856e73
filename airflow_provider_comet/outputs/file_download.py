"""Download one file completely or not at all: lost connections are replaced, and slow or endless files given up."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.api.uris import file_type
from airflow_provider_comet.client.common import innermost
from airflow_provider_comet.outputs import download_rules as rules
from airflow_provider_comet.outputs.content_encoding import unpack
from airflow_provider_comet.outputs.limits import MIN_BYTES_PER_SECOND, ByteBudget, is_too_slow
from airflow_provider_comet.outputs.signatures import HEAD_BYTES
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS, Backoff

if TYPE_CHECKING:
    from airflow_provider_comet.outputs.download import Downloader

CHUNK_BYTES: Final = 1024 * 1024


class Download:
    """One file that is being downloaded. Iterate over it once: it yields every byte in order, or raises an error.

    A lost connection is replaced, and the download resumes where it broke off. Where the server can't resume, it sends
    the file from its start: the bytes that were received before are compared and not yielded again.

    :ivar info: what the server announced: media type and size.
    :ivar head: the first bytes, ``HEAD_BYTES`` of them unless the file is shorter.
    :ivar received: how many bytes were received, unpacked.
    """

    def __init__(self, downloader: Downloader, url: str, budget: ByteBudget, index: int) -> None:
        self._downloader = downloader
        self._url = url
        self._budget = budget
        self._index = index
        self._waited = 0.0
        self._resumed_at = downloader.clock()
        self._backoff = Backoff(RETRY_BUDGET_SECONDS)
        self._progress_at = 0
        self._is_hopeless = False
        self._digest = hashlib.sha256()
        self.info = rules.FileInfo(0, None, None, None)
        self.received = 0
        self._response = self._connect()
        self._chunks = self._read_with_retries()
        # An earlier response that broke off without a byte may have announced another type: `info` is right from here.
        self.head = b""
        while len(self.head) < HEAD_BYTES and (chunk := next(self._chunks, b"")):
            self.head += chunk

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes received so far, in hexadecimal digits."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Release the connection."""
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        first, self.head = self.head, self.head[:HEAD_BYTES]
        yield first
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
            self._budget.claim(self._index, max(info.size or 0, self.info.size or 0, self.received))
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
        # Servers call a gzip file packed whose type is that of its content: its name is true only if it stays one.
        self._is_packed = info.is_packed and file_type(self._url) != "application/gzip"
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
        response = self._read_response()
        for chunk in unpack(response) if self._is_packed else response:
            repeated, new = chunk[: self._repeated], chunk[self._repeated :]
            if repeated:
                repeated_digest.update(repeated)
                self._repeated -= len(repeated)
                if not self._repeated and repeated_digest.digest() != self._digest.digest():
                    self._is_hopeless = True
                    raise DeliveryError("the file has changed while it was fetched")
            if new:
                self.received += len(new)
                if self.received > (self.info.size or 0):  # otherwise it was claimed when it was announced
                    self._budget.claim(self._index, self.received)
                self._digest.update(new)
                if self.received - self._progress_at >= rules.MIN_PROGRESS_BYTES:
                    self._progress_at = self.received
                    self._backoff.reset()
                self._waited += self._downloader.clock() - self._resumed_at
                yield new
                self._resumed_at = self._downloader.clock()
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
                raise connection_error(self._url, error, outside) from None
            if not chunk:
                return
            arrived, waited = arrived + len(chunk), waited + clock() - started
            if arrived >= rules.MIN_PROGRESS_BYTES:
                arrived, waited = 0, 0.0
            elif waited > RETRY_BUDGET_SECONDS:
                limit = f"{rules.MIN_PROGRESS_BYTES} bytes came within {RETRY_BUDGET_SECONDS:.0f} s"
                raise DeliveryError(f"fewer than {limit}")
            self._give_up_if_too_slow()
            yield bytes(chunk)

    def _pause(self, error: DeliveryError) -> None:
        """Wait before the next attempt.

        :raises DeliveryError: ``error``, because there is no next attempt.
        """
        self._give_up_if_too_slow()
        now, chance = self._downloader.clock(), random.random()
        pause = self._backoff.next_pause(now, chance=chance, retry_after=error.retry_after)
        if pause is None or self._is_hopeless:
            raise error
        self._downloader.sleep(pause)

    def _give_up_if_too_slow(self) -> None:
        """Bound how long the server can hold the worker: it may break off, or repeat itself, any number of times.

        :raises DeliveryError: the file arrives too slowly on average. It is not requested again.
        """
        seconds = self._waited + self._downloader.clock() - self._resumed_at
        if is_too_slow(self.received, seconds):
            self._is_hopeless = True
            raise DeliveryError(
                f"{self.received} bytes came within {seconds:.0f} s, less than {MIN_BYTES_PER_SECOND} bytes a second"
            )


def connection_error(url: str, error: BaseException, outside: BaseException | None) -> DeliveryError:
    """Return the error for a failed connection. It names the host only: the rest of a link may hold a signature."""
    return DeliveryError(f"{urlsplit(url).hostname}: {innermost(error, outside)}")
