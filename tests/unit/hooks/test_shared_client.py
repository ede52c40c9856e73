"""`SharedClient`: what all waits of a triggerer share on one connection. Time is the event loop's own, and virtual."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import itertools
import json
import logging
import random
import time
import types
import warnings
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.virtual_loop import BEGIN, VirtualLoop
from tests.unit.conftest import KEY

WALL = 1_800_000_000.0
NEW_KEY = "sk-unit-replaced-4711"


def now() -> float:
    return asyncio.get_running_loop().time() - BEGIN


def unseen(prediction_id: str) -> dict[str, Any]:
    """The event of a wait whose last look had no turn."""
    return {"prediction_id": prediction_id, "status": "unknown", "late": 1, "ended": {}}


class World:
    """Triggers on one virtual loop.

    :ivar sent: when each look left, for which id, and what came of it: `ok` or the error's class.
    :ivar lookups: when the connection was looked up.
    :ivar opened: how many clients were opened.
    :ivar open: how many of them are open.
    :ivar jump: how far the wall clock has been set.
    :ivar logs: what each wait's task log got: the ids it waits for, the level and the words.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_provider_comet.client.async_client import AsyncCometClient
        from airflow_provider_comet.hooks import refreshing_client as renewed_client
        from airflow_provider_comet.triggers import prediction as trigger

        self.sent: list[tuple[float, str, str]] = []
        self.lookups: list[float] = []
        self.opened = self.open = 0
        self.jump = 0.0
        self.logs: list[tuple[Any, int, str]] = []
        self.loop: VirtualLoop | None = None
        look, enter, leave = AsyncCometClient.look, AsyncCometClient.open, AsyncCometClient.close
        lookup = renewed_client.aget_config

        async def counted_look(client: Any, prediction_id: str) -> Any:
            moment = now()
            with self._busy():
                try:
                    seen = await look(client, prediction_id)
                except e.CometError as error:
                    self.sent.append((moment, prediction_id, type(error).__name__))
                    raise
            self.sent.append((moment, prediction_id, "ok"))
            return seen

        async def counted_enter(client: Any) -> Any:
            with self._busy():
                entered = await enter(client)
            self.opened += 1
            self.open += 1
            return entered

        async def counted_leave(client: Any, *args: Any) -> None:
            with self._busy():
                await leave(client, *args)
            self.open -= 1

        async def counted_lookup(conn_id: str) -> Any:
            self.lookups.append(now())
            with self._busy():
                return await lookup(conn_id)

        monkeypatch.setattr(AsyncCometClient, "look", counted_look)
        monkeypatch.setattr(AsyncCometClient, "open", counted_enter)
        monkeypatch.setattr(AsyncCometClient, "close", counted_leave)
        monkeypatch.setattr(renewed_client, "aget_config", counted_lookup)
        monkeypatch.setattr(trigger, "time", types.SimpleNamespace(time=self.time))
        monkeypatch.setattr(trigger.PredictionTrigger, "log", property(self._log))

    def _log(self, trigger: Any) -> Any:
        def log(level: int, words: str, *args: Any, **kwargs: Any) -> None:
            self.logs.append((trigger.prediction_id, level, words % args if args else words))

        return types.SimpleNamespace(
            log=log,
            exception=functools.partial(log, logging.ERROR),
            warning=functools.partial(log, logging.WARNING),
        )

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        loop.busy += 1
        try:
            yield
        finally:
            loop.busy -= 1

    def time(self) -> float:
        """The wall clock."""
        return WALL + (self.loop.now - BEGIN if self.loop else 0.0) + self.jump

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            self.loop = cast(VirtualLoop, runner.get_loop())
            return runner.run(main())

    def at(self, outcome: str | None = None) -> list[float]:
        """When looks left, all of them or those that came to one outcome."""
        return sorted(moment for moment, _, what in self.sent if outcome in (None, what))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def trigger(prediction_id: Any, timeout: float = 3600, **kwargs: Any) -> Any:
    """A trigger whose task began just now."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    made = PredictionTrigger(prediction_id, **kwargs)
    if "deadline" not in kwargs:
        made.deadline = made.started_at + timeout
    return made


async def event(one: Any) -> Any:
    """A trigger's only event, through JSON."""
    (payload,) = [json.loads(json.dumps(event.payload)) async for event in one.run()]
    return payload


async def events(triggers: list[Any]) -> list[Any]:
    return [*await asyncio.gather(*(event(one) for one in triggers))]


def many(create: Callable[..., str], comet: Emulator, count: int, status: str = "processing") -> list[str]:
    """So many predictions at the emulator: copies of one that was created, in one step."""
    first = create(status=status)

    def copy() -> list[str]:
        predictions = comet._store.predictions
        for n in range(1, count):
            predictions[f"{first}-{n}"] = predictions[first]
        return [*predictions][-count:]

    return comet._on_loop(copy)


def replace_key(comet: Emulator, key: str = NEW_KEY) -> None:
    """The API takes another key from now on."""
    comet.api_key = key


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on for up to five seconds of real time; virtual time does not pass."""
    gives_up_at = time.monotonic() + 5
    for _ in itertools.count():
        if condition():
            return
        assert time.monotonic() < gives_up_at, "it never came to that"
        await asyncio.sleep(0)


def shared() -> dict[str, Any]:
    """The shared clients of this loop."""
    from airflow_provider_comet.hooks import shared_client

    return shared_client._shared.get(asyncio.get_running_loop(), {})


@pytest.fixture
def tidy(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Nothing is left open, and nobody complains about it."""
    complaints: list[Any] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield complaints
        gc.collect()
    assert [str(one.message) for one in warned if issubclass(one.category, ResourceWarning)] == []
    assert complaints == []
    assert "Unclosed" not in caplog.text


# One client per loop and connection


def test_one_client_for_all_waits(comet: Emulator, create: Callable[..., str], world: World, tidy: Any) -> None:
    """Two hundred triggers look the connection up once, share one client, and the last one closes it."""
    ids = many(create, comet, 200)

    async def main() -> list[Any]:
        waits = asyncio.create_task(events([trigger(one, 3600, poke_interval=60) for one in ids]))
        await asyncio.sleep(30)
        assert (shared()["cometapi_default"].users, world.open) == (200, 1)
        for one in ids:
            comet.set_prediction(one, status="succeeded")
        ended = await waits
        assert shared() == {}
        return ended

    assert {one["status"] for one in world.run(main)} == {"succeeded"}
    assert (len(world.lookups), world.opened, world.open) == (1, 1, 0)


