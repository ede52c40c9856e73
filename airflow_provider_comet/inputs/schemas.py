"""Does an input fit what its model takes? By a schema that the user has; CometAPI publishes none.

It can be a JSON Schema, or one of the documents that Replicate publishes of its models (``GET
/v1/models/{owner}/{name}`` of its API): the model, one of its versions, or the OpenAPI document of a version.
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
from airflow_provider_comet.api.redaction import redact
from airflow_provider_comet.inputs.violations import URL, nearest, words_of

MOST_SHOWN = 100
"""Violations in one message."""

_INPUT = "#/components/schemas/Input"
# What tells a JSON Schema from any other JSON. Not "description" or "default": too much else has them.
_KEYWORDS = {
    *("$schema", "$id", "$ref", "$defs", "definitions", "type", "enum", "const"),
    *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames"),
    *("required", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
    *("allOf", "anyOf", "oneOf", "not", "if"),
}
# jsonschema checks "uri" only where another package is installed, which nobody would notice is missing.
_FORMATS = FormatChecker(formats=())
_FORMATS.checks("uri")(lambda value: not isinstance(value, str) or URL.match(value) is not None)


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
    """What a model takes, ready to check many inputs: making it takes a hundred times as long as a check.

    :param document: a JSON Schema, or a document of Replicate's.
    :param source: what messages call it.
    :raises InvalidInputError: it is neither.
    """

    def __init__(self, document: object, source: str) -> None:
        self.source = source
        schema = _schema_in(document, source)
        cls = validator_for(schema, default=Draft202012Validator)
        for place, part in {"": schema, **_components(schema)}.items():
            try:
                cls.check_schema(part)
            except SchemaError as error:
                where = "/".join([place, *map(str, error.absolute_path)]).strip("/")
                raise InvalidInputError(
                    f"{source} is no JSON Schema, at {where or 'its top'}: {error.message}"
                ) from None
        # An empty registry: references lead nowhere but into the document. jsonschema would fetch others by HTTP.
        registry: Registry[Any] = Registry()
        self._validator = cls(schema, format_checker=_FORMATS, registry=registry)
        self._known = _named(schema, registry.resolver_with_root(DRAFT202012.create_resource(schema)))

    def unknown(self, input: Mapping[str, Any]) -> list[str]:
        """What to say of keys that the schema does not know: such an input passes the schemas that Replicate publishes,
        and the model ignores the key."""
        if self._known is None:
            return []
        return [
            f"input.{key} is not a parameter that {self.source} knows{nearest(key, self._known)}"
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
            found = [*dict.fromkeys(words_of(error) for error in self._validator.iter_errors(input))]
        except Unresolvable as error:  # shows when it is followed
            what = "which is another document: nothing is fetched, so put it into this one"
            if error.ref[:1] in {"#", "/"}:
                what = "which is not in it: give the whole document, not its Input alone"
            raise InvalidInputError(f"{self.source} can't be used: it refers to {error.ref}, {what}") from None
        except Exception as error:
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
    schemas = components.get("schemas") if isinstance(components, Mapping) else None
    if isinstance(components, Mapping) and isinstance(schemas, Mapping) and "Input" in schemas:
        # Input refers to its neighbours, so it can't be taken out. OpenAPI's "nullable" may stay unknown: None is never
        # sent, because leaving the key out means the same to every model.
        return {"$ref": _INPUT, "components": _with_numeric_limits(components)}
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


def _components(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an OpenAPI document that are schemas, by their place: to the validator it is just unknown words."""
    if schema.get("$ref") != _INPUT:
        return {}
    return {f"components/schemas/{name}": one for name, one in schema["components"]["schemas"].items()}


def _named(schema: Mapping[str, Any], resolver: Any) -> frozenset[str] | None:
    """The keys of an input that a schema names; ``None``: it does not mean to name them all."""
    try:
        parts = [*_parts(schema, resolver, set())]
    except (Unresolvable, ValueError):  # a part of a path that should be a number
        return None
    if any(_is_open(part) for part in parts) or not any("properties" in part for part in parts):
        return None
    return frozenset(key for part in parts for word in ("properties", "required") for key in part.get(word, ()))


def _parts(schema: Any, resolver: Any, seen: set[str]) -> Iterator[Mapping[str, Any]]:
    """A schema and all in it that says something of the same object; ``seen``: the references that were followed."""
    if not isinstance(schema, Mapping):  # true, false
        return
    yield schema
    for several in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(several, ()):
            yield from _parts(part, resolver, seen)
    for one in ("if", "then", "else"):
        yield from _parts(schema.get(one), resolver, seen)
    if (ref := schema.get("$ref")) is not None and ref not in seen:
        seen.add(ref)
        target = resolver.lookup(ref)
        yield from _parts(target.contents, target.resolver, seen)


def _is_open(schema: Mapping[str, Any]) -> bool:
    others = ("additionalProperties", "unevaluatedProperties")
    return bool(schema.keys() & {"patternProperties", "dependentSchemas", "$dynamicRef", "$recursiveRef"}) or any(
        schema.get(key, False) is not False for key in others
    )
