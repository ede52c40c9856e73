"""Thousands of waits that become ready together do not block the event loop: how much happens in one of its turns."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, cast

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling.rate_limiter import RateLimiter
from airflow_provider_comet.polling.wait import Wait
from tests.support.virtual_loop import VirtualLoop
from tests.unit.hooks.conftest import CreateMany, World, new_trigger, open_clients, run_trigger, run_triggers

HERD = 250
MOST = 40
"""Steps in one turn. Twenty pass, and as many others may have been let through in the turn before."""


class Turns:
    """Counts the calls of methods by the turn of the loop in which they are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._calls: dict[str, Counter[int]] = {}

    def watch(self, owner: Any, name: str) -> None:
        """Count the calls of a method."""
        method, calls = getattr(owner, name), self._calls.setdefault(name, Counter())

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[cast(VirtualLoop, asyncio.get_running_loop()).turn] += 1
            return method(*args, **kwargs)

        self._monkeypatch.setattr(owner, name, counted)

    def most(self, name: str) -> int:
        """Return the most calls in one turn."""
        return max(self._calls[name].values())

    def total(self, name: str) -> int:
        """Return how many calls there were."""
        return self._calls[name].total()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch, world: World, comet: Emulator) -> Turns:
    """Counters for the beginnings of polls and the steps of waits, where no rate limit spreads them.

    On a loop that was blocked for a moment, slots of the limiter are in the past, and all those polls are due at once.
    """
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.hooks.shared_client import SharedClient

    extra = {"max_polls_per_second": 80_000, "read_timeout": 20}
    connection = {**json.loads(comet.connection_json()), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(RateLimiter, "acquire", lambda limiter, now, latest=None: now)
    turns = Turns(monkeypatch)
    turns.watch(SharedClient, "open")
    turns.watch(AsyncCometClient, "send")
    turns.watch(Wait, "first_delay")
    turns.watch(Wait, "on_result")
    return turns


@pytest.mark.parametrize("is_list", [False, True], ids=["triggers", "list"])
def test_waits_that_start_together(
    create_many: CreateMany, world: World, turns: Turns, tidy: Any, is_list: bool
) -> None:
    """Hundreds of waits that start in one step begin a few in each turn, and so do their first polls."""
    ids = create_many(HERD, status="succeeded")
    waits = [new_trigger(ids)] if is_list else [new_trigger(prediction_id) for prediction_id in ids]
    events = world.run(lambda: run_triggers(waits))
    assert sum(event["count"] - event["errors"] for event in events) == HERD
    assert turns.total("send") == turns.total("first_delay") == HERD
    assert turns.most("open") <= MOST
    assert turns.most("first_delay") <= MOST
    assert turns.most("send") <= MOST


def test_a_common_deadline(create_many: CreateMany, world: World, turns: Turns, tidy: Any) -> None:
    """The last polls of a list, all due at its deadline, begin a few in each turn."""
    ids = create_many(HERD)
    event = world.run(lambda: run_trigger(new_trigger(ids, 30, poke_interval=3600)))
    assert event["unfinished"] == HERD
    assert turns.total("send") >= HERD
    assert turns.most("send") <= MOST


def test_polls_that_time_out_together(
    create_many: CreateMany, world: World, turns: Turns, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """Hundreds of polls that get no answer time out together, and are judged a few in each turn."""
    import aiohttp

    async def read(answer: Any) -> bytes:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        loop.busy -= 1  # virtual time passes meanwhile
        try:
            return await asyncio.sleep(600, b"")
        finally:
            loop.busy += 1

    monkeypatch.setattr(aiohttp.ClientResponse, "read", read)
    ids = create_many(HERD)
    event = world.run(lambda: run_trigger(new_trigger(ids, 25, poke_interval=3600)))
    assert event["unfinished"] == HERD
    assert turns.total("on_result") >= HERD
    assert turns.most("on_result") <= MOST


def test_a_pause_beyond_the_deadline(comet: Emulator, create_many: CreateMany, world: World, turns: Turns) -> None:
    """Waits whose deadline comes before the end of a pause end a few in each turn."""
    ids = create_many(HERD)
    steps: Counter[int] = Counter()

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(ids, 30, poke_interval=3600)))
        await asyncio.sleep(20)
        client = open_clients()["cometapi_default"]
        no_slot = client._no_slot

        def counted(*args: Any) -> Any:
            steps[cast(VirtualLoop, asyncio.get_running_loop()).turn] += 1
            return no_slot(*args)

        client._no_slot = counted  # type: ignore[method-assign]
        client._limiter.pause(asyncio.get_running_loop().time(), asyncio.get_running_loop().time() + 3600)
        return await wait

    assert world.run(main)["unfinished"] == HERD
    assert steps.total() >= HERD / 2
    assert max(steps.values()) <= MOST