def test_one_client_for_a_list(comet: Emulator, create: Callable[..., str], world: World, tidy: Any) -> None:
    """A trigger with a list is one user of the client."""
    ids = many(create, comet, 30, status="succeeded")
    (ended,) = world.run(lambda: events([trigger(ids)]))
    assert (ended["count"], ended["errors"]) == (30, 0)
    assert (len(world.lookups), world.opened, world.open) == (1, 1, 0)


def test_another_connection_is_another_client(
    comet: Emulator, create: Callable[..., str], world: World, connection: Callable[..., None], tidy: Any
) -> None:
    """Each connection has its own client, its own pace and its own trouble."""
    connection("other", host=comet.base_url, password="sk-wrong-one")
    ids = many(create, comet, 2, status="succeeded")
    good, bad = world.run(lambda: events([trigger(ids[0]), trigger(ids[1], 30, conn_id="other")]))
    assert good["status"] == "succeeded"
    assert bad["error"]["type"] == "AuthenticationError"
    assert (world.opened, world.open) == (2, 0)


def test_a_second_loop_has_its_own_client(comet: Emulator, create: Callable[..., str], world: World, tidy: Any) -> None:
    """Nothing of one event loop is used on the next one."""
    one = create()
    assert {world.run(lambda: event(trigger(one)))["status"] for _ in range(2)} == {"succeeded"}
    assert (len(world.lookups), world.opened, world.open) == (2, 2, 0)


