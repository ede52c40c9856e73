"""What a store asks of an object store: the number of requests per prediction, counted below s3fs."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling import hand_over
from tests.integration.test_parity import new_prediction
from tests.support.s3 import S3
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag, event_of

HAND_OVERS = 20
PREDICTIONS = 100
MAX_REQUESTS = 6


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Count each request that leaves for S3, also one that is repeated."""
    from aiobotocore.httpsession import AIOHTTPSession

    counted: collections.Counter[str] = collections.Counter()
    send = AIOHTTPSession.send

    async def count(self: Any, request: Any) -> Any:
        counted[request.method] += 1
        return await send(self, request)

    monkeypatch.setattr(AIOHTTPSession, "send", count)
    return counted


def store(ids: list[str]) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        return DownloadPredictionOutputOperator(task_id="store", prediction=ids, output_path="s3://store@bucket/a")


def test_requests_per_prediction(
    comet: Emulator,
    s3: S3,
    clock: Clock,
    runner: TaskRunner,
    monkeypatch: pytest.MonkeyPatch,
    requests: collections.Counter[str],
) -> None:
    """Over twenty hand-overs a prediction costs at most six requests, and at most six if it is stored already."""
    count = PREDICTIONS // HAND_OVERS
    monkeypatch.setattr(hand_over, "HAND_OVER_COUNT", count)
    ids = [new_prediction(comet) for _ in range(PREDICTIONS)]
    outcome = runner.run(store(ids))
    hand_overs = 0
    for start in range(0, PREDICTIONS, count):
        assert outcome.state == "deferred", outcome.message
        for prediction in ids[start : start + count]:
            comet.set_prediction(prediction, status="succeeded")
        event = event_of(outcome.trigger())
        outcome = runner.run(store(ids), event=event, next_kwargs=outcome.next_kwargs)
        hand_overs += 1
    check(outcome, ids)
    assert hand_overs == HAND_OVERS
    assert len(s3.objects()) == 2 * PREDICTIONS
    assert sum(requests.values()) <= MAX_REQUESTS * PREDICTIONS, requests

    requests.clear()
    served = len(comet.ledger()["served"])
    check(runner.run(store(ids), try_number=2), ids)
    assert sum(requests.values()) <= MAX_REQUESTS * PREDICTIONS, requests
    assert len(comet.ledger()["served"]) == served


def check(outcome: Outcome, ids: list[str]) -> None:
    assert outcome.state == "success", outcome.message
    assert [result["prediction_id"] for result in outcome.result] == ids
