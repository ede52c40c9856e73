"""``submissions/submission.py``: a recorded prediction, and a task whose model or input is another one now."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag, event_of
from tests.unit.submissions.creates import operator, to_the_end, waiting

RETRY, CLEAR, SECOND_CLEAR = {"try_number": 2}, {"try_number": 2, "max_tries": 5}, {"try_number": 3, "max_tries": 8}
OTHER = "black-forest-labs/flux-dev"


def decorated(*, prompt: str, **options: Any) -> Any:
    from airflow_provider_comet.decorators.prediction import comet_prediction

    def create(prompt: str) -> dict[str, Any]:
        return {"prompt": prompt}

    options = {"model": "black-forest-labs/flux-schnell", "retries": 2, **options}
    with dag():
        return comet_prediction(**options)(create)(prompt=prompt).operator


def create(*, prompt: str = "a lighthouse", **options: Any) -> Any:
    return operator(input={"prompt": prompt}, **options)


def create_and_wait(*, prompt: str = "a lighthouse", **options: Any) -> Any:
    return waiting(input={"prompt": prompt}, **options)


TASKS = {"operator": create, "waits": create_and_wait, "decorator": decorated}


def left_accepted(runner: TaskRunner, task: Any, map_index: int) -> str:
    """Run a task that dies before it hands its prediction over, and return the prediction's id."""
    runner.run(task, map_index=map_index)
    record = runner.store[f"create/{map_index}/comet_submission"]
    record["state"] = "accepted"
    return str(record["id"])


def refused(outcome: Outcome, made: str) -> None:
    """Check that a task has failed for good, and says with which prediction and what to do."""
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert type(outcome.chain[-1]).__name__ == "ChangedInputError"
    for words in (f"Prediction {made}: ", "Restore the input", "PredictionSensor", "delete comet_submission"):
        assert words in outcome.message
    assert "windmill" not in outcome.message
    assert outcome.result is None


@pytest.mark.parametrize("state", ["accepted", "delivered"])
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("change", [{"prompt": "a windmill"}, {"prompt": "a lighthouse", "model": OTHER}], ids=str)
def test_a_mapped_instance_never_hands_over_another_items_prediction(
    comet: Emulator, runner: TaskRunner, kind: str, change: dict[str, Any], state: str
) -> None:
    """Its list begins with another item now: it fails at no cost, in a retry and as often as it is tried."""
    make = TASKS[kind]
    made = left_accepted(runner, make(prompt="a lighthouse"), 0)
    runner.store["create/0/comet_submission"]["state"] = state
    for number in (2, 3):
        refused(to_the_end(runner, make(**change), map_index=0, try_number=number), made)
    assert comet.ledger()["accepted"] == 1
    # The ways on: the old input, or a record that was deleted.
    assert to_the_end(runner, make(prompt="a lighthouse"), map_index=0, try_number=4).result == made
    del runner.store["create/0/comet_submission"]
    assert to_the_end(runner, make(**change), map_index=0, try_number=5).result not in (None, made)
    assert comet.ledger()["accepted"] == 2


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("map_index", [-1, 0, 3])
def test_a_cleared_task_with_another_input(comet: Emulator, runner: TaskRunner, kind: str, map_index: int) -> None:
    """A prediction that was not handed over stays paid for: each clear fails until the input is restored."""
    make = TASKS[kind]
    made = left_accepted(runner, make(prompt="a lighthouse"), map_index)
    before = dict(runner.record(map_index=map_index))
    for options in (CLEAR, SECOND_CLEAR):
        refused(to_the_end(runner, make(prompt="a windmill"), map_index=map_index, **options), made)
        assert runner.record(map_index=map_index) == before  # so that the next attempt knows of the clear, too
    restored = to_the_end(runner, make(prompt="a lighthouse"), map_index=map_index, **SECOND_CLEAR)
    assert (restored.result, comet.ledger()["accepted"]) == (made, 1)


