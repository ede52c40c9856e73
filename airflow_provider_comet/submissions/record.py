"""What is on record about a paid create, and what the next attempt may do by it.

The rule: a paid result that has not been handed over is never bought again; one that was handed over is bought again
only by a user's clear.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.validation import check_prediction_id

KEY = "comet_submission"
BATCH_KEY = "comet_batch"
VERSION = 1
PUT_ON_RECORD = (
    f"set {KEY} in the task's state store to "
    f'{{"version": {VERSION}, "state": "accepted", "id": "<the id>"}} '
    "and clear the task: it goes on with that prediction."
)
"""What users do who know the id of a prediction that is not on record."""
FORCE = f"To buy a new one all the same, delete {KEY} from the task's state store and clear the task."
STATES = ("sending", "rejected", "accepted", "delivered")


class MalformedRecordError(e.SubmissionRecordError):
    """What stands in the store is no record, of this release at least. A retry helps only after it was corrected."""

    next_step = "Correct it in the task's state store, or delete it, which buys anew; then clear the task."


class Journal(Protocol):
    """Is told about each time a create is sent, so that after a crash it is known what may have been paid."""

    def sending(self) -> None:
        """It is about to be sent; if this raises, it is not."""

    def rejected(self) -> None:
        """It was certainly not accepted."""

    def unclear(self, error: e.CometError) -> None:
        """It may have been accepted."""


@dataclass(frozen=True)
class Record:
    """What is known about the newest create of a task instance.

    :param state: ``sending``: right before the POST, and after it as long as its fate is open; ``rejected``: certainly
        not accepted; ``accepted``: paid, ``id`` is known; ``delivered``: the task handed it over.
    :param id: the prediction's id.
    :param reason: why it was created: ``first``, ``retry_failed``, ``retry_ambiguous`` or ``clear``.
    :param model: the model it was created with.
    :param input: a digest of each input key's value.
    :param max_tries: ``ti.max_tries`` of the cycle: a clear raises it, an automatic retry does not.
    :param ended: the error with which a wait for it has ended, once an attempt has reported it.
    :param at: when this state was reached, ISO 8601.
    :param answer: what came back instead of an id, if anything did.
    :param request_id: CometAPI's id of that answer.
    :param earlier: the ids of all predictions before this one.
    """

    state: str
    id: str | None = None
    reason: str = "first"
    model: str | None = None
    input: Mapping[str, str] = field(default_factory=dict)
    max_tries: int | None = None
    ended: str | None = None
    at: str | None = None
    answer: str | None = None
    request_id: str | None = None
    earlier: tuple[str, ...] = ()

    def changes(self, model: str, input: object) -> list[str]:
        """What is different now: names only, never values. An input of ``None`` is not known."""
        now = digest(input)
        changed = ["model"] if self.model not in (None, model) else []
        if self.input and input is not None:
            keys = sorted(now.keys() | self.input.keys())
            changed += [f"input.{key}" for key in keys if now.get(key) != self.input.get(key)]
        return changed

    def to_json(self) -> dict[str, Any]:
        """The value in the store."""
        return {"version": VERSION, **dataclasses.asdict(self), "earlier": list(self.earlier)}

    @classmethod
    def from_json(cls, value: object, key: str = KEY) -> Record:
        """Read the value in the store, also one that a user wrote: only version, state and id must be there.

        :param key: under which it stands, for errors.
        :raises MalformedRecordError: it can't be understood, which is not the same as "nothing was paid".
        """
        if not isinstance(value, Mapping) or value.get("version") != VERSION or value.get("state") not in STATES:
            raise MalformedRecordError(f"{key!r} does not hold a record of version {VERSION}: {_shape(value)}")
        known = {item.name: value[item.name] for item in dataclasses.fields(cls) if value.get(item.name) is not None}
        kinds = {"earlier": list, "input": Mapping, "max_tries": int}
        if wrong := [name for name, item in known.items() if not isinstance(item, kinds.get(name, str))]:
            raise MalformedRecordError(f"{key!r} holds a value of the wrong type in {', '.join(wrong)}")
        if known["state"] in ("accepted", "delivered") and not known.get("id"):
            raise MalformedRecordError(f"{key!r} says {known['state']!r} without an id")
        if "id" in known and "model" not in known:  # written by hand; what the API gave is an id
            try:
                check_prediction_id(known["id"])
            except e.InvalidInputError as error:
                raise MalformedRecordError(f"{key!r}: {error.detail}") from None
        return cls(**{**known, "earlier": tuple(known.get("earlier", ()))})


@dataclass(frozen=True)
class BatchRecord:
    """Which inputs of a batch may have a record of their own, and what of it was handed over.

    :param items: the keys of all inputs that were ever about to be sent; with a digest of the id that was handed over.
    :param max_tries: ``ti.max_tries`` when something was last about to be sent.
    """

    items: Mapping[str, str | None] = field(default_factory=dict)
    max_tries: int | None = None

    def has_delivered(self, key: str, prediction_id: str | None) -> bool:
        """Whether this prediction was handed over: what it is, not when. ``ti.max_tries`` can come to a value again."""
        return prediction_id is not None and self.items.get(key) == _short(prediction_id)

    def with_delivered(self, ids: Mapping[str, str]) -> BatchRecord:
        """Return the record after these, by key, were handed over."""
        return dataclasses.replace(self, items={**self.items, **{key: _short(one) for key, one in ids.items()}})

    def to_json(self) -> dict[str, Any]:
        """The value in the store."""
        return {"version": VERSION, "items": dict(self.items), "max_tries": self.max_tries}

    @classmethod
    def from_json(cls, value: object) -> BatchRecord:
        """Read the value in the store.

        :raises MalformedRecordError: it can't be understood.
        """
        items = value.get("items") if isinstance(value, Mapping) and value.get("version") == VERSION else None
        if not isinstance(items, Mapping) or not all(re.fullmatch(r"\w+-\d+", str(key)) for key in items):
            raise MalformedRecordError(f"{BATCH_KEY!r} does not hold a record of version {VERSION}: {_shape(value)}")
        return cls(dict(items), value.get("max_tries") if isinstance(value, Mapping) else None)


def decide(record: Record | None, *, cleared: bool, on_ambiguous_submit: str) -> str | None:
    """Return why this attempt creates a prediction, or ``None`` if it goes on with the recorded one.

    :param cleared: whether a user cleared the task since an attempt last used the record.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :raises CometError: neither may happen.
    """
    if record is None:
        return "first"
    if record.state == "rejected":
        return record.reason
    if record.state == "sending":
        if cleared:
            return "clear"
        if on_ambiguous_submit == "retry":
            return "retry_ambiguous"
        raise e.AmbiguousSubmissionError(
            f"an attempt began to send it at {record.at} for model {record.model} "
            f"and {record.answer or 'ended before there was an answer'}",
            request_id=record.request_id,
        )
    if cleared and (record.state == "delivered" or record.ended):
        return "clear"
    if record.ended:
        # Only an end that was reported is bought again: a clear that was made for another reason costs nothing.
        ended = e.CometError.from_dict({"type": record.ended, "prediction_id": record.id})
        if ended.buys_again:
            return "retry_failed"
        raise ended
    return None


def digest(input: object) -> dict[str, str]:
    """A digest per key of the input, so that a change can be named without the value. Takes any input."""
    items = input.items() if isinstance(input, Mapping) else [("", input)]
    return {str(key): hashlib.sha256(_text(value).encode()).hexdigest()[:16] for key, value in items}


def _text(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=str)  # of an ObjectStoragePath its connection, too
    except (TypeError, ValueError, RecursionError):  # a template gone wrong must not keep a paid result from its task
        return f"not JSON, {type(value).__name__}"


def _short(prediction_id: str) -> str:
    return hashlib.sha256(prediction_id.encode()).hexdigest()[:8]


def _shape(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"it is of type {type(value).__name__}"
    return f"version {value.get('version')!r}, state {value.get('state')!r}"
