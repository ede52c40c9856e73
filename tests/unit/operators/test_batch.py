"""``CreatePredictionBatchOperator``: what one attempt checks, sends and hands over."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, TaskRunner, dag, run_sensor
from tests.unit.conftest import KEY
from tests.unit.submissions.batches import SCHEMA, SCHNELL, bought, ids, inputs, lose, operator, refuse
from tests.unit.test_docs import blocks, loaded


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
    """The output of a mapped task is read in one piece; a tuple works as well."""
    assert len(runner.run(operator(tuple(inputs("a", "b")))).result) == 2


@pytest.mark.parametrize(
    ("batch_inputs", "words"),
    [
        ([], "inputs is an empty list"),
        ('[{"prompt": "a"}]', "inputs must be a list of inputs; if a template rendered it to text"),
        ({"prompt": "a"}, "inputs must be a list of inputs"),
        (None, "inputs must be a list of inputs"),
    ],
)
def test_what_is_no_list_is_refused(comet: Emulator, runner: TaskRunner, batch_inputs: Any, words: str) -> None:
    """Nothing is sent, and the error says what was given."""
    outcome = runner.run(operator(batch_inputs))
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
    batch_inputs = [{"prompt": "a"}, {"prompt": 3}, {"prompt": "c", "seed": "4"}, {}]
    outcome = runner.run(operator(batch_inputs, input_schema=SCHEMA))
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
    batch_inputs = [{"prompt": 3}, {"prompt": "b"}]
    outcome = runner.run(operator(batch_inputs, input_schema=SCHEMA, on_item_error="keep"))
    assert outcome.state == "success"
    assert outcome.result == [None, *ids(comet, ["b"])]
    (rejected,) = outcome.xcoms["rejected"]
    assert (rejected["index"], rejected["type"]) == (0, "InputSchemaError")
    assert "input.prompt must be text" in rejected["error"]


def test_there_is_a_label_for_each_position(comet: Emulator, runner: TaskRunner) -> None:
    """Also for inputs that are refused, so that label and id of an input have the same index."""
    batch_inputs = [{"prompt": 3}, {"prompt": "b", "seed": 1}, None, {}, {"prompt": "b", "seed": 2}]
    outcome = runner.run(operator(batch_inputs, input_schema=SCHEMA, on_item_error="keep"))
    assert outcome.xcoms["labels"] == ["3", "b seed=1", "", "", "b seed=2"]
    assert [prediction_id is None for prediction_id in outcome.result] == [True, False, True, True, False]


def test_labels_are_there_before_anything_is_paid(comet: Emulator, runner: TaskRunner) -> None:
    """If one bad input stops the batch, the labels say what it was asked for."""
    outcome = runner.run(operator([{"prompt": "a"}, {"prompt": 3}], input_schema=SCHEMA))
    assert (outcome.state, outcome.xcoms["labels"]) == ("failed", ["a", "3"])
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize("key", ["model", "labels"])
def test_nothing_is_paid_if_an_early_xcom_fails(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Whatever can fail by itself comes before the first create."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def fail(ti: Any, key: str, value: Any, failing: str = key) -> None:
        if key == failing:
            raise RuntimeError("no XCom today")

    monkeypatch.setattr(RuntimeTaskInstance, "xcom_push", fail)
    assert runner.run(operator(inputs("a", "b"))).state == "up_for_retry"
    assert comet.ledger()["accepted"] == 0


def test_a_retry_and_each_instance_push_labels(comet: Emulator, runner: TaskRunner) -> None:
    """A try that submits only what is missing has all labels; a mapped batch has those of its own inputs."""
    comet.fault(method="POST", status=400, body="{}", count=1)
    assert runner.run(operator(inputs("a", "b")), map_index=1).state == "failed"
    runner.xcoms.clear()
    again = runner.run(operator(inputs("a", "b")), map_index=1, try_number=2)
    assert (again.state, again.xcoms["labels"]) == ("success", ["a", "b"])
    assert sorted(bought(comet)) == ["a", "b"]


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
    """With ``on_item_error="keep"`` the task succeeds with the predictions that were accepted."""
    refuse(comet)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, outcome.result) == ("success", [None, *ids(comet, ["b"])])
    assert [item["type"] for item in outcome.xcoms["rejected"]] == ["BadRequestError"]


def test_nothing_at_all_is_no_success(comet: Emulator, runner: TaskRunner) -> None:
    """If no input was accepted there is nothing to continue with."""
    refuse(comet, 2)
    outcome = runner.run(operator(inputs("a", "b"), on_item_error="keep"))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")


@pytest.mark.parametrize("how", ["refused here", "answer lost"])
def test_keep_needs_a_prediction(comet: Emulator, runner: TaskRunner, how: str) -> None:
    """With ``on_item_error="keep"`` the task fails if no input has a prediction, whatever the reason is."""
    lose(comet)
    batch = inputs("a") if how == "answer lost" else [{"prompt": 3}, {}]
    outcome = runner.run(operator(batch, input_schema=SCHEMA, on_item_error="keep"))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert len(outcome.xcoms["rejected"]) == len(batch)
    assert "return_value" not in outcome.xcoms


@pytest.mark.parametrize("on_item_error", ["fail", "keep"])
def test_a_wrong_key_stops_the_batch(
    comet: Emulator, runner: TaskRunner, connection: Callable[..., None], on_item_error: str
) -> None:
    """What is wrong for all inputs is sent once, not a thousand times."""
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
    """A retry submits what is missing, so the task does not continue without it, whatever is to be kept."""
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
    assert len([request for request in comet.ledger()["requests"] if request["status"] == 429]) == 1


def test_a_thousand_inputs(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """No value in Airflow grows too large, and the store is asked two times for each input, and three times for all."""
    prompts = [f"picture {number} of a long and winding story" for number in range(1000)]
    outcome = runner.run(operator(inputs(*prompts), max_in_flight=8))
    assert outcome.result == ids(comet, prompts)
    assert max(len(json.dumps(value)) for value in runner.store.values()) < 65_535
    assert len(json.dumps(outcome.result)) < 48_000
    assert sum("/store/" in request for request in runner.asked) == 2 * 1000 + 3


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


# Several batches


@pytest.mark.parametrize("mode", MODES)
def test_batches_that_are_mapped_over_lists(
    comet: Emulator, runner: TaskRunner, clock: Clock, tmp_path: Path, mode: str
) -> None:
    """As docs/batches.md shows it, one task stores all; one sensor waits for all. Both keep the order."""
    (code,) = [block.values[0] for block in blocks("python") if "create_each" in block.values[0]]
    made, names = loaded(code.replace("file:///tmp/comet-pictures", f"file://{tmp_path}"))
    with made:
        sensor = names["PredictionSensor"](task_id="wait", prediction_id=names["created"].output, **MODES[mode])
    prompts = ["a fox", "a hare", "an owl"]
    outcomes = [runner.run(made.task_dict["create_each"], map_index=index) for index in range(2)]
    assert [outcome.state for outcome in outcomes] == ["success"] * 2
    runner.mapped["create_each"] = [outcome.result for outcome in outcomes]
    runner.instances["create_each"] = 2
    wait = run_sensor(runner, sensor, clock)
    assert (wait.state, wait.error) == ("success", None)
    assert [result["id"] for result in wait.result] == ids(comet, prompts)
    stored = runner.run(made.task_dict["store_each"])
    assert (stored.state, stored.error) == ("success", None)
    assert [result["prediction_id"] for result in stored.result] == ids(comet, prompts)
    assert comet.ledger()["accepted"] == 3


def test_a_store_takes_mapped_batches_without_a_sensor(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """Ids instead of results: a list of lists with a null in it."""
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    batches = [inputs("a", "b"), inputs("c")]
    with dag():
        create = CreatePredictionBatchOperator.partial(task_id="create", model=SCHNELL).expand(inputs=batches)
        store = DownloadPredictionOutputOperator(task_id="store", prediction=create.output, output_path=str(tmp_path))
    results = [runner.run(create, map_index=index).result for index in range(2)]
    runner.mapped["create"], runner.instances["create"] = [[*results[0], None], results[1]], 2
    stored = runner.run(store)
    made = [result and result["prediction_id"] for result in stored.result]
    assert made == [*ids(comet, ["a", "b"]), None, *ids(comet, ["c"])]