@pytest.mark.parametrize("kind", TASKS)
def test_what_was_handed_over_is_bought_anew_by_a_clear(comet: Emulator, runner: TaskRunner, kind: str) -> None:
    """The old result is delivered: a recognised clear buys one for the item that is there now."""
    make = TASKS[kind]
    first = to_the_end(runner, make(prompt="a lighthouse"), map_index=0).result
    second = to_the_end(runner, make(prompt="a windmill"), map_index=0, **CLEAR).result
    assert second not in (None, first)
    assert comet.ledger()["creates"][-1]["input"] == {"prompt": "a windmill"}


@pytest.mark.parametrize("kind", TASKS)
def test_an_unmapped_retry_keeps_its_prediction(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Its input may hold the number of the try, or the date: the log names what has changed."""
    make = TASKS[kind]
    made = left_accepted(runner, make(prompt="a lighthouse"), -1)
    assert to_the_end(runner, make(prompt="a windmill"), **RETRY).result == made
    assert "changed: input.prompt" in caplog.text


def test_a_clear_by_the_rule_of_airflow_3_4(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear of a whole run keeps the store there, and no clear is told from a retry: mapped instances compare."""
    from airflow_provider_comet.submissions import stored_record

    monkeypatch.setattr(stored_record, "CLEAR_EMPTIES_STORE", True)
    made = left_accepted(runner, create(), 0)
    refused(runner.run(create(prompt="a windmill"), map_index=0, **CLEAR), made)
    assert runner.run(create(), map_index=0, **CLEAR).result == made
    made = left_accepted(runner, create(), -1)
    assert runner.run(create(prompt="a windmill"), **CLEAR).result == made


@pytest.mark.parametrize("map_index", [-1, 0])
def test_killed_between_comparison_and_write(comet: Emulator, runner: TaskRunner, map_index: int) -> None:
    """An attempt that dies before it has written the record leaves the next attempt as it was itself."""
    made = left_accepted(runner, create(), map_index)

    def store(method: str, value: Any) -> int:
        if method == "PUT":
            raise KeyboardInterrupt
        return 200

    runner.on_store = store
    assert runner.run(create(), map_index=map_index, **CLEAR).result is None
    runner.on_store = lambda method, value: 200
    refused(runner.run(create(prompt="a windmill"), map_index=map_index, try_number=3, max_tries=5), made)
    assert runner.run(create(), map_index=map_index, try_number=3, max_tries=5).result == made


@pytest.mark.parametrize("map_index", [-1, 2])
def test_the_input_changes_while_the_task_is_deferred(
    comet: Emulator, runner: TaskRunner, clock: Clock, map_index: int
) -> None:
    """The task before it was cleared meanwhile, and this one renders anew when it resumes."""
    deferred = runner.run(create_and_wait(), map_index=map_index)
    made = runner.record(map_index=map_index)["id"]
    resumed = runner.run(
        create_and_wait(prompt="a windmill"),
        event=event_of(deferred.trigger()),
        next_kwargs=deferred.next_kwargs,
        map_index=map_index,
    )
    if map_index == -1:
        assert resumed.result == made
    else:
        refused(resumed, made)


def test_a_record_made_by_hand_is_of_any_input(comet: Emulator, runner: TaskRunner) -> None:
    """A user who puts an id on record says what it is for."""
    made = runner.run(operator()).result
    runner.store["create/4/comet_submission"] = {"version": 1, "state": "accepted", "id": made}
    assert runner.run(create(prompt="a windmill"), map_index=4, **CLEAR).result == made


def test_arguments_that_are_no_json_are_not_taken_for_changed(comet: Emulator, runner: TaskRunner) -> None:
    """An object with an address in its repr, and a set, are the same arguments in each process."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    class Camera:
        pass

    def make(words: set[str], camera: Camera) -> Any:
        def create(words: set[str], camera: Camera) -> dict[str, Any]:
            return {"prompt": " ".join(sorted(words))}

        with dag():
            decorator = comet_prediction(model="black-forest-labs/flux-schnell", retries=2)
            return decorator(create)(words=words, camera=camera).operator

    made = left_accepted(runner, make({"a", "b"}, Camera()), 0)
    assert runner.run(make({"b", "a"}, Camera()), map_index=0, **RETRY).result == made
