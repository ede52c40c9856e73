"""Find what templates have made of values that are missing: Jinja renders them as the text ``None``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.redaction import excerpt

SHOWN_CHARACTERS = 100
_NONE = r"(?<![A-Za-z])(?:None)+(?![A-Za-z])"
_CODE = r"(?s)\{[{%#].*?[}%#]\}"
NONE_IN_TEXT = "a template has put None into the text, because a value is missing; it is used as it is"
"""What the log says of a text with a rendered ``None`` in it."""


def check_rendered(template: Any, rendered: Any, path: str) -> list[str]:
    """Refuse a text that is nothing but a rendered ``None``; return where ``None`` was rendered within a longer text.

    A ``None`` that was written without a template is meant, and so is what another task has returned.

    :param template: the value before it was rendered.
    :param rendered: the same value afterwards.
    :param path: its name in messages.
    :raises InvalidInputError: names the path and the template, never a rendered value.
    """
    paths = []
    for at, source, text in _texts(template, rendered, path):
        if text.strip() == "None" != source.strip():
            raise InvalidInputError(
                f"{at} has rendered to the text None; its template is {excerpt(source, SHOWN_CHARACTERS)!r}. "
                'Give it a value, or leave it out; literal("None") sends that text'
            )
        if len(re.findall(_NONE, text)) > len(re.findall(_NONE, re.sub(_CODE, " ", source))):
            paths.append(at)
    return paths


def _texts(template: Any, rendered: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, template and text of each text that rendering has changed."""
    if template is rendered:  # what a mapped task got from another task is no template
        return
    if isinstance(template, dict) and isinstance(rendered, dict):
        for key in template:  # Airflow renders no keys
            yield from _texts(template[key], rendered.get(key), f"{path}.{key}")
    elif isinstance(template, (list, tuple)) and isinstance(rendered, (list, tuple)):
        for index, (item, rendered_item) in enumerate(zip(template, rendered, strict=False)):
            yield from _texts(item, rendered_item, f"{path}[{index}]")
    elif hasattr(template, "serialize") and type(template) is type(rendered):  # an ObjectStoragePath
        yield from _texts(str(template), str(rendered), path)
    elif isinstance(template, str) and isinstance(rendered, str) and template != rendered:
        yield path, template, rendered
