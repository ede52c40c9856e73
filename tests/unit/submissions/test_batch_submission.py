"""``submissions/batch_submission.py``: what the next attempt submits, and what a lost store or process costs."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.submission import Submission
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions.batches import SCHNELL, bought, ids, inputs, lose, operator, refuse

# ---------------------------------------------------------------------------------------------------------------------
# The next attempt


def test_a_retry_submits_only_what_is_missing(comet: Emulator, runner: TaskRunner) -> None:
    """After a failure in the middle the next try continues with what was accepted."""
    batch_inputs = inputs("a", "b", "c")
    refuse(comet)
    assert runner.run(operator(batch_inputs)).state == "failed"
    outcome = runner.run(operator(batch_inputs), try_number=2, max_tries=3)
    assert outcome.result == ids(comet, ["a", "b", "c"])
    assert bought(comet) == ["b", "c", "a"]


def test_an_input_in_front_buys_nothing_again(comet: Emulator, runner: TaskRunner) -> None:
    """What was paid for is found by what it is, so a longer, shorter or sorted list costs what is new in it."""
    refuse(comet)
    assert runner.run(operator(inputs("bad", "a", "b"))).state == "failed"
    outcome = runner.run(operator(inputs("new", "b", "a")), try_number=2, max_tries=3)
    assert outcome.result == ids(comet, ["new", "b", "a"])
    assert bought(comet) == ["a", "b", "new"]


def test_equal_inputs_are_bought_as_often_as_they_are_there(comet: Emulator, runner: TaskRunner) -> None:
    """Not once for all, and not again in the next attempt."""
    refuse(comet)
    assert runner.run(operator(inputs("bad", "a", "a"))).state == "failed"
    outcome = runner.run(operator(inputs("a", "a", "a")), try_number=2, max_tries=3)
    assert outcome.state == "success"
    assert len({*outcome.result}) == 3
    assert bought(comet) == ["a", "a", "a"]


def test_only_records_that_are_used_are_reattached(
    comet: Emulator, runner: TaskRunner, counted: list[tuple[str, dict[str, str]]]
) -> None:
    """Of two equal inputs one is left: one prediction is used and counted, and the other record stays as it was."""
    refuse(comet)
    runner.run(operator(inputs("bad", "a", "a")))
    assert runner.run(operator(inputs("a")), try_number=2, max_tries=3).state == "success"
    assert [stat for stat, _ in counted].count("comet.reattached") == 1
    records = [value for value in runner.store.values() if value.get("state") == "accepted"]
    assert sorted(record["max_tries"] for record in records) == [2, 3]


def test_the_list_of_records_is_written_before_anything_is_sent(comet: Emulator, runner: TaskRunner) -> None:
    """A process that dies right after its first create leaves a list in which the next attempt finds the record."""
    written: list[tuple[str, int]] = []

    def see(method: str, value: Any) -> int:
        if method == "PUT":
            written.append((value.get("state", "list"), comet.ledger()["accepted"]))
        return 200

    runner.on_store = see
    assert runner.run(operator(inputs("a"))).state == "success"
    assert written == [("list", 0), ("sending", 0), ("accepted", 1), ("list", 1)]


def test_a_paid_input_that_is_gone_is_named(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its prediction was paid for and never handed over: the log says under which id it can be had."""
    refuse(comet)
    runner.run(operator(inputs("bad", "a")))
    caplog.set_level("INFO")
    assert runner.run(operator(inputs("b")), try_number=2, max_tries=3).state == "success"
    said = caplog.text + "".join(capfd.readouterr())
    assert f"Prediction {ids(comet, ['a'])[0]} was paid for and never handed over" in said


def test_a_clear_of_what_was_handed_over_buys_again(comet: Emulator, runner: TaskRunner) -> None:
    """A clear buys new ones; an automatic retry after the hand-over does not."""
    batch_inputs = inputs("a", "b")
    first = runner.run(operator(batch_inputs)).result
    assert runner.run(operator(batch_inputs), try_number=2).result == first
    again = runner.run(operator(batch_inputs), try_number=3, max_tries=3).result
    assert not {*again} & {*first}
    assert runner.run(operator(batch_inputs), try_number=4, max_tries=3).result == again
    assert bought(comet) == ["a", "b", "a", "b"]


def test_a_crash_after_a_clear_buys_each_once(comet: Emulator, runner: TaskRunner) -> None:
    """Cleared after success, ended in the middle, retried: what was bought since is kept, the rest is bought."""
    batch_inputs = inputs("a", "b", "c")
    runner.run(operator(batch_inputs))
    refuse(comet)
    assert runner.run(operator(batch_inputs), try_number=2, max_tries=3).state == "failed"
    assert runner.run(operator(batch_inputs), try_number=3, max_tries=3).state == "success"
    assert bought(comet) == ["a", "b", "c", "b", "c", "a"]


