"""The async client of a connection, replaced when the connection has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.hooks.connection import aget_config
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.backoff import Backoff

if TYPE_CHECKING:
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.polling.rate_limiter import RateLimiter

log = logging.getLogger(__name__)

REREAD_SECONDS = 60.0
"""How often a connection is read again that can't be read, or whose key is refused."""
REFUSAL_BUDGET_SECONDS = 600.0
"""How long such a connection is read again before the waits end: somebody may be replacing the key."""
FRESH_SECONDS = 300.0
"""A wait that begins reads the connection again if it was read longer ago: on a busy triggerer it never closes."""
FAILURE_SECONDS = 5.0
"""How long a connection that can't be used is not looked up again: all its waits want to read it at the same time."""

Notify = Callable[[CometError], None]
"""A function that gets the error which delays a poll."""


class RefreshingClient:
    """Keeps one async client that fits the connection.

    :param conn_id: the Airflow connection. A triggerer looks up some 39 a second, one after the other: so it is read
        once, not for each wait.
    :param limiter: gets the cap that the connection sets.
    :ivar client: the client to send with; ``None`` before ``open``.
    """

    def __init__(self, conn_id: str, limiter: RateLimiter) -> None:
        self.conn_id = conn_id
        self.client: AsyncCometClient | None = None
        self._limiter = limiter
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._failure: CometError | None = None
        self._failed_at = float("-inf")

    async def open(self, notify: Notify) -> None:
        """Read the connection, unless that was done a short time ago.

        :param notify: is told why this takes longer.
        :raises ConfigurationError: the connection can't be used, or not be read for ten minutes. A client that worked
            before stays in use.
        """
        budget = REFUSAL_BUDGET_SECONDS + REREAD_SECONDS / 2  # reading takes time, too: the last read is not left out
        backoff = Backoff(budget, REREAD_SECONDS, REREAD_SECONDS, started_at=clock.loop_time())
        while True:
            try:
                return await self._read(clock.loop_time() - FRESH_SECONDS)
            except CometError as error:
                if self.client is not None:
                    return None
                pause = backoff.next_pause(clock.loop_time()) if error.retryable else None
                if pause is None:
                    raise
                notify(error)
            await clock.async_sleep(pause)

    async def close(self) -> None:
        """Close all connections."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    async def has_changed(self, client: AsyncCometClient | None, read_before: float) -> bool:
        """Return whether another client is in use now.

        :param client: the client that was in use.
        :param read_before: the connection is read again if that was done last before this time of the loop.
        """
        with suppress(CometError):  # whoever has read it has logged it
            await self._read(read_before)
        return self.client is not client

    async def _read(self, read_before: float) -> None:
        async with self._reading:
            if self._failure is not None and clock.loop_time() - self._failed_at < FAILURE_SECONDS:
                raise type(self._failure)(self._failure.detail)
            if self._read_at >= read_before:
                return
            try:
                await self._replace_client()
            except CometError as error:
                self._failure, self._failed_at = error, clock.loop_time()
                if self.client is not None:
                    log.warning("Connection %r can't be read again: %s", self.conn_id, error)
                raise
            self._failure, self._read_at = None, clock.loop_time()

    async def _replace_client(self) -> None:
        config = await aget_config(self.conn_id)
        if self.client is None or self.client.config != config:
            # Loads aiohttp: not while DAGs are parsed.
            from airflow_provider_comet.client.async_client import AsyncCometClient

            client = AsyncCometClient(config)
            await client.open()
            previous, self.client = self.client, client
            self._limiter.per_second = config.max_polls_per_second
            if previous is not None:
                await previous.retire()
