"""``inputs/schemas.py``: the documents that users have as schemas, their pitfalls, and the errors."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from jsonschema.validators import Draft202012Validator

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.inputs.schemas import MAX_SHOWN_VIOLATIONS, InputSchema

EXAMPLES = sorted((Path(__file__).parents[3] / "example_dags" / "schemas").rglob("*.json"))

# As cog writes it for a model: enums beside Input, OpenAPI's nullable, x-order, limits as floats.
OPENAPI: dict[str, Any] = {
    "openapi": "3.0.2",
    "info": {"title": "Cog", "version": "0.1.0"},
    "paths": {},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "title": "Input",
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string", "title": "Prompt", "x-order": 0, "maxLength": 5000},
                    "aspect_ratio": {
                        "allOf": [{"$ref": "#/components/schemas/aspect_ratio"}],
                        "default": "1:1",
                        "x-order": 1,
                    },
                    "num_outputs": {"type": "integer", "minimum": 1, "maximum": 4.0, "default": 1, "x-order": 2},
                    "width": {"type": "integer", "enum": [128, 256, 512]},
                    "seed": {"type": "integer", "nullable": True},
                    "guidance": {"type": "number", "minimum": 0, "maximum": 10},
                    "go_fast": {"type": "boolean", "default": True},
                    "image": {"type": "string", "format": "uri", "nullable": True},
                    "frames": {"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": 2},
                },
            },
            "aspect_ratio": {"enum": ["1:1", "16:9", "21:9"], "type": "string", "title": "aspect_ratio"},
            "Output": {"type": "array", "items": {"type": "string", "format": "uri"}},
        }
    },
}
VERSION = {"id": "bf53bdb9", "cog_version": "0.9.21", "openapi_schema": OPENAPI}
MODEL = {"owner": "black-forest-labs", "name": "flux-schnell", "latest_version": VERSION}
PLAIN = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string"}, "num_outputs": {"type": "integer", "maximum": 4}},
}


def refusal(input: dict[str, Any], document: Any = OPENAPI, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        InputSchema(document, "the schema").check(input, **options)
    return str(caught.value)


@pytest.mark.parametrize("document", [PLAIN, OPENAPI, VERSION, MODEL], ids=["plain", "openapi", "version", "model"])
def test_the_documents_that_users_have(document: dict[str, Any]) -> None:
    """Inputs are checked by a plain schema, and by each of Replicate's documents."""
    before = copy.deepcopy(document)
    schema = InputSchema(document, "the schema")
    schema.check({"prompt": "a lighthouse", "num_outputs": 4})
    assert "input.num_outputs must be at most 4" in refusal({"prompt": "a lighthouse", "num_outputs": 5}, document)
    assert "input lacks prompt" in refusal({"num_outputs": 1}, document)
    assert document == before


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "must be a JSON object; got a value of type list"),
        ({}, "its keys are: nothing"),
        ({"detail": "Not found", "status": 404}, "its keys are: detail, status"),
        ({"latest_version": None, "name": "x"}, "without a version that says what it takes"),
        ({"openapi_schema": None}, "without a version that says what it takes"),
        ({"openapi": "3.0.2", "components": {"schemas": {}}}, "without components.schemas.Input"),
        ({"openapi": "3.0.2", "components": None}, "without components.schemas.Input"),
        ({"openapi": "3.0.2", "components": {"schemas": ["Input"]}}, "without components.schemas.Input"),
        (
            {"openapi": "3.0.2", "components": {"schemas": {"Input": []}}},
            "is no JSON Schema, at components/schemas/Input:",
        ),
        (
            {"components": {"schemas": {"Input": {"type": "object"}, "size": {"enum": "a"}}}},
            "is no JSON Schema, at components/schemas/size/enum",
        ),
        (
            {"components": {"schemas": {"Input": {"properties": {"a": {"type": "strin"}}}}}},
            "is no JSON Schema, at components/schemas/Input/properties/a/type",
        ),
        ({"type": "objekt"}, "is no JSON Schema, at type"),
        ({"properties": {"a": {"minimum": "1"}}}, "is no JSON Schema, at properties/a/minimum"),
    ],
)
def test_what_is_no_schema(document: Any, words: str) -> None:
    """The error names the document and what is wrong with it."""
    with pytest.raises(InvalidInputError) as caught:
        InputSchema(document, "/schemas/a/b.json")
    assert "/schemas/a/b.json" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"patternProperties": {"^seed$": {"type": "integer"}}},
        {"$defs": {"a": {"properties": {"seed": {"type": "integer"}}}}, "$ref": "#/$defs/a"},
        {"if": {"required": ["seed"]}, "then": {"properties": {"seed": {"type": "integer"}}}},
        {"not": {"properties": {"seed": {"type": "string"}}}},
        {"minProperties": 2},
    ],
    ids=lambda document: next(iter(document)),
)
def test_schemas_with_other_keywords(document: dict[str, Any]) -> None:
    """A schema need not begin with `properties` or `type`."""
    InputSchema({**document, "description": "x"}, "the schema").check({"prompt": "x", "seed": 7})
    assert "does not fit the schema" in refusal({"seed": "seven"}, document)


