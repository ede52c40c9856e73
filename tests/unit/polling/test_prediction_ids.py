"""`given_ids`: an id or a list of them, whatever form Airflow gives it."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Outcome, TaskRunner, dag


def given_ids(value: Any, ti: Any = None) -> Any:
    from airflow_provider_comet.polling.prediction_ids import given_ids

    return given_ids(value, {"ti": ti})  # type: ignore[typeddict-item]


class Lazy(Sequence[Any]):
    """What Airflow makes of a mapped task's output: each access is a request."""

    def __init__(self, values: list[Any], **fields: Any) -> None:
        self.values = values
        self.asked: list[Any] = []
        self.__dict__.update(fields)

    def __len__(self) -> int:
        self.asked.append("len")
        return len(self.values)

    def __getitem__(self, key: Any) -> Any:
        self.asked.append(key)
        return self.values[key]


@pytest.mark.parametrize("value", ["abc", "pred-1.2:3_4"])
def test_an_id_is_an_id(value: str) -> None:
    """One id stays text, also after a deferral."""
    assert given_ids(value) == value


@pytest.mark.parametrize("value", [["abc", None, "def", "abc"], ("abc", None, "def", "abc")], ids=str)
def test_a_list_keeps_its_form(value: Any) -> None:
    """Order, length, nulls and equal ids stay as they are."""
    assert given_ids(value) == ["abc", None, "def", "abc"]


@pytest.mark.parametrize(
    "value",
    [None, 7, 1.5, True, b"abc", {"abc": 1}, {"abc"}, iter(["abc"]), object(), "", " abc", "a/b", "abc\n", "None", "ü"],
    ids=repr,
)
def test_what_is_neither(value: Any) -> None:
    """Anything else is refused in words, without its value where that may be long or secret."""
    with pytest.raises(e.InvalidInputError, match="must be the id that a create returned; got") as caught:
        given_ids(value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["['abc', 'def']", "[]", "[None]", '["abc"]'])
def test_a_list_that_a_template_made_text_of(text: str) -> None:
    """Who passes a list through a template learns how to pass the list itself."""
    with pytest.raises(e.InvalidInputError, match=r"give the task's output itself \(create\.output\)"):
        given_ids(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "empty list.*let a branch or a short circuit skip this task"),
        ((), "empty list"),
        ([None], "list of 1 nulls"),
        ([None] * 3, "list of 3 nulls: no create has returned an id"),
        (["abc", 7], "item 1 of the list: .* a value of type int"),
        (["", "abc"], "item 0 of the list"),
        ([["abc"]], "item 0 of the list: .* a value of type list"),
        (["abc"] * 70 + ["a/b"], "item 70 of the list: .* 'a/b'"),
    ],
    ids=str,
)
def test_lists_that_cannot_be_meant(value: Any, words: str) -> None:
    """Each says what is wrong, and where."""
    with pytest.raises(e.InvalidInputError, match=words):
        given_ids(value)


@pytest.mark.parametrize("values", [["abc"] * 40, ["abc", "def"]], ids=len)
def test_a_mapped_output_is_one_request(values: list[Any]) -> None:
    """It is read by one slice: iterating over it would make a request for each item."""
    lazy = Lazy(values, _xcom_arg=None)
    assert given_ids(lazy) == values
    assert lazy.asked == [slice(None)]


def lazy_of_create(values: list[Any]) -> Lazy:
    operator = types.SimpleNamespace(task_id="create", dag_id="dag")
    return Lazy(values, _xcom_arg=types.SimpleNamespace(operator=operator))


def ti_with(count: Callable[..., int]) -> Any:
    return types.SimpleNamespace(run_id="run", get_ti_count=count)


@pytest.mark.parametrize(("expected", "is_told"), [(2, False), (3, True), (1, False)])
def test_gaps_are_told(caplog: pytest.LogCaptureFixture, expected: int, is_told: bool) -> None:
    """Instances without an id are counted by what Airflow knows of that task in that run, and told once."""
    asked: list[dict[str, Any]] = []

    def count(**by: Any) -> int:
        asked.append(by)
        return expected

    with caplog.at_level(logging.INFO):
        assert given_ids(lazy_of_create(["abc", "def"]), ti_with(count)) == ["abc", "def"]
    assert asked == [{"dag_id": "dag", "task_ids": ["create"], "run_ids": ["run"]}]
    words = "instances of task 'create' have left nothing"
    told = [record for record in caplog.records if words in record.getMessage()]
    assert len(told) == is_told


def test_a_count_that_fails_does_not_end_the_wait() -> None:
    """The count is for a warning only: predictions that are paid for are waited for without it."""

    def count(**by: Any) -> int:
        raise RuntimeError("the API server has other problems")

    assert given_ids(lazy_of_create(["abc"]), ti_with(count)) == ["abc"]


def test_without_airflows_private_attribute_there_is_no_report() -> None:
    """Another release of Airflow may not tell where a sequence comes from: the ids are read all the same."""
    assert given_ids(Lazy(["abc"], _xcom_arg=None)) == ["abc"]
    assert given_ids(Lazy(["abc"], _xcom_arg=object())) == ["abc"]


# What a DAG author can make of outputs


@pytest.mark.parametrize("form", ["output", "map", "concat", "zip", "list"])
def test_forms_of_a_mapped_output(comet: Emulator, runner: TaskRunner, create: Callable[..., str], form: str) -> None:
    """`create.output`, a map over it, two of them concatenated or zipped, and single outputs in a list are lists of
    ids; each output is read by one request, not by one for each item."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    ids = [create() for _ in range(4)]

    def mapped(task_id: str, values: list[str]) -> Any:
        runner.mapped[task_id] = values
        runner.instances[task_id] = len(values)
        return CreatePredictionOperator.partial(task_id=task_id, model="a/b").expand(input=[{"prompt": "x"}])

    def single(task_id: str, value: str) -> Any:
        runner.xcoms[f"dag/run/{task_id}/return_value"] = value
        return CreatePredictionOperator(task_id=task_id, model="a/b", input={"prompt": "x"})

    with dag():
        given: Any
        if form == "output":
            given = mapped("one", ids).output
        elif form == "map":
            given = mapped("one", [f"prediction {one}" for one in ids]).output.map(lambda text: text.split()[-1])
        elif form == "zip":
            others = mapped("two", ["x"] * 4).output
            given = mapped("one", ids).output.zip(others).map(lambda pair: pair[0])
        elif form == "concat":
            given = mapped("one", ids[:3]).output.concat(mapped("two", ids[3:]).output)
        else:
            given = [single(f"create_{n}", one).output for n, one in enumerate(ids)]
        task = PredictionSensor(task_id="wait", prediction_id=given, retries=2)
    outcome: Outcome = runner.run(task)
    assert (outcome.state, outcome.error) == ("success", None)
    assert [one["id"] for one in outcome.result] == ids
    reads = [path for path in runner.asked if path.startswith("GET /xcoms") and "/create_" not in path]
    assert all(path.endswith("/slice") for path in reads)
    assert len(reads) == {"output": 1, "map": 1, "concat": 2, "zip": 2, "list": 0}[form]
