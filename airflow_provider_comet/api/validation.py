"""Is this request worth paying for? Checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_comet.api.errors import InvalidInputError

MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*\Z"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")

DEEPEST = 100


def is_model(model: object) -> bool:
    """Whether this can be a model's id, ``owner/name``."""
    return isinstance(model, str) and re.match(MODEL_PATTERN, model) is not None


def check_model(model: object) -> None:
    """Refuse what can't be a model's id.

    :raises InvalidInputError: names the type of the value, or the text.
    """
    if not is_model(model):
        raise InvalidInputError(
            "model must be 'owner/name', for example 'black-forest-labs/flux-schnell', without version or URL; got "
            + (repr(model) if isinstance(model, str) else _type(model))
        )


def check_create(model: object, input: object) -> None:
    """Refuse a create that can only fail, before it is paid for.

    :raises InvalidInputError: names the parameter and the type of its value, never the value.
    """
    # The request contract of the create route: the model id is part of the path, the body's only documented key is
    # "input", an object that holds "every model parameter" (apidoc.cometapi.com, create a prediction). Which parameters
    # a model takes is the model's business, so nothing is said about them here.
    check_model(model)
    if not isinstance(input, dict) or not input:
        raise InvalidInputError(
            "input must be a non-empty JSON object (a dict) with all parameters of the model; if a template rendered "
            "it to text, set render_template_as_native_obj=True on the DAG; got "
            + ("an empty dict" if input == {} else _type(input))
        )
    for path, fault in _faults(input, "input", ()):
        raise InvalidInputError(f"{path} {fault}")


def check_prediction_id(prediction_id: object) -> str:
    """Return the id if it can be one: it becomes a part of a URL's path.

    :raises InvalidInputError: for anything else, such as the ``None`` of a skipped upstream task, or the text that a
        template makes of it.
    """
    if not isinstance(prediction_id, str) or not _ID.match(prediction_id) or prediction_id == "None":
        got = repr(prediction_id[:40]) if isinstance(prediction_id, str) else _type(prediction_id)
        hint = ""
        if isinstance(prediction_id, str) and prediction_id.startswith("["):
            hint = "; a template makes text of a list: give the task's output itself (create.output)"
        raise InvalidInputError(f"prediction_id must be the id that a create returned; got {got}{hint}")
    return prediction_id


def check_prediction_ids(prediction_ids: Sequence[object]) -> list[str | None]:
    """Return a list of ids, and of the nulls that stand for predictions that never were.

    :raises InvalidInputError: it is empty, holds no id at all, or something that is no id.
    """
    if not prediction_ids:
        raise InvalidInputError(
            "prediction_id is an empty list: there is nothing to wait for. If that is right, let a branch or a "
            "short circuit skip this task"
        )
    checked: list[str | None] = []
    for position, one in enumerate(prediction_ids):
        try:
            checked.append(None if one is None else check_prediction_id(one))
        except InvalidInputError as error:
            raise InvalidInputError(f"item {position} of the list: {error.detail}") from None
    if not any(checked):
        raise InvalidInputError(f"prediction_id is a list of {len(checked)} nulls: no create has returned an id")
    return checked


def _faults(value: Any, path: str, parents: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """What a JSON Schema can't say: values that JSON can't carry, and nulls that were meant to be left out."""
    if len(parents) > DEEPEST:
        yield path, f"is nested more than {DEEPEST} levels deep"
    elif value is None:
        yield path, "is None; leave the key out instead (a template or an upstream task may have rendered to nothing)"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "is NaN or infinite, which JSON can't carry"
    elif isinstance(value, int) and value.bit_length() > 1024:
        yield path, "is a number too long to be meant"
    elif isinstance(value, str) and not _is_text(value):
        yield path, "is text with half a surrogate pair, which JSON can't carry"
    elif id(value) in parents:
        yield path, "contains itself"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and _is_text(key):
                yield from _faults(item, f"{path}.{key}", (*parents, id(value)))
            else:
                yield path, f"has a key of type {type(key).__name__} that JSON can't carry; its keys are text"
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]", (*parents, id(value)))
    elif not isinstance(value, (str, int, float)):
        yield path, f"is of type {type(value).__name__}, which JSON can't carry"


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value) if not value.isascii() else True


def _type(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
