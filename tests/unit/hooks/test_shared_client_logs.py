"""What the logs of waiting tasks say, and the metrics about all waits on one connection."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.unit.hooks.conftest import (
    Create,
    CreateMany,
    SentMetrics,
    World,
    new_trigger,
    run_trigger,
    run_triggers,
    start,
    statuses,
)


def finish(comet: Emulator, prediction_id: str) -> None:
    """Let one of many copies of a prediction finish."""
    prediction = comet._store.predictions[prediction_id]
    comet._store.predictions[prediction_id] = dataclasses.replace(prediction, pinned={"status": "succeeded"})


def test_a_quiet_log(create: Create, world: World) -> None:
    """An hour of waiting logs the status once, and a line every five minutes."""
    prediction_id = create(status="processing")
    world.run(lambda: run_trigger(new_trigger(prediction_id, 3600)))
    texts = world.texts()
    assert texts[0] == f"Prediction {prediction_id}: status 'processing'"
    assert 10 <= len(texts) <= 13
    assert all("still status 'processing'" in text and "timeout comes in" in text for text in texts[1:])
    assert all(" polls; " in text for text in texts[1:])


def test_a_quiet_log_of_a_list(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """An hour of waiting for hundreds of predictions logs a line every five minutes, and a line for a change."""
    ids = create_many(300)

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(ids, 3600, poke_interval=180)))
        await asyncio.sleep(3000)
        finish(comet, ids[0])
        return await wait

    assert world.run(main)["unfinished"] == 299
    texts = world.texts()
    assert texts[0].startswith("0 of 300 predictions have finished (300 processing); the timeout comes in 35")
    assert 10 <= len([text for text in texts if text.startswith("0 of 300")]) <= 13
    assert [text for text in texts if text.startswith("1 of 300")]
    assert len(texts) <= 16
    assert {level for _, level, _ in world.logs} == {logging.INFO}


def test_trouble_of_a_list_is_logged_once(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """A server that is away and a refused key are one warning each in the log of a task that waits for hundreds."""
    ids = create_many(300)

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(ids, 3600, poke_interval=60)))
        await asyncio.sleep(100)
        comet.fault(method="GET", status=502, count=None)
        await asyncio.sleep(120)
        comet.clear_faults()
        comet.fault(method="GET", status=401, count=3)
        await asyncio.sleep(600)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one prediction
        return await wait

    assert world.run(main)["errors"] == 0
    warnings = world.texts(logging.WARNING)
    assert len(warnings) == 2
    assert "failed for now (HTTP 502" in warnings[0]
    assert "refused the API key" in warnings[1]
    assert len(world.logs) <= 40


def test_a_heartbeat_in_a_long_pause(comet: Emulator, create_many: CreateMany, world: World) -> None:
    """While a 429 pauses all polls for an hour, each log says every five minutes that the wait continues."""
    ids = create_many(2)
    comet.fault(method="GET", status=429, headers={"Retry-After": "3600"}, count=1)

    async def main() -> Any:
        tasks = start([new_trigger(prediction_id, 7200) for prediction_id in ids])
        await asyncio.sleep(100)
        comet.set_prediction(ids[0], status="succeeded")  # they are copies of one prediction
        return [await task for task in tasks]

    assert statuses(world.run(main)) == ["succeeded"] * 2
    for prediction_id in ids:
        texts = [text for waiting_for, _, text in world.logs if waiting_for == prediction_id]
        assert 10 <= len(texts) <= 16
        assert len([text for text in texts if "still RateLimitedError" in text]) >= 9


def test_trouble_in_the_log(comet: Emulator, create: Create, world: World) -> None:
    """An API that is away for ten minutes is one warning and a line every five minutes, then the status again."""
    prediction_id = create(status="processing")

    async def main() -> Any:
        wait = asyncio.create_task(run_trigger(new_trigger(prediction_id, 3600, poke_interval=10)))
        await asyncio.sleep(60)
        comet.fault(method="GET", status=502, count=None)
        await asyncio.sleep(600)
        comet.clear_faults()
        await asyncio.sleep(15)
        comet.set_prediction(prediction_id, status="succeeded")
        return await wait

    assert statuses([world.run(main)]) == ["succeeded"]
    levels = [level for _, level, _ in world.logs]
    assert levels[:2] == [logging.INFO, logging.WARNING]
    assert {*levels[2:]} == {logging.INFO}
    assert len(levels) in {5, 6}


def test_metrics(comet: Emulator, create: Create, world: World, sent_metrics: SentMetrics) -> None:
    """Polls, polls without a status, pauses and waits are counted by the names that the documentation gives."""
    ids = [create(), create()]
    for prediction_id in ids:
        comet._store.predictions[prediction_id].completed -= 10
    comet.fault(method="GET", status=502, count=1)
    comet.fault(method="GET", status=429, headers={"Retry-After": "3"}, count=1)
    world.run(lambda: run_triggers([new_trigger(prediction_id) for prediction_id in ids]))
    counted = Counter((name, *tags.values()) for kind, name, _, tags in sent_metrics if kind == "incr")
    assert counted == {
        ("comet.polls",): 4,
        ("comet.poll_errors", "ServerError"): 1,
        ("comet.poll_errors", "RateLimitedError"): 1,
        ("comet.pauses", "rate_limit"): 1,
    }
    gauges = [(value, tags) for kind, name, value, tags in sent_metrics if (kind, name) == ("gauge", "comet.waits")]
    assert {value for value, _ in gauges} == {0, 1, 2}
    assert gauges[-1] == (0, {"conn_id": "cometapi_default"})
    delays = [value for kind, name, value, _ in sent_metrics if (kind, name) == ("timing", "comet.detection_delay")]
    assert len(delays) == 2
    assert all(8_000 <= delay <= 15_000 for delay in delays)


def test_each_prediction_of_a_list_is_a_wait(
    comet: Emulator, create_many: CreateMany, world: World, sent_metrics: SentMetrics
) -> None:
    """The gauge counts predictions that are waited for, not triggers, and falls as predictions finish."""
    ids = create_many(20)

    def last_gauge() -> float:
        return [float(value) for _, name, value, _ in sent_metrics if name == "comet.waits"][-1]

    async def main() -> list[float]:
        waits = asyncio.create_task(run_triggers([new_trigger(ids[:15], 600), new_trigger(ids[15], 600)]))
        await asyncio.sleep(10)
        highest = last_gauge()
        finish(comet, ids[0])
        await asyncio.sleep(60)
        lower = last_gauge()
        await waits
        return [highest, lower, last_gauge()]

    assert world.run(main) == [16, 15, 0]


def test_pauses_for_a_refused_key_are_counted(
    comet: Emulator, create: Create, world: World, sent_metrics: SentMetrics
) -> None:
    """Each minute in which the key is refused is a pause."""
    prediction_id = create()
    comet.fault(method="GET", status=401, count=3)
    assert statuses([world.run(lambda: run_trigger(new_trigger(prediction_id)))]) == ["succeeded"]
    pauses = [tags for _, name, _, tags in sent_metrics if name == "comet.pauses"]
    assert pauses == [{"reason": "refused_key"}] * 3


def test_a_metrics_backend_that_fails_ends_no_wait(
    create: Create, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the metrics backend does not end a wait."""
    from airflow.providers.common.compat.sdk import Stats

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("statsd is away")

    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(Stats, kind, fail)
    prediction_id = create()
    assert statuses([world.run(lambda: run_trigger(new_trigger(prediction_id)))]) == ["succeeded"]