def test_a_reference_that_leads_nowhere() -> None:
    """A broken reference is found when it is followed, and the error blames the schema."""
    document = {"type": "object", "properties": {"prompt": {"$ref": "#/$defs/gone"}}}
    text = refusal({"prompt": "x"}, document)
    assert "the schema can't be used: it refers to /$defs/gone, which is not in it" in text


def test_an_input_without_its_neighbours() -> None:
    """If `Input` was cut out of its document, the error asks for the whole document."""
    text = refusal({"prompt": "x", "aspect_ratio": "1:1"}, OPENAPI["components"]["schemas"]["Input"])
    assert "it refers to /components/schemas/aspect_ratio" in text
    assert "give the whole document, not its Input alone" in text


def test_a_schema_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow steps are done when a schema is prepared, not when an input is checked."""
    made: list[object] = []
    original = Draft202012Validator.check_schema

    def check_schema(schema: Any, *args: Any, **options: Any) -> None:
        made.append(schema)
        original(schema, *args, **options)

    monkeypatch.setattr(Draft202012Validator, "check_schema", check_schema)
    schema = InputSchema(OPENAPI, "the schema")
    count = len(made)
    assert count == 1 + len(OPENAPI["components"]["schemas"])
    for number in range(100):
        schema.check({"prompt": "x", "seed": number}, strict=True)
    assert len(made) == count


def test_nothing_is_fetched() -> None:
    """A reference out of the document is not followed: no schema makes a worker ask other hosts."""
    connections: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        text = refusal({"prompt": "x"}, {"type": "object", "properties": {"prompt": {"$ref": url}}})
        with contextlib.suppress(TimeoutError):
            connections.append(str(server.accept()))
    assert connections == []
    assert f"the schema can't be used: it refers to {url}, which is another document: nothing is fetched" in text


@pytest.mark.parametrize(("value", "fits"), [(0.5, True), (0, False), (10, True), (10.5, False)])
def test_limits_as_openapi_has_them(value: float, fits: bool) -> None:
    """In OpenAPI 3.0 a boolean says whether a limit itself is allowed."""
    document = copy.deepcopy(OPENAPI)
    guidance = document["components"]["schemas"]["Input"]["properties"]["guidance"]
    guidance |= {"minimum": 0, "exclusiveMinimum": True, "maximum": 10, "exclusiveMaximum": False}
    if fits:
        InputSchema(document, "the schema").check({"prompt": "x", "guidance": value})
    else:
        assert "input.guidance must be" in refusal({"prompt": "x", "guidance": value}, document)


def test_references_are_followed() -> None:
    """Pitfall 1: `Input` refers to enums beside it, in `allOf`."""
    text = refusal({"prompt": "x", "aspect_ratio": "216:9"})
    assert 'input.aspect_ratio must be one of "1:1", "16:9", "21:9"; got "216:9" (did you mean "21:9"?)' in text


def test_nullable_does_not_break_the_schema() -> None:
    """Pitfall 2: OpenAPI's `nullable` is no word of JSON Schema. None itself is refused before, by any schema."""
    InputSchema(OPENAPI, "the schema").check({"prompt": "x", "seed": 7})
    assert "input.seed must be a whole number" in refusal({"prompt": "x", "seed": "seven"})


