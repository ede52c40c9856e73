"""``submissions/submission.py``: what a task that waits buys again, if it fails each time."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions.creates import to_the_end, waiting

# Words that are on no list of refusals, the second time with other numbers, ids, case and blanks.
REPEATED = [
    ("Something in the picture is not right", "something in the  picture is not right"),
    ("Job 4711 rejected (trace 5f3a-11)", "Job 4712 rejected (trace 6b4c-12)"),
    ("Prediction failed", "Prediction failed"),
    ("", ""),
    ("aspect ratio out of range: " + "x " * 300, "aspect ratio out of range: " + "x " * 300),
]
MACHINES = ["CUDA out of memory", "Moderation service unavailable", "upstream request timed out", "Server error 502"]
MACHINES += ["The model took too long to respond"]


@pytest.mark.parametrize("words", REPEATED, ids=[words[0][:30] for words in REPEATED])
@pytest.mark.parametrize("deferrable", [True, False])
def test_the_same_reason_twice_is_final(
    comet: Emulator, runner: TaskRunner, clock: Clock, words: tuple[str, str], deferrable: bool
) -> None:
    """Two are bought of what fails each time for the same reason, however many retries are left; a clear buys anew."""
    for number, text in enumerate(words, 1):
        comet.next_outcome(status="failed", error=text)
        outcome = to_the_end(runner, waiting(retries=9, deferrable=deferrable), try_number=number, max_tries=9)
        assert outcome.state == ("up_for_retry" if number == 1 else "failed")
    assert type(outcome.error).__name__ == "AirflowFailException"
    assert type(outcome.chain[-1]).__name__ == "RepeatedFailureError"
    assert runner.record()["id"] in outcome.message
    assert comet.ledger()["accepted"] == 2
    assert words[0] not in str(runner.record()) or not words[0]
    # An attempt that comes all the same says so again; a clear begins a new cycle, with two again.
    again = to_the_end(runner, waiting(), try_number=3, max_tries=9)
    assert (again.state, type(again.chain[-1]).__name__) == ("failed", "RepeatedFailureError")
    for number, text in enumerate(words, 4):
        comet.next_outcome(status="failed", error=text)
        cleared = to_the_end(runner, waiting(deferrable=deferrable), try_number=number, max_tries=12)
        assert cleared.state == ("up_for_retry" if number == 4 else "failed")
    assert comet.ledger()["accepted"] == 4


@pytest.mark.parametrize("words", MACHINES)
def test_machines_are_bought_again(comet: Emulator, runner: TaskRunner, clock: Clock, words: str) -> None:
    """A reason that blames machines may repeat: the task's retries decide how often it is bought."""
    for number in range(1, 5):
        comet.next_outcome(status="failed", error=words)
        outcome = to_the_end(runner, waiting(), try_number=number, max_tries=9)
        assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionFailedError")
    assert comet.ledger()["accepted"] == 4


def test_a_number_beside_an_error_may_be_a_value(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Not each number from 500 on is the status of a server that failed: a refused input is bought once."""
    comet.next_outcome(status="failed", error="Input validation error: 540 is not one of 480, 720, 1080")
    outcome = to_the_end(runner, waiting())
    assert (outcome.state, type(outcome.chain[-1]).__name__) == ("failed", "PredictionRefusedError")


def test_another_reason_between_two_equal_ones(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The reasons of the whole cycle count, not only the last one."""
    for number, words in enumerate(["a bad colour", "CUDA error", "a bad shape", "a bad colour"], 1):
        comet.next_outcome(status="failed", error=words)
        outcome = to_the_end(runner, waiting(), try_number=number, max_tries=9)
    assert (outcome.state, type(outcome.chain[-1]).__name__) == ("failed", "RepeatedFailureError")


def test_a_clear_after_a_rejected_create_begins_a_cycle(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The failure of the cycle before does not count, although the create of its retry was refused."""
    comet.next_outcome(status="failed", error="a bad colour")
    to_the_end(runner, waiting())
    comet.fault(method="POST", status=400, body={"error": {"message": "no", "code": ""}}, count=1)
    assert to_the_end(runner, waiting(), try_number=2).state == "failed"
    comet.next_outcome(status="failed", error="a bad colour")
    assert to_the_end(runner, waiting(), try_number=3, max_tries=5).state == "up_for_retry"
    assert comet.ledger()["accepted"] == 2


def test_a_failure_that_is_polled_twice_counts_once(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """A task that dies before it has reported a failure polls the same prediction again: that is no repetition."""

    def store(method: str, value: Any) -> int:
        if method == "PUT" and value["reported_error"]:
            raise KeyboardInterrupt
        return 200

    comet.next_outcome(status="failed", error="a bad colour")
    runner.on_store = store
    to_the_end(runner, waiting(deferrable=False))
    assert runner.record()["reported_error"] is None
    runner.on_store = lambda method, value: 200
    outcome = to_the_end(runner, waiting(deferrable=False), try_number=2)
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionFailedError")


def test_without_a_record_airflows_retries_decide(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None
) -> None:
    """Airflow before 3.3 keeps no record, so that nothing is known of the attempt before."""
    for number in (1, 2, 3):
        comet.next_outcome(status="failed", error="a bad colour")
        outcome = to_the_end(runner, waiting(), try_number=number)
        assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionFailedError")


def test_a_clear_that_waits_on_begins_a_cycle(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The prediction of a wait that has timed out was bought before the clear; the failure before it does not count."""
    comet.next_outcome(status="failed", error="a bad colour")
    assert to_the_end(runner, waiting()).state == "up_for_retry"
    comet.next_outcome(status="processing")
    assert to_the_end(runner, waiting(timeout=100), try_number=2).state == "failed"
    comet.set_prediction(runner.record()["id"], status="failed", error="a bad colour")
    cleared = to_the_end(runner, waiting(), try_number=3, max_tries=5)
    assert (cleared.state, type(cleared.error).__name__) == ("up_for_retry", "PredictionFailedError")
    assert comet.ledger()["accepted"] == 2
    # From here on as in every cycle.
    comet.next_outcome(status="failed", error="a bad colour")
    again = to_the_end(runner, waiting(), try_number=4, max_tries=5)
    assert (again.state, type(again.chain[-1]).__name__) == ("failed", "RepeatedFailureError")
