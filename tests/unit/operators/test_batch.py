"""``CreatePredictionBatchOperator`` over its attempts: what is checked, sent, on record and handed over."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.submission import Submission
from tests.support.task_runner import Clock, TaskRunner, dag
from tests.unit.conftest import KEY

SCHNELL = "black-forest-labs/flux-schnell"
SCHEMA = {"properties": {"prompt": {"type": "string"}, "seed": {"type": "integer"}}, "required": ["prompt"]}
REFUSED = '{"error": {"message": "refused by the model", "type": "comet_api_error", "code": "invalid_request"}}'


def inputs(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt} for prompt in prompts]


def operator(given: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    options = {"task_id": "create", "model": SCHNELL, "max_in_flight": 1, "retries": 2, **options}
    with dag():
        return CreatePredictionBatchOperator(inputs=given, **options)


def bought(comet: Emulator) -> list[str]:
    """The prompts that were accepted, in this order."""
    return [one["input"]["prompt"] for one in comet.ledger()["creates"]]


def ids(comet: Emulator, prompts: Sequence[str]) -> list[str]:
    """The id of each prompt; of a prompt that was bought twice, the newest."""
    known = {one["input"]["prompt"]: one["id"] for one in comet.ledger()["creates"]}
    return [known[prompt] for prompt in prompts]


def refuse(comet: Emulator, count: int = 1) -> None:
    comet.fault(method="POST", status=400, body=REFUSED, count=count)


def lose(comet: Emulator, count: int = 1) -> None:
    """The next creates are accepted and billed; what comes back says nothing about it."""
    comet.fault(method="POST", status=504, accept=True, body="gateway", count=count)


# ---------------------------------------------------------------------------------------------------------------------
# One attempt


@pytest.mark.parametrize("max_in_flight", [1, 8])
def test_returns_the_ids_in_order(comet: Emulator, runner: TaskRunner, clock: Clock, max_in_flight: int) -> None:
    """The list is aligned with the inputs, however many are on their way at once; nothing is rejected."""
    prompts = [f"picture {number}" for number in range(20)]
    outcome = runner.run(operator(inputs(*prompts), max_in_flight=max_in_flight))
    assert (outcome.state, outcome.error) == ("success", None)
    assert outcome.result == ids(comet, prompts)
    assert sorted(bought(comet)) == sorted(prompts)
    assert outcome.xcoms["rejected"] == []
    assert outcome.xcoms["model"] == SCHNELL
    assert "created" not in outcome.xcoms


def test_the_list_may_come_from_a_task(comet: Emulator, runner: TaskRunner) -> None:
    """The output of a mapped task is read in one piece; a tuple does as well."""
    assert len(runner.run(operator(tuple(inputs("a", "b")))).result) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "inputs is an empty list"),
        ('[{"prompt": "a"}]', "inputs must be a list of inputs; if a template rendered it to text"),
        ({"prompt": "a"}, "inputs must be a list of inputs"),
        (None, "inputs must be a list of inputs"),
    ],
)
def test_what_is_no_list_is_refused(comet: Emulator, runner: TaskRunner, given: Any, words: str) -> None:
    """Nothing is sent, and the error says what was given."""
    outcome = runner.run(operator(given))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_wrong_model_is_named_once(comet: Emulator, runner: TaskRunner) -> None:
    """It is wrong for all inputs, and they have nothing to do with it."""
    outcome = runner.run(operator(inputs("a", "b"), model="flux"))
    assert outcome.message.count("model must be 'owner/name'") == 1
    assert "inputs[" not in outcome.message
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"on_item_error": "skip"}, "on_item_error must be 'fail' or 'keep', not 'skip'"),
        ({"on_ambiguous_submit": "ask"}, "on_ambiguous_submit must be 'fail' or 'retry', not 'ask'"),
    ],
)
def test_bad_options_are_refused_at_parse(options: dict[str, Any], words: str) -> None:
    """The DAG does not load, and says why."""
    with pytest.raises(ValueError, match=words):
        operator(inputs("a"), **options)


def test_all_inputs_are_checked_before_the_first_is_paid_for(comet: Emulator, runner: TaskRunner) -> None:
    """One bad input of three: nothing is sent, and every bad one is listed with what is wrong."""
    given = [{"prompt": "a"}, {"prompt": 3}, {"prompt": "c", "seed": "4"}, {}]
    outcome = runner.run(operator(given, input_schema=SCHEMA))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "3 of 4; 1 more were not sent" in outcome.message
    assert "inputs[1]" in outcome.message
    assert "input.prompt must be text; got 3" in outcome.message
    assert "inputs[2]" in outcome.message
    assert "render_template_as_native_obj" in outcome.message
    assert "inputs[3] {}: Not sent, nothing was paid: input must be a non-empty JSON object" in outcome.message
    assert comet.ledger()["requests"] == []
    assert outcome.xcoms["created"] == [None] * 4
    assert runner.store == {}


def test_bad_inputs_can_be_left_out(comet: Emulator, runner: TaskRunner) -> None:
    """Null stands in their place, and what is wrong with them in XCom."""
    given = [{"prompt": 3}, {"prompt": "b"}]
    outcome = runner.run(operator(given, input_schema=SCHEMA, on_item_error="keep"))
    assert outcome.state == "success"
    assert outcome.result == [None, *ids(comet, ["b"])]
    (rejected,) = outcome.xcoms["rejected"]
    assert (rejected["index"], rejected["type"]) == (0, "InputSchemaError")
    assert "input.prompt must be text" in rejected["error"]


def test_a_schema_is_compiled_once(
    comet: Emulator, runner: TaskRunner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making a check takes fifty times as long as doing it."""
    from jsonschema import Draft202012Validator

    compiled = []
    original = Draft202012Validator.check_schema
    monkeypatch.setattr(
        Draft202012Validator, "check_schema", lambda schema: compiled.append(schema) or original(schema)
    )
    assert runner.run(operator(inputs(*map(str, range(30))), input_schema=SCHEMA)).state == "success"
    assert len(compiled) == 1


