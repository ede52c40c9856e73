"""``AsyncCometClient``: its life cycle, and what it refuses to send."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_comet.api import protocol
from airflow_provider_comet.client.async_client import AsyncCometClient
from airflow_provider_comet.emulator import Emulator
from tests.unit.client.conftest import INPUT, MODEL, config_of, create


def test_the_async_client_works_inside_its_block_only() -> None:
    """Outside of ``async with`` the asynchronous client refuses to send, and says why."""
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(AsyncCometClient(config_of(9)).send(protocol.get_prediction("abc")))


def test_a_retired_client_closes_after_its_last_poll(emulator: Emulator) -> None:
    """A retired client lets running requests end, then closes its connections."""
    request = protocol.get_prediction(create(emulator))
    emulator.fault(method="GET", delay=0.2)

    async def main() -> None:
        client = AsyncCometClient(config_of(emulator))
        await client.open()
        poll = asyncio.create_task(client.send(request))
        await asyncio.sleep(0.05)
        await client.retire()
        assert protocol.read_prediction(request, await poll).id == request.prediction_id
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(request)

    asyncio.run(main())


def test_a_retired_client_without_polls_closes_at_once(emulator: Emulator) -> None:
    """A retired client without running requests closes its connections at once."""

    async def main() -> None:
        client = AsyncCometClient(config_of(emulator))
        await client.open()
        await client.retire()
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(protocol.get_prediction("abc"))

    asyncio.run(main())


def test_two_thousand_connections_at_most(emulator: Emulator) -> None:
    """The pool holds as many connections as polls may run at once, slow ones included."""

    async def main() -> int:
        async with AsyncCometClient(config_of(emulator)) as client:
            assert client._session is not None
            assert client._session.connector is not None
            return client._session.connector.limit

    assert asyncio.run(main()) == 2000


def test_the_async_client_can_not_create(emulator: Emulator) -> None:
    """A request that may cost money is refused and not sent: a trigger may be started again at any time."""

    async def main() -> None:
        async with AsyncCometClient(config_of(emulator)) as client:
            with pytest.raises(RuntimeError, match="only reads"):
                await client.send(protocol.create_prediction(MODEL, INPUT))

    asyncio.run(main())
    assert emulator.ledger()["requests"] == []
