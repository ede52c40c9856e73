"""``make_label``: a few words by which a person recognises an input, for a list of what was asked for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_comet.api.portable import RULES
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.api.uris import is_data_uri, is_url

LABELS_XCOM_KEY = "labels"
LABEL_CHARACTERS = 80
_SHORT_CHARACTERS = 40
"""A parameter with a longer text is left out: it would take the room of those that differ."""
_MAX_PARAMETERS = 100
"""So many parameters are read: there is no room for more."""
_LINK_CHARACTERS = 2_000
"""So much of a text is read to find out whether it is a link."""
_SECRET = re.compile(r"(?i)(api|access|private)[_-]?key|secret|passw|passphrase|credential|auth(?!ors?$)|token$")
"""Finds names of parameters whose values are not shown: some models take a key for another service."""


def make_label(input: Any) -> str:
    """Return at most 80 characters that tell an input from others: its prompt, then its short parameters.

    The text can be stored in Airflow's database. It has no data URI, and of a parameter that is a link or a file only
    the file's name. What is no input, such as ``None``, has an empty label. No value makes this raise an exception: a
    label is no reason to fail.
    """
    try:
        return _make_label(input) if isinstance(input, Mapping) else ""
    except Exception:  # of an object whose own methods fail
        return ""


def _make_label(input: Mapping[Any, Any]) -> str:
    texts = dict(_texts(input))
    long = [key for key, text in texts.items() if len(text) > _SHORT_CHARACTERS]
    head = texts.pop("prompt" if "prompt" in texts else next(iter(long), ""), "")
    # A long prompt leaves half of the room: the inputs of a sweep differ in nothing but their parameters.
    room = max(LABEL_CHARACTERS - len(head) - 1, LABEL_CHARACTERS // 2)
    tail = excerpt(" ".join(f"{key}={text}" for key, text in texts.items() if key not in long), room)
    return f"{excerpt(head, LABEL_CHARACTERS - len(tail) - 1)} {tail}".strip() if tail else head


def _texts(input: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each parameter that has a short form, the prompt first."""
    parameters = itertools.islice(input.items(), _MAX_PARAMETERS)
    for key, value in itertools.chain([("prompt", input.get("prompt"))], parameters):
        if isinstance(key, str) and (text := _text(value)) and not _SECRET.search(key[:LABEL_CHARACTERS]):
            yield excerpt(key, _SHORT_CHARACTERS), text


def _text(value: object) -> str:
    """Return a parameter's value as it is shown; an empty text if it has no short form."""
    if isinstance(value, str):
        start = value[:_LINK_CHARACTERS]
        if is_data_uri(start):
            return "<data URI>"
        return _file_name(start) if is_url(value[: _LINK_CHARACTERS + 1]) else excerpt(value, LABEL_CHARACTERS)
    if isinstance(value, float) or (isinstance(value, int) and RULES[int].is_carried(value)):
        return json.dumps(value)
    return _file_name(str(value)) if hasattr(value, "serialize") else ""  # an ObjectStoragePath


def _file_name(link: str) -> str:
    """Return the last part of a link's path. Without a path it is the host, whose user and password are hidden."""
    path, *_ = re.split("[?#]", excerpt(link, _LINK_CHARACTERS))
    return excerpt(path.rstrip("/").rpartition("/")[2], _SHORT_CHARACTERS)
