"""Does an input fit what its model takes? By a schema that the user has; CometAPI publishes none.

It can be a JSON Schema, or one of the documents that Replicate publishes of its models (``GET
/v1/models/{owner}/{name}`` of its API): the model, one of its versions, or the OpenAPI document of a version.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.redaction import redact

SHOWN_CHARACTERS = 40
MOST_SHOWN = 20
"""Violations in one message."""

_NATIVE = (
    "; a template makes text of everything: set render_template_as_native_obj=True on the DAG, or give the value itself"
)
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_LENGTHS = {
    "minLength": "at least {} characters long",
    "maxLength": "at most {} characters long",
    "minItems": "a list of at least {}",
    "maxItems": "a list of at most {}",
}
_KEYWORDS = {"$schema", "$ref", "type", "properties", "required", "allOf", "anyOf", "oneOf", "additionalProperties"}
# jsonschema checks "uri" only where another package is installed, which nobody would notice is missing.
_FORMATS = FormatChecker(formats=())
_FORMATS.checks("uri")(
    lambda value: not isinstance(value, str) or re.match(r"(https?://[^/\s]|data:)", value) is not None
)


class InputSchemaError(InvalidInputError):
    """The input does not fit its model's schema. Nothing was sent, nothing was paid."""

    next_step = "Correct the input; the model's page says what it takes."
    violations: Sequence[str] = ()

    @classmethod
    def of(cls, source: str, violations: Sequence[str]) -> InputSchemaError:
        """Return the error for all that is wrong."""
        error = cls(f"the input does not fit {source}")
        error.violations = [redact(words) for words in violations]
        return error

    def __str__(self) -> str:
        shown = [*self.violations[:MOST_SHOWN]]
        if len(shown) < len(self.violations):
            shown.append(f"... and {len(self.violations) - len(shown)} more")
        return "\n- ".join([super().__str__(), *shown])


class InputSchema:
    """What a model takes, ready to check many inputs: making it takes fifty times as long as a check.

    :param document: a JSON Schema, or a document of Replicate's.
    :param source: what messages call it.
    :raises InvalidInputError: it is neither.
    """

    def __init__(self, document: object, source: str) -> None:
        self.source = source
        schema = _schema_in(document, source)
        cls = validator_for(schema, default=Draft202012Validator)
        try:
            cls.check_schema(schema)
        except SchemaError as error:
            where = "/".join(str(part) for part in error.absolute_path)
            raise InvalidInputError(f"{source} is no JSON Schema, at {where or 'its top'}: {error.message}") from None
        # An empty registry: references lead nowhere but into the document. jsonschema would fetch others by HTTP.
        self._validator = cls(schema, format_checker=_FORMATS, registry=Registry())
        self._known = _properties(schema)

    def unknown(self, input: Mapping[str, Any]) -> list[str]:
        """What to say of keys that the schema does not know: such an input passes the schemas that Replicate publishes,
        and the model ignores the key."""
        if self._known is None:
            return []
        return [
            f"input.{key} is not a parameter that {self.source} knows{_nearest(key, self._known)}"
            for key in input
            if key not in self._known
        ]

    def check(self, input: Mapping[str, Any], *, strict: bool = False) -> None:
        """Refuse an input that does not fit.

        :param strict: refuse keys that are not known as well.
        :raises InputSchemaError: names all that is wrong, never a text that may be a prompt.
        :raises InvalidInputError: the schema itself can't be used.
        """
        try:
            found = [*dict.fromkeys(_words(error) for error in self._validator.iter_errors(input))]
        except Exception as error:  # a reference that leads nowhere shows when it is followed
            raise InvalidInputError(f"{self.source} can't be used: {type(error).__name__}: {error}") from error
        found += self.unknown(input) if strict else []
        if found:
            raise InputSchemaError.of(self.source, found)