def test_whoever_comes_while_it_closes_opens_another(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """A wait that begins while the last one closes the client is not given the closed one."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    one = create()
    closing, leave = asyncio.Event(), AsyncCometClient.close

    async def slowly(client: Any, *args: Any) -> None:
        closing.set()
        await asyncio.sleep(0.5)
        await leave(client, *args)

    monkeypatch.setattr(AsyncCometClient, "close", slowly)

    async def main() -> list[Any]:
        first = asyncio.create_task(event(trigger(one)))
        await closing.wait()
        second = asyncio.create_task(event(trigger(one)))
        return [await first, await second]

    assert [one["status"] for one in world.run(main)] == ["succeeded", "succeeded"]
    assert (world.opened, world.open) == (2, 0)


@pytest.mark.parametrize("moment", ["looking up", "opening"])
@pytest.mark.parametrize("others", [0, 3])
def test_cancelled_while_it_opens(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    tidy: list[Any],
    moment: str,
    others: int,
) -> None:
    """If the trigger that just opens the client is cancelled, one of those who wait for it opens it; nothing leaks."""
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.hooks import refreshing_client as renewed_client

    one = create()
    inside: list[str] = []
    owner, name = (renewed_client, "aget_config") if moment == "looking up" else (AsyncCometClient, "open")
    original: Any = getattr(owner, name)

    async def hang_once(*args: Any) -> Any:
        inside.append("here")
        if len(inside) == 1:
            await asyncio.sleep(3600)
        return await original(*args)

    monkeypatch.setattr(owner, name, hang_once)

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: tidy.append(context))
        first = asyncio.create_task(event(trigger(one)))
        await until(lambda: bool(inside))
        rest = [asyncio.create_task(event(trigger(one))) for _ in range(others)]
        await asyncio.sleep(1)
        assert shared()["cometapi_default"].users == 1 + others
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        ended = [await wait for wait in rest]
        assert shared() == {}
        return ended

    assert [one["status"] for one in world.run(main)] == ["succeeded"] * others
    assert (world.opened, world.open) == (min(1, others), 0)


@pytest.mark.parametrize("moment", ["sleeping", "in the queue", "asking", "refused", "paused"])
@pytest.mark.parametrize("is_list", [False, True], ids=["triggers", "list"])
def test_cancelled_while_it_waits(
    comet: Emulator, create: Callable[..., str], world: World, tidy: list[Any], moment: str, is_list: bool
) -> None:
    """Wherever a trigger is cancelled, it leaves its place to others, and the last one closes the client."""
    ids = many(create, comet, 100 if moment == "in the queue" else 2)
    faults: dict[str, dict[str, Any]] = {
        "asking": {"delay": 5},
        "refused": {"status": 401},
        "paused": {"status": 429, "headers": {"Retry-After": "500"}},
    }
    if moment in faults:
        comet.fault(method="GET", count=None, **faults[moment])

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: tidy.append(context))
        tasks = [asyncio.create_task(event(trigger(one))) for one in ([ids] if is_list else ids)]
        if moment == "asking":
            await until(lambda: len(comet.ledger()["requests"]) >= 2)
        else:
            await asyncio.sleep(1.5)
        client = shared()["cometapi_default"]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in results} == {asyncio.CancelledError}
        assert client._slots._value == 500
        assert shared() == {}
        for _ in range(5):
            await asyncio.sleep(0)

    world.run(main)
    assert world.open == 0


def test_a_client_that_cannot_be_opened_is_told_to_all(
    comet: Emulator, world: World, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """If the connection can be read but no client can be made of it (here: no CA bundle), every wait says why."""
    connection("secure", host="https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    ended = world.run(lambda: events([trigger("abc", 20, conn_id="secure") for _ in range(3)]))
    assert [(one["error"]["type"], "/nowhere/ca.pem" in one["error"]["detail"]) for one in ended] == [
        ("ConfigurationError", True)
    ] * 3


def test_an_unusable_connection_is_told_to_all(world: World, connection: Callable[..., None], tidy: Any) -> None:
    """Two hundred waits on a connection that can't be used all end in words, without two hundred look-ups in a row."""
    connection("odd", conn_type="http")
    ended = world.run(lambda: events([trigger("abc", conn_id="odd") for _ in range(200)]))
    assert {one["error"]["type"] for one in ended} == {"ConfigurationError"}
    assert len(world.lookups) <= 5


@pytest.mark.parametrize("minutes", [3, 12])
def test_a_connection_that_can_not_be_read_for_some_minutes(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """A triggerer may start while a secrets backend is away: its waits ask again every minute, for ten minutes."""
    from airflow_provider_comet.hooks import refreshing_client as renewed_client

    one = create()
    lookup: Any = renewed_client.aget_config

    async def look_up(conn_id: str) -> Any:
        found = await lookup(conn_id)
        if now() < minutes * 60:
            raise e.ConnectionLookupError("the vault is sealed")
        return found

    monkeypatch.setattr(renewed_client, "aget_config", look_up)
    ended = world.run(lambda: events([trigger(one, 3600) for _ in range(200)]))
    if minutes < 10:
        assert {each["status"] for each in ended} == {"succeeded"}
    else:
        assert {each["error"]["type"] for each in ended} == {"ConnectionLookupError"}
    assert len(world.lookups) <= minutes + 2
    assert len([text for _, _, text in world.logs if "the vault is sealed" in text]) == 200 * min(minutes, 10)


def test_a_later_wait_uses_a_replaced_connection(
    comet: Emulator, create: Callable[..., str], world: World, connection: Callable[..., None], tidy: Any
) -> None:
    """On a triggerer that is never idle, a connection that was changed is used by waits that begin after five minutes,
    and what is under way goes on."""
    ids = many(create, comet, 2)

    async def main() -> list[Any]:
        first = asyncio.create_task(event(trigger(ids[0], 700)))
        await asyncio.sleep(310)
        connection(host=comet.base_url, extra={"max_polls_per_second": 7})
        second = asyncio.create_task(event(trigger(ids[1], 100)))
        await asyncio.sleep(1)
        assert shared()["cometapi_default"]._pace.per_second == 7
        return [await first, await second]

    assert {one["error"]["type"] for one in world.run(main)} == {"PredictionTimeoutError"}
    assert (len(world.lookups), world.opened, world.open) == (2, 2, 0)


def test_a_connection_that_cannot_be_read_again_ends_no_running_wait(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """While Airflow can't give the connection, waits that begin use what was read before, as those under way do."""
    ids = many(create, comet, 2)

    async def main() -> list[Any]:
        first = asyncio.create_task(event(trigger(ids[0], 700)))
        await asyncio.sleep(310)
        monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
        second = asyncio.create_task(event(trigger(ids[1], 100)))
        return [await first, await second]

    first, second = world.run(main)
    assert first["error"]["type"] == "PredictionTimeoutError"
    assert second["error"]["type"] == "PredictionTimeoutError"


# A slow API


def test_a_slow_look_does_not_hold_others_back(
    comet: Emulator, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If as many looks as may be under way at once get no answer, others follow once those have grown old."""
    from airflow_provider_comet.hooks import shared_client

    monkeypatch.setattr(shared_client, "AT_ONCE", 4)
    monkeypatch.setattr(shared_client, "SLOW_SECONDS", 0.05)
    slow, quick = create(), create()
    comet.fault(method="GET", path=slow, delay=30, count=None)

    async def main() -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        stuck = [asyncio.create_task(event(trigger(slow))) for _ in range(4)]
        await until(lambda: len(comet.ledger()["requests"]) >= 2 + 4)
        began = loop.time()
        ended = await event(trigger(quick))
        took = loop.time() - began
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        return ended, took

    ended, took = asyncio.run(main())
    assert ended["status"] == "succeeded"
    assert took < 2


def test_five_hundred_are_under_way_at_once(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an API that never answers, 500 looks are under way, and after ten seconds the next ones follow."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    under_way: list[float] = []

    async def never(client: Any, prediction_id: str) -> Any:
        under_way.append(now())
        await asyncio.sleep(75)
        raise e.TransportError("no answer")

    monkeypatch.setattr(AsyncCometClient, "look", never)
    monkeypatch.setenv(
        "AIRFLOW_CONN_COMETAPI_DEFAULT",
        json.dumps({**json.loads(comet.connection_json()), "extra": {"max_polls_per_second": 1000}}),
    )

    async def main() -> None:
        tasks = [asyncio.create_task(event(trigger(f"a{n}"))) for n in range(1200)]
        for moment, least, most in ((9.0, 500, 500), (10.9, 980, 1000), (21.5, 1200, 1200)):
            await asyncio.sleep(moment - now())
            assert least <= len(under_way) <= most
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(main)


# The pace


def most_in(moments: list[float], seconds: float) -> int:
    """The most of these that lie within any interval so long."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(moments):
        window.append(moment)
        while window[0] <= moment - seconds:
            window.popleft()
        most = max(most, len(window))
    return most


@pytest.mark.parametrize("cap", [5, 50, None])
def test_at_most_so_many_looks_a_second(
    comet: Emulator, create: Callable[..., str], world: World, connection: Callable[..., None], cap: int | None
) -> None:
    """Two hundred waits that begin together send as many looks a second as the connection says, evenly spread."""
    connection(host=comet.base_url, **({} if cap is None else {"extra": {"max_polls_per_second": cap}}))
    ids = many(create, comet, 200, status="succeeded")
    assert {one["status"] for one in world.run(lambda: events([trigger(one) for one in ids]))} == {"succeeded"}
    assert len(world.at()) == 200
    assert most_in(world.at(), 1.0) <= (cap or 50) + 1
    assert world.at()[-1] == pytest.approx(199 / (cap or 50), abs=0.1)


def test_a_list_keeps_to_the_same_pace(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """The ids of one trigger count like those of many."""
    world.run(lambda: event(trigger(many(create, comet, 150, status="succeeded"))))
    assert most_in(world.at(), 1.0) <= 51


def test_429_pauses_every_look(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Nobody on that connection asks before the time that one 429 named; then looks come spread out, at half the
    rate."""
    ids = many(create, comet, 200)

    async def main() -> None:
        tasks = [asyncio.create_task(event(trigger(one, 600, poke_interval=5))) for one in ids]
        await asyncio.sleep(20)
        comet.fault(method="GET", status=429, headers={"Retry-After": "40"}, count=1)
        await asyncio.sleep(100)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(main)
    (refused,) = world.at("RateLimitedError")
    after = [moment for moment in world.at() if moment > refused]
    assert after[0] >= refused + 40
    assert after[0] <= refused + 40 * 1.1 + 1
    first_second = [moment for moment in after if moment < after[0] + 1]
    assert len(first_second) <= 27
    assert most_in([moment for moment in after if moment < after[0] + 20], 1.0) <= 32


def test_a_pause_outlives_its_last_user(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """If the waits that a 429 stopped have ended, those that come afterwards keep to what the server asked for."""
    ids = many(create, comet, 2)
    comet.fault(method="GET", status=429, headers={"Retry-After": "500"}, count=1)

    async def main() -> Any:
        assert (await event(trigger(ids[0], 10))) == unseen(ids[0])
        assert shared() == {}
        begun, waiting = now(), asyncio.create_task(event(trigger(ids[1], 3600)))
        assert begun < 300
        await asyncio.sleep(100)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one
        return await waiting

    assert world.run(main)["status"] == "succeeded"
    first, second = world.at()
    assert 500 <= second - first <= 550


def test_turns_from_before_a_429_are_void(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Those who were in the queue when a 429 came go on at the reduced rate, too."""
    ids = many(create, comet, 1000)

    async def main() -> None:
        tasks = [asyncio.create_task(event(trigger(one, 600, poke_interval=300))) for one in ids]
        await asyncio.sleep(2)
        comet.fault(method="GET", status=429, headers={"Retry-After": "1"}, count=1)
        await asyncio.sleep(10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(main)
    (refused,) = world.at("RateLimitedError")
    assert most_in([moment for moment in world.at() if moment > refused], 1.0) <= 29


def test_waits_without_a_turn_before_their_deadline_hold_nobody_back(
    comet: Emulator, create: Callable[..., str], world: World
) -> None:
    """A pause that outlasts a thousand waits: they end at their deadlines without a turn, and a wait that has time
    looks as soon as the pause is over."""
    ids = many(create, comet, 1000)
    patient = create()

    async def main() -> tuple[Any, float]:
        tasks = [asyncio.create_task(event(trigger(one, 600, poke_interval=30))) for one in ids]
        await asyncio.sleep(40)
        comet.fault(method="GET", status=429, headers={"Retry-After": "3600"}, count=1)
        await asyncio.sleep(60)
        waiting = asyncio.create_task(event(trigger(patient, 7200)))
        assert [await task for task in tasks] == [unseen(one) for one in ids]
        assert 600 <= now() <= 600 + 240
        return await waiting, now()

    ended, moment = world.run(main)
    assert ended["status"] == "succeeded"
    (refused,) = world.at("RateLimitedError")
    assert refused + 3600 <= moment <= refused + 3600 * 1.1 + 2


def test_many_429s_of_one_moment_halve_once(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty answers to looks that were under way together are one piece of news: the rate is half, not a millionth."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    async def refuse(client: Any, prediction_id: str) -> Any:
        moment = now()
        await asyncio.sleep(1.0)
        assert moment < 0.5 or moment > 10
        raise e.RateLimitedError("slow down", status=429, retry_after=10)

    monkeypatch.setattr(AsyncCometClient, "look", refuse)

    async def main() -> float:
        tasks = [asyncio.create_task(event(trigger(f"a{n}", 100))) for n in range(20)]
        await asyncio.sleep(1.5)
        rate = shared()["cometapi_default"]._pace.rate(BEGIN + now())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return cast(float, rate)

    assert world.run(main) == pytest.approx(25, abs=1)


def test_the_rate_limit_is_told_in_each_log_once(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """A wait that got a 429 says so, with a warning."""
    one = create()
    comet.fault(method="GET", status=429, headers={"Retry-After": "40"}, count=1)
    assert world.run(lambda: event(trigger(one)))["status"] == "succeeded"
    assert warned(world, "limits the request rate") == {(one, f"Prediction {one}"): 1}


class Limit:
    """An API that takes so many looks within a second, and answers 429 to the others.

    :param latency: seconds that an answer takes.
    """

    def __init__(self, per_second: int, hint: float | None, latency: float = 0.2) -> None:
        self.per_second = per_second
        self.hint = hint
        self.latency = latency
        self.good: list[tuple[float, str]] = []
        self.bad: list[float] = []
        self._window: deque[float] = deque()

    async def look(self, prediction_id: str) -> Any:
        from airflow_provider_comet.api.prediction import Prediction

        moment = now()
        while self._window and self._window[0] <= moment - 1:
            self._window.popleft()
        is_allowed = len(self._window) < self.per_second
        if is_allowed:
            self._window.append(moment)
            self.good.append((moment, prediction_id))
        else:
            self.bad.append(moment)
        await asyncio.sleep(self.latency)
        if is_allowed:
            return Prediction(prediction_id, "processing")
        raise e.RateLimitedError("slow down", status=429, retry_after=self.hint)

    def gaps(self, ids: list[str], until: float) -> dict[str, float]:
        """The longest time that each was without an answer."""
        last, longest = dict.fromkeys(ids, 0.0), dict.fromkeys(ids, 0.0)
        for moment, one in [*self.good, *((until, one) for one in ids)]:
            longest[one] = max(longest[one], moment - last[one])
            last[one] = moment
        return longest


@pytest.mark.parametrize(
    ("waits", "hint", "share", "least", "gap"),
    [
        # 15 looks a second are wanted, 10 are allowed
        (300, None, 0.06, 5.0, 1200),
        (300, 1.0, 0.06, 6.0, 1200),
        (300, 10.0, 0.06, 4.0, 1200),
        # 5 a second are wanted
        (100, 1.0, 0.06, 4.0, 600),
        (100, 10.0, 0.06, 3.0, 900),
    ],
)
def test_three_triggerers_share_one_limit(
    comet: Emulator,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    waits: int,
    hint: float | None,
    share: float,
    least: float,
    gap: float,
) -> None:
    """Three processes under one limit of ten looks a second: after ten minutes few of their looks are refused, together
    they use most of what there is, each gets its part, and nobody starves."""
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.hooks.shared_client import SharedClient
    from airflow_provider_comet.polling.rate_limiter import Pace

    random.seed(1)
    limit = Limit(10, hint)

    async def look(client: Any, prediction_id: str) -> Any:
        return await limit.look(prediction_id)

    # A stub without sockets stands in for the API: what matters is time alone.
    monkeypatch.setattr(AsyncCometClient, "look", look)
    ids = [[f"t{process}-{n}" for n in range(waits)] for process in range(3)]
    seconds = 3000

    async def wait(client: Any, prediction_id: str) -> None:
        await asyncio.sleep(60 * random.random())
        while True:
            asked = 0.0
            try:
                await client.look(prediction_id, lambda look: None)
            except e.RateLimitedError as error:
                asked = error.retry_after or 0.0
            await asyncio.sleep(max(asked, 60 * (0.9 + 0.2 * random.random())))

    async def main() -> None:
        tasks = []
        clients = [SharedClient("cometapi_default", Pace(50)) for _ in range(3)]
        for client, process in zip(clients, ids, strict=True):
            await client.open(lambda why: None)
            tasks += [asyncio.create_task(wait(client, one)) for one in process]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in results} == {asyncio.CancelledError}
        for client in clients:
            await client.close()

    world.run(main)
    good = [moment for moment, _ in limit.good if moment > 600]
    bad = [moment for moment in limit.bad if moment > 600]
    assert len(bad) / (len(good) + len(bad)) <= share
    assert len(good) / (seconds - 600) >= least
    parts = Counter(one.split("-")[0] for _, one in limit.good)
    assert min(parts.values()) >= max(parts.values()) / 2
    gaps = limit.gaps([one for process in ids for one in process], seconds)
    assert max(gaps.values()) <= gap


# A key that is replaced


def warned(world: World, words: str) -> Counter[tuple[str, str]]:
    """How many warnings with these words each wait's log has, and about which prediction."""
    return Counter(
        (str(waited_for), text.split(":")[0])
        for waited_for, level, text in world.logs
        if level >= logging.WARNING and words in text
    )


def test_a_thousand_waits_survive_a_replaced_key(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    connection: Callable[..., None],
    tidy: Any,
) -> None:
    """The API takes another key, the connection gets it four minutes later: no wait ends, each log says it once, and
    the API is asked next to nothing meanwhile."""
    ids = many(create, comet, 1000)

    async def main() -> list[Any]:
        tasks = asyncio.create_task(events([trigger(one, 3600, poke_interval=60) for one in ids]))
        await asyncio.sleep(100)
        replace_key(comet)
        await asyncio.sleep(240)
        connection(host=comet.base_url, password=NEW_KEY)
        await asyncio.sleep(200)
        assert (world.opened, world.open) == (2, 1)
        for one in ids[:1]:  # they are copies of one
            comet.set_prediction(one, status="succeeded")
        return cast("list[Any]", await tasks)

    ended = world.run(main)
    assert Counter(one.get("status") for one in ended) == {"succeeded": 1000}
    refused = world.at("AuthenticationError")
    assert 4 <= len(refused) <= 60
    assert max(refused) <= 100 + 240 + 61
    assert warned(world, "refused the API key") == {(one, f"Prediction {one}"): 1 for one in ids}
    assert len([moment for moment in world.lookups if moment > 100]) <= 12


@pytest.mark.parametrize("count", [1, 5, 200])
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_stays_refused(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    tidy: Any,
    count: int,
    status: int,
) -> None:
    """After ten minutes all waits fail in a way that a retry may cure; until then the connection is read every minute,
    hardly anything is asked, and each log has one warning with its own prediction."""
    ids = many(create, comet, count)

    async def main() -> list[Any]:
        tasks = asyncio.create_task(events([trigger(one, 3600, poke_interval=60) for one in ids]))
        await asyncio.sleep(90)
        comet.fault(method="GET", status=status, body={"error": {"message": "Invalid token"}}, count=None)
        ended = await tasks
        assert 90 + 600 <= now() <= 90 + 600 + 180
        return cast("list[Any]", ended)

    ended = world.run(main)
    kind = "AuthenticationError" if status == 401 else "PermissionDeniedError"
    assert {one["error"]["type"] for one in ended} == {kind}
    assert [one["prediction_id"] for one in ended] == ids
    assert [one["error"]["prediction_id"] for one in ended] == ids
    after = [moment for moment in world.lookups if moment > 90]
    assert 8 <= len(after) <= (14 if status == 401 else 40)
    # A 403 may be about one prediction alone, so it takes a minute without any answer until it stops the others.
    assert len(world.at(kind)) <= 14 + (count if status == 401 else 2 * count)
    words = "refused the API key" if status == 401 else "denied access"
    assert warned(world, words) == {(one, f"Prediction {one}"): 1 for one in ids}


def test_a_refused_key_does_not_outlast_the_deadline(
    comet: Emulator, create: Callable[..., str], world: World, tidy: Any
) -> None:
    """Waits whose time is up while the key is refused end with the refusal, each about its own prediction."""
    ids = many(create, comet, 20)

    async def main() -> list[Any]:
        tasks = asyncio.create_task(events([trigger(one, 120, poke_interval=30) for one in ids]))
        await asyncio.sleep(40)
        replace_key(comet)
        ended = await tasks
        assert now() <= 120 + 240 + 61
        return cast("list[Any]", ended)

    ended = world.run(main)
    assert {one["error"]["type"] for one in ended} == {"AuthenticationError"}
    assert [one["error"]["prediction_id"] for one in ended] == ids


def test_a_refusal_is_retryable_for_airflow(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """What such a wait ends with is a plain error, which `retries` repeat."""
    from airflow_provider_comet import airflow_errors as outcome
    from airflow_provider_comet.polling.events import from_event

    one = create()
    comet.fault(method="GET", status=401, count=None)
    error = from_event(world.run(lambda: event(trigger(one))))
    assert type(error) is e.AuthenticationError
    assert outcome.airflow_error(error) is error


def test_a_key_that_was_replaced_before_needs_no_pause(
    comet: Emulator, create: Callable[..., str], world: World, connection: Callable[..., None], tidy: Any
) -> None:
    """If the connection has the new key already, the refused look is repeated at once."""
    one = create()

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, poke_interval=20, looked_at=world.time())))
        await asyncio.sleep(5)
        replace_key(comet)
        connection(host=comet.base_url, password=NEW_KEY)
        ended = await wait
        assert now() <= 23
        assert world.opened == 2
        return ended

    assert world.run(main)["status"] == "succeeded"
    assert [what for _, _, what in world.sent] == ["AuthenticationError", "ok"]
    assert world.open == 0


def test_a_backend_that_makes_a_key_each_time(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tidy: Any,
) -> None:
    """If each look-up gives another key and none is taken, looks pause as for one key that is refused."""
    from airflow_provider_comet.hooks import refreshing_client as renewed_client
    from airflow_provider_comet.hooks import shared_client

    one = create(status="processing")
    comet.fault(method="GET", status=401, count=None)
    lookup: Any = renewed_client.aget_config
    steps = itertools.count()

    async def mint(conn_id: str) -> Any:
        if len(world.lookups) > 100:
            raise RuntimeError("it asks without an end")
        connection(host=comet.base_url, password=f"sk-minted-{len(world.lookups):06}")
        return await lookup(conn_id)

    monkeypatch.setattr(renewed_client, "aget_config", mint)
    # On this loop no time passes between a look-up and the look after it; on a real one some microseconds do.
    for module in (renewed_client, shared_client):
        monkeypatch.setattr(module, "_now", lambda: BEGIN + now() + next(steps) / 1e6)
    ended = world.run(lambda: event(trigger(one)))
    assert ended["error"]["type"] == "AuthenticationError"
    assert world.at()[-1] >= 540
    assert len(world.at()) <= 25
    assert world.open == 0


@pytest.mark.parametrize("status", [403])
def test_one_refused_prediction_does_not_stop_the_others(
    comet: Emulator, create: Callable[..., str], world: World, status: int
) -> None:
    """While others get answers, a prediction that is refused is that one's own trouble: the others keep their pace."""
    refused = create(status="processing")
    good = [create(status="processing") for _ in range(3)]
    comet.fault(method="GET", path=refused, status=status, body={"error": {"message": "no"}}, count=None)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(event(trigger(one, 3600, poke_interval=5))) for one in good]
        await asyncio.sleep(12)
        tasks.append(asyncio.create_task(event(trigger(refused, 3600, poke_interval=5))))
        await asyncio.sleep(288)
        for one in good:
            comet.set_prediction(one, status="succeeded")
        return [await task for task in tasks]

    *others, bad = world.run(main)
    assert {one.get("status") for one in others} == {"succeeded"}
    assert bad["error"]["type"] == "PermissionDeniedError"
    for one in good:
        assert 50 <= sum(what == "ok" and asked == one for _, asked, what in world.sent) <= 70


def test_a_connection_that_disappears_while_the_key_is_refused(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """While Airflow can't give the connection, the wait goes on with what it has, and finds the key when it is back."""
    one = create()
    stored = json.dumps({"conn_type": "cometapi", "host": comet.base_url, "password": NEW_KEY})

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, looked_at=world.time(), poke_interval=20)))
        await asyncio.sleep(5)
        replace_key(comet)
        monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
        await asyncio.sleep(150)
        monkeypatch.setenv("AIRFLOW_CONN_COMETAPI_DEFAULT", stored)
        return await wait

    assert world.run(main)["status"] == "succeeded"


@pytest.mark.parametrize("trouble", ["the backend fails", "the extra is a list"])
def test_a_connection_that_cannot_be_read_while_the_key_is_refused(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tidy: Any,
    trouble: str,
) -> None:
    """Whatever a secrets backend raises, or somebody writes into the connection, ends no wait that goes on."""
    from airflow.providers.common.compat import connection as compat

    one = create()
    given = compat.get_async_connection

    async def denied(conn_id: str) -> Any:
        raise PermissionError("the vault is sealed")

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, looked_at=world.time(), poke_interval=20)))
        await asyncio.sleep(5)
        replace_key(comet)
        if trouble == "the backend fails":
            monkeypatch.setattr(compat, "get_async_connection", denied)
        else:
            connection(host=comet.base_url, password=NEW_KEY, extra="[1, 2]")
        await asyncio.sleep(150)
        assert len(world.lookups) >= 3
        monkeypatch.setattr(compat, "get_async_connection", given)
        connection(host=comet.base_url, password=NEW_KEY)
        begun = asyncio.create_task(event(trigger(one)))
        return [await wait, await begun]

    assert [one["status"] for one in world.run(main)] == ["succeeded"] * 2


