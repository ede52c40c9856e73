"""One async client per event loop and connection, shared by all triggers of a process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_comet import metrics
from airflow_provider_comet.api.config import DEFAULT_MAX_POLLS_PER_SECOND
from airflow_provider_comet.api.errors import (
    AuthenticationError,
    CometError,
    PermissionDeniedError,
    PredictionNotFoundError,
    RateLimitedError,
)
from airflow_provider_comet.hooks.refreshing_client import PATIENCE_SECONDS, REREAD_SECONDS, RenewedClient
from airflow_provider_comet.polling.deadline_sweeper import Overdue, Place
from airflow_provider_comet.polling.rate_limiter import Pace
from airflow_provider_comet.polling.schedule import HEARTBEAT

if TYPE_CHECKING:
    from airflow_provider_comet.api.prediction import Prediction

LATE_SECONDS = 1.0
"""A turn that is so long past is void: it does not keep the distance to the next one."""
AT_ONCE = 500
SLOW_SECONDS = 10.0
"""So many looks are on their way at once. A slower one does not count any more: it would hold the others back."""


class SharedClient:
    """Looks at predictions for all waits on one connection; made by ``shared_client``.

    :param conn_id: the Airflow connection.
    :param pace: what the looks over this connection keep to. It outlives the client, as a pause outlives its last user.
    """

    def __init__(self, conn_id: str, pace: Pace) -> None:
        self.conn_id = conn_id
        self.users = 0
        self._waits = 0
        self._connection = RenewedClient(conn_id, pace)
        self._pace = pace
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._slow = Overdue(SLOW_SECONDS)
        self._answered_at = float("-inf")
        self._refusal: CometError | None = None
        self._refused_since = float("inf")

    async def open(self, tell: Callable[[CometError], None]) -> None:
        """Read the connection, unless that was done a short time ago.

        :param tell: is told why this takes longer.
        :raises ConfigurationError: it can't be used.
        """
        await self._connection.open(tell)

    async def close(self) -> None:
        """Close all connections."""
        self._slow.close()
        await self._connection.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a prediction that is waited for."""
        self._waits += 1
        metrics.gauge("comet.waits", self._waits, conn_id=self.conn_id)
        try:
            yield
        finally:
            self._waits -= 1
            metrics.gauge("comet.waits", self._waits, conn_id=self.conn_id)

    async def look(
        self, prediction_id: object, tell: Callable[[CometError], None], give_up_at: float = float("inf")
    ) -> Prediction | None:
        """Ask once, when its turn has come. A refused key is waited out: it may be about to be replaced.

        :param tell: is told why this takes longer.
        :param give_up_at: the loop's time after which a look is of no use.
        :returns: ``None``: nobody was asked, because there is no turn before ``give_up_at``.
        :raises CometError: no prediction came back.
        """
        refused_at: float | None = None
        renewed_at = float("-inf")
        while True:
            sent, client = _now(), self._connection.client
            try:
                return await self._ask(prediction_id, tell, give_up_at)
            except (AuthenticationError, PermissionDeniedError) as error:
                # Without its frames: thousands of waits would keep theirs for as long as the key is refused.
                refusal = error.with_traceback(None)
            now = _now()
            refused_at = now if refused_at is None else refused_at
            self._refused_since = min(now, self._refused_since)
            if now - min(refused_at, self._refused_since) >= PATIENCE_SECONDS:
                raise refusal
            # If the key works for others, only this prediction is refused. A key that is not known works for nobody.
            before = sent if isinstance(refusal, AuthenticationError) else now - REREAD_SECONDS
            if await self._connection.has_changed(client, read_before=before) and now - renewed_at >= REREAD_SECONDS:
                renewed_at = now  # a backend may make another key each time, and none of them good
                continue
            tell(refusal)
            if self._answered_at < before:
                self._refusal = refusal
                self._count_pause("refused_key")
                self._pace.pause(_now(), _now() + REREAD_SECONDS)
            if _now() + REREAD_SECONDS > give_up_at:
                raise refusal
            await asyncio.sleep(REREAD_SECONDS)
            await self._connection.has_changed(client, read_before=_now() - REREAD_SECONDS / 2)

    async def _ask(
        self, prediction_id: object, tell: Callable[[CometError], None], give_up_at: float
    ) -> Prediction | None:
        if self._refusal is not None:
            self._tell_refusal(prediction_id, tell)
        if self._pace.paused_until > give_up_at:  # those who wait for the end of the pause may hold all places
            return self._no_turn(prediction_id, tell)
        await self._slots.acquire()
        place = Place(self._slots)
        try:
            sent: float | None
            sent = now = _now()
            if (at := self._pace.turn(now, give_up_at)) > now:
                sent = await self._turn(at, prediction_id, tell, give_up_at)
            if sent is None:
                return self._no_turn(prediction_id, tell)
            if (client := self._connection.client) is None:
                raise RuntimeError("SharedClient is used outside of 'shared_client'")
            self._slow.begin(place.leave)
            metrics.count("comet.looks")
            try:
                seen = await client.look(prediction_id)
            except CometError as error:
                self._heed(error, sent)
                raise
        finally:
            self._slow.end(place.leave)
            place.leave()
        self._key_works()
        if seen.is_terminal and (delay := seen.finished_ago) is not None:
            metrics.timing("comet.detection_delay", delay)
        return seen

    def _heed(self, error: CometError, sent: float) -> None:
        """Take from an error what is news for all."""
        metrics.count("comet.look_errors", error=type(error).__name__)
        if isinstance(error, PredictionNotFoundError):
            self._key_works()
        elif isinstance(error, RateLimitedError):
            self._count_pause("rate_limit")
            self._pace.limited(sent=sent, now=_now(), retry_after=error.retry_after, chance=random.random())

    def _key_works(self) -> None:
        self._answered_at, self._refusal, self._refused_since = _now(), None, float("inf")

    async def _turn(
        self, at: float, prediction_id: object, tell: Callable[[CometError], None], give_up_at: float
    ) -> float | None:
        """Sleep until this turn, and take another one if a pause has begun meanwhile, or if it is long past: a loop
        that was blocked would send all that is due at once. Return when it is; ``None``: too late."""
        while at <= give_up_at:
            pauses = self._pace.pauses
            self._tell_refusal(prediction_id, tell)
            while (delay := at - _now()) > HEARTBEAT:
                tell(RateLimitedError(f"all looks pause, and this one's turn is in {delay:.0f} s", status=429))
                await asyncio.sleep(HEARTBEAT)
            await asyncio.sleep(delay)
            if self._pace.pauses == pauses and _now() - at < LATE_SECONDS:
                return at
            at = self._pace.turn(_now(), give_up_at)
        return None

    def _no_turn(self, prediction_id: object, tell: Callable[[CometError], None]) -> Prediction | None:
        if refusal := self._tell_refusal(prediction_id, tell):
            raise refusal
        tell(RateLimitedError("no look has its turn before the deadline"))
        return None

    def _tell_refusal(self, prediction_id: object, tell: Callable[[CometError], None]) -> CometError | None:
        """Tell a wait that another one's look was refused, and that all pause."""
        if self._refusal is None or self._pace.paused_until <= _now():
            return None
        refusal = CometError.from_dict({**self._refusal.to_dict(), "prediction_id": prediction_id})
        tell(refusal)
        return refusal

    def _count_pause(self, reason: str) -> None:
        if self._pace.paused_until <= _now():
            metrics.count("comet.pauses", reason=reason)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()
_paces: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Pace]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(conn_id: str, tell: Callable[[CometError], None]) -> AsyncIterator[SharedClient]:
    """The client of this event loop for a connection: the first user opens it, the last one closes it.

    :param tell: is told why it takes longer to open it.
    :raises ConfigurationError: the connection can't be used.
    """
    loop = asyncio.get_running_loop()
    clients = _shared.setdefault(loop, {})
    if (client := clients.get(conn_id)) is None:
        pace = _paces.setdefault(loop, {}).setdefault(conn_id, Pace(DEFAULT_MAX_POLLS_PER_SECOND))
        client = clients[conn_id] = SharedClient(conn_id, pace)
    client.users += 1
    try:
        await client.open(tell)
        yield client
    finally:
        client.users -= 1
        if not client.users:
            del clients[conn_id]  # first: whoever comes while it closes opens another one
            await client.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
