"""The record of a paid create, and the decision what the next attempt may do. Pure.

The rule: a paid result that was not handed over is never bought again. A result that was handed over is bought again
only by a user's clear.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import canonical_json
from airflow_provider_comet.api.outcome import blames_infrastructure
from airflow_provider_comet.api.redaction import whole_characters
from airflow_provider_comet.api.validation import check_prediction_id, is_prediction_id
from airflow_provider_comet.submissions.digests import digest_of_id, digest_of_reason

KEY = "comet_submission"
BATCH_KEY = "comet_batch"
VERSION = 1
PUT_ON_RECORD = (
    f"set {KEY} in the task's state store to "
    f'{{"version": {VERSION}, "state": "accepted", "id": "<the id>"}} '
    "and clear the task: it continues with that prediction."
)
"""What a user does to record the id of a paid prediction."""
FORCE = f"To buy a new one all the same, delete {KEY} from the task's state store and clear the task."
STORED_ID_CHARACTERS = 1_000
STATES = ("sending", "rejected", "accepted", "delivered")


class MalformedRecordError(e.SubmissionRecordError):
    """The store holds a value that this release can't read as a record. A retry helps only after it was corrected."""

    next_step = "Correct it in the task's state store, or delete it, which buys anew; then clear the task."


@dataclass(frozen=True)
class Record:
    """The newest create of a task instance, as the state store has it.

    :param state: ``sending``: from right before the POST until its outcome is known; ``rejected``: certainly not
        accepted; ``accepted``: paid, ``id`` is known; ``delivered``: the task handed the prediction over.
    :param id: the prediction's id.
    :param reason: why it was created: ``first``, ``retry_failed``, ``retry_ambiguous`` or ``clear``.
    :param model: the model it was created with.
    :param input: a digest of each input key's value.
    :param max_tries: ``ti.max_tries`` of the attempt: a clear raises it, an automatic retry does not.
    :param reported_error: the type of the error that left the prediction without a result, once an attempt has
        reported it.
    :param at: when this state was reached, ISO 8601.
    :param answer: what CometAPI answered instead of an id, if it answered.
    :param request_id: CometAPI's id of that answer.
    :param key_from: ``connection`` or ``environment``: an account that has paid is not replaced by another.
    :param failures: a digest of the reason of each failed prediction that was bought since the last clear.
    :param earlier: the ids of all predictions that this task instance bought before.
    """

    state: str
    id: str | None = None
    reason: str = "first"
    model: str | None = None
    input: Mapping[str, str] = field(default_factory=dict)
    max_tries: int | None = None
    reported_error: str | None = None
    at: str | None = None
    answer: str | None = None
    request_id: str | None = None
    key_from: str | None = None
    failures: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()

    def with_report(self, error: e.PredictionError) -> tuple[Record, e.PredictionError]:
        """Return the record after an attempt has reported why the prediction has no result, and the error to raise.

        A failure with the same words as an earlier one of this cycle is final, unless the words blame machines. No list
        has all the words with which models refuse an input; this way at most two are bought of what fails each time.
        """
        failures = self.failures
        if type(error) is e.PredictionFailedError and not blames_infrastructure(error.detail):
            reason = digest_of_reason(error.detail, error.prediction_id)
            if reason in failures:
                error = e.RepeatedFailureError(error.detail, prediction_id=error.prediction_id)
            failures = (*failures, reason)
        return dataclasses.replace(self, reported_error=type(error).__name__, failures=failures), error

    def changes(self, model: str, input: Mapping[str, str] | None) -> list[str]:
        """Return what differs from the recorded create: names only, never values.

        :param input: its digests; ``None``: not known, so it is not compared.
        """
        changed = ["model"] if self.model not in (None, model) else []
        if self.input and input is not None:
            keys = sorted(input.keys() | self.input.keys())
            changed += [f"input.{key}" for key in keys if input.get(key) != self.input.get(key)]
        return changed

    def to_json(self) -> dict[str, Any]:
        """Return the value for the store."""
        lists = {"failures": list(self.failures), "earlier": list(self.earlier)}
        return {"version": VERSION, **dataclasses.asdict(self), **lists}

    @classmethod
    def from_json(cls, value: object, key: str = KEY) -> Record:
        """Return the record that a value of the store holds.

        A user may have written the value: only version, state and id are required.

        :param key: the value's key, for errors.
        :raises MalformedRecordError: the value can't be understood, which is not the same as "nothing was paid".
        """
        if not isinstance(value, Mapping) or value.get("version") != VERSION or value.get("state") not in STATES:
            raise MalformedRecordError(f"{key!r} does not hold a record of version {VERSION}: {_describe(value)}")
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: value[name] for name in names if value.get(name) is not None}
        types = {"earlier": list, "failures": list, "input": Mapping, "max_tries": int}
        if wrong := [name for name in known if not isinstance(known[name], types.get(name, str))]:
            raise MalformedRecordError(f"{key!r} holds a value of the wrong type in {', '.join(wrong)}")
        if known["state"] in ("accepted", "delivered") and not known.get("id"):
            raise MalformedRecordError(f"{key!r} says {known['state']!r} without an id")
        if "id" in known and "model" not in known:  # written by a user; an id that the API returned needs no check
            try:
                check_prediction_id(known["id"])
            except e.InvalidInputError as error:
                raise MalformedRecordError(f"{key!r}: {error.detail}") from None
        return cls(**{**known, **{name: tuple(known.get(name, ())) for name in ("failures", "earlier")}})


