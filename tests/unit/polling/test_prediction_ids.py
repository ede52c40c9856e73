"""``polling/prediction_ids.py``: an id or a list of ids, in whatever form Airflow brings it."""

from __future__ import annotations

import logging
import re
import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Outcome, TaskRunner, dag


def read_ids(value: Any, ti: Any = None) -> Any:
    from airflow_provider_comet.polling.prediction_ids import read_ids

    return read_ids(value, {"ti": ti})  # type: ignore[typeddict-item]


class Lazy(Sequence[Any]):
    """The output of a mapped task, as Airflow gives it: each access is a request."""

    def __init__(self, values: list[Any], **fields: Any) -> None:
        self.values = values
        self.accesses: list[Any] = []
        self.__dict__.update(fields)

    def __len__(self) -> int:
        self.accesses.append("len")
        return len(self.values)

    def __getitem__(self, key: Any) -> Any:
        self.accesses.append(key)
        return self.values[key]


@pytest.mark.parametrize("value", ["abc", "pred-1.2:3_4"])
def test_an_id_is_an_id(value: str) -> None:
    """A single id stays text, also after a deferral."""
    assert read_ids(value) == value


@pytest.mark.parametrize("value", [["abc", None, "def", "abc"], ("abc", None, "def", "abc")], ids=str)
def test_a_list_keeps_its_form(value: Any) -> None:
    """Order, length, nulls and equal ids stay as they are."""
    assert read_ids(value) == ["abc", None, "def", "abc"]


@pytest.mark.parametrize(
    "value",
    [
        [["a", "b"], ["c", None, "a"]],
        (("a", "b"), ["c", None, "a"]),
        ["a", ["b", "c"], None, ["a"]],
        [[], ["a", "b", "c"], (), [None, "a"]],
        [[["a"], ["b", "c"]], None, [["a"]]],
    ],
    ids=str,
)
def test_lists_of_lists_become_a_flat_list(value: Any) -> None:
    """What a mapped batch has returned: one list after the other, in whatever mix; nulls keep their places."""
    assert read_ids(value) == ["a", "b", "c", None, "a"]
    assert read_ids(Lazy(value, _xcom_arg=None)) == ["a", "b", "c", None, "a"]


def test_outputs_within_a_list_are_read_by_one_request_each() -> None:
    """A list of the outputs of mapped tasks: each is read as a whole."""
    outputs = [Lazy(["a", None], _xcom_arg=None), Lazy([["b"], ["c"]], _xcom_arg=None)]
    assert read_ids(outputs) == ["a", None, "b", "c"]
    assert [output.accesses for output in outputs] == [[slice(None)], [slice(None)]]


@pytest.mark.parametrize(
    "value",
    [None, 7, 1.5, True, b"abc", {"abc": 1}, {"abc"}, iter(["abc"]), object(), "", " abc", "a/b", "abc\n", "None", "ü"],
    ids=lambda value: re.sub(" object at 0x.*", "", repr(value)),
)
def test_neither_an_id_nor_a_list(value: Any) -> None:
    """Anything else is refused in words, without its value where that may be long or secret."""
    with pytest.raises(e.InvalidInputError, match="must be the id that a create returned; got") as caught:
        read_ids(value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["['abc', 'def']", "[]", "[None]", '["abc"]'])
def test_a_list_that_a_template_turned_into_text(text: str) -> None:
    """The error tells somebody who passes a list through a template how to pass the list itself."""
    with pytest.raises(e.InvalidInputError, match=r"give the task's output itself \(create\.output\)"):
        read_ids(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "empty list.*let a branch or a short circuit skip this task"),
        ((), "empty list"),
        ([None], "list of 1 nulls"),
        ([None] * 3, "list of 3 nulls: no create has returned an id"),
        (["abc", 7], "item 1 of the list: .* a value of type int"),
        (["", "abc"], "item 0 of the list"),
        ([[["abc", [["def"]]]]], "item 1 of the list: .* a value of type list; its lists are nested too deeply"),
        ([["abc"], [7]], "item 1 of the list: .* a value of type int"),
        ([[], ()], "empty list"),
        ([[None], [None]], "list of 2 nulls"),
        (["abc"] * 70 + ["a/b"], "item 70 of the list: .* 'a/b'"),
    ],
    ids=str,
)
def test_lists_that_cannot_be_meant(value: Any, words: str) -> None:
    """Each says what is wrong, and where."""
    with pytest.raises(e.InvalidInputError, match=words):
        read_ids(value)


