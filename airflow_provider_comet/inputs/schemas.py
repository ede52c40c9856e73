"""Check an input by its model's schema, which the user supplies: CometAPI publishes none.

The schema can be a JSON Schema, or a document that Replicate publishes about its models (``GET
/v1/models/{owner}/{name}`` of its API): the model, a version of the model, or the OpenAPI document of a version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.redaction import printable, redact
from airflow_provider_comet.inputs.violations import URL, describe_violation, suggest

MAX_SHOWN_VIOLATIONS = 100
"""A message names so many violations, and only counts the rest."""

_INPUT = "#/components/schemas/Input"
# A document with any of these keys is taken for a JSON Schema. "description" and "default" are not among them: too many
# other documents have them.
_KEYWORDS = {
    *("$schema", "$id", "$ref", "$defs", "definitions", "type", "enum", "const"),
    *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("required", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    *("allOf", "anyOf", "oneOf", "not", "if"),
}
# jsonschema checks "uri" only if another package is installed, and silently skips the check otherwise.
_FORMATS = FormatChecker(formats=())
_FORMATS.checks("uri")(lambda value: not isinstance(value, str) or URL.match(value) is not None)


class InputSchemaError(InvalidInputError):
    """The input does not fit its model's schema: nothing was sent, nothing was paid."""

    next_step = "Correct the input; the model's page says what it takes."
    violations: Sequence[str] = ()

    @classmethod
    def of(cls, source: str, violations: Sequence[str]) -> InputSchemaError:
        """Return the error that names all violations of the schema from a source."""
        error = cls(f"the input does not fit {source}")
        error.violations = [printable(redact(violation)) for violation in violations]
        return error

    def __str__(self) -> str:
        shown = [*self.violations[:MAX_SHOWN_VIOLATIONS]]
        if len(shown) < len(self.violations):
            shown.append(f"... and {len(self.violations) - len(shown)} more")
        return "\n- ".join([super().__str__(), *shown])


class InputSchema:
    """The schema of a model's input, prepared to check many inputs.

    To prepare a schema takes a hundred times as long as to check an input by it.

    :param document: a JSON Schema, or a document that Replicate publishes.
    :param source: the name of the schema in messages.
    :raises InvalidInputError: the document is neither, or is not valid.
    """

    def __init__(self, document: object, source: str) -> None:
        self.source = source
        schema = _extract_schema(document, source)
        validator_class = validator_for(schema, default=Draft202012Validator)
        for location, part in {"": schema, **_components(schema)}.items():
            try:
                validator_class.check_schema(part)
            except SchemaError as error:
                path = "/".join([location, *map(str, error.absolute_path)]).strip("/")
                raise InvalidInputError(
                    f"{source} is no JSON Schema, at {path or 'its top'}: {error.message}"
                ) from None
        # With an empty registry no reference leads out of the document. jsonschema would fetch other documents by HTTP.
        registry: Registry[Any] = Registry()
        self._validator = validator_class(schema, format_checker=_FORMATS, registry=registry)
        self._known_keys = _find_keys(schema, registry.resolver_with_root(DRAFT202012.create_resource(schema)))

    def unknown_keys(self, input: Mapping[str, Any]) -> list[str]:
        """Return a message for each key of the input that the schema does not know.

        The schemas that Replicate publishes let such keys pass, and the model ignores them.
        """
        if self._known_keys is None:
            return []
        return [
            f"input.{key} is not a parameter that {self.source} knows{suggest(key, self._known_keys)}"
            for key in input
            if key not in self._known_keys
        ]

    def check(self, input: Mapping[str, Any], *, strict: bool = False) -> None:
        """Refuse an input that does not fit the schema.

        :param strict: also refuse keys that the schema does not know.
        :raises InputSchemaError: names all violations, but never a text that may be a prompt.
        :raises InvalidInputError: the schema itself can't be used.
        """
        try:
            violations = [*dict.fromkeys(describe_violation(error) for error in self._validator.iter_errors(input))]
        except Unresolvable as error:  # raised when the reference is followed, not when the schema is prepared
            reason = "which is another document: nothing is fetched, so put it into this document"
            if error.ref[:1] in {"#", "/"}:
                reason = "which is not in it: give the whole document, not its Input alone"
            raise InvalidInputError(f"{self.source} can't be used: it refers to {error.ref}, {reason}") from None
        except Exception as error:
            raise InvalidInputError(f"{self.source} can't be used: {type(error).__name__}: {error}") from error
        violations += self.unknown_keys(input) if strict else []
        if violations:
            raise InputSchemaError.of(self.source, violations)