@dataclass(frozen=True)
class BatchRecord:
    """Which inputs of a batch may have a record of their own, and which predictions were handed over.

    :param items: the keys of all inputs that were ever about to be sent, each with a digest of the id that was handed
        over.
    :param max_tries: ``ti.max_tries`` of the last attempt that was about to send an input.
    """

    items: Mapping[str, str | None] = field(default_factory=dict)
    max_tries: int | None = None

    def has_delivered(self, key: str, prediction_id: str | None) -> bool:
        """Return whether this prediction was handed over.

        The id decides, not the attempt: ``ti.max_tries`` can have the same value again.
        """
        return prediction_id is not None and self.items.get(key) == digest_of_id(prediction_id)

    def with_delivered(self, ids: Mapping[str, str]) -> BatchRecord:
        """Return the record after predictions were handed over.

        :param ids: their ids by key.
        """
        delivered = {key: digest_of_id(prediction_id) for key, prediction_id in ids.items()}
        return dataclasses.replace(self, items={**self.items, **delivered})

    def to_json(self) -> dict[str, Any]:
        """Return the value for the store."""
        return {"version": VERSION, "items": dict(self.items), "max_tries": self.max_tries}

    @classmethod
    def from_json(cls, value: object) -> BatchRecord:
        """Return the record that a value of the store holds.

        :raises MalformedRecordError: the value can't be understood.
        """
        items = value.get("items") if isinstance(value, Mapping) and value.get("version") == VERSION else None
        if not isinstance(items, Mapping) or not all(_is_item(key, items[key]) for key in items):
            raise MalformedRecordError(f"{BATCH_KEY!r} does not hold a record of version {VERSION}: {_describe(value)}")
        max_tries = value.get("max_tries") if isinstance(value, Mapping) else None
        return cls(dict(items), max_tries if isinstance(max_tries, int) else None)


def stored_id(prediction_id: str) -> str:
    """Return an id as any database can hold it. A usable id stays as it is, and no other becomes a usable id."""
    text = whole_characters(prediction_id).replace("\0", "\ufffd")
    length = len(text)
    return text if length <= STORED_ID_CHARACTERS else f"{text[:STORED_ID_CHARACTERS]}... ({length} characters)"


def decide(record: Record | None, *, cleared: bool, on_ambiguous_submit: str) -> str | None:
    """Return why this attempt may create a prediction, or ``None`` if it continues with the recorded prediction.

    :param cleared: whether a user cleared the task since an attempt last used the record.
    :param on_ambiguous_submit: ``fail`` or ``retry``.
    :raises CometError: this attempt may do neither.
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
            f"and {f'got {record.answer}' if record.answer else 'ended before there was an answer'}",
            request_id=record.request_id,
        )
    if cleared and (record.state == "delivered" or record.reported_error):
        return "clear"
    if record.reported_error:
        # Only a failure that was reported is bought again: a clear for another reason costs nothing.
        error = e.CometError.from_dict({"type": record.reported_error, "prediction_id": record.id})
        if error.buys_again:
            return "retry_failed"
        raise error
    if not is_prediction_id(record.id):
        raise e.UnusableIdError(prediction_id=record.id)
    return None


def _is_item(key: object, value: object) -> bool:
    """Return whether these can be the key and the digest of an input in the record of a batch."""
    is_key = isinstance(key, str) and re.fullmatch(r"\w{1,80}-\d{1,9}", key) is not None
    return is_key and (value is None or isinstance(value, str))


def _describe(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"it is of type {type(value).__name__}"
    return f"version {canonical_json(value.get('version'))}, state {canonical_json(value.get('state'))}"