@pytest.mark.parametrize(
    "value",
    ["https://example.com/a.png", "http://127.0.0.1/a.png", "data:image/png;base64,AA==", "HTTPS://x/y", "Data:,x"],
)
def test_urls(value: str) -> None:
    """Pitfall 3: `format: uri` is checked, although jsonschema does so only with more packages."""
    InputSchema(OPENAPI, "the schema").check({"prompt": "x", "image": value, "frames": [value]})


@pytest.mark.parametrize("value", ["a.png", "/tmp/a.png", "s3://bucket/a.png", "", "file:///tmp/a.png", "https://"])
def test_what_is_no_url(value: str) -> None:
    """A path is not a URL that a model can read."""
    assert "input.image must be a URL (https://, http:// or data:)" in refusal({"prompt": "x", "image": value})
    assert "input.frames[1] must be a URL" in refusal({"prompt": "x", "frames": ["https://x/y", value]})


def test_unknown_keys() -> None:
    """Pitfall 4: such schemas let misspelt keys pass. A message suggests a known key; `strict` refuses the input."""
    schema = InputSchema(OPENAPI, "the schema")
    input = {"prompt": "x", "aspect_ration": "1:1", "zzz": 1}
    schema.check(input)
    assert schema.unknown_keys(input) == [
        'input.aspect_ration is not a parameter that the schema knows (did you mean "aspect_ratio"?)',
        "input.zzz is not a parameter that the schema knows",
    ]
    text = refusal(input, strict=True)
    assert all(message in text for message in schema.unknown_keys(input))


@pytest.mark.parametrize(
    "more",
    [
        {"patternProperties": {"^x": {}}},
        {"additionalProperties": True},
        {"additionalProperties": {"type": "integer"}},
        {"unevaluatedProperties": {"type": "integer"}},
        {"allOf": [{"patternProperties": {"^x": {}}}]},
        {"anyOf": [{"$ref": "https://example.com/schema.json"}, {}]},
        {"anyOf": [{"$ref": "#/allOf/x"}, {}], "allOf": [{}]},
    ],
    ids=str,
)
def test_a_schema_that_does_not_name_all_keys(more: dict[str, Any]) -> None:
    """If a schema allows other keys, or can't be read completely, no key is called unknown."""
    assert InputSchema({**PLAIN, **more}, "the schema").unknown_keys({"prompt": "x", "zzz": 1}) == []


def test_a_schema_that_names_no_key() -> None:
    """If a schema names no keys, no key is called unknown."""
    InputSchema({"type": "object", "required": ["prompt"]}, "the schema").check({"prompt": "x", "zzz": 1}, strict=True)


@pytest.mark.parametrize(
    "more",
    [
        {"allOf": [{"properties": {"zzz": {}}}]},
        {"anyOf": [{"required": ["zzz"]}, {}]},
        {"oneOf": [{"properties": {"zzz": {}}}]},
        {"if": {"required": ["seed"]}, "then": {"properties": {"zzz": {}}}},
        {"if": {"required": ["seed"]}, "else": {"properties": {"zzz": {}}}},
        {"$defs": {"a/b": {"properties": {"zzz": {}}}}, "$ref": "#/$defs/a~1b"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"properties": {"zzz": {}}}}, "allOf": [{"$ref": "#/$defs/a"}]},
        {"properties": {"prompt": {}, "zzz": {"$ref": "#"}}, "allOf": [True]},
    ],
    ids=str,
)
def test_keys_that_a_schema_names_elsewhere(more: dict[str, Any]) -> None:
    """A key is known wherever the schema names it, and `strict` refuses keys that it names nowhere."""
    schema = InputSchema({**PLAIN, **more}, "the schema")
    assert schema.unknown_keys({"prompt": "x", "zzz": {"prompt": "x"}}) == []
    assert schema.unknown_keys({"prompt": "x", "zz": 1}) == [
        'input.zz is not a parameter that the schema knows (did you mean "zzz"?)'
    ]
    with pytest.raises(InvalidInputError, match=r"input\.zz is not a parameter"):
        schema.check({"prompt": "x", "zz": 1}, strict=True)


