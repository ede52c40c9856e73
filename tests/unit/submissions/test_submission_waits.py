"""``submissions/submission.py``: a task that creates and waits, and what its retries and clears buy."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, event_of
from tests.unit.submissions.creates import FAILURES, operator, to_the_end, waiting

GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"

# ---------------------------------------------------------------------------------------------------------------------
# wait_for_completion


@pytest.mark.parametrize("deferrable", [True, False])
def test_create_and_wait(comet: Emulator, runner: TaskRunner, clock: Clock, deferrable: bool) -> None:
    """The id is the result as ever, the summary is the XCom `prediction`, and it is delivered when both are there."""
    outcome = to_the_end(runner, waiting(deferrable=deferrable))
    assert outcome.state == "success"
    (made,) = comet.ledger()["creates"]
    assert outcome.result == made["id"]
    assert outcome.xcoms["prediction"]["id"] == made["id"]
    assert outcome.xcoms["prediction"]["status"] == "succeeded"
    assert outcome.xcoms["prediction"]["files"]
    assert runner.record()["state"] == "delivered"


def test_the_wait_is_the_sensors(comet: Emulator, runner: TaskRunner) -> None:
    """It is the same trigger with the same kwargs, so that one judgement and one schedule hold for both."""
    outcome = runner.run(waiting(poke_interval=7, timeout=100))
    assert outcome.sent["classpath"] == "airflow_provider_comet.triggers.prediction.PredictionTrigger"
    kwargs = outcome.sent["trigger_kwargs"]
    assert kwargs["poke_interval"] == 7
    assert kwargs["deadline"] - kwargs["started_at"] == 100
    assert outcome.sent["trigger_timeout"].startswith("PT6M39") or outcome.sent["trigger_timeout"] == "PT6M40S"


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(("fields", "cls", "state"), FAILURES, ids=[row[0].get("error", row[1]) for row in FAILURES])
def test_a_failed_generation(
    comet: Emulator,
    runner: TaskRunner,
    clock: Clock,
    counted: list[Any],
    fields: dict[str, Any],
    cls: str,
    state: str,
    deferrable: bool,
) -> None:
    """A failure is left to Airflow's retries, which buy a new one; what a retry can't change fails for good, and only a
    clear buys again."""
    comet.next_outcome(**fields)
    first = to_the_end(runner, waiting(deferrable=deferrable))
    assert (first.state, type(first.chain[-1]).__name__) == (state, cls)
    assert comet.ledger()["accepted"] == 1
    bad = runner.record()["id"]

    second = to_the_end(runner, waiting(deferrable=deferrable), try_number=2)
    if state == "up_for_retry":
        reason = "retry_failed"
    else:
        assert (second.state, type(second.chain[-1]).__name__) == (state, cls)
        assert comet.ledger()["accepted"] == 1
        second = to_the_end(runner, waiting(deferrable=deferrable), try_number=3, max_tries=4)
        reason = "clear"
    assert second.state == "success"
    assert second.result != bad
    assert (runner.record()["reason"], runner.record()["earlier"]) == (reason, [bad])
    assert [tags["reason"] for stat, tags in counted if stat == "comet.created"] == ["first", reason]


@pytest.mark.parametrize("options", [{"try_number": 2}, {"try_number": 2, "max_tries": 4}], ids=["retry", "clear"])
@pytest.mark.parametrize("status", ["processing", "succeeded"])
def test_a_paid_one_is_waited_for_again(
    comet: Emulator, runner: TaskRunner, options: dict[str, Any], status: str
) -> None:
    """Whether it still runs or has succeeded meanwhile: a task that died while it waited re-attaches."""
    assert runner.run(waiting()).state == "deferred"
    made = runner.record()["id"]
    comet.set_prediction(made, status=status)
    again = runner.run(waiting(), **options)
    if status == "processing":
        assert again.state == "deferred"
        comet.set_prediction(made, status="succeeded")
        again = runner.run(waiting(), event=event_of(again.trigger()), **options)
    assert (again.state, again.result) == ("success", made)
    assert comet.ledger()["accepted"] == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_polling_trouble_never_creates(comet: Emulator, runner: TaskRunner, clock: Clock, status: int) -> None:
    """Whatever a poll says about the API or the id, neither retry nor clear buys a new prediction because of it."""
    runner.run(waiting())
    made = runner.record()["id"]
    comet.fault(method="GET", status=status, count=None)
    for options in ({"try_number": 2}, {"try_number": 3, "max_tries": 5}):
        to_the_end(runner, waiting(timeout=200), **options)
        assert (runner.record()["state"], runner.record()["id"]) == ("accepted", made)
    comet.clear_faults()
    assert to_the_end(runner, waiting(), try_number=4, max_tries=5).result == made
    assert comet.ledger()["accepted"] == 1


def test_a_timeout_says_that_the_prediction_goes_on(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The task fails without burning retries; a cleared task continues to wait for the same prediction."""
    comet.next_outcome(status="processing")
    late = to_the_end(runner, waiting(timeout=100))
    assert (late.state, type(late.error).__name__) == ("failed", "AirflowSensorTimeout")
    assert "keeps running at CometAPI" in late.message
    made = runner.record()["id"]
    comet.set_prediction(made, status="succeeded")
    assert to_the_end(runner, waiting(), try_number=2, max_tries=3).result == made


