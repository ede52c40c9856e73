"""Waits that a triggerer takes over, deadlines, and clocks that are set."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.virtual_loop import VirtualLoop
from tests.unit.hooks.conftest import (
    Create,
    CreateMany,
    World,
    cancel,
    error_types,
    most_within,
    new_trigger,
    not_polled,
    now,
    run_trigger,
    run_triggers,
    start,
    statuses,
)


@pytest.mark.parametrize("is_last_poll_known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("is_list", [False, True], ids=["triggers", "list"])
def test_a_restart_spreads_the_first_polls(
    create_many: CreateMany, world: World, is_last_poll_known: bool, is_list: bool
) -> None:
    """Waits that were stored half an hour ago, and start together, poll spread over the interval of their age."""
    ids = create_many(100)
    began = world.time() - 1800
    kwargs: dict[str, Any] = {"started_at": began, "deadline": began + 7200}
    if is_last_poll_known:
        kwargs["last_polled_at"] = began + 2

    async def main() -> None:
        tasks = start([new_trigger(wanted, **kwargs) for wanted in ([ids] if is_list else ids)])
        await asyncio.sleep(65)
        await cancel(tasks)

    world.run(main)
    first_polls: dict[str, float] = {}
    for sent_at, prediction_id, _ in world.polls:
        first_polls.setdefault(prediction_id, sent_at)
    assert len(first_polls) == 100
    assert most_within([*first_polls.values()], 6.0) <= 30
    assert max(first_polls.values()) >= 40


def test_a_restart_past_the_deadline_polls_at_once(create_many: CreateMany, world: World) -> None:
    """A wait whose deadline has passed polls at once, and a prediction that has finished is its result."""
    ids = create_many(50, status="succeeded")
    began = world.time() - 1800
    kwargs = {"started_at": began, "deadline": began + 1700, "last_polled_at": began + 2}
    events = world.run(lambda: run_triggers([new_trigger(prediction_id, **kwargs) for prediction_id in ids]))
    assert {*statuses(events)} == {"succeeded"}
    assert max(world.poll_times()) <= 1.1


def test_a_restart_within_an_interval_keeps_it(create: Create, world: World) -> None:
    """A triggerer that takes over 20 s after the last poll waits for the rest of a minute's interval."""
    prediction_id = create()
    kwargs = {"started_at": world.time() - 1000, "last_polled_at": world.time() - 20, "deadline": world.time() + 1000}
    world.run(lambda: run_trigger(new_trigger(prediction_id, poke_interval=60, **kwargs)))
    assert 34 <= world.poll_times()[0] <= 46


@pytest.mark.parametrize("jump", [-86_400.0, -100.0, 100.0, 86_400.0])
def test_a_clock_that_is_set_changes_nothing(create: Create, world: World, jump: float) -> None:
    """If the wall clock is set while a trigger runs, it polls as before and ends at its deadline."""
    prediction_id = create(status="processing")

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(prediction_id, 300, poke_interval=20)))
        await asyncio.sleep(50)
        world.jump = jump
        event = await wait
        assert now() == pytest.approx(300, abs=0.1)
        return event

    assert error_types([world.run(main)]) == ["PredictionTimeoutError"]
    moments = world.poll_times()
    assert all(17.9 <= later - earlier <= 22.1 for earlier, later in itertools.pairwise(moments[:-1]))


def test_the_last_poll_waits_for_a_pause(comet: Emulator, create: Create, world: World) -> None:
    """If the deadline falls into a pause, the last poll follows the pause, and what has finished by then counts."""
    prediction_id = create(status="processing")
    comet.fault(method="GET", status=429, headers={"Retry-After": "100"}, count=1)

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(prediction_id, 60)))
        await asyncio.sleep(80)
        comet.set_prediction(prediction_id, status="succeeded")
        event = await wait
        assert 100 <= now() <= 115
        return event

    assert statuses([world.run(main)]) == ["succeeded"]


def test_a_pause_that_never_ends_is_a_timeout(comet: Emulator, create: Create, world: World) -> None:
    """If the pause outlasts the deadline by far, the wait ends before Airflow's own timeout and leaves the last poll to
    the worker."""
    prediction_id = create(status="processing")
    comet.fault(method="GET", status=429, headers={"Retry-After": "5000"}, count=1)

    async def main() -> Any:
        event = await run_trigger(new_trigger(prediction_id, 60))
        assert now() <= 60 + 300
        return event

    assert world.run(main) == not_polled(prediction_id)
    assert any("the rate limit allows no poll before the deadline" in text for text in world.texts())


def test_a_pause_that_never_ends_for_a_list(comet: Emulator, create: Create, world: World) -> None:
    """The event of a list carries what has finished, and leaves the last poll of the others to the worker."""
    finished, running = create(), create(status="processing")
    comet.fault(method="GET", path=running, status=429, headers={"Retry-After": "5000"}, count=1)
    event = world.run(lambda: run_trigger(new_trigger([finished, running], 60)))
    assert (event["count"], event["errors"], event["unfinished"]) == (2, 1, 1)
    assert (event["outcomes"][finished]["summary"]["status"], event["outcomes"][running]) == ("succeeded", {})


def test_a_loop_that_was_blocked(create_many: CreateMany, world: World) -> None:
    """Slots that have passed while the loop was blocked are void: the polls that are due do not all leave at once."""
    ids = create_many(600)

    async def main() -> None:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        tasks = start([new_trigger(prediction_id, 600, poke_interval=300) for prediction_id in ids])
        await asyncio.sleep(2)
        loop.now += 6  # something else blocks the loop
        await asyncio.sleep(30)
        await cancel(tasks)

    world.run(main)
    assert len(world.poll_times()) == 600
    assert most_within(world.poll_times(), 1.0) <= 101
