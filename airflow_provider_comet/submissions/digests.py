"""Digests of what a record compares without keeping it: inputs, reasons of failures, ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from airflow_provider_comet.api.json_values import canonical_json

REASON_CHARACTERS = 200
"""How much of the reasons of two failures is compared: where a long reason is cut depends on the numbers in it."""


def digest_of_input(input: object) -> dict[str, str]:
    """Return a digest of each key's value, so that a change can be named without the value.

    It takes any input: a template gone wrong must not hide a paid result from its task.
    """
    items = input.items() if isinstance(input, Mapping) else [("", input)]
    # An address in memory, as in the repr of many objects, is another one in each process.
    texts = {str(key): re.sub(r" at 0x[0-9a-fA-F]+", "", canonical_json(value)) for key, value in items}
    return {key: hashlib.sha256(text.encode()).hexdigest()[:16] for key, text in texts.items()}


def digest_of_reason(words: str, prediction_id: str | None = None) -> str:
    """Return a digest of the reason of a failure, without what differs each time: numbers and ids, case and blanks.

    :param prediction_id: the id of the prediction that has failed: it may have no digit.
    """
    words = words.replace(prediction_id, "#") if prediction_id else words
    known = " ".join(re.sub(r"\S*\d\S*", "#", words.lower()).split())
    return hashlib.sha256(known[:REASON_CHARACTERS].encode()).hexdigest()[:16]


def digest_of_id(prediction_id: str) -> str:
    """Return a short digest of an id: the record of a batch has one for each prediction."""
    return hashlib.sha256(prediction_id.encode()).hexdigest()[:8]
