"""Many creates as one: which input is which, what became of each, and whether the rest may still be sent. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.submissions.record import KEY

LOST_IN_A_ROW = 2
"""So many creates in a row without a clear answer are no accident: a wrong URL or a failing gateway loses all of them,
and each may be billed."""
SHOWN_CHARACTERS = 60
REASON_CHARACTERS = 300


@dataclass
class Item:
    """One input of a batch.

    :param index: where it stands in the list.
    :param content: what it is: a digest of model and input.
    :param input: as it was given.
    :ivar key: what its create is on record by: the content, and a number that tells equal inputs apart.
    """

    index: int
    content: str
    input: Any
    key: str = ""
    id: str | None = None
    error: e.CometError | None = None

    def __str__(self) -> str:
        return f"inputs[{self.index}] {excerpt(_text(self.input), SHOWN_CHARACTERS)}"


@dataclass(frozen=True)
class Known:
    """What is on record by a key: an id that is gone on with, an error that keeps it from being sent, or neither."""

    key: str
    id: str | None = None
    error: e.CometError | None = None


@dataclass
class Batch:
    """The items of a task, and what became of them.

    :param items: all of them, in the order given.
    """

    items: Sequence[Item]
    stopped: bool = False
    """Whether nothing more is to be sent: the reason concerns all items, or may cost money."""
    accepted_count: int = field(default=0, init=False)
    _lost: int = field(default=0, init=False)

    @classmethod
    def of(cls, model: str, inputs: Sequence[Any]) -> Batch:
        """Return the batch of these inputs.

        What an input is goes by model and input, never by its position: one that is put in front of a list that was
        paid for must not make all others look new.
        """
        digests = (hashlib.sha256(f"{model}\n{_text(input)}".encode()).hexdigest()[:20] for input in inputs)
        return cls([Item(index, one, inputs[index]) for index, one in enumerate(digests)])

    def place(self, known: Mapping[str, Sequence[Known]]) -> None:
        """Give each item its key, and what is known by it.

        Of equal inputs those that are paid for come first, then those of open fate, so that a list that has grown
        shorter uses what there is.

        :param known: by content.
        """
        keys: dict[str, Iterator[Known]] = {}
        for item in self.items:
            if item.content not in keys:
                keys[item.content] = _in_turn(item.content, known.get(item.content, ()))
            one = next(keys[item.content])
            item.key, item.id, item.error = one.key, one.id, one.error

    @property
    def missing(self) -> list[Item]:
        """Those that have neither an id nor an error."""
        return [item for item in self.items if item.id is None and item.error is None]

    @property
    def errors(self) -> list[Item]:
        """Those that have no id, or none that is on record, and why."""
        return [item for item in self.items if item.error is not None]

    @property
    def ids(self) -> list[str | None]:
        """In the order given, null for what was not accepted."""
        return [item.id for item in self.items]

    @property
    def may_be_paid(self) -> bool:
        """Whether any of it was paid for, as far as anybody knows."""
        return any(item.id is not None or is_open(item.error) for item in self.items)

    @property
    def has_only_items_errors(self) -> bool:
        """Whether each error is about its own input, so that the others can be used without it."""
        return all(
            is_about_input(item.error) or isinstance(item.error, e.AmbiguousSubmissionError) for item in self.errors
        )

    def accepted(self, item: Item) -> None:
        """Note that an item has its id."""
        self.accepted_count += 1
        self._lost = 0

    def failed(self, item: Item, error: e.CometError) -> None:
        """Note an error. It stops the batch unless it is about this one input alone."""
        item.error = error
        if isinstance(error, e.AmbiguousSubmissionError):
            self._lost += 1
            self.stopped = self.stopped or self._lost >= LOST_IN_A_ROW
            return
        self._lost = 0
        self.stopped = self.stopped or not is_about_input(error)

    def rejected(self) -> list[dict[str, Any]]:
        """What XCom says of those without an id."""
        return [
            {
                "index": item.index,
                "type": type(item.error).__name__,
                "error": excerpt(str(item.error), REASON_CHARACTERS),
                "record": record_key(item.key),
            }
            for item in self.errors
        ]

    def error(self) -> BatchError:
        """The error that names each input without a prediction, and why: first those that may be paid for."""
        failed = sorted(self.errors, key=lambda item: not is_open(item.error))
        error = BatchError.of([item.error for item in failed if item.error is not None], len(self.items))
        unsent = len(self.missing)
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
    """Whether this input may have been paid for, and a person has to look."""
    return isinstance(error, (e.AmbiguousSubmissionError, e.UnrecordedPredictionError))


def _in_turn(content: str, known: Sequence[Known]) -> Iterator[Known]:
    def rank(one: Known) -> int:
        return 0 if one.id is not None else 1 if one.error is not None else 2

    yield from sorted(known, key=rank)
    used = {one.key for one in known}
    for number in count(1):
        if (key := f"{content}-{number}") not in used:
            yield Known(key)


def _text(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):  # refused before it is sent
        return f"not JSON, {type(value).__name__}"
