"""`SharedClient`: what all waits of a triggerer on one connection share."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.emulator import Emulator
from tests.unit.hooks.conftest import (
    Connection,
    Create,
    CreateMany,
    World,
    cancel,
    new_trigger,
    now,
    open_clients,
    outcome_of,
    run_trigger,
    run_triggers,
    start,
    statuses,
    wait_until,
)


def test_one_client_for_all_waits(comet: Emulator, create_many: CreateMany, world: World, tidy: Any) -> None:
    """Two hundred triggers read the connection once and share one client, which the last trigger closes."""
    ids = create_many(200)

    async def main() -> list[Any]:
        triggers = [new_trigger(prediction_id, 3600, poke_interval=60) for prediction_id in ids]
        waits = asyncio.create_task(run_triggers(triggers))
        await asyncio.sleep(30)
        assert (open_clients()["cometapi_default"].users, world.open) == (200, 1)
        for prediction_id in ids:
            comet.set_prediction(prediction_id, status="succeeded")
        events = await waits
        assert open_clients() == {}
        return events

    assert {*statuses(world.run(main))} == {"succeeded"}
    assert (len(world.lookups), world.opened, world.open) == (1, 1, 0)


def test_one_client_for_a_list(create_many: CreateMany, world: World, tidy: Any) -> None:
    """A trigger with a list is one user of the client."""
    ids = create_many(30, status="succeeded")
    event = world.run(lambda: run_trigger(new_trigger(ids)))
    assert (event["count"], event["errors"]) == (30, 0)
    assert (len(world.lookups), world.opened, world.open) == (1, 1, 0)


def test_another_connection_is_another_client(
    comet: Emulator, create_many: CreateMany, world: World, connection: Connection, tidy: Any
) -> None:
    """Each connection has its own client: a refused key does not disturb waits on another connection."""
    connection("other", host=comet.base_url, password="sk-wrong-one")
    ids = create_many(2, status="succeeded")
    good, bad = world.run(lambda: run_triggers([new_trigger(ids[0]), new_trigger(ids[1], 30, conn_id="other")]))
    assert outcome_of(good)["summary"]["status"] == "succeeded"
    assert outcome_of(bad)["error"]["type"] == "AuthenticationError"
    assert (world.opened, world.open) == (2, 0)


def test_a_second_loop_has_its_own_client(create: Create, world: World, tidy: Any) -> None:
    """Nothing of one event loop is used on the next one."""
    prediction_id = create()
    events = [world.run(lambda: run_trigger(new_trigger(prediction_id))) for _ in range(2)]
    assert statuses(events) == ["succeeded"] * 2
    assert (len(world.lookups), world.opened, world.open) == (2, 2, 0)


def test_a_wait_that_begins_while_the_client_closes_opens_another(
    create: Create, world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """A wait that begins while the last wait closes the client does not get the closed client."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    prediction_id = create()
    is_closing, close = asyncio.Event(), AsyncCometClient.close

    async def close_slowly(client: Any) -> None:
        is_closing.set()
        await asyncio.sleep(0.5)
        await close(client)

    monkeypatch.setattr(AsyncCometClient, "close", close_slowly)

    async def main() -> list[Any]:
        first = asyncio.create_task(run_trigger(new_trigger(prediction_id)))
        await is_closing.wait()
        second = asyncio.create_task(run_trigger(new_trigger(prediction_id)))
        return [await first, await second]

    assert statuses(world.run(main)) == ["succeeded", "succeeded"]
    assert (world.opened, world.open) == (2, 0)


@pytest.mark.parametrize("moment", ["looking up", "opening"])
@pytest.mark.parametrize("others", [0, 3])
def test_cancelled_while_it_opens(
    create: Create, world: World, monkeypatch: pytest.MonkeyPatch, tidy: list[Any], moment: str, others: int
) -> None:
    """If the trigger that is opening the client is cancelled, another waiting trigger opens it, and nothing leaks."""
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.hooks import refreshing_client

    prediction_id = create()
    calls: list[str] = []
    owner, name = (refreshing_client, "aget_config") if moment == "looking up" else (AsyncCometClient, "open")
    original: Any = getattr(owner, name)

    async def hang_once(*args: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            await asyncio.sleep(3600)
        return await original(*args)

    monkeypatch.setattr(owner, name, hang_once)

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: tidy.append(context))
        first = asyncio.create_task(run_trigger(new_trigger(prediction_id)))
        await wait_until(lambda: bool(calls))
        rest = start([new_trigger(prediction_id) for _ in range(others)])
        await asyncio.sleep(1)
        assert open_clients()["cometapi_default"].users == 1 + others
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        events = [await task for task in rest]
        assert open_clients() == {}
        return events

    assert statuses(world.run(main)) == ["succeeded"] * others
    assert (world.opened, world.open) == (min(1, others), 0)