def _schema_in(document: object, source: str) -> dict[str, Any]:
    """The schema of the input: the document itself, or what a document of Replicate's says of it."""
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"{source} must be a JSON object; got a value of type {type(document).__name__}")
    version = document.get("latest_version", document)
    openapi = version.get("openapi_schema", version) if isinstance(version, Mapping) else None
    if not isinstance(openapi, Mapping):
        raise InvalidInputError(f"{source} describes a model without a version that says what it takes")
    components = openapi.get("components")
    if isinstance(components, Mapping) and "Input" in (components.get("schemas") or {}):
        # Input refers to its neighbours, so it can't be taken out. OpenAPI's "nullable" may stay unknown: None is never
        # sent, because leaving the key out means the same to every model.
        return {"$ref": "#/components/schemas/Input", "components": _with_numeric_limits(components)}
    if openapi is not document or "openapi" in document:
        raise InvalidInputError(f"{source} is an OpenAPI document without components.schemas.Input")
    if not document.keys() & _KEYWORDS:
        found = ", ".join(sorted(map(str, document))[:5]) or "nothing"
        raise InvalidInputError(
            f"{source} is neither a JSON Schema nor a model's description by Replicate; its keys are: {found}"
        )
    return dict(document)


def _with_numeric_limits(value: Any) -> Any:
    """The same, with OpenAPI 3.0's ``minimum: 0, exclusiveMinimum: true`` as JSON Schema has it since."""
    if isinstance(value, list):
        return [_with_numeric_limits(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _with_numeric_limits(item) for key, item in value.items()}
    for name, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and name in made:
            made[exclusive] = made.pop(name)
    return made


def _properties(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """The keys of an input that a schema names; ``None``: it does not mean to name them all."""
    known = schema
    if schema.get("$ref") == "#/components/schemas/Input":
        known = schema["components"]["schemas"]["Input"]
    if "properties" not in known or known.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"}:
        return None
    return frozenset(known["properties"])


def _words(error: ValidationError) -> str:
    """One violation, without its value where that may be long, or a prompt."""
    path = "input" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.context:  # anyOf, oneOf: what each of the forms lacks
        return ", or ".join(dict.fromkeys(_words(one) for one in error.context))
    rule = str(error.validator)
    limit: Any = error.validator_value
    value: Any = error.instance
    if rule == "required":
        missing = [key for key in limit if key not in value]
        return f"{path} lacks {', '.join(missing)}"
    if rule == "type":
        kinds = [limit] if isinstance(limit, str) else [*limit]
        wanted = " or ".join(_KINDS.get(kind, f"of type {kind}") for kind in kinds)
        hint = _NATIVE if isinstance(value, str) and _reads_as(value, kinds) else ""
        return f"{path} must be {wanted}; got {_shown(value)}{hint}"
    if rule in {"enum", "const"}:
        allowed = limit if rule == "enum" else [limit]
        hint = _NATIVE if isinstance(value, str) and any(str(one) == value for one in allowed) else ""
        listed = ", ".join(json.dumps(one, ensure_ascii=False) for one in allowed)
        return f"{path} must be one of {listed}; got {_shown(value)}{_nearest(value, allowed)}{hint}"
    if rule in _LIMITS:
        return f"{path} must be {_LIMITS[rule]} {limit}; got {_shown(value)}"
    if rule in _LENGTHS:
        return f"{path} must be {_LENGTHS[rule].format(limit)}; got {len(value)}"
    if rule == "format":
        what = "a URL (https://, http:// or data:)" if limit == "uri" else f"of the format {limit!r}"
        return f"{path} must be {what}; got {_shown(value)}"
    if rule == "additionalProperties" and limit is False:
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        others = [key for key in value if key not in known]
        return f"{path} has keys that are not allowed: {', '.join(key + _nearest(key, known) for key in others)}"
    return f"{path} does not fit {rule} {json.dumps(limit, default=str)[:200]}"


def _reads_as(text: str, kinds: list[str]) -> bool:
    """Whether a text says what one of these types would."""
    if "boolean" in kinds and text.strip().lower() in {"true", "false"}:
        return True
    if {"integer", "number"} & {*kinds}:
        with contextlib.suppress(ValueError):
            return "number" in kinds or float(text).is_integer()
        return False
    return bool({"array", "object"} & {*kinds}) and text.strip()[:1] in {"[", "{"}


def _shown(value: Any) -> str:
    """A short scalar as it is; of anything else what it is."""
    if isinstance(value, str) and (len(value) > SHOWN_CHARACTERS or "\n" in value or value.startswith("data:")):
        return f"text of {len(value)} characters"
    if isinstance(value, (str, int, float)):
        return json.dumps(value)
    return f"a value of type {type(value).__name__}"


def _nearest(value: Any, known: Any) -> str:
    texts = {str(one): one for one in known}
    close = difflib.get_close_matches(value, texts, 1) if isinstance(value, str) and value not in texts else []
    return f" (did you mean {_shown(texts[close[0]])}?)" if close else ""