def test_the_environments_key_replaces_no_connection(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch, tidy: Any
) -> None:
    """A connection that Airflow calls missing for a while (its secrets backend is away) does not become the account
    that `COMETAPI_KEY` belongs to."""
    ids = many(create, comet, 2)
    monkeypatch.setenv("COMETAPI_KEY", "sk-another-account")
    monkeypatch.setenv("COMETAPI_BASE_URL", comet.base_url)

    async def main() -> list[Any]:
        first = asyncio.create_task(event(trigger(ids[0], 700)))
        await asyncio.sleep(310)
        monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
        second = asyncio.create_task(event(trigger(ids[1], 100)))
        return [await first, await second]

    assert {one["error"]["type"] for one in world.run(main)} == {"PredictionTimeoutError"}
    assert (len(world.lookups), world.opened) == (2, 1)
    assert {what for _, _, what in world.sent} == {"ok"}


def test_a_connection_replaces_the_environments_key(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    connection: Callable[..., None],
    tidy: Any,
) -> None:
    """The other way round it is what somebody wants who has made the connection."""
    ids = many(create, comet, 2)
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    monkeypatch.setenv("COMETAPI_BASE_URL", comet.base_url)
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")

    async def main() -> list[Any]:
        first = asyncio.create_task(event(trigger(ids[0], 700)))
        await asyncio.sleep(310)
        replace_key(comet)
        connection(host=comet.base_url, password=NEW_KEY)
        second = asyncio.create_task(event(trigger(ids[1], 100)))
        return [await first, await second]

    assert {one["error"]["type"] for one in world.run(main)} == {"PredictionTimeoutError"}
    assert (world.opened, world.open) == (2, 0)