def test_unknown_keys_are_named_once(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A typing error in a thousand inputs is one line."""
    caplog.set_level("INFO")
    runner.run(operator([{"prompt": str(number), "sed": 1} for number in range(3)], input_schema=SCHEMA))
    said = caplog.text + "".join(capfd.readouterr())
    assert said.count("In 3 inputs: input.sed is not a parameter that input_schema knows") >= 1
    assert said.count("input.sed") == said.count("In 3 inputs: input.sed")


def test_a_refused_input_does_not_stop_the_others(comet: Emulator, runner: TaskRunner) -> None:
    """All others are submitted; then the task fails and lists it. What was accepted is in XCom."""
    refuse(comet)
    outcome = runner.run(operator(inputs("a", "b", "c")))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert 'inputs[0] {"prompt": "a"}: CometAPI rejected the request (HTTP 400' in outcome.message
    assert "clear the task: what was accepted is on record" in outcome.message
    assert bought(comet) == ["b", "c"]
    assert outcome.xcoms["created"] == [None, *ids(comet, ["b", "c"])]
    assert "return_value" not in outcome.xcoms


def test_a_refused_input_can_be_left_out(comet: Emulator, runner: TaskRunner) -> None:
    """With ``on_item_error="keep"`` the task succeeds with what there is."""
    refuse(comet)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, outcome.result) == ("success", [None, *ids(comet, ["b"])])
    assert [one["type"] for one in outcome.xcoms["rejected"]] == ["BadRequestError"]


def test_nothing_at_all_is_no_success(comet: Emulator, runner: TaskRunner) -> None:
    """If no input was accepted there is nothing to go on with."""
    refuse(comet, 2)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
def test_a_wrong_key_stops_the_batch(
    comet: Emulator, runner: TaskRunner, connection: Callable[..., None], on_item_error: str
) -> None:
    """What is wrong for all is asked once, not a thousand times."""
    connection(host=comet.base_url, password="sk-another-0123456789")
    outcome = runner.run(operator(inputs(*map(str, range(50))), on_item_error=on_item_error))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "1 of 50; 49 more were not sent" in outcome.message
    assert "CometAPI refused the API key" in outcome.message
    assert len(comet.ledger()["requests"]) == 1
    assert "sk-another" not in outcome.message


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
def test_trouble_that_may_pass_is_left_to_a_retry(
    comet: Emulator, runner: TaskRunner, clock: Clock, on_item_error: str
) -> None:
    """A retry submits what is missing, so the task does not go on without it, whatever is to be kept."""
    comet.fault(method="POST", status=429, count=None)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error=on_item_error))
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "BatchError")
    comet.clear_faults()
    assert runner.run(operator(inputs("a", "b"), on_item_error=on_item_error), try_number=2).state == "success"
    assert bought(comet) == ["a", "b"]


def test_a_429_slows_all(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """Its pause counts for every create, not only for the one that was answered."""
    comet.fault(method="POST", status=429, headers={"Retry-After": "40"}, count=1)
    outcome = runner.run(operator(inputs("a", "b", "c"), max_in_flight=1))
    assert outcome.state == "success"
    assert max(clock.sleeps) >= 40
    assert len([one for one in comet.ledger()["requests"] if one["status"] == 429]) == 1


def test_a_thousand_inputs(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """No value in Airflow grows too large, and the store is asked two times for each input, and three times for all."""
    prompts = [f"picture {number} of a long and winding story" for number in range(1000)]
    outcome = runner.run(operator(inputs(*prompts), max_in_flight=8))
    assert outcome.result == ids(comet, prompts)
    assert max(len(json.dumps(value)) for value in runner.store.values()) < 65_535
    assert len(json.dumps(outcome.result)) < 48_000
    assert sum("/store/" in one for one in runner.asked) == 2 * 1000 + 3


def test_neither_key_nor_prompt_in_the_log(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each accepted create is one line, by which spending is counted; progress is told."""
    caplog.set_level("INFO")
    outcome = runner.run(operator(inputs("nobody has to know", "nor of this")))
    said = caplog.text + "".join(capfd.readouterr())
    for made in outcome.result:
        assert f"comet.created id={made} model={SCHNELL} dag=dag run=run task=create map=-1 try=1 reason=first" in said
    assert "2 of 2 inputs submitted" in said
    assert KEY not in said
    assert "nobody has to know" not in caplog.text


def test_a_key_that_the_server_echoes_stays_out(comet: Emulator, runner: TaskRunner) -> None:
    """Not in XCom, not on record, not in the error."""
    said = f"refused: Authorization: Bearer {KEY}"
    comet.fault(method="POST", status=400, body=json.dumps({"error": {"message": said, "code": KEY}}), count=1)
    outcome = runner.run(operator(inputs("a", "b")))
    assert "refused" in outcome.xcoms["rejected"][0]["error"]
    assert KEY not in json.dumps([outcome.xcoms, runner.store, outcome.message])


# ---------------------------------------------------------------------------------------------------------------------
# The next attempt


def test_a_retry_submits_only_what_is_missing(comet: Emulator, runner: TaskRunner) -> None:
    """After a failure in the middle the next try goes on with what was accepted."""
    given = inputs("a", "b", "c")
    refuse(comet)
    assert runner.run(operator(given)).state == "failed"
    outcome = runner.run(operator(given), try_number=2, max_tries=3)
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
    """A clear asks for new ones; an automatic retry after the hand-over does not."""
    given = inputs("a", "b")
    first = runner.run(operator(given)).result
    assert runner.run(operator(given), try_number=2).result == first
    again = runner.run(operator(given), try_number=3, max_tries=3).result
    assert not {*again} & {*first}
    assert runner.run(operator(given), try_number=4, max_tries=3).result == again
    assert bought(comet) == ["a", "b", "a", "b"]


def test_a_crash_after_a_clear_buys_each_once(comet: Emulator, runner: TaskRunner) -> None:
    """Cleared after success, ended in the middle, retried: what was bought since is kept, the rest is bought."""
    given = inputs("a", "b", "c")
    runner.run(operator(given))
    refuse(comet)
    assert runner.run(operator(given), try_number=2, max_tries=3).state == "failed"
    assert runner.run(operator(given), try_number=3, max_tries=3).state == "success"
    assert bought(comet) == ["a", "b", "c", "b", "c", "a"]


def test_another_model_is_bought(comet: Emulator, runner: TaskRunner) -> None:
    """A list never comes back half from one model and half from another."""
    refuse(comet)
    runner.run(operator(inputs("bad", "a")))
    outcome = runner.run(operator(inputs("a"), model="black-forest-labs/flux-dev"), try_number=2, max_tries=3)
    assert outcome.state == "success"
    assert [one["model"] for one in comet.ledger()["creates"]] == [SCHNELL, "black-forest-labs/flux-dev"]


def test_a_lost_answer_is_listed_and_not_repeated(comet: Emulator, runner: TaskRunner) -> None:
    """Nobody knows whether it was accepted: the others are submitted, and a retry does not send it again."""
    given = inputs("a", "b", "c")
    lose(comet)
    outcome = runner.run(operator(given))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert 'inputs[0] {"prompt": "a"} (record comet_submission.' in outcome.message
    assert "it may have been accepted and billed" in outcome.message
    again = runner.run(operator(given), try_number=2)
    assert (again.state, bought(comet)) == ("failed", ["a", "b", "c"])
    assert again.message.count("it may have been accepted and billed") == 1


def test_a_lost_answer_can_be_left_out(comet: Emulator, runner: TaskRunner) -> None:
    """With ``on_item_error="keep"`` null stands in its place."""
    lose(comet)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, outcome.result) == ("success", [None, *ids(comet, ["b"])])
    assert [one["type"] for one in outcome.xcoms["rejected"]] == ["AmbiguousSubmissionError"]