@pytest.mark.parametrize("deferrable", [True, False])
def test_execution_timeout_ends_the_wait(comet: Emulator, runner: TaskRunner, clock: Clock, deferrable: bool) -> None:
    """It is retried, also if the task is deferred, where Airflow forgets it; the retry continues with what was paid."""
    comet.next_outcome(status="processing")
    options = {"execution_timeout": dt.timedelta(seconds=60), "timeout": 600, "deferrable": deferrable}
    began = clock.time()
    late = to_the_end(runner, waiting(**options))
    assert (late.state, type(late.error).__name__) == ("up_for_retry", "AirflowTaskTimeout")
    assert clock.time() - began == pytest.approx(60, abs=1)
    made = runner.record()["id"]
    comet.set_prediction(made, status="succeeded")
    assert to_the_end(runner, waiting(**options), try_number=2).result == made
    assert comet.ledger()["accepted"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_execution_timeout_after_a_slow_create(
    comet: Emulator, runner: TaskRunner, clock: Clock, deferrable: bool
) -> None:
    """`timeout` counts from the create, `execution_timeout` from the task's start: what comes first decides, not what
    is shorter."""
    comet.fault(method="POST", status=429, headers={"Retry-After": "100"}, count=1)
    for seconds, error in ((650, "AirflowTaskTimeout"), (720, "AirflowSensorTimeout")):
        comet.next_outcome(status="processing")
        task = waiting(execution_timeout=dt.timedelta(seconds=seconds), timeout=600, deferrable=deferrable)
        began = clock.time()
        late = to_the_end(runner, task)
        assert type(late.error).__name__ == error
        assert clock.time() - began == pytest.approx(min(700, seconds), abs=11)
        runner.store.clear()
        comet.fault(method="POST", status=429, headers={"Retry-After": "100"}, count=1)


@pytest.mark.parametrize("next_kwargs", [{"error": "Trigger timeout"}, {"error": "gone", "traceback": ["x"]}])
def test_a_wait_that_airflow_ended(comet: Emulator, runner: TaskRunner, next_kwargs: dict[str, Any]) -> None:
    """A trigger that was lost costs a try and no money."""
    comet.next_outcome(status="processing")
    runner.run(waiting())
    made = runner.record()["id"]
    lost = runner.run(waiting(), next_kwargs=next_kwargs, next_method="__fail__")
    assert lost.state == ("failed" if "timeout" in next_kwargs["error"] else "up_for_retry")
    assert lost.message.startswith(f"Prediction {made}: ")
    comet.set_prediction(made, status="succeeded")
    again = to_the_end(runner, waiting(), try_number=2)
    assert (again.result, comet.ledger()["accepted"]) == (made, 1)


ENDS = {
    "event-past-summary": ("success", None),
    "event-past-status": ("success", None),
    "event-past-error": ("failed", "AirflowSensorTimeout"),
    "event-past-transient": ("up_for_retry", "AuthenticationError"),
    "event-past-failed": ("up_for_retry", "PredictionFailedError"),  # the retry buys a new one
    "event-future-summary": ("success", None),
    "event-future-status": ("success", None),
    "event-future-error": ("up_for_retry", "CometError"),
}


@pytest.mark.parametrize("name", ENDS)
def test_events_of_other_releases(comet: Emulator, runner: TaskRunner, name: str) -> None:
    """An event that another release has stored for a create that waits ends it as it says."""
    golden = Path(__file__).parents[1] / "golden" / f"{name}.json"
    event = json.loads(golden.read_text(encoding="utf-8"))
    comet.next_outcome(status="processing")
    runner.run(waiting())
    made, known = runner.record()["id"], comet._store.predictions
    known[GOLDEN_ID] = dataclasses.replace(known[made], id=GOLDEN_ID, pinned={"status": "succeeded"})
    runner.store["create/-1/comet_submission"]["id"] = GOLDEN_ID
    outcome = runner.run(waiting(), event=event)
    assert (outcome.state, outcome.error and type(outcome.error).__name__) == ENDS[name]
    if outcome.state == "success":
        assert (outcome.result, outcome.xcoms["prediction"]["id"]) == (GOLDEN_ID, GOLDEN_ID)
        assert runner.record()["state"] == "delivered"
    else:
        assert GOLDEN_ID in outcome.message
    assert comet.ledger()["accepted"] == 1


def test_a_result_that_came_while_the_triggerer_was_away(comet: Emulator, runner: TaskRunner) -> None:
    """If Airflow's own timeout ends the deferral of a prediction that has finished, its result is handed over."""
    runner.run(waiting())
    made = runner.record()["id"]
    outcome = runner.run(waiting(), next_kwargs={"error": "Trigger timeout"}, next_method="__fail__")
    assert (outcome.state, outcome.result) == ("success", made)
    assert outcome.xcoms["prediction"]["status"] == "succeeded"
    assert (runner.record()["state"], comet.ledger()["accepted"]) == ("delivered", 1)


def test_a_large_result_is_read_by_the_worker(comet: Emulator, runner: TaskRunner) -> None:
    """What does not fit into the trigger's event is fetched when the task resumes."""
    comet.next_outcome(status="succeeded", output=["word " * 2000])
    outcome = to_the_end(runner, waiting())
    assert outcome.xcoms["prediction"]["output"] == ["word " * 2000]


def test_a_killed_wait_names_the_prediction(
    comet: Emulator, runner: TaskRunner, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    """On the worker and in the triggerer: the log names the running prediction's id. No request is made."""
    import asyncio

    task = waiting(deferrable=False)
    comet.next_outcome(status="processing")
    made = []

    def kill(seconds: float) -> None:
        if not made:
            made.append(runner.record()["id"])
            requests = len(comet.ledger()["requests"])
            runner.running.on_kill()
            assert len(comet.ledger()["requests"]) == requests
            comet.set_prediction(made[0], status="succeeded")

    clock.on_sleep = kill
    runner.run(task)
    asyncio.run(runner.run(waiting(), map_index=1).trigger().on_kill())
    made.append(runner.record(map_index=1)["id"])
    said = capfd.readouterr()
    for identity in made:
        assert (said.out + said.err).count(f"Prediction {identity} keeps running at CometAPI") == 1


def test_a_killed_task_buys_nothing_in_its_last_seconds(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Airflow's signal does not end the process: a task that waits for a rate limit must not send afterwards."""
    comet.fault(method="POST", status=429, count=1)
    clock.on_sleep = lambda seconds: runner.running.on_kill()
    killed = runner.run(operator())
    assert (killed.state, type(killed.error).__name__) == ("up_for_retry", "AirflowException")
    assert (runner.record()["state"], comet.ledger()["accepted"]) == ("rejected", 0)
    clock.on_sleep = lambda seconds: None
    assert runner.run(operator(), try_number=2).state == "success"


def test_a_task_killed_while_it_submits_says_so(
    comet: Emulator, runner: TaskRunner, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no id to name yet; it says where the id will be."""
    import http.client

    original = http.client.HTTPConnection.getresponse

    def kill(connection: Any) -> Any:
        runner.running.on_kill()
        return original(connection)

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "getresponse", kill)
        runner.run(operator())
    said = capfd.readouterr()
    assert "A create was being sent and may be accepted" in said.out + said.err


# ---------------------------------------------------------------------------------------------------------------------
# Failures that were not reported yet


@pytest.mark.parametrize(("fields", "cls", "state"), FAILURES, ids=[row[0].get("error", row[1]) for row in FAILURES])
@pytest.mark.parametrize("options", [{"try_number": 2}, {"try_number": 2, "max_tries": 4}], ids=["retry", "clear"])
def test_a_failure_is_reported_before_it_is_bought_again(
    comet: Emulator, runner: TaskRunner, fields: dict[str, Any], cls: str, state: str, options: dict[str, Any]
) -> None:
    """A clear after a timeout, or a retry after a crash, that meets a bad end pays nothing: it says so first."""
    assert runner.run(waiting()).state == "deferred"  # and then its process, or its trigger, is lost
    comet.set_prediction(runner.record()["id"], **fields)
    reported = runner.run(waiting(), **options)
    assert (reported.state, type(reported.chain[-1]).__name__) == (state, cls)
    assert (runner.record()["reported_error"], comet.ledger()["accepted"]) == (cls, 1)
    # Only now: by a retry if it may help, else by a clear.
    again = runner.run(waiting(), **{**options, "try_number": 3})
    if state == "failed":
        assert (again.state, type(again.chain[-1]).__name__) == (state, cls)
        assert "delete comet_submission from the task's state store" in again.message
        assert comet.ledger()["accepted"] == 1
        again = runner.run(waiting(), try_number=4, max_tries=7)
    assert (again.state, comet.ledger()["accepted"]) == ("deferred", 2)


def test_a_retry_in_a_cleared_cycle_is_no_clear(comet: Emulator, runner: TaskRunner) -> None:
    """What a clear picked up again stays with its cycle: a refusal that an automatic retry meets is not paid again."""
    comet.next_outcome(status="processing")
    runner.run(waiting())
    made = runner.record()["id"]
    assert runner.run(waiting(), try_number=2, max_tries=4).state == "deferred"
    comet.set_prediction(made, status="failed", error="NSFW content detected")
    for number in (3, 4):
        assert runner.run(waiting(), try_number=number, max_tries=4).state == "failed"
    assert comet.ledger()["accepted"] == 1


def test_a_record_made_by_hand_gets_its_cycle(comet: Emulator, runner: TaskRunner) -> None:
    """It names no cycle; from the first attempt that uses it on, clears are distinguished from retries as ever."""
    comet.next_outcome(status="failed", error="NSFW content detected")
    runner.run(waiting())
    runner.store["create/-1/comet_submission"] = {"version": 1, "state": "accepted", "id": runner.record()["id"]}
    assert runner.run(waiting(), try_number=2, max_tries=3).state == "failed"
    assert runner.run(waiting(), try_number=3, max_tries=4).state == "deferred"
    assert comet.ledger()["accepted"] == 2


def test_a_known_failure_is_not_handed_over_by_another_mode(comet: Emulator, runner: TaskRunner) -> None:
    """Who stops waiting in the task after a failure gets a new prediction, not the id of the failed one."""
    comet.next_outcome(status="canceled")
    to_the_end(runner, waiting())
    bad = runner.record()["id"]
    assert runner.run(operator(), try_number=2).result != bad
