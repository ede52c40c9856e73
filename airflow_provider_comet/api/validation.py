"""Check models, inputs and prediction ids before a request is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.redaction import ID_CHARACTERS

MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*\Z"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")

MAX_DEPTH = 100
"""An input that is nested deeper is refused."""


def is_model(model: object) -> bool:
    """Return whether a value can be a model's id, ``owner/name``."""
    return isinstance(model, str) and re.match(MODEL_PATTERN, model) is not None


def check_model(model: object) -> None:
    """Refuse a value that can't be a model's id.

    :raises InvalidInputError: names the text, or the type of another value.
    """
    if not is_model(model):
        raise InvalidInputError(
            "model must be 'owner/name', for example 'black-forest-labs/flux-schnell', without version or URL; got "
            + (repr(model) if isinstance(model, str) else _type_name(model))
        )


def check_create(model: object, input: object) -> None:
    """Refuse a create that can only fail, before it is paid for.

    These are the rules of the create route: the model's id is part of the path, and the body's only documented key is
    "input", an object with "every model parameter" (apidoc.cometapi.com, create a prediction). Which parameters a model
    takes is the subject of its schema.

    :param model: must be ``owner/name``.
    :param input: must be a non-empty JSON object without nulls.
    :raises InvalidInputError: names the parameter and the type of its value, never the value.
    """
    check_model(model)
    if not isinstance(input, dict) or not input:
        raise InvalidInputError(
            "input must be a non-empty JSON object (a dict) with all parameters of the model; if a template rendered "
            'it to text, set render_template_as_native_obj=True on the DAG (then a text "42" becomes the number 42, '
            "too); got " + ("an empty dict" if input == {} else _type_name(input))
        )
    for path, fault in _find_faults(input, "input", ()):
        raise InvalidInputError(f"{path} {fault}")


def is_prediction_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be a prediction's id: a text that is safe in a URL's path, and not too long."""
    return isinstance(value, str) and len(value) <= ID_CHARACTERS and _ID.match(value) is not None and value != "None"


def check_prediction_id(prediction_id: object) -> str:
    """Return a prediction's id if it is safe in a URL's path.

    :raises InvalidInputError: the value is no id, for example the ``None`` of a skipped upstream task, or the text
        that a template makes of that.
    """
    if not is_prediction_id(prediction_id):
        got = repr(prediction_id[:40]) if isinstance(prediction_id, str) else _type_name(prediction_id)
        hint = ""
        if isinstance(prediction_id, str) and prediction_id.startswith("["):
            hint = "; a template makes text of a list: give the task's output itself (create.output)"
        elif prediction_id == "None":
            hint = "; a template makes this text of a value that is missing"
        raise InvalidInputError(f"prediction_id must be the id that a create returned; got {got}{hint}")
    return prediction_id


def check_prediction_ids(raw_ids: Sequence[object]) -> list[str | None]:
    """Return a list of ids, with ``None`` for each create that returned no id.

    :raises InvalidInputError: the list is empty, holds no id at all, or holds a value that is no id.
    """
    if not raw_ids:
        raise InvalidInputError(
            "prediction_id is an empty list: there is nothing to wait for. If that is right, let a branch or a "
            "short circuit skip this task"
        )
    prediction_ids: list[str | None] = []
    for index, raw_id in enumerate(raw_ids):
        try:
            prediction_ids.append(None if raw_id is None else check_prediction_id(raw_id))
        except InvalidInputError as error:
            hint = "; its lists are nested too deeply" if isinstance(raw_id, (list, tuple)) else ""
            raise InvalidInputError(f"item {index} of the list: {error.detail}{hint}") from None
    if not any(prediction_ids):
        raise InvalidInputError(f"prediction_id is a list of {len(prediction_ids)} nulls: no create has returned an id")
    return prediction_ids


def _find_faults(value: Any, path: str, parent_ids: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yield path and fault of each value that JSON can't carry, and of each null, whose key should be left out."""
    if len(parent_ids) > MAX_DEPTH:
        yield path, f"is nested more than {MAX_DEPTH} levels deep"
    elif value is None:
        yield path, "is None; leave the key out instead (a template or an upstream task may have rendered to nothing)"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "is NaN or infinite, which JSON can't carry"
    elif isinstance(value, int) and value.bit_length() > 1024:
        yield path, "is a number too long to be meant"
    elif isinstance(value, str) and _has_lone_surrogate(value):
        yield path, "is text with half a surrogate pair, which JSON can't carry"
    elif id(value) in parent_ids:
        yield path, "contains itself"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and not _has_lone_surrogate(key):
                yield from _find_faults(item, f"{path}.{key}", (*parent_ids, id(value)))
            else:
                yield path, f"has a key of type {type(key).__name__} that JSON can't carry; its keys are text"
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _find_faults(item, f"{path}[{index}]", (*parent_ids, id(value)))
    elif not isinstance(value, (str, int, float)):
        yield path, f"is of type {type(value).__name__}, which JSON can't carry"


def _has_lone_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _type_name(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