def test_another_model_is_bought(comet: Emulator, runner: TaskRunner) -> None:
    """A list is never half from one model and half from another."""
    refuse(comet)
    runner.run(operator(inputs("bad", "a")))
    outcome = runner.run(operator(inputs("a"), model="black-forest-labs/flux-dev"), try_number=2, max_tries=3)
    assert outcome.state == "success"
    assert [create["model"] for create in comet.ledger()["creates"]] == [SCHNELL, "black-forest-labs/flux-dev"]


def test_a_lost_answer_is_listed_and_not_repeated(comet: Emulator, runner: TaskRunner) -> None:
    """Nobody knows whether it was accepted: the others are submitted, and a retry does not send it again."""
    batch_inputs = inputs("a", "b", "c")
    lose(comet)
    outcome = runner.run(operator(batch_inputs))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert 'inputs[0] {"prompt": "a"} (record comet_submission.' in outcome.message
    assert "it may have been accepted and billed" in outcome.message
    again = runner.run(operator(batch_inputs), try_number=2)
    assert (again.state, bought(comet)) == ("failed", ["a", "b", "c"])
    assert again.message.count("it may have been accepted and billed") == 1


def test_a_lost_answer_can_be_left_out(comet: Emulator, runner: TaskRunner) -> None:
    """With ``on_item_error="keep"`` null stands in its place."""
    lose(comet)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, outcome.result) == ("success", [None, *ids(comet, ["b"])])
    assert [item["type"] for item in outcome.xcoms["rejected"]] == ["AmbiguousSubmissionError"]


def test_a_lost_answer_can_be_risked(comet: Emulator, runner: TaskRunner) -> None:
    """With ``on_ambiguous_submit="retry"`` Airflow's next try submits it again, and nothing else."""
    batch_inputs = inputs("a", "b")
    lose(comet)
    outcome = runner.run(operator(batch_inputs, on_ambiguous_submit="retry"))
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "BatchError")
    assert runner.run(operator(batch_inputs, on_ambiguous_submit="retry"), try_number=2).state == "success"
    assert bought(comet) == ["a", "b", "a"]


def test_a_clear_submits_a_lost_one_again(comet: Emulator, runner: TaskRunner) -> None:
    """A person has checked: only the open one is submitted."""
    batch_inputs = inputs("a", "b")
    lose(comet)
    runner.run(operator(batch_inputs))
    assert runner.run(operator(batch_inputs), try_number=2, max_tries=3).state == "success"
    assert bought(comet) == ["a", "b", "a"]


def test_a_person_may_know_the_id(comet: Emulator, runner: TaskRunner) -> None:
    """Written into the record that the error names, it is used, and nothing is bought."""
    batch_inputs = inputs("a", "b")
    lose(comet)
    outcome = runner.run(operator(batch_inputs))
    (key,) = [word.rstrip("):") for word in outcome.message.split() if word.startswith("comet_submission.")]
    known = ids(comet, ["a"])[0]
    runner.store[f"create/-1/{key}"] = {"version": 1, "state": "accepted", "id": known}
    again = runner.run(operator(batch_inputs), try_number=2, max_tries=3)
    assert again.result == ids(comet, ["a", "b"])
    assert bought(comet) == ["a", "b"]


@pytest.mark.parametrize("status", [409, 413, 414, 415, 418, 422, 431, 451])
def test_a_web_page_about_one_input_does_not_stop_the_others(status: int, comet: Emulator, runner: TaskRunner) -> None:
    """A proxy's page says by its status that this input was refused: it is no wrong base URL, which stops a batch."""
    comet.fault(method="POST", status=status, body="<html><title>Too Large</title></html>", count=1)
    outcome = runner.run(operator(inputs(*"abcdef"), on_item_error="keep"))
    assert (outcome.state, outcome.result) == ("success", [None, *ids(comet, "bcdef")])
    (item,) = outcome.xcoms["rejected"]
    assert item["type"] == "BadRequestError"
    assert "a web page came back, titled 'Too Large'" in item["error"]


def test_a_web_page_of_another_site_stops_the_batch(comet: Emulator, runner: TaskRunner) -> None:
    """A 404 page comes from a wrong base URL: every other input would meet it, too."""
    comet.fault(method="POST", status=404, body="<html><title>Not Found</title></html>", count=None)
    outcome = runner.run(operator(inputs(*"abcdef")))
    assert outcome.state == "failed"
    assert "1 of 6; 5 more were not sent" in outcome.message
    assert "the base URL is wrong" in outcome.message


def test_lost_answers_in_a_row_stop_the_batch(comet: Emulator, runner: TaskRunner) -> None:
    """A gateway that loses every answer must not be fed a thousand creates."""
    lose(comet, 50)
    outcome = runner.run(operator(inputs(*map(str, range(50)))))
    assert outcome.state == "failed"
    assert "2 of 50; 48 more were not sent" in outcome.message
    assert comet.ledger()["accepted"] == 2