@pytest.mark.parametrize("values", [["abc"] * 40, ["abc", "def"]], ids=len)
def test_a_mapped_output_is_one_request(values: list[Any]) -> None:
    """It is read by one slice: iterating over it would make a request for each item."""
    lazy = Lazy(values, _xcom_arg=None)
    assert read_ids(lazy) == values
    assert lazy.accesses == [slice(None)]


def lazy_of_create(values: list[Any]) -> Lazy:
    operator = types.SimpleNamespace(task_id="create", dag_id="dag")
    return Lazy(values, _xcom_arg=types.SimpleNamespace(operator=operator))


def ti_with(count: Callable[..., int]) -> Any:
    return types.SimpleNamespace(run_id="run", get_ti_count=count)


@pytest.mark.parametrize(("expected", "is_logged"), [(2, False), (3, True), (1, False)])
def test_gaps_are_logged(caplog: pytest.LogCaptureFixture, expected: int, is_logged: bool) -> None:
    """Instances without an id are counted by what Airflow knows of that task in that run, and logged once."""
    queries: list[dict[str, Any]] = []

    def count(**query: Any) -> int:
        queries.append(query)
        return expected

    with caplog.at_level(logging.INFO):
        assert read_ids(lazy_of_create(["abc", "def"]), ti_with(count)) == ["abc", "def"]
    assert queries == [{"dag_id": "dag", "task_ids": ["create"], "run_ids": ["run"]}]
    words = "instances of task 'create' have no output"
    logged = [record for record in caplog.records if words in record.getMessage()]
    assert len(logged) == is_logged


def test_a_count_that_fails_does_not_end_the_wait() -> None:
    """The count is for a warning only: predictions that are paid for are waited for without it."""

    def count(**query: Any) -> int:
        raise RuntimeError("the API server has other problems")

    assert read_ids(lazy_of_create(["abc"]), ti_with(count)) == ["abc"]


def test_without_airflows_private_attribute_there_is_no_report() -> None:
    """Another release of Airflow may not tell where a sequence comes from: the ids are read all the same."""
    assert read_ids(Lazy(["abc"], _xcom_arg=None)) == ["abc"]
    assert read_ids(Lazy(["abc"], _xcom_arg=object())) == ["abc"]


# What a DAG author can make of outputs


@pytest.mark.parametrize("form", ["output", "map", "concat", "zip", "list"])
def test_forms_of_a_mapped_output(comet: Emulator, runner: TaskRunner, create: Callable[..., str], form: str) -> None:
    """`create.output`, a map over it, two of them concatenated or zipped, and single outputs in a list are lists of
    ids; each output is read by a single request, not by a request for each item."""
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
        raw_ids: Any
        if form == "output":
            raw_ids = mapped("first", ids).output
        elif form == "map":
            texts = [f"prediction {prediction_id}" for prediction_id in ids]
            raw_ids = mapped("first", texts).output.map(lambda text: text.split()[-1])
        elif form == "zip":
            others = mapped("second", ["x"] * 4).output
            raw_ids = mapped("first", ids).output.zip(others).map(lambda pair: pair[0])
        elif form == "concat":
            raw_ids = mapped("first", ids[:3]).output.concat(mapped("second", ids[3:]).output)
        else:
            raw_ids = [single(f"create_{n}", prediction_id).output for n, prediction_id in enumerate(ids)]
        task = PredictionSensor(task_id="wait", prediction_id=raw_ids, retries=2)
    outcome: Outcome = runner.run(task)
    assert (outcome.state, outcome.error) == ("success", None)
    assert [result["id"] for result in outcome.result] == ids
    reads = [path for path in runner.asked if path.startswith("GET /xcoms") and "/create_" not in path]
    assert all(path.endswith("/slice") for path in reads)
    assert len(reads) == {"output": 1, "map": 1, "concat": 2, "zip": 2, "list": 0}[form]
