"""One async client per event loop and connection, shared by all triggers of a process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_comet import metrics
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import DEFAULT_MAX_POLLS_PER_SECOND
from airflow_provider_comet.api.errors import (
    AuthenticationError,
    CometError,
    PermissionDeniedError,
    PredictionNotFoundError,
    RateLimitedError,
)
from airflow_provider_comet.hooks.refreshing_client import (
    REFUSAL_BUDGET_SECONDS,
    REREAD_SECONDS,
    Notify,
    RefreshingClient,
)
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.deadline_sweeper import DeadlineSweeper, Slot
from airflow_provider_comet.polling.rate_limiter import RateLimiter
from airflow_provider_comet.polling.schedule import HEARTBEAT_SECONDS
from airflow_provider_comet.polling.turnstile import Turnstile

if TYPE_CHECKING:
    from airflow_provider_comet.api.prediction import Prediction

LATE_SECONDS = 1.0
"""A slot of the rate limiter that is so long past is void: it does not keep the distance to the next slot."""
MAX_CONCURRENT_POLLS = 500
SLOW_SECONDS = 10.0
"""A poll that takes longer does not count among the concurrent polls any more: it would hold the others back."""


class SharedClient:
    """Polls predictions for all waits on one connection; made by ``shared_client``.

    :param conn_id: the Airflow connection.
    :param limiter: the rate limit of this connection. It outlives the client, as a pause outlives its last user.
    :ivar turnstile: what a wait enters before it does something that thousands of waits may do at the same time.
    """

    def __init__(self, conn_id: str, limiter: RateLimiter) -> None:
        self.conn_id = conn_id
        self.users = 0
        self.turnstile = Turnstile()
        self._waits = 0
        self._connection = RefreshingClient(conn_id, limiter)
        self._limiter = limiter
        self._concurrent = asyncio.Semaphore(MAX_CONCURRENT_POLLS)
        self._sweeper = DeadlineSweeper(SLOW_SECONDS)
        self._answered_at = float("-inf")
        self._refusal: CometError | None = None
        self._refused_since = float("inf")

    async def open(self, notify: Notify) -> None:
        """Read the connection, unless that was done a short time ago.

        :param notify: is told why this takes longer.
        :raises ConfigurationError: the connection can't be used.
        """
        await self._connection.open(notify)

    async def close(self) -> None:
        """Close all connections."""
        self._sweeper.close()
        await self._connection.close()

    @contextmanager
    def counted_wait(self) -> Iterator[None]:
        """Count a prediction that is waited for, for the gauge ``comet.waits``."""
        self._waits += 1
        metrics.gauge("comet.waits", self._waits, conn_id=self.conn_id)
        try:
            yield
        finally:
            self._waits -= 1
            metrics.gauge("comet.waits", self._waits, conn_id=self.conn_id)

    async def get_prediction(
        self, prediction_id: object, notify: Notify, give_up_at: float = float("inf")
    ) -> Prediction | None:
        """Poll once, when the rate limit allows. A refused key is waited out: it may be about to be replaced.

        :param notify: is told why this takes longer.
        :param give_up_at: the loop's time after which a poll is of no use.
        :returns: ``None``: no request was sent, because the rate limiter has no slot before ``give_up_at``.
        :raises CometError: no prediction came back.
        """
        refused_at: float | None = None
        refreshed_at = float("-inf")
        while True:
            sent_at, client = clock.loop_time(), self._connection.client
            try:
                return await self._poll(prediction_id, notify, give_up_at)
            except (AuthenticationError, PermissionDeniedError) as error:
                # Without its frames: thousands of waits would keep theirs for as long as the key is refused.
                refusal = error.with_traceback(None)
            now = clock.loop_time()
            refused_at = now if refused_at is None else refused_at
            self._refused_since = min(now, self._refused_since)
            if now - min(refused_at, self._refused_since) >= REFUSAL_BUDGET_SECONDS:
                raise refusal
            # If the key works for others, only this prediction is refused. A key that is not known works for nobody.
            quiet_since = sent_at if isinstance(refusal, AuthenticationError) else now - REREAD_SECONDS
            # Whatever the refusal, the first of them since a good answer reads the connection again.
            read_before = max(quiet_since, self._refused_since) if self._answered_at < sent_at else quiet_since
            if await self._connection.has_changed(client, read_before) and now - refreshed_at >= REREAD_SECONDS:
                refreshed_at = now  # a secrets backend may return another key each time, and none of them valid
                continue
            notify(refusal)
            if self._answered_at < quiet_since:
                self._refusal = refusal
                self._count_pause("refused_key")
                self._limiter.pause(clock.loop_time(), clock.loop_time() + REREAD_SECONDS)
            if clock.loop_time() + REREAD_SECONDS > give_up_at:
                raise refusal
            await clock.async_sleep(REREAD_SECONDS)
            await self._connection.has_changed(client, read_before=clock.loop_time() - REREAD_SECONDS / 2)

    async def _poll(self, prediction_id: object, notify: Notify, give_up_at: float) -> Prediction | None:
        request = protocol.get_prediction(prediction_id)
        if self._refusal is not None:
            self._notify_refusal(prediction_id, notify)
        if self._limiter.paused_until > give_up_at:  # polls that wait for the end of the pause may hold all slots
            return self._no_slot(prediction_id, notify)
        await self._concurrent.acquire()
        slot = Slot(self._concurrent)
        try:
            await self.turnstile.enter()  # of many polls that end together, the slots are free in the same turn
            sent_at: float | None
            sent_at = now = clock.loop_time()
            if (slot_at := self._limiter.acquire(now, give_up_at)) > now:
                sent_at = await self._sleep_until(slot_at, prediction_id, notify, give_up_at)
            if sent_at is None:
                return self._no_slot(prediction_id, notify)
            if (client := self._connection.client) is None:
                raise RuntimeError("SharedClient is used outside of 'shared_client'")
            self._sweeper.start(slot.release)
            metrics.count("comet.polls")
            try:
                prediction = protocol.read_prediction(request, await client.send(request))
            except CometError as error:
                self._on_error(error, sent_at)
                raise
        finally:
            self._sweeper.stop(slot.release)
            slot.release()
        self._on_key_accepted()
        if prediction.is_terminal and (delay := prediction.finished_ago) is not None:
            metrics.timing("comet.detection_delay", delay)
        return prediction

    def _on_error(self, error: CometError, sent_at: float) -> None:
        """Apply to all polls what an error says about the connection."""
        metrics.count("comet.poll_errors", error=type(error).__name__)
        if isinstance(error, PredictionNotFoundError):
            self._on_key_accepted()
        elif isinstance(error, RateLimitedError):
            self._count_pause("rate_limit")
            self._limiter.on_rate_limited(
                sent_at=sent_at, now=clock.loop_time(), retry_after=error.retry_after, chance=random.random()
            )

    def _on_key_accepted(self) -> None:
        self._answered_at, self._refusal, self._refused_since = clock.loop_time(), None, float("inf")

    async def _sleep_until(
        self, slot_at: float, prediction_id: object, notify: Notify, give_up_at: float
    ) -> float | None:
        """Sleep until a slot of the rate limiter and return its time; ``None``: there is none before ``give_up_at``.

        Another slot is taken if a pause has begun meanwhile, or if the slot is long past: a loop that was blocked would
        send all that is due at once.
        """
        while slot_at <= give_up_at:
            pauses = self._limiter.pauses
            self._notify_refusal(prediction_id, notify)
            while (delay := slot_at - clock.loop_time()) > HEARTBEAT_SECONDS:
                notify(RateLimitedError(f"all polls pause; this prediction is polled in {delay:.0f} s", status=429))
                await clock.async_sleep(HEARTBEAT_SECONDS)
            await clock.async_sleep(delay)
            if self._limiter.pauses == pauses and clock.loop_time() - slot_at < LATE_SECONDS:
                return slot_at
            slot_at = self._limiter.acquire(clock.loop_time(), give_up_at)
        return None

    def _no_slot(self, prediction_id: object, notify: Notify) -> Prediction | None:
        if refusal := self._notify_refusal(prediction_id, notify):
            raise refusal
        notify(RateLimitedError("the rate limit allows no poll before the deadline"))
        return None

    def _notify_refusal(self, prediction_id: object, notify: Notify) -> CometError | None:
        """Tell a wait that the key was refused for another poll, and that all polls pause."""
        if self._refusal is None or self._limiter.paused_until <= clock.loop_time():
            return None
        refusal = CometError.from_dict({**self._refusal.to_dict(), "prediction_id": prediction_id})
        notify(refusal)
        return refusal

    def _count_pause(self, reason: str) -> None:
        if self._limiter.paused_until <= clock.loop_time():
            metrics.count("comet.pauses", reason=reason)


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()
_limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RateLimiter]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(conn_id: str, notify: Notify) -> AsyncIterator[SharedClient]:
    """Give the client of this event loop for a connection: the first user opens it, the last user closes it.

    :param notify: is told why it takes longer to open it.
    :raises ConfigurationError: the connection can't be used.
    """
    loop = asyncio.get_running_loop()
    clients = _clients.setdefault(loop, {})
    if (client := clients.get(conn_id)) is None:
        limiter = _limiters.setdefault(loop, {}).setdefault(conn_id, RateLimiter(DEFAULT_MAX_POLLS_PER_SECOND))
        client = clients[conn_id] = SharedClient(conn_id, limiter)
    client.users += 1
    try:
        await client.turnstile.enter()
        await client.open(notify)
        yield client
    finally:
        client.users -= 1
        if not client.users:
            del clients[conn_id]  # first: whoever comes while it closes opens another client
            await client.close()
