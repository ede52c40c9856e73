"""``submissions/submission.py``: what may interrupt an attempt, with and without a record."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.submissions.creates import interrupt, operator, to_the_end, waiting


def test_a_lost_xcom_is_no_delivery(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered means that the id can be pulled: if it can't be pushed, a clear does not buy a new one."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    original = RuntimeTaskInstance.xcom_push

    def fail(ti: Any, key: str, value: Any) -> None:
        if key == "return_value":
            raise RuntimeError("no XCom today")
        original(ti, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(RuntimeTaskInstance, "xcom_push", fail)
        assert runner.run(operator(), retries_left=False).state == "failed"
    made = runner.record()["id"]
    assert runner.run(operator(), try_number=2, max_tries=3).result == made


def test_metrics_are_no_trouble(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metrics backend that raises costs no id."""
    from airflow.providers.common.compat.sdk import Stats

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("statsd is away")

    monkeypatch.setattr(Stats, "incr", fail)
    assert runner.run(operator()).state == "success"
    assert runner.run(operator(), try_number=2).state == "success"


def test_a_timeout_of_the_task_between_answer_and_record(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Whatever interrupts the wait for the store, the id gets one more chance; then the next try continues with it."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    away: list[int] = []

    def store(method: str, value: Any) -> int:
        if method == "PUT" and value["state"] == "accepted" and not away:
            away.append(1)
            return 422
        return 200

    def interrupt(seconds: float) -> None:
        raise AirflowTaskTimeout("execution_timeout")

    runner.on_store, clock.on_sleep = store, interrupt
    runner.run(operator(on_ambiguous_submit="retry"))
    assert away
    (made,) = comet.ledger()["creates"]
    assert runner.run(operator(on_ambiguous_submit="retry"), try_number=2).result == made["id"]


def test_an_intent_whose_answer_was_lost_is_taken_back(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """It is on record although the store said no, and nothing was sent: the next try is free to send."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    def store(method: str, value: Any) -> int:
        if method == "PUT" and value["state"] == "sending":
            runner.store["create/-1/comet_submission"] = value
            return 422
        return 200

    def interrupt(seconds: float) -> None:
        raise AirflowTaskTimeout("execution_timeout")

    for on_sleep in (lambda seconds: None, interrupt):
        runner.store.clear()
        runner.on_store, clock.on_sleep = store, on_sleep
        runner.run(operator())
        assert (runner.record()["state"], comet.ledger()["accepted"]) == ("rejected", 0)
    runner.on_store = lambda method, value: 200
    assert runner.run(operator(), try_number=2).state == "success"


def test_without_a_record_polling_trouble_is_final(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None
) -> None:
    """Airflow before 3.3: a retry would submit again, so only a failed prediction is left to it."""
    comet.fault(method="GET", status=401, count=None)
    outcome = to_the_end(runner, waiting())
    (made,) = comet.ledger()["creates"]
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert made["id"] in outcome.message
    assert "PredictionSensor" in outcome.message
    comet.clear_faults()
    comet.next_outcome(status="canceled")
    assert to_the_end(runner, waiting()).state == "up_for_retry"


@pytest.mark.parametrize("phase", ["hand over", "last poll", "resume"])
@pytest.mark.parametrize("policy", ["fail", "retry"])
def test_without_a_record_any_end_of_what_was_paid_is_final(
    comet: Emulator,
    runner: TaskRunner,
    clock: Clock,
    no_store: None,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    policy: Any,
) -> None:
    """Whatever interrupts the task after its create, a retry would pay again: it fails for good and names the id."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options: dict[str, Any] = {"on_ambiguous_submit": policy}
    if phase == "resume":
        deferred = runner.run(waiting(**options))
        event = event_of(deferred.trigger())
    with monkeypatch.context() as patch:
        if phase == "last poll":
            patch.setattr(CometReplicateHook, "poll", interrupt)
        else:
            patch.setattr(CreatePredictionOperator, "_hand_over", interrupt)
        if phase == "resume":
            outcome = runner.run(waiting(**options), event=event, next_kwargs=deferred.next_kwargs)
        else:
            outcome = runner.run(waiting(**options, deferrable=False) if phase == "last poll" else operator(**options))
    (made,) = comet.ledger()["creates"]
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert type(outcome.chain[-1]).__name__ == "AirflowTaskTimeout"
    assert made["id"] in outcome.message
    assert "keeps no record" in outcome.message


def test_without_a_record_an_interrupted_resume_is_final_although_the_id_is_lost(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the trigger failed, Airflow forgets the id. Whatever interrupts the task then, a retry would pay again."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    runner.run(waiting())
    with monkeypatch.context() as patch:
        patch.setattr(CreatePredictionOperator, "_conclude_event", interrupt)
        outcome = runner.run(waiting(), next_method="__fail__", next_kwargs={"error": "Trigger timeout"})
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "may be accepted" in outcome.message
    assert "keeps no record" in outcome.message


@pytest.mark.parametrize("policy", ["fail", "retry"])
def test_without_a_record_an_interrupted_create_is_final(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    """It may have been accepted: only who takes the risk has it retried."""
    import http.client

    original = http.client.HTTPConnection.getresponse

    def answered(connection: Any) -> Any:
        original(connection)  # so that it was accepted
        interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "getresponse", answered)
        outcome = runner.run(operator(on_ambiguous_submit=policy))
    assert comet.ledger()["accepted"] == 1
    assert type(outcome.chain[-1]).__name__ == "AirflowTaskTimeout"
    assert type(outcome.error).__name__ == {"fail": "AirflowFailException", "retry": "AirflowTaskTimeout"}[policy]
    assert ("usage page" in outcome.message) is (policy == "fail")


def test_without_a_record_what_was_not_sent_is_retried(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption before anything was sent costs nothing, so Airflow may try again."""
    import urllib3.connection

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.connection.HTTPConnection, "connect", interrupt)
        outcome = runner.run(operator())
    assert type(outcome.error).__name__ == "AirflowTaskTimeout"
    assert comet.ledger()["accepted"] == 0


def test_the_record_lives_as_long_as_its_run(comet: Emulator, runner: TaskRunner) -> None:
    """Airflow's default retention of 30 days does not apply."""
    runner.run(operator())
    assert runner.expiry == {"create/-1/comet_submission": None}


def test_an_echoed_prompt_is_not_on_record(comet: Emulator, runner: TaskRunner) -> None:
    """An unclear answer may repeat the input; the record keeps its status and request id."""
    echo = {"status": "starting", "input": {"prompt": "a lighthouse nobody has to know of"}}
    comet.fault(method="POST", status=201, accept=True, body=echo)
    assert runner.run(operator()).state == "failed"
    assert runner.record()["answer"] == "HTTP 201"
    assert "lighthouse" not in str(runner.store)
    assert "lighthouse" not in runner.run(operator(), try_number=2).message


def test_a_killed_task_does_not_wait_for_the_store(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """A store that takes no intent is tried for minutes, but not for a task that ends: nothing was sent."""
    runner.on_store = lambda method, value: 422 if method == "PUT" else 200
    clock.on_sleep = lambda seconds: runner.running.on_kill()
    outcome = runner.run(operator())
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "SubmissionRecordError")
    assert (len(clock.sleeps), comet.ledger()["accepted"]) == (1, 0)