def test_a_lost_answer_can_be_risked(comet: Emulator, runner: TaskRunner) -> None:
    """With ``on_ambiguous_submit="retry"`` Airflow's next try submits it again, and nothing else."""
    given = inputs("a", "b")
    lose(comet)
    outcome = runner.run(operator(given, on_ambiguous_submit="retry"))
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "BatchError")
    assert runner.run(operator(given, on_ambiguous_submit="retry"), try_number=2).state == "success"
    assert bought(comet) == ["a", "b", "a"]


def test_a_clear_submits_a_lost_one_again(comet: Emulator, runner: TaskRunner) -> None:
    """A person has looked: only the open one is submitted."""
    given = inputs("a", "b")
    lose(comet)
    runner.run(operator(given))
    assert runner.run(operator(given), try_number=2, max_tries=3).state == "success"
    assert bought(comet) == ["a", "b", "a"]


def test_a_person_may_know_the_id(comet: Emulator, runner: TaskRunner) -> None:
    """Written into the record that the error names, it is used, and nothing is bought."""
    given = inputs("a", "b")
    lose(comet)
    outcome = runner.run(operator(given))
    (key,) = [word.rstrip("):") for word in outcome.message.split() if word.startswith("comet_submission.")]
    known = ids(comet, ["a"])[0]
    runner.store[f"create/-1/{key}"] = {"version": 1, "state": "accepted", "id": known}
    again = runner.run(operator(given), try_number=2, max_tries=3)
    assert again.result == ids(comet, ["a", "b"])
    assert bought(comet) == ["a", "b"]


