"""What a task was given to wait for or to store: ids or results, in whatever form Airflow brings them."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.validation import check_prediction_id, check_prediction_ids

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

MAX_LIST_LEVELS = 3
"""A list of outputs, each of a mapped task, of which each instance has returned a list."""


def read_ids(value: Any, context: Context) -> str | list[str | None]:
    """Return an id, or a list of ids in the order given; ``None`` in the place of a prediction that was not created.

    :param value: an id, a list, the output of a mapped create, or lists of lists.
    :raises InvalidInputError: it holds no id, or something else.
    """
    return check_prediction_ids(read_flat(value, context)) if is_list(value) else check_prediction_id(value)


def distinct(raw_ids: str | Sequence[str | None]) -> list[str]:
    """Return each id once, in the order given."""
    ids = [raw_ids] if isinstance(raw_ids, str) else raw_ids
    return [*dict.fromkeys(prediction_id for prediction_id in ids if prediction_id is not None)]


def is_list(value: Any) -> bool:
    """Return whether a task was given a list."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def read_flat(value: Sequence[Any], context: Context) -> list[Any]:
    """Return all items of a list of predictions, or of a mapped task's output, and of the lists in it."""
    return [*flatten(value, functools.partial(read_items, context=context))]


def flatten(
    value: Sequence[Any], read: Callable[[Sequence[Any]], Sequence[Any]] = list, levels: int = MAX_LIST_LEVELS
) -> Iterator[Any]:
    """Yield all items of a list, and of the lists in it, in their order.

    A batch that is mapped over lists returns a list of lists. A list that is nested too deeply stays an item, which
    whoever uses the items refuses.

    :param read: returns the items of a list.
    """
    for item in read(value):
        if is_list(item) and levels > 1:
            yield from flatten(item, read, levels - 1)
        else:
            yield item


def read_items(value: Sequence[Any], context: Context) -> list[Any]:
    """Return all items of a list, or of a mapped task's output; the log says if instances of that task left none.

    :param value: an output (``LazyXComSequence``) is read by one slice: iterating over it makes a request for each item
        (700 ms against 25 ms for 40).
    """
    items: list[Any] = _read(value)
    source = getattr(getattr(value, "_xcom_arg", None), "operator", None)  # private in Airflow: without it, no report
    if source is not None:
        _report_missing(source, len(items), context)
    return items


def read_within(value: Any) -> Any:
    """Return a value with the items of each output in it that Airflow has not read yet: its repr does not have them."""
    if isinstance(value, dict):
        return {key: read_within(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [read_within(item) for item in value]
    return _read(value) if is_list(value) and type(value).__module__.startswith("airflow.sdk.") else value


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):  # what a single task has returned
        return value
    if type(value).__module__ != "airflow.sdk.definitions.xcom_arg":
        return [*value[:]]
    # The results of map, zip and concat can't be sliced, but the outputs that they combine can.
    combined = copy.copy(value)
    if hasattr(combined, "value"):
        combined.value = _read(combined.value)
    if hasattr(combined, "values"):
        combined.values = [_read(output) for output in combined.values]
    return [*combined]


def _report_missing(source: Any, found: int, context: Context) -> None:
    """Log how many instances of a mapped task have no output: Airflow leaves them out without a word."""
    ti = context["ti"]
    try:
        expected = ti.get_ti_count(dag_id=source.dag_id, task_ids=[source.task_id], run_ids=[ti.run_id])
    except Exception as error:  # a report that fails must not end a wait
        log.warning("The instances of task %r can't be counted: %s", source.task_id, error)
        return
    if expected > found:
        log.warning(
            "%s of %s instances of task %r have no output (they failed or were skipped). The outputs of the others "
            "follow each other without gaps: item n of the result is not map index n",
            expected - found,
            expected,
            source.task_id,
        )
