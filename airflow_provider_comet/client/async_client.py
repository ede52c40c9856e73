"""The asynchronous client, for triggers: takes a ``Request``, returns a ``Response``."""

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
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.client.body import Body
from airflow_provider_comet.client.common import HEADERS, root_cause, timeout_words, uses_no_proxy
from airflow_provider_comet.polling.deadline_sweeper import DeadlineSweeper

MAX_CONNECTIONS: Final = 2000
KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than the pause between two polls, so that a wait needs one handshake. A server may close earlier."""


class AsyncCometClient:
    """Asynchronous client on ``aiohttp``, for triggers. It refuses requests that may cost money.

    An async context manager: ``open`` and ``close``.

    :param config: where the API is, and the key.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None
        self._authorization = {"Authorization": f"Bearer {config.api_key}"}
        # For the whole exchange. aiohttp's own read timeout would move a timer with each piece of an answer.
        self._sweeper = DeadlineSweeper(config.read_timeout)
        self._is_retired = False

    async def __aenter__(self) -> AsyncCometClient:
        await self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Prepare the session.

        :raises ConfigurationError: the CA bundle can't be read.
        """
        # trust_env is off: it would replace our Authorization by a netrc entry. Proxy and CA bundle come from the same
        # environment variables that requests reads, by requests' own rules.
        self._proxy, context = await asyncio.to_thread(_environment, self.config.base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self.config.connect_timeout + self.config.read_timeout,  # with a proxy's own handshake
                sock_connect=self.config.connect_timeout,
            ),
            headers=HEADERS,
            auto_decompress=False,  # it has no limit
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def retire(self) -> None:
        """Close as soon as no request is running: another client has taken over."""
        self._is_retired = True
        if not self._sweeper:
            await self.close()

    async def close(self) -> None:
        """Close the connections, also those with a running request."""
        self._sweeper.close()
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Request) -> Response:
        """Send a request once, and return the answer whatever it says.

        :raises TransportError: there is no answer.
        """
        if self._session is None:
            raise RuntimeError("AsyncCometClient is used outside of its 'async with'")
        if request.may_cost_money or request.body is not None:
            raise RuntimeError("AsyncCometClient only reads: a trigger may be started again at any time")
        outside = sys.exc_info()[1]
        config = self.config
        timeout = asyncio.timeout(None)

        def on_timeout() -> None:
            timeout.reschedule(0)

        self._sweeper.start(on_timeout)
        try:
            async with (
                timeout,
                self._session.request(
                    request.method,
                    config.base_url + request.path,
                    headers=self._authorization,
                    proxy=self._proxy,
                    allow_redirects=False,
                ) as answer,
            ):
                body = Body(answer.headers.get("Content-Encoding", ""))
                async for piece in answer.content.iter_any():
                    if not body.add(piece):
                        break
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            detail = timeout_words(config) if timeout.expired() else root_cause(error, config, outside)
            raise protocol.transport_error(request, detail, sent=True) from None
        finally:
            self._sweeper.stop(on_timeout)
            if self._is_retired and not self._sweeper:
                await self.close()
        if (content := body.read_small()) is not None:
            return Response.received(answer.status, answer.headers, content, config.api_key)
        return await asyncio.to_thread(
            lambda: Response.received(answer.status, answer.headers, body.read(), config.api_key)
        )


def _environment(url: str) -> tuple[str | None, ssl.SSLContext | bool]:
    """Return proxy and TLS settings for a URL, as requests finds them in the environment.

    :raises ConfigurationError: the CA bundle can't be read.
    """
    if uses_no_proxy(url):
        return None, True
    with requests.Session() as session:
        settings = session.merge_environment_settings(url, {}, False, None, None)
    proxy = select_proxy(url, settings["proxies"])
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    bundle = settings["verify"]
    path = bundle if isinstance(bundle, str) else DEFAULT_CA_BUNDLE_PATH
    is_folder = os.path.isdir(path)
    try:
        return proxy, ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except OSError as error:
        raise ConfigurationError(f"the CA bundle {path} can't be read: {error}") from None
