"""``submissions/submission.py`` over the attempts of a task: what is on record, what is sent, what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions.creates import SCHNELL, interrupt, operator, to_the_end, waiting

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


@pytest.mark.parametrize("flag", ["killed", "stopped"])
def test_what_is_stopped_while_its_intent_is_written_is_not_sent(
    comet: Emulator, runner: TaskRunner, flag: str
) -> None:
    """The store may take minutes: a kill, or another create's error, still keeps the POST from being sent."""

    def stop(method: str, value: Any) -> int:
        if method == "PUT" and value["state"] == "sending":
            setattr(runner.running._submission.stop, flag, True)
        return 200

    runner.on_store = stop
    outcome = runner.run(operator())
    assert type(outcome.error).__name__ == {"killed": "AirflowException", "stopped": "BatchStopped"}[flag]
    assert (runner.record()["state"], comet.ledger()["requests"]) == ("rejected", [])


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
# Retries and clears of what was accepted


def test_an_accepted_prediction_is_handed_over_by_any_attempt(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, counted: list[Any]
) -> None:
    """Retry or clear: the recorded id, without a request; a changed input of a retry is named by its keys."""
    caplog.set_level("INFO")
    changed = {"prompt": "a windmill", "seed": 7}
    for input, options in ((changed, {"try_number": 2}), (None, {"try_number": 2, "max_tries": 5})):
        made = runner.run(operator()).result
        runner.store["create/-1/comet_submission"]["state"] = "accepted"  # it died before it handed over
        comet.reset()
        again = runner.run(operator(**({"input": input} if input else {})), **options)
        assert (again.state, again.result) == ("success", made)
        assert comet.ledger()["requests"] == []
        assert runner.record()["state"] == "delivered"
        assert runner.record()["max_tries"] == options.get("max_tries", 2)
        assert "changed: input.prompt, input.seed" in caplog.text
        assert "delete comet_submission from the task's state store and clear the task" in caplog.text
        assert "windmill" not in caplog.text
        runner.store.clear()
    assert counted.count(("comet.reattached", {"model": SCHNELL})) == 2


def test_a_delivered_prediction_is_bought_again_by_a_clear_only(
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
    """What one instance has paid for does not matter to another."""
    ids = [runner.run(operator(), map_index=index).result for index in range(3)]
    assert len(set(ids)) == 3
    again = [runner.run(operator(), map_index=index, try_number=2).result for index in range(3)]
    assert again == ids


def test_from_airflow_3_4_on_a_record_that_is_there_is_used(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a clear empties the store itself, unless the user keeps it to get the result that was paid."""
    from airflow_provider_comet.submissions import stored_record

    monkeypatch.setattr(stored_record, "CLEAR_EMPTIES_STORE", True)
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
# XCom `prediction_id`


def test_the_id_is_in_xcom_between_acceptance_and_delivery(comet: Emulator, runner: TaskRunner) -> None:
    """It comes right after the record, so that a wait or a hand-over that never ends has left it there, too."""
    seen: list[tuple[str, list[Any]]] = []

    def see(method: str, value: Any) -> int:
        if method == "PUT":
            seen.append((value["state"], [value for name, value in runner.xcoms.items() if "prediction_id" in name]))
        return 200

    runner.on_store = see
    made = runner.run(operator()).result
    assert seen == [("sending", []), ("accepted", []), ("delivered", [made])]


@pytest.mark.usefixtures("no_store")
def test_without_a_store_xcom_has_the_id(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow before 3.3: it is the only place in the database if the task ends before it hands the id over."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    monkeypatch.setattr(CreatePredictionOperator, "_hand_over", interrupt)
    outcome = runner.run(operator())
    (made,) = comet.ledger()["creates"]
    assert outcome.state == "failed"
    assert outcome.xcoms["prediction_id"] == made["id"]
    assert "return_value" not in outcome.xcoms
    assert runner.store == {}