def test_a_bug_in_a_list_is_told_in_words(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error of one of many waits is named in the event, as it is for a single one."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    async def fail(client: Any, prediction_id: str) -> Any:
        if prediction_id == "b":
            raise ZeroDivisionError("by zero")
        await asyncio.sleep(3600)

    monkeypatch.setattr(AsyncCometClient, "look", fail)
    ended = world.run(lambda: event(trigger(["a", "b", "c"])))
    assert "ZeroDivisionError: by zero" in json.dumps(ended)


# Restarts, deadlines and clocks


@pytest.mark.parametrize("looked_at", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("is_list", [False, True], ids=["triggers", "list"])
def test_a_restart_spreads_the_first_looks(
    comet: Emulator, create: Callable[..., str], world: World, looked_at: bool, is_list: bool
) -> None:
    """Waits that were stored half an hour ago, and start together, look spread over the interval of their age."""
    ids = many(create, comet, 100)
    began = world.time() - 1800
    kwargs: dict[str, Any] = {"started_at": began, "deadline": began + 7200}
    if looked_at:
        kwargs["looked_at"] = began + 2

    async def main() -> None:
        tasks = [asyncio.create_task(event(trigger(one, **kwargs))) for one in ([ids] if is_list else ids)]
        await asyncio.sleep(65)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(main)
    firsts: dict[str, float] = {}
    for moment, one, _ in world.sent:
        firsts.setdefault(one, moment)
    assert len(firsts) == 100
    assert most_in([*firsts.values()], 6.0) <= 30
    assert max(firsts.values()) >= 40


def test_a_restart_past_the_deadline_looks_at_once(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Who has no time left looks at once, and what is there counts."""
    ids = many(create, comet, 50, status="succeeded")
    began = world.time() - 1800
    kwargs = {"started_at": began, "deadline": began + 1700, "looked_at": began + 2}
    ended = world.run(lambda: events([trigger(one, **kwargs) for one in ids]))
    assert {one["status"] for one in ended} == {"succeeded"}
    assert max(world.at()) <= 1.1


def test_a_restart_within_an_interval_keeps_it(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """A triggerer that takes over 20 s after the last look waits for the rest of a minute's interval."""
    one = create()
    kwargs = {"started_at": world.time() - 1000, "looked_at": world.time() - 20, "deadline": world.time() + 1000}
    world.run(lambda: event(trigger(one, poke_interval=60, **kwargs)))
    assert 34 <= world.at()[0] <= 46


@pytest.mark.parametrize("jump", [-86_400.0, -100.0, 100.0, 86_400.0])
def test_a_clock_that_is_set_changes_nothing(
    comet: Emulator, create: Callable[..., str], world: World, jump: float
) -> None:
    """The wall clock is set while a trigger runs: it looks as before and ends at its deadline."""
    one = create(status="processing")

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, 300, poke_interval=20)))
        await asyncio.sleep(50)
        world.jump = jump
        ended = await wait
        assert now() == pytest.approx(300, abs=0.1)
        return ended

    assert world.run(main)["error"]["type"] == "PredictionTimeoutError"
    moments = world.at()
    assert all(17.9 <= later - earlier <= 22.1 for earlier, later in itertools.pairwise(moments[:-1]))