@pytest.mark.parametrize("moment", ["sleeping", "in the queue", "polling", "refused", "paused"])
@pytest.mark.parametrize("is_list", [False, True], ids=["triggers", "list"])
def test_cancelled_while_it_waits(
    comet: Emulator, create_many: CreateMany, world: World, tidy: list[Any], moment: str, is_list: bool
) -> None:
    """Wherever a trigger is cancelled, it releases its slot, and the last trigger closes the client."""
    ids = create_many(100 if moment == "in the queue" else 2)
    faults: dict[str, dict[str, Any]] = {
        "polling": {"delay": 5},
        "refused": {"status": 401},
        "paused": {"status": 429, "headers": {"Retry-After": "500"}},
    }
    if moment in faults:
        comet.fault(method="GET", count=None, **faults[moment])

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: tidy.append(context))
        tasks = start([new_trigger(ids)] if is_list else [new_trigger(prediction_id) for prediction_id in ids])
        if moment == "polling":
            await wait_until(lambda: len(comet.ledger()["requests"]) >= 2)
        else:
            await asyncio.sleep(1.5)
        client = open_clients()["cometapi_default"]
        assert {type(result) for result in await cancel(tasks)} == {asyncio.CancelledError}
        assert client._concurrent._value == 500
        assert open_clients() == {}
        for _ in range(5):
            await asyncio.sleep(0)

    world.run(main)
    assert world.open == 0


def test_every_wait_says_why_the_client_cannot_be_opened(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """If the connection can be read but no client can be made of it (here: no CA bundle), every wait says why."""
    connection("secure", host="https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    events = world.run(lambda: run_triggers([new_trigger("abc", 20, conn_id="secure") for _ in range(3)]))
    assert [(event["error"]["type"], "/nowhere/ca.pem" in event["error"]["detail"]) for event in events] == [
        ("ConfigurationError", True)
    ] * 3


def test_every_wait_says_why_the_connection_cannot_be_used(world: World, connection: Connection, tidy: Any) -> None:
    """Two hundred waits on an unusable connection all end with the reason, and do not read it two hundred times."""
    connection("odd", conn_type="http")
    events = world.run(lambda: run_triggers([new_trigger("abc", conn_id="odd") for _ in range(200)]))
    assert {event["error"]["type"] for event in events} == {"ConfigurationError"}
    assert len(world.lookups) <= 5


def test_a_slow_poll_does_not_hold_others_back(
    comet: Emulator, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all concurrent polls get no answer, other polls follow as soon as these count as slow."""
    from airflow_provider_comet.hooks import shared_client

    monkeypatch.setattr(shared_client, "MAX_CONCURRENT_POLLS", 4)
    monkeypatch.setattr(shared_client, "SLOW_SECONDS", 0.05)
    slow, quick = create(), create()
    comet.fault(method="GET", path=slow, delay=30, count=None)

    async def main() -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        stuck = start([new_trigger(slow) for _ in range(4)])
        await wait_until(lambda: len(comet.ledger()["requests"]) >= 2 + 4)
        started_at = loop.time()
        event = await run_trigger(new_trigger(quick))
        took = loop.time() - started_at
        await cancel(stuck)
        return event, took

    event, took = asyncio.run(main())
    assert statuses([event]) == ["succeeded"]
    assert took < 2


def test_five_hundred_polls_run_at_once(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an API that never answers, 500 polls run at once, and after ten seconds the next polls follow."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    sent_at: list[float] = []

    async def send(client: Any, request: Request) -> Any:
        sent_at.append(now())
        await asyncio.sleep(75)
        raise e.TransportError("no answer")

    monkeypatch.setattr(AsyncCometClient, "send", send)
    monkeypatch.setenv(
        "AIRFLOW_CONN_COMETAPI_DEFAULT",
        json.dumps({**json.loads(comet.connection_json()), "extra": {"max_polls_per_second": 1000}}),
    )

    async def main() -> None:
        tasks = start([new_trigger(f"a{number}") for number in range(1200)])
        for moment, least, most in ((9.0, 500, 500), (10.9, 980, 1000), (21.5, 1200, 1200)):
            await asyncio.sleep(moment - now())
            assert least <= len(sent_at) <= most
        await cancel(tasks)

    world.run(main)


def test_a_bug_in_a_list_is_named_in_the_event(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error of one of many waits is named in the event, like that of a single wait."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    async def send(client: Any, request: Request) -> Any:
        if request.prediction_id == "b":
            raise ZeroDivisionError("by zero")
        await asyncio.sleep(3600)

    monkeypatch.setattr(AsyncCometClient, "send", send)
    for trigger in (new_trigger("b"), new_trigger(["a", "b", "c"])):
        event = world.run(functools.partial(run_trigger, trigger))
        assert "ZeroDivisionError: by zero" in json.dumps(event)
