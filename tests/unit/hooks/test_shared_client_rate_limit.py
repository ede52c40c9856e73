"""The rate limit that all polls over one connection share: the cap, the pause after a 429, and the rate after it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from typing import Any, cast

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.protocol import Request
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.emulator import Emulator
from tests.support.virtual_loop import BEGIN
from tests.unit.hooks.conftest import (
    Connection,
    Create,
    CreateMany,
    World,
    cancel,
    most_within,
    new_trigger,
    not_polled,
    now,
    open_clients,
    run_trigger,
    run_triggers,
    start,
    statuses,
)


@pytest.mark.parametrize("cap", [5, 50, None])
def test_at_most_so_many_polls_a_second(
    comet: Emulator, create_many: CreateMany, world: World, connection: Connection, cap: int | None
) -> None:
    """Two hundred waits that begin together send as many polls a second as the connection says, evenly spread."""
    connection(host=comet.base_url, **({} if cap is None else {"extra": {"max_polls_per_second": cap}}))
    ids = create_many(200, status="succeeded")
    events = world.run(lambda: run_triggers([new_trigger(prediction_id) for prediction_id in ids]))
    assert {*statuses(events)} == {"succeeded"}
    assert len(world.poll_times()) == 200
    assert most_within(world.poll_times(), 1.0) <= (cap or 50) + 1
    assert world.poll_times()[-1] == pytest.approx(199 / (cap or 50), abs=0.1)


def test_a_list_keeps_to_the_same_rate(create_many: CreateMany, world: World) -> None:
    """The ids of one trigger count like those of many triggers."""
    world.run(lambda: run_trigger(new_trigger(create_many(150, status="succeeded"))))
    assert len(world.poll_times()) == 150
    assert most_within(world.poll_times(), 1.0) <= 51


def test_429_pauses_every_poll(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """Nothing is sent over that connection before the time that one 429 named; then polls continue at half the rate."""
    ids = create_many(200)

    async def main() -> None:
        tasks = start([new_trigger(prediction_id, 600, poke_interval=5) for prediction_id in ids])
        await asyncio.sleep(20)
        comet.fault(method="GET", status=429, headers={"Retry-After": "40"}, count=1)
        await asyncio.sleep(100)
        await cancel(tasks)

    world.run(main)
    (refused_at,) = world.poll_times("RateLimitedError")
    after = [moment for moment in world.poll_times() if moment > refused_at]
    assert after[0] >= refused_at + 40
    assert after[0] <= refused_at + 40 * 1.1 + 1
    first_second = [moment for moment in after if moment < after[0] + 1]
    assert len(first_second) <= 27
    assert most_within([moment for moment in after if moment < after[0] + 20], 1.0) <= 32


def test_a_pause_outlives_its_last_user(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """If the waits that a 429 paused have ended, waits that begin afterwards keep to the same pause."""
    ids = create_many(2)
    comet.fault(method="GET", status=429, headers={"Retry-After": "500"}, count=1)

    async def main() -> Any:
        assert (await run_trigger(new_trigger(ids[0], 10))) == not_polled(ids[0])
        assert open_clients() == {}
        assert now() < 300
        wait = asyncio.create_task(run_trigger(new_trigger(ids[1], 3600)))
        await asyncio.sleep(100)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one prediction
        return await wait

    assert statuses([world.run(main)]) == ["succeeded"]
    first, second = world.poll_times()
    assert 500 <= second - first <= 550


def test_slots_from_before_a_429_are_void(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """Polls that had a slot when a 429 came continue at the reduced rate, too."""
    ids = create_many(1000)

    async def main() -> None:
        tasks = start([new_trigger(prediction_id, 600, poke_interval=300) for prediction_id in ids])
        await asyncio.sleep(2)
        comet.fault(method="GET", status=429, headers={"Retry-After": "1"}, count=1)
        await asyncio.sleep(10)
        await cancel(tasks)

    world.run(main)
    (refused_at,) = world.poll_times("RateLimitedError")
    assert most_within([moment for moment in world.poll_times() if moment > refused_at], 1.0) <= 29


def test_waits_without_a_slot_before_their_deadline_hold_nobody_back(
    comet: Emulator, create: Create, create_many: CreateMany, world: World
) -> None:
    """A thousand waits whose deadlines fall into a pause end without a poll, and do not delay a wait that has time."""
    ids = create_many(1000)
    patient = create()

    async def main() -> tuple[Any, float]:
        tasks = start([new_trigger(prediction_id, 600, poke_interval=30) for prediction_id in ids])
        await asyncio.sleep(40)
        comet.fault(method="GET", status=429, headers={"Retry-After": "3600"}, count=1)
        await asyncio.sleep(60)
        wait = asyncio.create_task(run_trigger(new_trigger(patient, 7200)))
        assert [await task for task in tasks] == [not_polled(prediction_id) for prediction_id in ids]
        assert 600 - 0.001 <= now() <= 600 + 240  # the clock adds many small steps
        return await wait, now()

    event, ended_at = world.run(main)
    assert statuses([event]) == ["succeeded"]
    (refused_at,) = world.poll_times("RateLimitedError")
    assert refused_at + 3600 <= ended_at <= refused_at + 3600 * 1.1 + 2


def test_many_429s_of_one_moment_halve_once(comet: Emulator, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty 429s for polls that ran together halve the rate once, not twenty times."""
    from airflow_provider_comet.client.async_client import AsyncCometClient

    sent_at: list[float] = []

    async def send(client: Any, request: Request) -> Response:
        sent_at.append(now())
        await asyncio.sleep(1.0)
        return Response(429, {"retry-after": "10"}, "slow down", None)

    monkeypatch.setattr(AsyncCometClient, "send", send)

    async def main() -> float:
        tasks = start([new_trigger(f"a{number}", 100) for number in range(20)])
        await asyncio.sleep(1.5)
        rate = open_clients()["cometapi_default"]._limiter.rate(BEGIN + now())
        await cancel(tasks)
        return cast(float, rate)

    assert world.run(main) == pytest.approx(25, abs=1)
    assert len(sent_at) == 20
    assert max(sent_at) < 0.5


