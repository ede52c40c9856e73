"""``inputs/parameter_grid.py``: which inputs a grid makes, in which order, and which grids are refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.inputs import parameter_grid as module
from airflow_provider_comet.inputs.parameter_grid import parameter_grid


def test_each_combination() -> None:
    """The last parameter varies first, and each input has its keys in the order of the grid."""
    grid = parameter_grid({"prompt": ["a fox", "a hare"], "guidance": [3, 5], "seed": [0]})
    assert grid == [
        {"prompt": "a fox", "guidance": 3, "seed": 0},
        {"prompt": "a fox", "guidance": 5, "seed": 0},
        {"prompt": "a hare", "guidance": 3, "seed": 0},
        {"prompt": "a hare", "guidance": 5, "seed": 0},
    ]
    assert [*grid[0]] == ["prompt", "guidance", "seed"]


@given(st.dictionaries(st.text(), st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_order_is_that_of_itertools(parameters: dict[str, list[int]]) -> None:
    """Whoever zips the grid with other lists finds the order that Python's own product has."""
    assert [[*one.values()] for one in parameter_grid(parameters)] == [
        [*one] for one in itertools.product(*parameters.values())
    ]


@pytest.mark.parametrize(
    "values",
    [[0, 1], (0, 1), range(2), (number for number in (0, 1)), {0: "x", 1: "y"}.keys(), iter([0, 1])],
    ids=lambda value: type(value).__name__,
)
def test_values_of_any_ordered_kind(values: Any) -> None:
    """A list, a tuple, a range, the keys of a dict or a generator that can be read once."""
    assert parameter_grid({"seed": values, "n": [1]}) == [{"seed": 0, "n": 1}, {"seed": 1, "n": 1}]


def test_no_input_changes_with_another() -> None:
    """Lists and dicts among the values are copied: what is done to one input is not done to the others."""
    size = {"width": 64, "tags": (["a"], "b")}
    first, second = parameter_grid({"size": [size], "seed": [0, 1]})
    first["size"]["tags"][0].append("b")
    first["size"]["width"] = 0
    assert second["size"] == size == {"width": 64, "tags": (["a"], "b")}


def test_files_stay_paths() -> None:
    """A path among the values, also within a list, is the same object in each input: a copy loses its connection."""
    path = PurePosixPath("/srv/start.png")
    for made in parameter_grid({"image": [path], "images": [[path]], "seed": [0, 1]}):
        assert made["image"] is made["images"][0] is path


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"seed": 7},
            r"the values of 'seed' must be a list; got a value of type int; for a single value write \[value\]",
        ),
        ({"a": [1], "prompt": "a fox"}, r"'prompt' must be a list; got a value of type str; .* write \[value\]"),
        ({"prompt": b"a fox"}, r"'prompt' must be a list; got a value of type bytes"),
        ({"size": {"width": 64}}, r"'size' must be a list; got a value of type dict; .* write \[value\]"),
        ({"seed": None}, r"'seed' must be a list; got a value of type NoneType"),
        ({"a": [1], "seed": []}, r"'seed' has no values, so there would be no input; leave it out"),
        ({"seed": {1, 2}}, r"'seed' are a set, which has no order of its own; give a list"),
        ({"seed": frozenset([1])}, r"'seed' are a set"),
        ({7: [1]}, r"the names of parameters must be texts; got a value of type int"),
        (
            [("seed", [1])],
            r"parameter_grid takes a dict: a list of values for each parameter; got a value of type list",
        ),
        (None, r"parameter_grid takes a dict.* got a value of type NoneType"),
        ({}, r"parameter_grid got an empty dict"),
    ],
)
def test_what_is_no_grid(parameters: Any, words: str) -> None:
    """The error names the parameter, what it got and what to write instead; never a value."""
    with pytest.raises(InvalidInputError, match=words) as caught:
        parameter_grid(parameters)
    assert "a fox" not in str(caught.value)


def test_the_output_of_a_task_is_no_list_yet() -> None:
    """While a DAG file is parsed nobody knows what a task will return: the error says where to call it instead."""
    output = type("PlainXComArg", (), {"__module__": "airflow.sdk.definitions.xcom_arg"})()
    with pytest.raises(InvalidInputError, match="call parameter_grid in a task that gets it"):
        parameter_grid({"prompt": output})


def test_a_generator_that_fails() -> None:
    """Its own error is raised as it is, and is not taken for a value of the wrong type."""

    def prompts() -> Iterator[str]:
        yield "a"
        raise TypeError("of the generator")

    with pytest.raises(TypeError, match="of the generator"):
        parameter_grid({"prompt": prompts()})


def test_too_many_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the number, and comes before the first input is made; values without an end come to one, too."""

    def made(*args: Any) -> Any:
        raise AssertionError("made before it was counted")

    monkeypatch.setattr(module.itertools, "product", made)
    with pytest.raises(InvalidInputError, match=r"would make 1,000,000,000 inputs \(1000 'a' x 1000 'b' x 1000 'c'\)"):
        parameter_grid({name: range(1000) for name in "abc"})
    for endless in (itertools.count(), range(10**30)):
        with pytest.raises(InvalidInputError, match="would make at least 200,002 inputs"):
            parameter_grid({"a": [0, 1], "b": endless})


def test_the_most_inputs() -> None:
    """A hundred thousand are made; one more is refused."""
    assert len(parameter_grid({"a": range(1000), "b": range(100)})) == module.MAX_INPUTS
    with pytest.raises(InvalidInputError, match=r"100,001 inputs .*more than 100,000"):
        parameter_grid({"a": range(module.MAX_INPUTS + 1)})
