"""``submissions/submission.py``: a create whose answer was lost, and what the next attempt does about it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import TaskRunner
from tests.unit.submissions.creates import SCHNELL, lose_the_answer, operator


@pytest.mark.parametrize("policy", ["fail", "retry"])
def test_a_lost_answer(comet: Emulator, runner: TaskRunner, policy: Any, counted: list[Any]) -> None:
    """`fail` ends the task and says what to do; `retry` leaves it to Airflow's next try. Neither sends twice."""
    lose_the_answer(comet)
    first = runner.run(operator(on_ambiguous_submit=policy))
    assert first.state == {"fail": "failed", "retry": "up_for_retry"}[policy]
    assert type(first.chain[-1]).__name__ == "AmbiguousSubmissionError"
    assert (runner.record()["state"], runner.record()["request_id"]) == ("sending", "2026REQ")
    assert comet.ledger()["accepted"] == 1

    second = runner.run(operator(on_ambiguous_submit=policy), try_number=2)
    if policy == "fail":
        assert second.state == "failed"
        for words in (runner.record()["at"], SCHNELL, "request id 2026REQ", "usage page", "comet_submission"):
            assert words in second.message
        assert comet.ledger()["accepted"] == 1
        assert counted == [("comet.ambiguous", {"model": SCHNELL})]
    else:
        assert second.state == "success"
        assert comet.ledger()["accepted"] == 2
        assert counted == [
            ("comet.ambiguous", {"model": SCHNELL}),
            ("comet.created", {"model": SCHNELL, "reason": "retry_ambiguous"}),
        ]


def test_a_lost_answer_and_a_clear(comet: Emulator, runner: TaskRunner) -> None:
    """A clear submits again; so the message says to check the usage page first."""
    lose_the_answer(comet)
    runner.run(operator())
    cleared = runner.run(operator(), try_number=2, max_tries=3)
    assert cleared.state == "success"
    assert (runner.record()["reason"], comet.ledger()["accepted"]) == ("clear", 2)


def test_a_known_id_is_put_on_record(comet: Emulator, runner: TaskRunner) -> None:
    """With the value that the message names, the next attempt continues with that id and sends nothing."""
    lose_the_answer(comet)
    failed = runner.run(operator())
    (made,) = comet.ledger()["creates"]
    value = {"version": 1, "state": "accepted", "id": "<the id>"}
    assert str(value).replace("'", '"') in failed.message
    runner.store["create/-1/comet_submission"] = {**value, "id": made["id"]}
    again = runner.run(operator(), try_number=2, max_tries=3)
    assert (again.state, again.result) == ("success", made["id"])
    assert comet.ledger()["accepted"] == 1
