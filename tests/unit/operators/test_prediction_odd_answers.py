"""`CreatePredictionOperator`: answers without a status while it waits for what it has just paid for."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions.creates import to_the_end, waiting

PAGE = "<html><title>Back soon</title></html>"


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("has_store", [True, False], ids=["record", "no record"])
@pytest.mark.parametrize("status", [200, 302, 400, 404, 503])
def test_an_odd_answer_right_after_the_create(
    comet: Emulator,
    runner: TaskRunner,
    clock: Clock,
    request: pytest.FixtureRequest,
    deferrable: bool,
    has_store: bool,
    status: int,
) -> None:
    """The API has returned the id, so the first polls may be answered by anything: what was paid is handed over."""
    if not has_store:
        request.getfixturevalue("no_store")
    comet.fault(method="GET", status=status, body=PAGE if status < 400 else None, count=4)
    outcome = to_the_end(runner, waiting(deferrable=deferrable))
    assert (outcome.state, outcome.xcoms["prediction"]["status"]) == ("success", "succeeded")
    assert comet.ledger()["accepted"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_page_that_stays(comet: Emulator, runner: TaskRunner, clock: Clock, deferrable: bool) -> None:
    """If all polls of a minute get a web page, the task is retried, and its next try waits for the same prediction."""
    comet.fault(method="GET", status=200, body=PAGE, count=None)
    first = to_the_end(runner, waiting(deferrable=deferrable))
    assert (first.state, type(first.error).__name__) == ("up_for_retry", "WrongURLError")
    comet.clear_faults()
    second: Any = to_the_end(runner, waiting(deferrable=deferrable), try_number=2)
    assert (second.state, second.result) == ("success", comet.ledger()["creates"][0]["id"])
    assert comet.ledger()["accepted"] == 1