def test_lost_answers_in_a_row_stop_the_batch(comet: Emulator, runner: TaskRunner) -> None:
    """A gateway that loses every answer must not be fed a thousand creates."""
    lose(comet, 50)
    outcome = runner.run(operator(inputs(*map(str, range(50)))))
    assert outcome.state == "failed"
    assert "2 of 50; 48 more were not sent" in outcome.message
    assert comet.ledger()["accepted"] == 2


def test_open_ones_of_an_earlier_attempt_do_not_stop_the_rest(comet: Emulator, runner: TaskRunner) -> None:
    """Eight that a crash has left open are eight to look at; all others are submitted."""
    given = inputs("a", "b", "c", "d")
    lose(comet, 2)
    assert runner.run(operator(given)).state == "failed"
    again = runner.run(operator(given), try_number=2)
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
    named = [one for one in ids(comet, paid) if one in first.message]
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
    from airflow_provider_comet.submissions import batch_submission

    original, create, begun = batch_submission.wait, CometReplicateHook.create_prediction, []

    def counted(hook: Any, model: str, input: dict[str, Any], **options: Any) -> Any:
        begun.append(input)
        return create(hook, model, input, **options)

    def late(pending: Any, *args: Any) -> Any:
        original(list(pending)[:1], *args)
        raise AirflowTaskTimeout("execution_timeout")

    prompts = [*map(str, range(300))]
    with monkeypatch.context() as patch:
        patch.setattr(batch_submission, "wait", late)
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


def test_it_logs_at_warning_what_failed(
    comet: Emulator,
    runner: TaskRunner,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """All reasons are in the log, also those that a long message leaves out."""
    caplog.set_level(logging.WARNING)
    refuse(comet, 60)
    outcome = runner.run(operator(inputs(*map(str, range(60))), on_item_error="keep"))
    assert "... and 10 more: all of them are in the log." in outcome.message
    said = caplog.text + "".join(capfd.readouterr())
    assert all(f'inputs[{number}] {{"prompt": "{number}"}}: CometAPI rejected' in said for number in range(60))
