"""``OutputSchema``: what a model's description says about its output, where users supply one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAX_REFERENCES = 20


class OutputSchema:
    """The schema of an output or of a part of it.

    :param root: the OpenAPI document, which references lead into.
    :param node: the schema; references in it are followed.
    """

    def __init__(self, root: Mapping[str, Any], node: object) -> None:
        self._root = root
        self._node = _resolve(root, node)

    @classmethod
    def from_document(cls, document: object) -> OutputSchema | None:
        """Read a document that Replicate publishes about a model; ``None`` if it does not describe an output."""
        version = _get(document, "latest_version", document)
        openapi = _get(version, "openapi_schema", version)
        output = _get(_get(_get(openapi, "components"), "schemas"), "Output")
        return cls(openapi, output) if isinstance(openapi, Mapping) and isinstance(output, Mapping) else None

    @property
    def is_file(self) -> bool | None:
        """Whether a text here is the link of a file; ``None``: the schema does not say."""
        if self._node.get("type") != "string":
            return None
        return self._node.get("format") == "uri"

    @property
    def items(self) -> OutputSchema:
        """The schema of a list's items."""
        return OutputSchema(self._root, self._node.get("items"))

    def value(self, key: str) -> OutputSchema:
        """Return the schema of an object's value by its key."""
        properties = self._node.get("properties")
        return OutputSchema(self._root, _get(properties, key, self._node.get("additionalProperties")))


def _resolve(root: Mapping[str, Any], node: object) -> Mapping[str, Any]:
    """Return the schema that a schema refers to, or its only choice besides null; an empty one says nothing."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(node, Mapping):
            return {}
        choices = next((node[word] for word in ("allOf", "anyOf", "oneOf") if isinstance(node.get(word), list)), None)
        if choices is not None:
            choices = [choice for choice in choices if _get(choice, "type") != "null"]
            node = choices[0] if len(choices) == 1 else None
        elif isinstance(reference := node.get("$ref"), str):
            node = root if reference.startswith("#/") else None
            for part in reference.split("/")[1:]:
                node = _get(node, part)
        else:
            return node
    return {}


def _get(value: object, key: str, default: object = None) -> Any:
    return value.get(key, default) if isinstance(value, Mapping) else default
