"""The asynchronous side of the network, for triggers. It can only look; ``api`` decides."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from types import TracebackType
from typing import Final

import aiohttp
import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import ConfigurationError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.client.sync_client import HEADERS, root_cause
from airflow_provider_comet.polling.deadline_sweeper import Overdue

MOST_CONNECTIONS: Final = 2000
KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than the pause between two looks, so that a wait shakes hands once. A server may close earlier."""


class AsyncCometClient:
    """Client on ``aiohttp``, for triggers. It can only look: creating is the worker's business.

    An async context manager: ``open`` and ``close``.

    :param config: where the API is.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None
        self._authorization = {"Authorization": f"Bearer {config.api_key}"}
        # For the whole look. aiohttp's own read timeout would move a timer at each turn of it.
        self._overdue = Overdue(config.read_timeout)
        self._is_retired = False

    async def __aenter__(self) -> AsyncCometClient:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Be ready to look.

        :raises ConfigurationError: the CA bundle can't be read.
        """
        # trust_env is off: it would replace our Authorization by a netrc entry. Proxy and CA bundle come from the same
        # environment variables that requests reads, by requests' own rules.
        self._proxy, context = await asyncio.to_thread(_environment, self.config.base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=MOST_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self.config.connect_timeout + self.config.read_timeout,  # with a proxy's own handshake
                sock_connect=self.config.connect_timeout,
            ),
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def retire(self) -> None:
        """Close as soon as no look is on its way: another client has taken over."""
        self._is_retired = True
        if not self._overdue:
            await self.close()

    async def close(self) -> None:
        """Close the connections, whatever is on its way."""
        self._overdue.close()
        if self._session is not None:
            await self._session.close()

    async def look(self, prediction_id: object) -> Prediction:
        """Ask once.

        :raises CometError: no prediction came back.
        """
        request = protocol.get_prediction(prediction_id)
        if self._session is None:
            raise RuntimeError("AsyncCometClient is used outside of its 'async with'")
        outside = sys.exc_info()[1]
        config = self.config
        limit = asyncio.timeout(None)

        def is_over() -> None:
            limit.reschedule(0)

        self._overdue.begin(is_over)
        try:
            async with (
                limit,
                self._session.request(
                    request.method,
                    config.base_url + request.path,
                    headers=self._authorization,
                    proxy=self._proxy,
                    allow_redirects=False,
                ) as answer,
            ):
                response = Response.received(answer.status, answer.headers, await answer.read(), config.api_key)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = f"no answer within {config.read_timeout:g} s" if limit.expired() else None
            detail = reason or root_cause(error, config, outside)
            raise protocol.transport_error(request, detail, sent=True) from None
        finally:
            self._overdue.end(is_over)
            if self._is_retired and not self._overdue:
                await self.close()
        return protocol.read_prediction(request, response)


def _environment(url: str) -> tuple[str | None, ssl.SSLContext | bool]:
    """Proxy and TLS settings for a URL, as requests finds them in the environment.

    :raises ConfigurationError: the CA bundle can't be read.
    """
    with requests.Session() as session:
        settings = session.merge_environment_settings(url, {}, False, None, None)
    proxy = select_proxy(url, settings["proxies"])
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if not url.startswith("https:") and not (proxy or "").startswith("https:"):
        return proxy, True
    bundle = settings["verify"]
    path = bundle if isinstance(bundle, str) else DEFAULT_CA_BUNDLE_PATH
    is_folder = os.path.isdir(path)
    try:
        return proxy, ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except OSError as error:
        raise ConfigurationError(f"the CA bundle {path} can't be read: {error}") from None
