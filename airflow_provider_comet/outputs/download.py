"""Download files from delivery hosts: without the API key, from public addresses only, and complete or not at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from http.client import HTTPException, InvalidURL
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError, LocationValueError

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.api.uris import quote_url
from airflow_provider_comet.outputs import download_rules as rules
from airflow_provider_comet.outputs.connections import Connections, Session
from airflow_provider_comet.outputs.file_download import Download, connection_error
from airflow_provider_comet.outputs.limits import ByteBudget

_NO_URL = (requests.exceptions.InvalidURL, LocationValueError, InvalidURL, UnicodeError)
"""What the libraries raise for a link whose parts they read only when they connect."""
_FAILURES = (requests.RequestException, HTTPError, HTTPException, OSError, ValueError)
"""What they raise for any trouble. requests does not translate every exception of the libraries below it."""


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

    def open(self, url: str, budget: ByteBudget, index: int = 0) -> Download:
        """Request a file, and return when its first bytes were received.

        :param url: the link.
        :param budget: the bytes of all files of its prediction. A file that is too large is refused by the size that
            the server announces, or while it is received.
        :param index: its number among the prediction's outputs.
        :raises OutputExpiredError: the link has expired.
        :raises OutputRefusedError: the link leads where it must not, or to something that can't be stored.
        :raises DeliveryError: no file within two minutes.
        """
        return Download(self, url, budget, index)

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send one request and follow its redirects, each of which is checked like the link itself.

        :raises OutputRefusedError: the link, or a redirect, leads where it must not.
        :raises DeliveryError: no response.
        """
        outside = sys.exc_info()[1]
        for _ in range(rules.MAX_REDIRECTS + 1):
            try:
                request = self._session.prepare_request(requests.Request("GET", quote_url(url), headers))
                settings = self._session.merge_environment_settings(url, {}, True, None, None)
            except (requests.RequestException, ValueError):
                raise OutputRefusedError("a link is no URL") from None
            url = request.url or ""
            rules.check_link(url, self._config)
            self.raise_if_aborted()
            timeout = (self._config.connect_timeout, self._config.read_timeout)
            try:
                response = self._session.send(request, timeout=timeout, allow_redirects=False, **settings)
            except _FAILURES as error:
                self.raise_if_aborted()
                if isinstance(error, _NO_URL) and not isinstance(error, requests.exceptions.InvalidProxyURL):
                    raise OutputRefusedError("a link is no URL") from None
                raise connection_error(url, error, outside) from None
            if not response.is_redirect:
                return response
            response.close()
            try:
                # The HTTP library reads headers as Latin-1, and servers send UTF-8.
                url = urljoin(url, response.headers["Location"].encode("latin-1").decode())
            except ValueError:
                raise OutputRefusedError("a redirect leads to what is no URL") from None
        raise OutputRefusedError(f"more than {rules.MAX_REDIRECTS} redirects")
