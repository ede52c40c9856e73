"""The inputs of a batch: which record belongs to which input, what became of each, and when to stop. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import canonical_json
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.submissions.record import KEY
from airflow_provider_comet.submissions.stop_flag import StopFlag

STOP_AFTER_LOST = 2
"""So many creates in a row without a clear answer stop a batch: a wrong URL or a failing gateway loses all of them, and
each may be billed."""
SHOWN_CHARACTERS = 60
REASON_CHARACTERS = 300


@dataclass
class Item:
    """One input of a batch.

    :param index: its position in the list.
    :param digest: a digest of model and input, the same for equal inputs.
    :param input: the input as the task got it.
    :ivar key: the key of its record: the digest and a number that distinguishes equal inputs.
    :ivar id: the prediction's id, once it is known.
    :ivar error: why it has no prediction, or none that is on record.
    """

    index: int
    digest: str
    input: Any
    key: str = ""
    id: str | None = None
    error: e.CometError | None = None

    def __str__(self) -> str:
        return f"inputs[{self.index}] {excerpt(canonical_json(self.input), SHOWN_CHARACTERS)}"


@dataclass(frozen=True)
class RecordedCreate:
    """What an earlier attempt has recorded under a key.

    :param id: the id of a paid prediction to use.
    :param error: why the input must not be sent. Neither: it may be sent.
    """

    key: str
    id: str | None = None
    error: e.CometError | None = None


@dataclass
class Batch:
    """The inputs of a task, and what became of each.

    :param items: all inputs, in their order.
    :param stop: set when nothing more may be sent.
    :ivar accepted_count: how many inputs this attempt got accepted.
    """

    items: Sequence[Item]
    stop: StopFlag = field(default_factory=StopFlag)
    accepted_count: int = field(default=0, init=False)
    _lost_in_a_row: int = field(default=0, init=False)

    @classmethod
    def of(cls, model: str, inputs: Sequence[Any], stop: StopFlag | None = None) -> Batch:
        """Return the batch of these inputs.

        An input is identified by its content, never by its position: if a user puts a new input in front of a list that
        was paid for, the others must not count as new.
        """
        digests = [hashlib.sha256(f"{model}\n{canonical_json(input)}".encode()).hexdigest()[:20] for input in inputs]
        items = [Item(index, digest, inputs[index]) for index, digest in enumerate(digests)]
        return cls(items, stop or StopFlag())

    def assign_records(self, recorded: Mapping[str, Sequence[RecordedCreate]]) -> None:
        """Give each item its key, and what is recorded under it.

        Among equal inputs, paid records are assigned first, then those that must not be sent: a list that has become
        shorter uses what was paid.

        :param recorded: by digest.
        """
        records: dict[str, Iterator[RecordedCreate]] = {}
        for item in self.items:
            if item.digest not in records:
                records[item.digest] = _in_order_of_use(item.digest, recorded.get(item.digest, ()))
            record = next(records[item.digest])
            item.key, item.id, item.error = record.key, record.id, record.error

    @property
    def missing(self) -> list[Item]:
        """The items with neither an id nor an error: they have to be sent."""
        return [item for item in self.items if item.id is None and item.error is None]

    @property
    def failed_items(self) -> list[Item]:
        """The items with an error. An item whose id could not be recorded has both."""
        return [item for item in self.items if item.error is not None]

    @property
    def ids(self) -> list[str | None]:
        """The ids in the order of the inputs, ``None`` for an input without a prediction."""
        return [item.id for item in self.items]

    @property
    def may_be_paid(self) -> bool:
        """Whether any input was paid for, or may have been."""
        return any(item.id is not None or is_open(item.error) for item in self.items)

    @property
    def has_only_items_errors(self) -> bool:
        """Whether each error is about its own input, so that the other predictions can be used."""
        return all(
            is_about_input(item.error) or isinstance(item.error, (e.AmbiguousSubmissionError, e.UnusableIdError))
            for item in self.failed_items
        )

    def accepted(self) -> None:
        """Count an accepted create."""
        self.accepted_count += 1
        self._lost_in_a_row = 0

    def failed(self, item: Item, error: e.CometError) -> None:
        """Note the error of an item, and stop the batch unless the error is about this input alone."""
        item.error = error
        if isinstance(error, e.UnrecordedPredictionError):  # of any other one, nobody could use the id
            item.id = error.prediction_id
        if isinstance(error, e.AmbiguousSubmissionError):
            self._lost_in_a_row += 1
            stops = self._lost_in_a_row >= STOP_AFTER_LOST
        else:
            self._lost_in_a_row = 0
            stops = not is_about_input(error)
        self.stop.stopped = self.stop.stopped or stops

    def rejected(self) -> list[dict[str, Any]]:
        """Return the value of XCom ``rejected``: the items with an error."""
        return [
            {
                "index": item.index,
                "type": type(item.error).__name__,
                "error": excerpt(str(item.error), REASON_CHARACTERS),
                "record": record_key(item.key),
            }
            for item in self.failed_items
        ]

    def error(self) -> BatchError:
        """Return the error that names each failed input and why; first those that may be paid for."""
        failed = sorted(self.failed_items, key=lambda item: not is_open(item.error))
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
    """Return the state store's key for the record of an item."""
    return f"{KEY}.{key}"


def is_about_input(error: e.CometError | None) -> bool:
    """Return whether another input may be accepted although this one was not."""
    return isinstance(error, (e.BadRequestError, e.InvalidInputError))


def is_open(error: e.CometError | None) -> bool:
    """Return whether the input may have been paid for, so that a person has to check."""
    return isinstance(error, (e.AmbiguousSubmissionError, e.UnrecordedPredictionError, e.UnusableIdError))


def _in_order_of_use(digest: str, recorded: Sequence[RecordedCreate]) -> Iterator[RecordedCreate]:
    """Yield the records of an input, then new ones without end."""
    yield from sorted(recorded, key=lambda record: 0 if record.id is not None else 1 if record.error is not None else 2)
    used = {record.key for record in recorded}
    for number in count(1):
        if (key := f"{digest}-{number}") not in used:
            yield RecordedCreate(key)
