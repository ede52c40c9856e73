"""Many creates as one: which input is which, what became of each, and whether the rest may still be sent. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.record import KEY
from airflow_provider_comet.api.redaction import excerpt

LOST_IN_A_ROW = 2
"""So many creates in a row without a clear answer are no accident: a wrong URL or a failing gateway loses all of them,
and each may be billed."""
SHOWN_CHARACTERS = 60


@dataclass
class Item:
    """One input of a batch.

    :param index: where it stands in the list.
    :param key: what it is: the same input has the same key wherever it stands. Equal inputs are told apart by counting.
    :param input: as it was given.
    """

    index: int
    key: str
    input: Any
    id: str | None = None
    error: e.CometError | None = None

    def __str__(self) -> str:
        return f"inputs[{self.index}] {excerpt(_text(self.input), SHOWN_CHARACTERS)}"


def items_of(model: str, inputs: Sequence[Any]) -> list[Item]:
    """Return an item for each input.

    The key is made of model and input, never of the position: an input that is put in front of a list that was paid for
    must not make all others look new.
    """
    seen: Counter[str] = Counter()
    items = []
    for index, input in enumerate(inputs):
        digest = hashlib.sha256(f"{model}\n{_text(input)}".encode()).hexdigest()[:20]
        seen[digest] += 1
        items.append(Item(index, f"{digest}-{seen[digest]}", input))
    return items


@dataclass
class Batch:
    """The items of a task, and what became of them.

    :param items: all of them, in the order given.
    """

    items: Sequence[Item]
    stopped: bool = False
    """Whether nothing more is to be sent: the reason concerns all items, or may cost money."""
    _lost: int = field(default=0, init=False)

    @property
    def missing(self) -> list[Item]:
        """Those that have neither an id nor an error."""
        return [item for item in self.items if item.id is None and item.error is None]

    @property
    def errors(self) -> list[Item]:
        """Those that have no id, and why."""
        return [item for item in self.items if item.error is not None]

    @property
    def ids(self) -> list[str | None]:
        """In the order given, null for what was not accepted."""
        return [item.id for item in self.items]

    @property
    def has_only_items_errors(self) -> bool:
        """Whether each error is about its own input, so that the others can be used without it."""
        return all(
            is_about_input(item.error) or isinstance(item.error, e.AmbiguousSubmissionError) for item in self.errors
        )

    def accepted(self, item: Item, prediction_id: str) -> None:
        """Note an id."""
        item.id = prediction_id
        self._lost = 0

    def failed(self, item: Item, error: e.CometError) -> None:
        """Note an error. It stops the batch unless it is about this one input alone."""
        item.error = error
        if isinstance(error, e.AmbiguousSubmissionError):
            self._lost += 1
            self.stopped = self.stopped or self._lost >= LOST_IN_A_ROW
        elif not is_about_input(error):
            self.stopped = True

    def rejected(self) -> list[dict[str, Any]]:
        """What XCom says of those without an id."""
        return [
            {"index": item.index, "type": type(item.error).__name__, "error": str(item.error)}
            for item in self.items
            if item.error is not None
        ]

    def error(self) -> BatchError:
        """The error that names each input without a prediction, and why."""
        failed, unsent = self.errors, len(self.missing)
        errors = [item.error for item in failed if item.error is not None]
        error = BatchError.of(errors, len(self.items))
        error.detail += f"; {unsent} more were not sent" if unsent else ""
        error.reasons = [
            f"{item} (record {record_key(item.key)}): {item.error}" if is_open(item.error) else f"{item}: {item.error}"
            for item in failed
        ]
        return error


class BatchError(e.PredictionListError):
    """Some inputs of a batch were not accepted. Whether a retry helps depends on the errors of each, ``errors``."""

    summary = "Some inputs have no prediction"


def record_key(key: str) -> str:
    """Under which the create of an item is on record."""
    return f"{KEY}.{key}"


def is_about_input(error: e.CometError | None) -> bool:
    """Whether another input may be accepted although this one was not."""
    return isinstance(error, (e.BadRequestError, e.InvalidInputError))


def is_open(error: e.CometError | None) -> bool:
    """Whether this input may have been paid for, and only a person can tell."""
    return isinstance(error, (e.AmbiguousSubmissionError, e.UnrecordedPredictionError))


def _text(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError):  # refused before it is sent
        return f"not JSON, {type(value).__name__}"