def test_the_rate_limit_is_logged_once(comet: Emulator, create: Create, world: World) -> None:
    """A wait whose poll got a 429 logs a warning."""
    prediction_id = create()
    comet.fault(method="GET", status=429, headers={"Retry-After": "40"}, count=1)
    assert statuses([world.run(lambda: run_trigger(new_trigger(prediction_id)))]) == ["succeeded"]
    warnings = world.warnings_about("limits the request rate")
    assert warnings == {(prediction_id, f"Prediction {prediction_id}"): 1}


class LimitedApi:
    """An API that accepts some polls within a second, and answers 429 to the others.

    :param per_second: how many it accepts.
    :param retry_after: the seconds that a 429 names.
    :param latency: seconds that an answer takes.
    """

    def __init__(self, per_second: int, retry_after: float | None, latency: float = 0.2) -> None:
        self.per_second = per_second
        self.retry_after = retry_after
        self.latency = latency
        self.accepted: list[tuple[float, str]] = []
        self.refused: list[float] = []
        self._window: deque[float] = deque()

    async def send(self, prediction_id: str) -> Response:
        """Answer a poll."""
        moment = now()
        while self._window and self._window[0] <= moment - 1:
            self._window.popleft()
        is_accepted = len(self._window) < self.per_second
        if is_accepted:
            self._window.append(moment)
            self.accepted.append((moment, prediction_id))
        else:
            self.refused.append(moment)
        await asyncio.sleep(self.latency)
        if is_accepted:
            return Response(200, {}, "", {"id": prediction_id, "status": "processing"})
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return Response(429, headers, "slow down", None)

    def gaps(self, ids: list[str], until: float) -> dict[str, float]:
        """Return the longest time that each prediction was without an answer."""
        last, longest = dict.fromkeys(ids, 0.0), dict.fromkeys(ids, 0.0)
        for moment, prediction_id in [*self.accepted, *((until, prediction_id) for prediction_id in ids)]:
            longest[prediction_id] = max(longest[prediction_id], moment - last[prediction_id])
            last[prediction_id] = moment
        return longest


@pytest.mark.parametrize(
    ("waits", "retry_after", "share", "least", "gap"),
    [
        # 15 polls a second are wanted, 10 are allowed
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
    retry_after: float | None,
    share: float,
    least: float,
    gap: float,
) -> None:
    """Three processes under one limit of ten polls a second adapt within ten minutes.

    Few of their polls are refused, together they use most of the limit, each gets its part, and no prediction waits
    for long.
    """
    from airflow_provider_comet.client.async_client import AsyncCometClient
    from airflow_provider_comet.hooks.shared_client import SharedClient
    from airflow_provider_comet.polling.rate_limiter import RateLimiter

    random.seed(1)
    api = LimitedApi(10, retry_after)

    async def send(client: Any, request: Request) -> Response:
        return await api.send(str(request.prediction_id))

    # A stub without sockets stands in for the API: only the times matter.
    monkeypatch.setattr(AsyncCometClient, "send", send)
    ids = [[f"t{process}-{number}" for number in range(waits)] for process in range(3)]
    seconds = 3000

    async def wait(client: SharedClient, prediction_id: str) -> None:
        await asyncio.sleep(60 * random.random())
        while True:
            pause = 0.0
            try:
                await client.get_prediction(prediction_id, lambda error: None)
            except e.RateLimitedError as error:
                pause = error.retry_after or 0.0
            await asyncio.sleep(max(pause, 60 * (0.9 + 0.2 * random.random())))

    async def main() -> None:
        tasks = []
        clients = [SharedClient("cometapi_default", RateLimiter(50)) for _ in range(3)]
        for client, ids_of_process in zip(clients, ids, strict=True):
            await client.open(lambda error: None)
            tasks += [asyncio.create_task(wait(client, prediction_id)) for prediction_id in ids_of_process]
        await asyncio.sleep(seconds)
        assert {type(result) for result in await cancel(tasks)} == {asyncio.CancelledError}
        for client in clients:
            await client.close()

    world.run(main)
    accepted = [moment for moment, _ in api.accepted if moment > 600]
    refused = [moment for moment in api.refused if moment > 600]
    assert len(refused) / (len(accepted) + len(refused)) <= share
    assert len(accepted) / (seconds - 600) >= least
    parts = Counter(prediction_id.split("-")[0] for _, prediction_id in api.accepted)
    assert min(parts.values()) >= max(parts.values()) / 2
    gaps = api.gaps([prediction_id for ids_of_process in ids for prediction_id in ids_of_process], seconds)
    assert max(gaps.values()) <= gap
