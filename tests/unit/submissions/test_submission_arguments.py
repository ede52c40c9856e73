"""``submissions/submission.py``: what of a function's arguments is compared with the record, and when."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Outcome, TaskRunner, dag
from tests.unit.submissions.test_submission_changed_inputs import left_accepted, refused

RETRY: dict[str, Any] = {"try_number": 2}
CLEAR: dict[str, Any] = {"try_number": 2, "max_tries": 5}


def of_all(arguments: str) -> Any:
    """A decorated create whose argument is the whole output of a mapped task."""
    from airflow.sdk import task

    from airflow_provider_comet.decorators.prediction import comet_prediction

    def create(number: int, words: Any) -> dict[str, Any]:
        words = words["all"] if isinstance(words, dict) else words
        return {"prompt": " ".join(words[:]), "seed": number + len(words)}

    with dag():

        @task
        def word(letter: str) -> str:
            return letter

        words = word.expand(letter=["a", "b"])
        given = {"all": words} if arguments == "within an object" else words
        decorator = comet_prediction(model="black-forest-labs/flux-schnell", retries=2)
        return decorator(create)(number=1, words=given).operator


@pytest.mark.parametrize("arguments", ["itself", "within an object"])
@pytest.mark.parametrize(("map_index", "attempt"), [(0, RETRY), (-1, CLEAR)], ids=["mapped", "cleared"])
def test_a_whole_output_is_compared_by_its_items(
    comet: Emulator, runner: TaskRunner, map_index: int, attempt: dict[str, Any], arguments: str
) -> None:
    """Airflow gives it unread, and its repr says how much of it was read, but not which items it has."""
    runner.mapped["word"] = ["a", "b"]
    made = left_accepted(runner, of_all(arguments), map_index)
    assert runner.run(of_all(arguments), map_index=map_index, **attempt).result == made
    runner.store[f"create/{map_index}/comet_submission"].update(state="accepted", max_tries=2)
    runner.mapped["word"] = ["c", "d"]
    refused(runner.run(of_all(arguments), map_index=map_index, **attempt), made)
    assert comet.ledger()["accepted"] == 1


def test_a_function_may_change_its_arguments(comet: Emulator, runner: TaskRunner) -> None:
    """They are compared as they came to it, because the next attempt does not call it."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    def create(input: dict[str, Any]) -> dict[str, Any]:
        input["prompt"] = f"{input.pop('name')} at the sea"
        return input

    def make(name: str) -> Any:
        with dag():
            made: Any = comet_prediction(model="black-forest-labs/flux-schnell", retries=2)(create)
            return made(input={"name": name}).operator

    made = left_accepted(runner, make("a lighthouse"), 0)
    outcome: Outcome = runner.run(make("a lighthouse"), map_index=0, **RETRY)
    assert (outcome.error, outcome.result) == (None, made)
    refused(runner.run(make("a windmill"), map_index=0, **RETRY), made)
