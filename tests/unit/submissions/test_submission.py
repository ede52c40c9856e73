"""``CreatePredictionOperator`` over its attempts: what is on record, what is sent, what is counted."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag, event_of

SCHNELL = "black-forest-labs/flux-schnell"
CREATE = f"/replicate/v1/models/{SCHNELL}/predictions"
UNKNOWN_ID = "abcdefghijklmnopqrstuvwxyz"
GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"


def operator(**options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options = {"task_id": "create", "model": SCHNELL, "input": {"prompt": "a lighthouse"}, "retries": 2, **options}
    with dag():
        return CreatePredictionOperator(**options)


def waiting(**options: Any) -> Any:
    return operator(wait_for_completion=True, **options)


def to_the_end(runner: TaskRunner, task: Any, **options: Any) -> Outcome:
    """Run a task, and its deferral."""
    outcome = runner.run(task, **options)
    if outcome.state != "deferred":
        return outcome
    return runner.run(task, event=event_of(outcome.trigger()), next_kwargs=outcome.next_kwargs, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Every counter that was increased, with its tags."""
    from airflow.providers.common.compat.sdk import Stats

    found: list[tuple[str, dict[str, str]]] = []

    def incr(stat: str, *args: Any, tags: dict[str, str] | None = None, **kwargs: Any) -> None:
        if stat.startswith("comet."):
            found.append((stat, dict(tags or {})))

    monkeypatch.setattr(Stats, "incr", incr)
    return found


def lose_the_answer(comet: Emulator) -> None:
    """The next create is accepted and billed; what comes back says nothing about it."""
    comet.fault(
        method="POST", status=504, accept=True, body="gateway", headers={"x-cometapi-request-id": "2026REQ"}, count=1
    )


# ---------------------------------------------------------------------------------------------------------------------
# The record


def test_the_record_of_a_create(comet: Emulator, runner: TaskRunner) -> None:
    """Intent, acceptance and delivery are written in this order, and nothing of the input's values with them."""
    written: list[tuple[str, str | None, int]] = []

    def see(method: str, value: Any) -> int:
        if method == "PUT":
            written.append((value["state"], value["id"], comet.ledger()["accepted"]))
        return 200

    runner.on_store = see
    made = runner.run(operator()).result
    assert written == [("sending", None, 0), ("accepted", made, 1), ("delivered", made, 1)]
    record = runner.record()
    assert (record["version"], record["model"], record["reason"], record["max_tries"]) == (1, SCHNELL, "first", 2)
    assert record["input"].keys() == {"prompt"}
    assert "lighthouse" not in str(record)
    assert record["earlier"] == []


def test_no_record_without_a_request(comet: Emulator, runner: TaskRunner) -> None:
    """What is refused before it is sent leaves no trace, so the next attempt is as free as this one."""
    assert runner.run(operator(input={})).state == "failed"
    assert runner.record() is None


def test_a_missing_connection_leaves_no_record(runner: TaskRunner) -> None:
    """Nor does what can't be sent for want of a connection."""
    assert runner.run(operator(conn_id="missing")).state == "up_for_retry"
    assert runner.record() is None


