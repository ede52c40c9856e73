"""The async client of a connection, made anew when the connection has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_comet.api.errors import CometError, ConfigurationError
from airflow_provider_comet.hooks.connection import aget_config

if TYPE_CHECKING:
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.polling.rate_limiter import Pace

log = logging.getLogger(__name__)

REREAD_SECONDS = 60.0
"""How often a connection is read again that can't be read, or whose key is refused."""
PATIENCE_SECONDS = 600.0
"""How long that is borne: somebody may be replacing it."""
FRESH_SECONDS = 300.0
"""A wait that begins reads the connection again if it was read longer ago: on a busy triggerer it never closes."""
FAILURE_SECONDS = 5.0
"""How long a connection that can't be used is not looked up again: its waits ask for it all at once."""


class RenewedClient:
    """Keeps one client that fits the connection.

    :param conn_id: the Airflow connection. A triggerer looks up some 39 a second, one after the other: so it is read
        once, not for each wait.
    :param pace: gets the cap that the connection sets.
    :ivar client: what to look with; ``None`` before ``open``.
    """

    def __init__(self, conn_id: str, pace: Pace) -> None:
        self.conn_id = conn_id
        self.client: AsyncCometClient | None = None
        self._pace = pace
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._failure: CometError | None = None
        self._failed_at = float("-inf")

    async def open(self, tell: Callable[[CometError], None]) -> None:
        """Read the connection, unless that was done a short time ago.

        :param tell: is told why this takes longer.
        :raises ConfigurationError: it can't be used, or not be read for ten minutes. What could be used before is used
            on.
        """
        give_up_at = _now() + PATIENCE_SECONDS
        while True:
            try:
                return await self._read(_now() - FRESH_SECONDS)
            except CometError as error:
                if self.client is not None:
                    return None
                if not error.retryable or _now() >= give_up_at:
                    raise
                tell(error)
            await asyncio.sleep(REREAD_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    async def has_changed(self, client: AsyncCometClient | None, read_before: float) -> bool:
        """Whether there is another client now: the connection is read again if that was done before a time."""
        with suppress(CometError):  # said in the log by the one who has read it
            await self._read(read_before)
        return self.client is not client

    async def _read(self, read_before: float) -> None:
        async with self._reading:
            if self._failure is not None and _now() - self._failed_at < FAILURE_SECONDS:
                raise type(self._failure)(self._failure.detail)
            if self._read_at >= read_before:
                return
            try:
                await self._open_new()
            except CometError as error:
                self._failure, self._failed_at = error, _now()
                if self.client is not None:
                    log.warning("Connection %r can't be read again: %s", self.conn_id, error)
                raise
            self._failure, self._read_at = None, _now()

    async def _open_new(self) -> None:
        config = await aget_config(self.conn_id)
        known = self.client and self.client.config
        if known and config.is_from_environment and not known.is_from_environment:
            # Airflow also calls a connection missing while its secrets backend is away: that is no reason to go on
            # with another account.
            raise ConfigurationError("it does not exist any more; what was read before is used, not COMETAPI_KEY")
        if known != config:
            # Loads aiohttp: not while DAGs are parsed.
            from airflow_provider_comet.client.async_client import AsyncCometClient

            client = AsyncCometClient(config)
            await client.open()
            before, self.client = self.client, client
            self._pace.per_second = config.max_polls_per_second
            if before is not None:
                await before.retire()


def _now() -> float:
    return asyncio.get_running_loop().time()
