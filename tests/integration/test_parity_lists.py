"""One table for all modes of `PredictionSensor` with a list: the same result, error and XCom when answers are slow.

An answer may come before the deadline and the next one after it, in the same round of polls. Delays take time by the
injected clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.integration.test_parity import FAIL, KILLED, TIMED_OUT, error_of, new_prediction
from tests.support.task_runner import MODES, Clock, TaskRunner, dag, run_sensor

WAYS: dict[str, dict[str, Any]] = {**MODES, "default": {}, "on the worker first": {"defer_after": 100}}
TIMEOUT, INTERVAL = 20, 5
DONE, FAILED = {"status": "succeeded"}, {"status": "failed", "error": "no such luck"}


@dataclass(frozen=True)
class Item:
    """A prediction of a list.

    :param fields: how it has ended when the wait begins; by default it runs.
    :param slow: seconds that each answer about it takes.
    :param fault: what else its answers are.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    slow: float = 0.0
    fault: Mapping[str, Any] = field(default_factory=dict)


DONE_ITEM, FAST = Item(DONE), Item()


def late(seconds: float, **fields: Any) -> Item:
    """A prediction about which each answer takes so long."""
    return Item(fields, seconds)


@dataclass(frozen=True)
class Row:
    """A list, and what becomes of it.

    :param results: the status of each result, or null.
    :param state: of the task, with `on_item_error="fail"`.
    :param raises: what Airflow gets then.
    :param kept: the task's state with `on_item_error="keep"`, if that is another one.
    """

    name: str
    items: Sequence[Item]
    results: Sequence[str | None]
    state: str = "failed"
    raises: str = TIMED_OUT
    kept: str = "success"
    options: tuple[tuple[str, Any], ...] = ()


OK, BAD = "succeeded", "failed"
EXECUTION = (("timeout", 600), ("execution_timeout", dt.timedelta(seconds=TIMEOUT)))
ROWS = [
    Row("one is slow", [DONE_ITEM, FAST, late(12)], [OK, None, None]),
    Row("the slow one is the first", [late(12), FAST, DONE_ITEM], [None, None, OK]),
    Row("its first answer is late", [DONE_ITEM, FAST, late(25)], [OK, None, None]),
    Row("several are slow", [late(7), DONE_ITEM, late(12), FAST, late(30)], [None, OK, None, None, None]),
    Row("all are slow", [late(7, **DONE), late(11), late(13)], [OK, None, None]),
    Row("a late success", [FAST, late(25, **DONE)], [None, OK]),
    Row("a late failure", [FAST, late(25, **FAILED), DONE_ITEM], [None, BAD, OK], raises=FAIL),
    Row("nothing has ended", [FAST, late(12)], [None, None], kept="failed"),
    Row("a slow 503", [DONE_ITEM, FAST, Item(slow=12, fault=error_of(503))], [OK, None, None]),
    Row(
        "a pause over the deadline",
        [DONE_ITEM, FAST, Item(fault=error_of(429, **{"Retry-After": "60"})), late(12)],
        [OK, None, None, None],
    ),
    Row("execution_timeout", [DONE_ITEM, FAST, late(12)], [OK, None, None], "up_for_retry", KILLED, options=EXECUTION),
    Row("no time at all", [DONE_ITEM, FAST, late(12)], [OK, None, None], options=(("timeout", 0),)),
    Row("soft_fail", [DONE_ITEM, FAST, late(12)], [OK, None, None], "skipped", "AirflowSkipException",
        options=(("soft_fail", True),)),
    Row("never_fail", [DONE_ITEM, FAST, late(12)], [OK, None, None], "skipped", "AirflowSkipException",
        options=(("never_fail", True),)),
]  # fmt: skip


@pytest.fixture
def slow_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The injected clock, which the emulator's delays go by as well."""
    return clock.slow_answers(monkeypatch)


def prepare(comet: Emulator, items: Sequence[Item]) -> list[str]:
    """Create the predictions of a list, and return their ids."""
    ids = [new_prediction(comet) for _ in items]
    for item, prediction in zip(items, ids, strict=True):
        if item.fields:
            comet.set_prediction(prediction, **item.fields)
        if item.slow or item.fault:
            comet.fault(method="GET", path=prediction, count=None, **{"delay": item.slow, **item.fault})
    return ids


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_list_that_straddles_the_deadline(
    comet: Emulator, slow_clock: Clock, runner: TaskRunner, row: Row, on_item_error: str, way: str
) -> None:
    """Each prediction gets its last poll, whatever its neighbours take: no result is lost, and each id is named."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    ids = prepare(comet, row.items)
    options = {"timeout": TIMEOUT, "poke_interval": INTERVAL, "retries": 2, **dict(row.options), **WAYS[way]}
    with dag():
        task = PredictionSensor(task_id="wait", prediction_id=ids, on_item_error=on_item_error, **options)
    outcome = run_sensor(runner, task, slow_clock)
    kept = on_item_error == "keep" and row.kept == "success"
    expected = ("success", "") if kept else (row.state, row.raises)
    assert (outcome.state, "" if outcome.error is None else type(outcome.error).__name__) == expected, outcome.message
    assert set(outcome.xcoms) == {"return_value" if kept else "predictions"}
    (results,) = outcome.xcoms.values()
    assert [result and result["status"] for result in results] == list(row.results)
    assert [result and result["id"] for result in results] == [
        result and prediction for result, prediction in zip(row.results, ids, strict=True)
    ]
    if not kept:
        unfinished = [prediction for prediction, result in zip(ids, row.results, strict=True) if result is None]
        for prediction in unfinished:
            assert f"Prediction {prediction}: it was not finished when the timeout ended" in outcome.message


@pytest.mark.parametrize("way", ["poke", "reschedule", "on the worker first"])
def test_a_result_that_comes_at_the_deadline(comet: Emulator, slow_clock: Clock, runner: TaskRunner, way: str) -> None:
    """A prediction that finishes while an answer about another one takes until after the deadline is returned."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    fast, slow = prepare(comet, [FAST, late(12)])
    deadline = slow_clock.time() + TIMEOUT

    def on_sleep(seconds: float) -> None:
        if slow_clock.time() + seconds >= deadline - 0.01:
            comet.set_prediction(fast, **DONE)

    slow_clock.on_sleep = on_sleep
    with dag():
        task = PredictionSensor(
            task_id="wait",
            prediction_id=[fast, slow],
            on_item_error="keep",
            timeout=TIMEOUT,
            poke_interval=INTERVAL,
            **WAYS[way],
        )
    outcome = run_sensor(runner, task, slow_clock)
    assert outcome.state == "success", outcome.message
    assert [result and result["id"] for result in outcome.result] == [fast, None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("then", [DONE, FAILED], ids=["succeeded", "failed"])
def test_an_unknown_id_beside_a_long_wait(
    comet: Emulator, clock: Clock, runner: TaskRunner, way: str, then: dict[str, Any]
) -> None:
    """An id that the API does not know is a fact in every mode, also if the task defers after it has found that out."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    prediction = new_prediction(comet)
    end = clock.time() + 150

    def on_sleep(seconds: float) -> None:
        if clock.time() + seconds >= end:
            comet.set_prediction(prediction, **then)

    clock.on_sleep = on_sleep
    with dag():
        task = PredictionSensor(
            task_id="wait", prediction_id=["unknown", prediction], timeout=600, poke_interval=20, retries=2, **WAYS[way]
        )
    outcome = run_sensor(runner, task, clock)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", FAIL)
    assert "Prediction unknown: " in outcome.message
    assert [result and result["status"] for result in outcome.xcoms["predictions"]] == [None, then["status"]]