def test_rejected_is_written_before_the_backoff(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """A process that dies while it waits for a rate limit to pass has left nothing open."""
    comet.fault(method="POST", status=429, count=3)
    states: list[str] = []
    clock.on_sleep = lambda seconds: states.append(runner.record()["state"])
    assert runner.run(operator()).state == "success"
    assert states == ["rejected"] * 3
    assert comet.ledger()["accepted"] == 1


def test_a_timeout_of_the_task_while_nothing_was_sent(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's execution_timeout during the connection attempt proves as much as a refusal does."""
    import urllib3.connection
    from airflow.sdk.exceptions import AirflowTaskTimeout

    def hang(connection: Any) -> None:
        raise AirflowTaskTimeout("execution_timeout")

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", hang)
    runner.run(operator())
    assert runner.record()["state"] == "rejected"
    assert comet.ledger()["accepted"] == 0


def test_a_timeout_of_the_task_while_the_answer_is_out(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the body was sent it proves nothing: the next attempt does not send again."""
    import http.client

    from airflow.sdk.exceptions import AirflowTaskTimeout

    def hang(connection: Any) -> None:
        raise AirflowTaskTimeout("execution_timeout")

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "getresponse", hang)
        runner.run(operator())
    assert runner.record()["state"] == "sending"
    second = runner.run(operator(), try_number=2)
    assert (second.state, type(second.error).__name__) == ("failed", "AirflowFailException")
    assert comet.ledger()["accepted"] == 1


# ---------------------------------------------------------------------------------------------------------------------
# A lost answer


@pytest.mark.parametrize("policy", ["fail", "retry"])
def test_a_lost_answer(comet: Emulator, runner: TaskRunner, policy: Any, counted: list[Any]) -> None:
    """`fail` ends the task and says how to go on; `retry` leaves it to Airflow's next try. Neither sends twice."""
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
    """A clear submits again; so the message says to look at the usage page first."""
    lose_the_answer(comet)
    runner.run(operator())
    cleared = runner.run(operator(), try_number=2, max_tries=3)
    assert cleared.state == "success"
    assert (runner.record()["reason"], comet.ledger()["accepted"]) == ("clear", 2)


def test_a_known_id_is_put_on_record(comet: Emulator, runner: TaskRunner) -> None:
    """With the value that the message names, the next attempt goes on with that id and sends nothing."""
    lose_the_answer(comet)
    failed = runner.run(operator())
    (made,) = comet.ledger()["creates"]
    value = {"version": 1, "state": "accepted", "id": "<the id>"}
    assert str(value).replace("'", '"') in failed.message
    runner.store["create/-1/comet_submission"] = {**value, "id": made["id"]}
    again = runner.run(operator(), try_number=2, max_tries=3)
    assert (again.state, again.result) == ("success", made["id"])
    assert comet.ledger()["accepted"] == 1


# ---------------------------------------------------------------------------------------------------------------------
# Retries and clears of what was accepted


def test_an_accepted_one_is_handed_over_by_whoever_comes(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, counted: list[Any]
) -> None:
    """Retry or clear: the recorded id, without a request; a changed input is told by its keys."""
    caplog.set_level("INFO")
    for options in ({"try_number": 2}, {"try_number": 2, "max_tries": 5}):
        made = runner.run(operator()).result
        runner.store["create/-1/comet_submission"]["state"] = "accepted"  # it died before it handed over
        comet.reset()
        again = runner.run(operator(input={"prompt": "a windmill", "seed": 7}), **options)
        assert (again.state, again.result) == ("success", made)
        assert comet.ledger()["requests"] == []
        assert runner.record()["state"] == "delivered"
        assert runner.record()["max_tries"] == options.get("max_tries", 2)
        assert "changed: input.prompt, input.seed" in caplog.text
        assert "delete comet_submission from the task's state store and clear the task" in caplog.text
        assert "windmill" not in caplog.text
        runner.store.clear()
    assert counted.count(("comet.reattached", {"model": SCHNELL})) == 2


def test_a_delivered_one_is_bought_again_by_a_clear_only(
    comet: Emulator, runner: TaskRunner, counted: list[Any]
) -> None:
    """A retry in the same cycle hands the same id over again; each clear buys a new one, and no id is forgotten."""
    first = runner.run(operator()).result
    assert runner.run(operator(), try_number=2).result == first
    second = runner.run(operator(), try_number=2, max_tries=3).result
    third = runner.run(operator(), try_number=3, max_tries=4).result
    assert len({first, second, third}) == 3
    assert runner.record()["earlier"] == [first, second]
    assert [tags["reason"] for stat, tags in counted if stat == "comet.created"] == ["first", "clear", "clear"]


def test_a_clear_after_a_rejection_is_a_first_create(comet: Emulator, runner: TaskRunner) -> None:
    """What was never accepted was never bought."""
    comet.fault(method="POST", status=400, body={"error": {"message": "no", "code": ""}})
    assert runner.run(operator()).state == "failed"
    assert runner.record()["state"] == "rejected"
    assert runner.run(operator(), try_number=2, max_tries=3).state == "success"
    assert runner.record()["reason"] == "first"


def test_mapped_instances_have_records_of_their_own(comet: Emulator, runner: TaskRunner) -> None:
    """What one instance has paid for is nothing to another."""
    ids = [runner.run(operator(), map_index=index).result for index in range(3)]
    assert len(set(ids)) == 3
    again = [runner.run(operator(), map_index=index, try_number=2).result for index in range(3)]
    assert again == ids


def test_from_airflow_3_4_on_a_record_that_is_there_is_meant(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a clear empties the store itself, unless the user keeps it, which asks for the result that was paid."""
    from airflow_provider_comet.submissions import submission

    monkeypatch.setattr(submission, "CLEAR_EMPTIES_STORE", True)
    first = runner.run(operator()).result
    assert runner.run(operator(), try_number=2, max_tries=3).result == first
    runner.store.clear()
    assert runner.run(operator(), try_number=2, max_tries=3).result != first


def test_without_a_store_a_retry_submits_again_and_says_so(
    comet: Emulator,
    runner: TaskRunner,
    no_store: None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Airflow before 3.3 has none: everything else works, and the log says what is missing."""

    def said() -> str:  # the first task of a process sets Airflow's logging up, which goes past caplog
        return caplog.text + "".join(capfd.readouterr())

    caplog.set_level("INFO")
    assert runner.run(operator()).state == "success"
    assert "keeps no record" not in said()
    assert to_the_end(runner, waiting(), try_number=2).state == "success"
    assert "keeps no record" in said()
    assert comet.ledger()["accepted"] == 2
    assert runner.store == {}


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
    outcome = runner.run(waiting(poll_interval=7, timeout=100))
    assert outcome.sent["classpath"] == "airflow_provider_comet.triggers.prediction.PredictionTrigger"
    kwargs = outcome.sent["trigger_kwargs"]
    assert kwargs["poke_interval"] == 7
    assert kwargs["deadline"] - kwargs["started_at"] == 100
    assert outcome.sent["trigger_timeout"].startswith("PT6M39") or outcome.sent["trigger_timeout"] == "PT6M40S"


FAILURES: list[tuple[dict[str, Any], str, str]] = [
    ({"status": "failed", "error": "CUDA out of memory"}, "PredictionFailedError", "up_for_retry"),
    ({"status": "canceled"}, "PredictionCanceledError", "up_for_retry"),
    ({"status": "aborted"}, "PredictionAbortedError", "up_for_retry"),
    ({"status": "failed", "error": "NSFW content detected"}, "PredictionRefusedError", "failed"),
    ({"status": "failed", "error": "Invalid input: width"}, "PredictionRefusedError", "failed"),
    ({"status": "succeeded", "output": []}, "EmptyOutputError", "failed"),
    ({"status": "succeeded", "data_removed": True}, "PredictionExpiredError", "failed"),
]


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
    """Whatever a look says about the API or the id, neither retry nor clear buys a new prediction because of it."""
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
    """The task fails without burning retries; a cleared one goes on waiting for the same prediction."""
    comet.next_outcome(status="processing")
    late = to_the_end(runner, waiting(timeout=100))
    assert (late.state, type(late.error).__name__) == ("failed", "AirflowSensorTimeout")
    assert "goes on at CometAPI" in late.message
    made = runner.record()["id"]
    comet.set_prediction(made, status="succeeded")
    assert to_the_end(runner, waiting(), try_number=2, max_tries=3).result == made


@pytest.mark.parametrize("deferrable", [True, False])
def test_execution_timeout_ends_the_wait(comet: Emulator, runner: TaskRunner, clock: Clock, deferrable: bool) -> None:
    """It is retried, also if the task is deferred, where Airflow forgets it; the retry goes on with what was paid."""
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
    """What does not fit into the trigger's event is fetched when the task comes back."""
    comet.next_outcome(status="succeeded", output=["word " * 2000])
    outcome = to_the_end(runner, waiting())
    assert outcome.xcoms["prediction"]["output"] == ["word " * 2000]


def test_a_killed_wait_names_the_prediction(
    comet: Emulator, runner: TaskRunner, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    """On the worker and in the triggerer: the log says under which id it goes on. Nothing is asked of anybody."""
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
        assert (said.out + said.err).count(f"Prediction {identity} goes on at CometAPI") == 1


def test_a_killed_task_buys_nothing_in_its_last_seconds(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Airflow's signal does not end the process: one that waits for a rate limit to pass must not send afterwards."""
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
    assert "A create is under way and may be accepted" in said.out + said.err


# ---------------------------------------------------------------------------------------------------------------------
# Ends that nobody was told of yet


@pytest.mark.parametrize(("fields", "cls", "state"), FAILURES, ids=[row[0].get("error", row[1]) for row in FAILURES])
@pytest.mark.parametrize("options", [{"try_number": 2}, {"try_number": 2, "max_tries": 4}], ids=["retry", "clear"])
def test_an_end_is_reported_before_it_is_bought_again(
    comet: Emulator, runner: TaskRunner, fields: dict[str, Any], cls: str, state: str, options: dict[str, Any]
) -> None:
    """A clear after a timeout, or a retry after a crash, that meets a bad end pays nothing: it says so first."""
    assert runner.run(waiting()).state == "deferred"  # and then its process, or its trigger, is lost
    comet.set_prediction(runner.record()["id"], **fields)
    told = runner.run(waiting(), **options)
    assert (told.state, type(told.chain[-1]).__name__) == (state, cls)
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
    """It names no cycle; from the first attempt that uses it on, clears are told from retries as ever."""
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


# ---------------------------------------------------------------------------------------------------------------------
# What may break on the way


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
    """Whatever interrupts the wait for the store, the id gets one more chance; then the next try goes on with it."""
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


def interrupt(*args: Any, **kwargs: Any) -> Any:
    from airflow.sdk.exceptions import AirflowTaskTimeout

    raise AirflowTaskTimeout("execution_timeout")


@pytest.mark.parametrize("phase", ["hand over", "last look", "resume"])
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
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options: dict[str, Any] = {"on_ambiguous_submit": policy}
    if phase == "resume":
        deferred = runner.run(waiting(**options))
        event = event_of(deferred.trigger())
    with monkeypatch.context() as patch:
        patch.setattr(CreatePredictionOperator, "_block" if phase == "last look" else "_hand_over", interrupt)
        if phase == "resume":
            ended = runner.run(waiting(**options), event=event, next_kwargs=deferred.next_kwargs)
        else:
            ended = runner.run(waiting(**options, deferrable=False) if phase == "last look" else operator(**options))
    (made,) = comet.ledger()["creates"]
    assert (ended.state, type(ended.error).__name__) == ("failed", "AirflowFailException")
    assert type(ended.chain[-1]).__name__ == "AirflowTaskTimeout"
    assert made["id"] in ended.message
    assert "keeps no record" in ended.message


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
        ended = runner.run(operator(on_ambiguous_submit=policy))
    assert comet.ledger()["accepted"] == 1
    assert type(ended.chain[-1]).__name__ == "AirflowTaskTimeout"
    assert type(ended.error).__name__ == {"fail": "AirflowFailException", "retry": "AirflowTaskTimeout"}[policy]
    assert ("usage page" in ended.message) is (policy == "fail")


def test_without_a_record_what_was_not_sent_is_retried(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption before anything was sent costs nothing, so Airflow may try again."""
    import urllib3.connection

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.connection.HTTPConnection, "connect", interrupt)
        ended = runner.run(operator())
    assert type(ended.error).__name__ == "AirflowTaskTimeout"
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
    assert runner.record()["answer"] == "HTTP 201 came back"
    assert "lighthouse" not in str(runner.store)
    assert "lighthouse" not in runner.run(operator(), try_number=2).message


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_ambiguous_submit": "again"}, "on_ambiguous_submit must be 'fail' or 'retry', not 'again'"),
        ({"timeout": 0}, "timeout must be a positive number of seconds"),
        ({"timeout": True}, "timeout must be"),
        ({"poll_interval": -1}, "poll_interval must be"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    """They are refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=words):
        operator(**options)


def test_timedeltas(comet: Emulator, runner: TaskRunner) -> None:
    """Times may be given as timedelta."""
    kwargs = runner.run(waiting(poll_interval=dt.timedelta(seconds=3), timeout=dt.timedelta(minutes=2))).sent[
        "trigger_kwargs"
    ]
    assert (kwargs["poke_interval"], kwargs["deadline"] - kwargs["started_at"]) == (3, 120)