def _extract_schema(document: object, source: str) -> dict[str, Any]:
    """Return the schema of the input: the document itself, or a part of a document from Replicate."""
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"{source} must be a JSON object; got a value of type {type(document).__name__}")
    version = document.get("latest_version", document)
    openapi = version.get("openapi_schema", version) if isinstance(version, Mapping) else None
    if not isinstance(openapi, Mapping):
        raise InvalidInputError(f"{source} describes a model without a version that says what it takes")
    components = openapi.get("components")
    schemas = components.get("schemas") if isinstance(components, Mapping) else None
    if isinstance(components, Mapping) and isinstance(schemas, Mapping) and "Input" in schemas:
        # Input refers to the schemas beside it, so they stay together. OpenAPI's "nullable" needs no translation: None
        # is never sent, because to every model a missing key means the same.
        return {"$ref": _INPUT, "components": _translate_limits(components)}
    if openapi is not document or "openapi" in document:
        raise InvalidInputError(f"{source} is an OpenAPI document without components.schemas.Input")
    if not document.keys() & _KEYWORDS:
        keys = ", ".join(sorted(map(str, document))[:5]) or "nothing"
        raise InvalidInputError(
            f"{source} is neither a JSON Schema nor a model's description by Replicate; its keys are: {keys}"
        )
    return dict(document)


def _translate_limits(value: Any) -> Any:
    """Turn the ``minimum: 0, exclusiveMinimum: true`` of OpenAPI 3.0 into ``exclusiveMinimum: 0``."""
    if isinstance(value, list):
        return [_translate_limits(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    translated = {key: _translate_limits(item) for key, item in value.items()}
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(translated.get(exclusive), bool) and translated.pop(exclusive) and limit in translated:
            translated[exclusive] = translated.pop(limit)
    return translated


def _components(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas in an OpenAPI document by path: the validator itself does not check these parts."""
    if schema.get("$ref") != _INPUT:
        return {}
    return {f"components/schemas/{name}": part for name, part in schema["components"]["schemas"].items()}


def _find_keys(schema: Mapping[str, Any], resolver: Any) -> frozenset[str] | None:
    """Return the input keys that a schema names, or ``None`` if it allows keys that it does not name."""
    try:
        parts = [*_parts(schema, resolver, set())]
    except (Unresolvable, ValueError):  # ValueError: a part of a reference should be a number
        return None
    if any(_is_open(part) for part in parts) or not any("properties" in part for part in parts):
        return None
    return frozenset(key for part in parts for keyword in ("properties", "required") for key in part.get(keyword, ()))


def _parts(schema: Any, resolver: Any, followed: set[str]) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and all schemas in it that describe the same object.

    :param followed: the references that were followed already.
    """
    if not isinstance(schema, Mapping):  # true, false
        return
    yield schema
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            yield from _parts(part, resolver, followed)
    for keyword in ("if", "then", "else"):
        yield from _parts(schema.get(keyword), resolver, followed)
    if (ref := schema.get("$ref")) is not None and ref not in followed:
        followed.add(ref)
        target = resolver.lookup(ref)
        yield from _parts(target.contents, target.resolver, followed)


def _is_open(schema: Mapping[str, Any]) -> bool:
    others = ("additionalProperties", "unevaluatedProperties")
    return bool(schema.keys() & {"patternProperties", "dependentSchemas", "$dynamicRef", "$recursiveRef"}) or any(
        schema.get(key, False) is not False for key in others
    )