def test_the_last_look_waits_for_a_pause(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """A deadline that falls into a pause: the last look comes when it is over, and what is finished by then counts."""
    one = create(status="processing")
    comet.fault(method="GET", status=429, headers={"Retry-After": "100"}, count=1)

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, 60)))
        await asyncio.sleep(80)
        comet.set_prediction(one, status="succeeded")
        ended = await wait
        assert 100 <= now() <= 115
        return ended

    assert world.run(main)["status"] == "succeeded"


def test_a_pause_that_never_ends_is_a_timeout(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """If the pause outlasts the deadline by more than Airflow's own timeout allows, the wait ends before that, and
    leaves the last look to the worker."""
    one = create(status="processing")
    comet.fault(method="GET", status=429, headers={"Retry-After": "5000"}, count=1)

    async def main() -> Any:
        ended = await event(trigger(one, 60))
        assert now() <= 60 + 300
        return ended

    assert world.run(main) == unseen(one)
    assert any("no look has its turn before the deadline" in text for _, _, text in world.logs)


def test_a_pause_that_never_ends_for_a_list(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Of a list, too, the worker looks at what nobody has seen at the deadline; what has finished is in the event."""
    done, running = create(), create(status="processing")
    comet.fault(method="GET", path=running, status=429, headers={"Retry-After": "5000"}, count=1)

    async def main() -> Any:
        return await event(trigger([done, running], 60))

    ended = world.run(main)
    assert (ended["count"], ended["errors"], ended["late"]) == (2, 0, 1)
    assert [*ended["ended"]] == [done]


def test_a_loop_that_was_blocked(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Turns that have passed meanwhile are void: the looks that are due do not all leave at once."""
    ids = many(create, comet, 600)

    async def main() -> None:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        tasks = [asyncio.create_task(event(trigger(one, 600, poke_interval=300))) for one in ids]
        await asyncio.sleep(2)
        loop.now += 6  # something else holds the loop
        await asyncio.sleep(30)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    world.run(main)
    assert len(world.at()) == 600
    assert most_in(world.at(), 1.0) <= 101


# Logs and numbers


def test_a_quiet_log(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """An hour of waiting is a line for the status and one every five minutes."""
    one = create(status="processing")
    world.run(lambda: event(trigger(one, 3600)))
    lines = [text for _, _, text in world.logs]
    assert lines[0] == f"Prediction {one}: status 'processing'"
    assert 10 <= len(lines) <= 13
    assert all("still status 'processing'" in line and "timeout comes in" in line for line in lines[1:])


def test_a_quiet_log_of_a_list(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """An hour of waiting for a thousand is a line every five minutes, and one for what has changed meanwhile."""
    ids = many(create, comet, 1000)

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(ids, 3600, poke_interval=60)))
        await asyncio.sleep(3000)
        first = comet._store.predictions[ids[0]]
        comet._store.predictions[ids[0]] = dataclasses.replace(first, pinned={"status": "succeeded"})
        return await wait

    assert world.run(main)["late"] == 999
    lines = [text for _, _, text in world.logs]
    assert lines[0].startswith("0 of 1,000 predictions have finished (1,000 processing); the timeout comes in 35")
    assert 10 <= len([line for line in lines if line.startswith("0 of 1,000")]) <= 13
    assert [line for line in lines if line.startswith("1 of 1,000")]
    assert len(lines) <= 16
    assert {level for _, level, _ in world.logs} == {logging.INFO}


def test_trouble_of_a_list_is_told_once(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """Also a refused key and a server that is away are one warning in the log of a task that waits for hundreds."""
    ids = many(create, comet, 300)

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(ids, 3600, poke_interval=60)))
        await asyncio.sleep(100)
        comet.fault(method="GET", status=502, count=None)
        await asyncio.sleep(120)
        comet.clear_faults()
        comet.fault(method="GET", status=401, count=3)
        await asyncio.sleep(600)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one
        return await wait

    assert world.run(main)["errors"] == 0
    warnings = [text for _, level, text in world.logs if level >= logging.WARNING]
    assert len(warnings) == 2
    assert "failed for now (HTTP 502" in warnings[0]
    assert "refused the API key" in warnings[1]
    assert len(world.logs) <= 40


def test_a_sign_of_life_in_a_long_pause(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """While a 429 holds all looks for an hour, each log says every five minutes that the wait goes on, and for how
    long."""
    ids = many(create, comet, 2)
    comet.fault(method="GET", status=429, headers={"Retry-After": "3600"}, count=1)

    async def main() -> Any:
        tasks = [asyncio.create_task(event(trigger(one, 7200))) for one in ids]
        await asyncio.sleep(100)
        comet.set_prediction(ids[0], status="succeeded")
        return [await task for task in tasks]

    assert {one["status"] for one in world.run(main)} == {"succeeded"}
    for one in ids:
        lines = [text for waited_for, _, text in world.logs if waited_for == one]
        assert 10 <= len(lines) <= 16
        assert len([line for line in lines if "still RateLimitedError" in line]) >= 9


def test_trouble_in_the_log(comet: Emulator, create: Callable[..., str], world: World) -> None:
    """An API that is away for ten minutes is one warning and a sign of life every five minutes, then news."""
    one = create(status="processing")

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, 3600, poke_interval=10)))
        await asyncio.sleep(60)
        comet.fault(method="GET", status=502, count=None)
        await asyncio.sleep(600)
        comet.clear_faults()
        await asyncio.sleep(15)
        comet.set_prediction(one, status="succeeded")
        return await wait

    assert world.run(main)["status"] == "succeeded"
    levels = [level for _, level, _ in world.logs]
    assert levels[:2] == [logging.INFO, logging.WARNING]
    assert set(levels[2:]) == {logging.INFO}
    assert len(levels) in {5, 6}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any, dict[str, str]]]:
    """Everything that was sent to the metrics backend: kind, name, value, tags."""
    from airflow.providers.common.compat.sdk import Stats

    found: list[tuple[str, str, Any, dict[str, str]]] = []

    def keep(kind: str) -> Callable[..., None]:
        def keep(stat: str, value: Any = 1, *args: Any, tags: dict[str, str] | None = None, **kwargs: Any) -> None:
            if stat.startswith("comet."):
                found.append((kind, stat, value, dict(tags or {})))

        return keep

    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(Stats, kind, keep(kind))
    return found


