"""`RefreshingClient`: a connection that is changed, or can't be read, and a key that is replaced while waits run."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import clock
from tests.support.virtual_loop import BEGIN
from tests.unit.conftest import KEY
from tests.unit.hooks.conftest import (
    NEW_KEY,
    Connection,
    Create,
    CreateMany,
    World,
    error_types,
    new_trigger,
    now,
    open_clients,
    outcome_of,
    run_trigger,
    run_triggers,
    start,
    statuses,
)


async def begin_later(ids: list[str], between: Callable[[], Any]) -> list[Any]:
    """Return the events of two waits: while the first runs, something happens, then the second begins."""
    first = asyncio.create_task(run_trigger(new_trigger(ids[0], 700)))
    await asyncio.sleep(310)
    between()
    second = asyncio.create_task(run_trigger(new_trigger(ids[1], 100)))
    return [await first, await second]


@pytest.mark.parametrize("minutes", [3, 12])
def test_a_connection_that_can_not_be_read_for_some_minutes(
    create: Create, world: World, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """If a triggerer starts while a secrets backend is away, its waits read the connection every minute, for ten
    minutes."""
    from airflow_provider_comet.hooks import refreshing_client

    prediction_id = create()

    async def aget_config_later(conn_id: str) -> Any:
        config = await world.aget_config(conn_id)
        await asyncio.sleep(0.2)  # virtual: a look-up takes time
        if now() < minutes * 60:
            raise e.ConnectionLookupError("the vault is sealed")
        return config

    monkeypatch.setattr(refreshing_client, "aget_config", aget_config_later)
    events = world.run(lambda: run_triggers([new_trigger(prediction_id, 3600) for _ in range(200)]))
    if minutes < 10:
        assert {*statuses(events)} == {"succeeded"}
    else:
        assert {event["error"]["type"] for event in events} == {"ConnectionLookupError"}
        assert world.lookups[-1] >= 600
    assert len(world.lookups) <= minutes + 2
    assert len([text for text in world.texts() if "the vault is sealed" in text]) == 200 * min(minutes, 10)


def test_a_later_wait_uses_a_changed_connection(
    comet: Emulator, create_many: CreateMany, world: World, connection: Connection, tidy: Any
) -> None:
    """On a triggerer that is never idle, waits that begin after five minutes use a changed connection.

    Waits that run already are not disturbed.
    """
    ids = create_many(2)

    async def main() -> list[Any]:
        first = asyncio.create_task(run_trigger(new_trigger(ids[0], 700)))
        await asyncio.sleep(310)
        connection(host=comet.base_url, extra={"max_polls_per_second": 7})
        second = asyncio.create_task(run_trigger(new_trigger(ids[1], 100)))
        await asyncio.sleep(1)
        assert open_clients()["cometapi_default"]._limiter.per_second == 7
        return [await first, await second]

    assert {*error_types(world.run(main))} == {"PredictionTimeoutError"}
    assert (len(world.lookups), world.opened, world.open) == (2, 2, 0)


def test_a_connection_that_cannot_be_read_again_ends_no_running_wait(
    create_many: CreateMany, world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """While Airflow can't give the connection, running waits and new waits use what was read before."""
    ids = create_many(2)
    events = world.run(lambda: begin_later(ids, lambda: monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")))
    assert error_types(events) == ["PredictionTimeoutError"] * 2


def test_a_thousand_waits_survive_a_replaced_key(
    comet: Emulator, create_many: CreateMany, world: World, connection: Connection, tidy: Any
) -> None:
    """If the connection gets a new key four minutes after the API, no wait ends, each log has one warning, and hardly
    any poll is sent meanwhile."""
    ids = create_many(1000)

    async def main() -> Any:
        waits = asyncio.create_task(run_triggers([new_trigger(id_, 3600, poke_interval=60) for id_ in ids]))
        await asyncio.sleep(100)
        comet.api_key = NEW_KEY
        await asyncio.sleep(240)
        connection(host=comet.base_url, password=NEW_KEY)
        await asyncio.sleep(200)
        assert (world.opened, world.open) == (2, 1)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one prediction
        return await waits

    assert statuses(world.run(main)) == ["succeeded"] * 1000
    refused = world.poll_times("AuthenticationError")
    assert 4 <= len(refused) <= 60
    assert max(refused) <= 100 + 240 + 61
    assert world.warnings_about("refused the API key") == {(id_, f"Prediction {id_}"): 1 for id_ in ids}
    assert len([moment for moment in world.lookups if moment > 100]) <= 12


@pytest.mark.parametrize("count", [1, 5, 200])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_stays_refused(
    comet: Emulator, create_many: CreateMany, world: World, tidy: Any, count: int, status: int
) -> None:
    """After ten minutes all waits fail with an error that a retry may cure.

    Until then the connection is read every minute, hardly any poll is sent, and each log has one warning about its own
    prediction.
    """
    ids = create_many(count)

    async def main() -> Any:
        waits = asyncio.create_task(run_triggers([new_trigger(id_, 3600, poke_interval=60) for id_ in ids]))
        await asyncio.sleep(90)
        comet.fault(method="GET", status=status, body={"error": {"message": "Invalid token"}}, count=None)
        events = await waits
        assert 90 + 600 <= now() <= 90 + 600 + 180
        return events

    events = world.run(main)
    expected = "AuthenticationError" if status == 401 else "PermissionDeniedError"
    assert {*error_types(events)} == {expected}
    assert [[*event["outcomes"]] for event in events] == [[id_] for id_ in ids]
    assert [outcome_of(event)["error"]["prediction_id"] for event in events] == ids
    lookups = [moment for moment in world.lookups if moment > 90]
    assert 8 <= len(lookups) <= (14 if status == 401 else 40)
    # A 403 may be about one prediction alone: only after a minute without any answer it stops the other polls.
    assert len(world.poll_times(expected)) <= 14 + (count if status == 401 else 2 * count)
    words = "refused the API key" if status == 401 else "denied access"
    assert world.warnings_about(words) == {(id_, f"Prediction {id_}"): 1 for id_ in ids}


def test_a_refused_key_does_not_outlast_the_deadline(
    comet: Emulator, create_many: CreateMany, world: World, tidy: Any
) -> None:
    """Waits whose deadline passes while the key is refused end with the refusal, each about its own prediction."""
    ids = create_many(20)

    async def main() -> Any:
        waits = asyncio.create_task(run_triggers([new_trigger(id_, 120, poke_interval=30) for id_ in ids]))
        await asyncio.sleep(40)
        comet.api_key = NEW_KEY
        events = await waits
        assert now() <= 120 + 240 + 61
        return events

    events = world.run(main)
    assert {*error_types(events)} == {"AuthenticationError"}
    assert [outcome_of(event)["error"]["prediction_id"] for event in events] == ids


def test_a_refusal_is_retryable_for_airflow(comet: Emulator, create: Create, world: World) -> None:
    """A wait that ends because the key is refused raises a plain error, which Airflow retries."""
    from airflow_provider_comet import airflow_errors
    from airflow_provider_comet.polling.events import read_event

    prediction_id = create()
    comet.fault(method="GET", status=401, count=None)
    error = read_event(world.run(lambda: run_trigger(new_trigger(prediction_id)))).outcomes[prediction_id]
    assert type(error) is e.AuthenticationError
    assert airflow_errors.wait_exception(error) is error


REFUSALS = {401: "AuthenticationError", 403: "PermissionDeniedError"}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_key_that_was_replaced_before_needs_no_pause(
    comet: Emulator, create: Create, world: World, connection: Connection, tidy: Any, status: int
) -> None:
    """If the connection has the new key already, the refused poll is repeated at once, after a 403 as after a 401."""
    prediction_id = create()

    async def main() -> Any:
        trigger = new_trigger(prediction_id, poke_interval=20, last_polled_at=world.time())
        wait = asyncio.create_task(run_trigger(trigger))
        await asyncio.sleep(5)
        comet.api_key = NEW_KEY
        comet.fault(method="GET", status=status, count=1)
        connection(host=comet.base_url, password=NEW_KEY)
        event = await wait
        assert now() <= 23
        assert world.opened == 2
        return event

    assert statuses([world.run(main)]) == ["succeeded"]
    assert [result for _, _, result in world.polls] == [REFUSALS[status], "ok"]
    assert world.open == 0


@pytest.mark.parametrize("status", REFUSALS)
def test_a_key_that_is_replaced_under_many_waits_needs_no_pause(
    comet: Emulator, create_many: CreateMany, world: World, connection: Connection, tidy: Any, status: int
) -> None:
    """If many waits had good answers with the old key a moment ago, the first refusal finds the new key for all."""
    ids = create_many(50)

    async def main() -> Any:
        waits = asyncio.create_task(run_triggers([new_trigger(id_, 3600, poke_interval=10) for id_ in ids]))
        await asyncio.sleep(30)
        comet.api_key = NEW_KEY
        comet.fault(method="GET", status=status, count=1)  # the first; the old key then gets 401
        connection(host=comet.base_url, password=NEW_KEY)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one prediction
        events = await waits
        assert now() <= 30 + 12
        return events

    assert statuses(world.run(main)) == ["succeeded"] * 50
    assert len([moment for moment in world.lookups if moment > 30]) == 1


def test_a_backend_that_makes_a_key_each_time(
    comet: Emulator,
    create: Create,
    world: World,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    tidy: Any,
) -> None:
    """If each look-up gives another key and all are refused, polls pause as for one refused key."""
    from airflow_provider_comet.hooks import refreshing_client

    prediction_id = create(status="processing")
    comet.fault(method="GET", status=401, count=None)
    steps = itertools.count()

    async def make_key(conn_id: str) -> Any:
        if len(world.lookups) > 100:
            raise RuntimeError("the look-ups do not end")
        connection(host=comet.base_url, password=f"sk-minted-{len(world.lookups):06}")
        return await world.aget_config(conn_id)

    monkeypatch.setattr(refreshing_client, "aget_config", make_key)
    # On this loop no time passes between a look-up and the poll after it; on a real loop some microseconds do.
    monkeypatch.setattr(clock, "loop_time", lambda: BEGIN + now() + next(steps) / 1e6)
    event = world.run(lambda: run_trigger(new_trigger(prediction_id)))
    assert error_types([event]) == ["AuthenticationError"]
    assert world.poll_times()[-1] >= 540
    assert len(world.poll_times()) <= 25
    assert world.open == 0


@pytest.mark.parametrize("status", [403])
def test_one_refused_prediction_does_not_stop_the_others(
    comet: Emulator, create: Create, world: World, status: int
) -> None:
    """While other polls get answers, a refused prediction pauses only its own wait."""
    refused = create(status="processing")
    good = [create(status="processing") for _ in range(3)]
    comet.fault(method="GET", path=refused, status=status, body={"error": {"message": "no"}}, count=None)

    async def main() -> list[Any]:
        tasks = start([new_trigger(prediction_id, 3600, poke_interval=5) for prediction_id in good])
        await asyncio.sleep(12)
        tasks += start([new_trigger(refused, 3600, poke_interval=5)])
        await asyncio.sleep(288)
        for prediction_id in good:
            comet.set_prediction(prediction_id, status="succeeded")
        return [await task for task in tasks]

    *others, bad = world.run(main)
    assert statuses(others) == ["succeeded"] * 3
    assert error_types([bad]) == ["PermissionDeniedError"]
    for prediction_id in good:
        polls = [result for _, polled, result in world.polls if polled == prediction_id]
        assert 50 <= polls.count("ok") <= 70


def test_a_connection_that_disappears_while_the_key_is_refused(
    comet: Emulator, create: Create, world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """While Airflow can't give the connection, the wait continues, and it finds the new key when Airflow can again."""
    prediction_id = create()

    async def main() -> Any:
        trigger = new_trigger(prediction_id, last_polled_at=world.time(), poke_interval=20)
        wait = asyncio.create_task(run_trigger(trigger))
        await asyncio.sleep(5)
        comet.api_key = NEW_KEY
        monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
        await asyncio.sleep(150)
        connection(host=comet.base_url, password=NEW_KEY)
        return await wait

    assert statuses([world.run(main)]) == ["succeeded"]


@pytest.mark.parametrize("trouble", ["the backend fails", "the extra is a list"])
def test_a_connection_that_cannot_be_read_while_the_key_is_refused(
    comet: Emulator,
    create: Create,
    world: World,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    tidy: Any,
    trouble: str,
) -> None:
    """Neither an error of the secrets backend nor a broken connection ends a running wait."""
    from airflow.providers.common.compat import connection as compat

    prediction_id = create()
    get_async_connection = compat.get_async_connection

    async def fail(conn_id: str) -> Any:
        raise PermissionError("the vault is sealed")

    async def main() -> Any:
        trigger = new_trigger(prediction_id, last_polled_at=world.time(), poke_interval=20)
        wait = asyncio.create_task(run_trigger(trigger))
        await asyncio.sleep(5)
        comet.api_key = NEW_KEY
        if trouble == "the backend fails":
            monkeypatch.setattr(compat, "get_async_connection", fail)
        else:
            connection(host=comet.base_url, password=NEW_KEY, extra="[1, 2]")
        await asyncio.sleep(150)
        assert len(world.lookups) >= 3
        monkeypatch.setattr(compat, "get_async_connection", get_async_connection)
        connection(host=comet.base_url, password=NEW_KEY)
        new_wait = asyncio.create_task(run_trigger(new_trigger(prediction_id)))
        return [await wait, await new_wait]

    assert statuses(world.run(main)) == ["succeeded"] * 2


def test_the_environments_key_replaces_no_connection(
    comet: Emulator, create_many: CreateMany, world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """A connection that is missing for a while (its secrets backend is away) is not replaced by `COMETAPI_KEY`, which
    may belong to another account."""
    ids = create_many(2)
    monkeypatch.setenv("COMETAPI_KEY", "sk-another-account")
    monkeypatch.setenv("COMETAPI_BASE_URL", comet.base_url)
    events = world.run(lambda: begin_later(ids, lambda: monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")))
    assert {*error_types(events)} == {"PredictionTimeoutError"}
    assert (len(world.lookups), world.opened) == (2, 1)
    assert {result for _, _, result in world.polls} == {"ok"}


def test_a_connection_replaces_the_environments_key(
    comet: Emulator,
    create_many: CreateMany,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    connection: Connection,
    tidy: Any,
) -> None:
    """A connection that is made while `COMETAPI_KEY` is in use takes its place."""
    ids = create_many(2)
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setenv("COMETAPI_BASE_URL", comet.base_url)
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")

    def make_connection() -> None:
        comet.api_key = NEW_KEY
        connection(host=comet.base_url, password=NEW_KEY)

    events = world.run(lambda: begin_later(ids, make_connection))
    assert {*error_types(events)} == {"PredictionTimeoutError"}
    assert (world.opened, world.open) == (2, 0)


def test_keys_are_in_no_log_and_no_event(
    comet: Emulator, create: Create, world: World, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the old nor the new key gets into a log or an event while the new key replaces the old key."""
    prediction_id = create()

    async def main() -> Any:
        trigger = new_trigger(prediction_id, last_polled_at=world.time(), poke_interval=20)
        wait = asyncio.create_task(run_trigger(trigger))
        await asyncio.sleep(5)
        comet.api_key = NEW_KEY
        await asyncio.sleep(100)
        connection(host=comet.base_url, password=NEW_KEY)
        return await wait

    with caplog.at_level(logging.DEBUG):
        event = world.run(main)
    assert statuses([event]) == ["succeeded"]
    logged = json.dumps([event, world.logs]) + caplog.text
    assert KEY not in logged
    assert NEW_KEY not in logged