def test_open_ones_of_an_earlier_attempt_do_not_stop_the_rest(comet: Emulator, runner: TaskRunner) -> None:
    """Eight that a crash has left open are eight to check; all others are submitted."""
    batch_inputs = inputs("a", "b", "c", "d")
    lose(comet, 2)
    assert runner.run(operator(batch_inputs)).state == "failed"
    again = runner.run(operator(batch_inputs), try_number=2)
    assert bought(comet) == ["a", "b", "c", "d"]
    assert again.message.count("it may have been accepted and billed") == 2
    assert again.xcoms["created"] == [None, None, *ids(comet, ["c", "d"])]


# ---------------------------------------------------------------------------------------------------------------------
# The store, and the end of a process


def test_nothing_is_sent_without_a_record(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """While the store is away nothing is bought, and a retry finds out what it may do."""
    runner.on_store = lambda method, value: 422
    outcome = runner.run(operator(inputs("a", "b")))
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "SubmissionRecordError")
    assert comet.ledger()["accepted"] == 0


@pytest.mark.parametrize("lost", range(1, 9))
def test_a_store_that_goes_away(comet: Emulator, runner: TaskRunner, clock: Clock, lost: int) -> None:
    """Whatever write is lost for good: the next attempts end with each input bought once, or named as paid for."""
    writes = 0

    def see(method: str, value: Any) -> int:
        nonlocal writes
        writes += method == "PUT"
        return 422 if method == "PUT" and writes >= lost else 200

    runner.on_store = see
    first = runner.run(operator(inputs("a", "b", "c")))
    runner.on_store = lambda method, value: 200
    paid = bought(comet)
    again = runner.run(operator(inputs("a", "b", "c")), try_number=2)
    named = [prediction_id for prediction_id in ids(comet, paid) if prediction_id in first.message]
    assert again.state == "success" or named or "it may have been accepted" in again.message
    assert sorted(bought(comet)) == sorted({*bought(comet)})


def test_a_killed_batch_buys_nothing_more(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Airflow's signal does not end the process: what waits for a rate limit to pass must not be sent afterwards."""
    comet.fault(method="POST", status=429, count=1)
    clock.on_sleep = lambda seconds: runner.running.on_kill()
    killed = runner.run(operator(inputs("a", "b")))
    assert (killed.state, type(killed.error).__name__) == ("up_for_retry", "AirflowException")
    assert comet.ledger()["accepted"] == 0
    clock.on_sleep = lambda seconds: None
    assert runner.run(operator(inputs("a", "b")), try_number=2).state == "success"
    assert bought(comet) == ["a", "b"]


def test_a_timeout_of_the_task_keeps_what_was_bought(
    comet: Emulator, runner: TaskRunner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the ``execution_timeout`` what is on its way is answered and recorded, and nothing more is sent."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.polling import threads

    original, create, begun = threads.wait, CometReplicateHook.create_prediction, []

    def counted(hook: Any, model: str, input: dict[str, Any], **options: Any) -> Any:
        begun.append(input)
        return create(hook, model, input, **options)

    def late(pending: Any, *args: Any) -> Any:
        original(list(pending)[:1], *args)
        raise AirflowTaskTimeout("execution_timeout")

    prompts = [*map(str, range(300))]
    with monkeypatch.context() as patch:
        patch.setattr(threads, "wait", late)
        patch.setattr(CometReplicateHook, "create_prediction", counted)
        outcome = runner.run(operator(inputs(*prompts)))
    assert isinstance(outcome.error, AirflowTaskTimeout)
    assert 0 < len(bought(comet)) < 300
    assert len(begun) <= len(bought(comet)) + 1  # nor is any file read for what is not sent
    assert runner.run(operator(inputs(*prompts)), try_number=2).result == ids(comet, prompts)
    assert sorted(bought(comet)) == sorted(prompts)


def test_without_a_store_nothing_is_bought_by_a_retry_that_can_be_told(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow before 3.3 keeps no record: a batch of which some were accepted fails for good."""
    assert runner.run(operator(inputs("a", "b"))).state == "success"
    comet.fault(method="POST", status=429, count=None)
    assert runner.run(operator(inputs("c", "d"))).state == "up_for_retry"
    comet.clear_faults()

    accept = Submission.accepted

    def then_limited(submission: Submission, prediction_id: str) -> None:
        accept(submission, prediction_id)
        comet.fault(method="POST", status=429, count=None)

    monkeypatch.setattr(Submission, "accepted", then_limited)
    outcome = runner.run(operator(inputs("e", "f")))
    assert bought(comet) == ["a", "b", "e"]
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "keeps no record" in outcome.message
    assert outcome.xcoms["created"][0] is not None