def test_numbers(
    comet: Emulator, create: Callable[..., str], world: World, numbers: list[tuple[str, str, Any, dict[str, str]]]
) -> None:
    """Looks, those without a status, pauses and waits are counted by the names that the documentation gives."""
    ids = [create(), create()]
    for one in ids:
        comet._store.predictions[one].completed -= 10
    comet.fault(method="GET", status=502, count=1)
    comet.fault(method="GET", status=429, headers={"Retry-After": "3"}, count=1)
    world.run(lambda: events([trigger(one) for one in ids]))
    counted = Counter((name, *tags.values()) for kind, name, _, tags in numbers if kind == "incr")
    assert counted == {
        ("comet.looks",): 4,
        ("comet.look_errors", "ServerError"): 1,
        ("comet.look_errors", "RateLimitedError"): 1,
        ("comet.pauses", "rate_limit"): 1,
    }
    gauges = [(value, tags) for kind, name, value, tags in numbers if (kind, name) == ("gauge", "comet.waits")]
    assert {value for value, _ in gauges} == {0, 1, 2}
    assert gauges[-1] == (0, {"conn_id": "cometapi_default"})
    delays = [value for kind, name, value, _ in numbers if (kind, name) == ("timing", "comet.detection_delay")]
    assert len(delays) == 2
    assert all(8_000 <= delay <= 15_000 for delay in delays)


