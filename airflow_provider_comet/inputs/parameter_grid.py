"""``parameter_grid``: make an input of each combination of some parameters' values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.redaction import excerpt

MAX_INPUTS = 100_000
"""More inputs would fill a worker's memory, and cost thousands of dollars: a typing error, and no plan."""


def parameter_grid(parameters: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return an input for each combination of values, in the order of ``itertools.product``: the last key varies first.

    Each input has its own copies of lists and dicts: to change those of one input changes no other.

    :param parameters: the values of each parameter, by its name. They need an order, so a set is refused.
    :raises InvalidInputError: names the parameter whose values are no list, or the number of inputs if it is too large.
    """
    if not isinstance(parameters, Mapping):
        raise InvalidInputError(f"parameter_grid takes a dict: a list of values for each parameter; {_got(parameters)}")
    if not parameters:
        raise InvalidInputError("parameter_grid got an empty dict; give it the values of each parameter")
    columns = [_read_values(name, values) for name, values in parameters.items()]
    if (count := math.prod(map(len, columns))) > MAX_INPUTS:
        at_least = "at least " if max(map(len, columns)) > MAX_INPUTS else ""  # no more of its values were read
        sizes = " x ".join(f"{len(column)} {_shown(name)}" for name, column in zip(parameters, columns, strict=True))
        raise InvalidInputError(
            f"parameter_grid would make {at_least}{count:,} inputs ({excerpt(sizes)}), more than {MAX_INPUTS:,}; "
            "give fewer values, or several grids"
        )
    return [
        {name: _copy(value) for name, value in zip(parameters, values, strict=True)}
        for values in itertools.product(*columns)
    ]


def _read_values(name: object, values: Any) -> list[Any]:
    """Return the values of a parameter; of an iterator that has no end, as many as show that there are too many."""
    if not isinstance(name, str):
        raise InvalidInputError(f"the names of parameters must be texts; {_got(name)}")
    if isinstance(values, (set, frozenset)):
        raise InvalidInputError(f"the values of {_shown(name)} are a set, which has no order of its own; give a list")
    try:
        if isinstance(values, (str, bytes, bytearray, Mapping)):
            raise TypeError("its items are no values of a parameter")
        iterator = iter(values)
    except TypeError:
        hint = "for a single value write [value]"
        if type(values).__module__ == "airflow.sdk.definitions.xcom_arg":
            hint = "what a task returns is there when it has run: call parameter_grid in a task that gets it"
        raise InvalidInputError(f"the values of {_shown(name)} must be a list; {_got(values)}; {hint}") from None
    column = [*itertools.islice(iterator, MAX_INPUTS + 1)]
    if not column:
        raise InvalidInputError(f"{_shown(name)} has no values, so there would be no input; leave it out")
    return column


def _copy(value: Any) -> Any:
    """Return a value with copies of the lists and dicts in it. A path, which nobody changes, stays the same object.

    ``copy.deepcopy`` would lose the connection of an ``ObjectStoragePath``.
    """
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copy(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _shown(name: object) -> str:
    return repr(excerpt(str(name)))


def _got(value: object) -> str:
    return f"got a value of type {type(value).__name__}"