def test_a_schema_that_never_ends() -> None:
    """A schema that refers to itself is read once, and checking an input by it is an error of the schema."""
    assert "the schema can't be used: " in refusal({"prompt": "x"}, {**PLAIN, "allOf": [{"$ref": "#"}]})


def test_a_schema_that_allows_no_other_keys() -> None:
    """`additionalProperties: false` refuses unknown keys without `strict`."""
    text = refusal({"prompt": "x", "num_output": 1}, {**PLAIN, "additionalProperties": False})
    assert 'input has keys that are not allowed: num_output (did you mean "num_outputs"?)' in text


@pytest.mark.parametrize(("value", "fits"), [(1.0, True), (4, True), (1.5, False), (True, False), (5, False)])
def test_whole_numbers(value: Any, fits: bool) -> None:
    """Pitfalls 5 and 6: 1.0 is a whole number, true is none, and limits may be written as floats."""
    if fits:
        InputSchema(OPENAPI, "the schema").check({"prompt": "x", "num_outputs": value})
    else:
        assert "input.num_outputs must be" in refusal({"prompt": "x", "num_outputs": value})


def test_numbers_of_an_enum() -> None:
    """Pitfall 6: an enum may be of numbers."""
    InputSchema(OPENAPI, "the schema").check({"prompt": "x", "width": 512})
    assert "input.width must be one of 128, 256, 512; got 300" in refusal({"prompt": "x", "width": 300})


def test_defaults_are_not_filled_in() -> None:
    """Pitfall 7: the server applies defaults; the input does not change."""
    input = {"prompt": "x"}
    InputSchema(OPENAPI, "the schema").check(input)
    assert input == {"prompt": "x"}


def test_all_violations_in_one_message() -> None:
    """A message names all violations, each with its path."""
    text = refusal({"aspect_ratio": "2:1", "num_outputs": 9, "frames": ["https://a", "https://b", "c"]})
    for violation in (
        "input lacks prompt",
        "input.aspect_ratio must be one of",
        "input.num_outputs must be at most 4.0; got 9",
        "input.frames must be a list of at most 2; got 3",
        "input.frames[2] must be a URL",
    ):
        assert violation in text
    assert "nothing was paid" in text


def test_a_message_has_a_limited_number_of_violations() -> None:
    """A message names a limited number of violations, and how many more there are."""
    document = {"type": "object", "properties": {f"k{n}": {"type": "integer"} for n in range(MAX_SHOWN_VIOLATIONS + 5)}}
    text = refusal({f"k{n}": "x" for n in range(MAX_SHOWN_VIOLATIONS + 5)}, document)
    assert MAX_SHOWN_VIOLATIONS >= 100
    assert text.count("must be a whole number") == MAX_SHOWN_VIOLATIONS
    assert "and 5 more" in text


def test_one_of_several_forms() -> None:
    """An input that fits any of several forms passes; otherwise the error names what each form lacks."""
    document = {"type": "object", "properties": {"size": {"anyOf": [{"type": "integer"}, {"enum": ["auto"]}]}}}
    InputSchema(document, "the schema").check({"size": "auto"})
    assert 'input.size must be a whole number; got 1.5, or input.size must be one of "auto"' in refusal(
        {"size": 1.5}, document
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_our_examples(path: Path) -> None:
    """The schemas of example_dags take a prompt, have a date, and refuse inputs that no model takes."""
    document = json.loads(path.read_text())
    assert "20" in document["$comment"]
    schema = InputSchema(document, str(path))
    schema.check({"prompt": "a lighthouse", "seed": 7, "output_format": "png"}, strict=True)
    for wrong in ({"seed": 7}, {"prompt": "x", "output_format": "gif"}, {"prompt": 1}, {"prompt": "x", "seeds": 1}):
        with pytest.raises(InvalidInputError):
            schema.check(wrong, strict=True)


def test_there_are_examples() -> None:
    """There is a schema for each of three models."""
    assert [path.stem for path in EXAMPLES] == ["flux-2-pro", "flux-kontext-pro", "flux-schnell"]