def test_each_prediction_of_a_list_is_a_wait(
    comet: Emulator, create: Callable[..., str], world: World, numbers: list[tuple[str, str, Any, dict[str, str]]]
) -> None:
    """The gauge counts what is waited for, not triggers, and falls as predictions finish."""
    ids = many(create, comet, 20)

    async def main() -> list[float]:
        waits = asyncio.create_task(events([trigger(ids[:15], 600), trigger(ids[15], 600)]))
        await asyncio.sleep(10)
        highest = [value for _, name, value, _ in numbers if name == "comet.waits"][-1]
        first = comet._store.predictions[ids[0]]
        comet._store.predictions[ids[0]] = dataclasses.replace(first, pinned={"status": "succeeded"})
        await asyncio.sleep(60)
        lower = [value for _, name, value, _ in numbers if name == "comet.waits"][-1]
        await waits
        return [highest, lower, [value for _, name, value, _ in numbers if name == "comet.waits"][-1]]

    assert world.run(main) == [16, 15, 0]


def test_pauses_for_a_refused_key_are_counted(
    comet: Emulator, create: Callable[..., str], world: World, numbers: list[tuple[str, str, Any, dict[str, str]]]
) -> None:
    """Each minute in which the key is refused is a pause."""
    one = create()
    comet.fault(method="GET", status=401, count=3)
    assert world.run(lambda: event(trigger(one)))["status"] == "succeeded"
    pauses = [tags for kind, name, _, tags in numbers if name == "comet.pauses"]
    assert pauses == [{"reason": "refused_key"}] * 3


def test_a_metrics_backend_that_fails_ends_no_wait(
    comet: Emulator, create: Callable[..., str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are less than results."""
    from airflow.providers.common.compat.sdk import Stats

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("statsd is away")

    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(Stats, kind, fail)
    one = create()
    assert world.run(lambda: event(trigger(one)))["status"] == "succeeded"


def test_keys_are_told_to_nobody(
    comet: Emulator,
    create: Callable[..., str],
    world: World,
    connection: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the old key nor the new one gets into a log or an event while one replaces the other."""
    one = create()

    async def main() -> Any:
        wait = asyncio.create_task(event(trigger(one, looked_at=world.time(), poke_interval=20)))
        await asyncio.sleep(5)
        replace_key(comet)
        await asyncio.sleep(100)
        connection(host=comet.base_url, password=NEW_KEY)
        return await wait

    with caplog.at_level(logging.DEBUG):
        ended = json.dumps(world.run(main))
    assert KEY not in ended + caplog.text
    assert NEW_KEY not in ended + caplog.text
