"""An input against its model's schema: the documents that users have, their pitfalls, and what is said."""

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
    """A plain schema, and each of Replicate's documents: what fits passes, what does not is refused."""
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
    ids=lambda one: next(iter(one)),
)
def test_schemas_of_other_words(document: dict[str, Any]) -> None:
    """A schema need not begin with `properties` or `type`."""
    InputSchema({**document, "description": "x"}, "the schema").check({"prompt": "x", "seed": 7})
    assert "does not fit the schema" in refusal({"seed": "seven"}, document)


def test_a_reference_that_leads_nowhere() -> None:
    """It shows only when it is followed, and is the schema's fault then, in words."""
    document = {"type": "object", "properties": {"prompt": {"$ref": "#/$defs/gone"}}}
    said = refusal({"prompt": "x"}, document)
    assert "the schema can't be used: it refers to /$defs/gone, which is not in it" in said


def test_an_input_without_its_neighbours() -> None:
    """Whoever cuts `Input` out of its document is told to give the whole one."""
    said = refusal({"prompt": "x", "aspect_ratio": "1:1"}, OPENAPI["components"]["schemas"]["Input"])
    assert "it refers to /components/schemas/aspect_ratio" in said
    assert "give the whole document, not its Input alone" in said


def test_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is done when a schema is made, not when an input is checked."""
    made: list[object] = []
    original = Draft202012Validator.check_schema

    def check_schema(schema: Any, *args: Any, **options: Any) -> None:
        made.append(schema)
        original(schema, *args, **options)

    monkeypatch.setattr(Draft202012Validator, "check_schema", check_schema)
    schema = InputSchema(OPENAPI, "the schema")
    once = len(made)
    assert once == 1 + len(OPENAPI["components"]["schemas"])
    for number in range(100):
        schema.check({"prompt": "x", "seed": number}, strict=True)
    assert len(made) == once


def test_nothing_is_fetched() -> None:
    """A reference out of the document is not followed: no schema makes a worker ask other hosts."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        said = refusal({"prompt": "x"}, {"type": "object", "properties": {"prompt": {"$ref": url}}})
        with contextlib.suppress(TimeoutError):
            asked.append(str(server.accept()))
    assert asked == []
    assert f"the schema can't be used: it refers to {url}, which is another document: nothing is fetched" in said


@pytest.mark.parametrize(("value", "fits"), [(0.5, True), (0, False), (10, True), (10.5, False)])
def test_limits_as_openapi_has_them(value: float, fits: bool) -> None:
    """OpenAPI 3.0 says with a boolean whether a limit itself is allowed."""
    document = copy.deepcopy(OPENAPI)
    guidance = document["components"]["schemas"]["Input"]["properties"]["guidance"]
    guidance |= {"minimum": 0, "exclusiveMinimum": True, "maximum": 10, "exclusiveMaximum": False}
    if fits:
        InputSchema(document, "the schema").check({"prompt": "x", "guidance": value})
    else:
        assert "input.guidance must be" in refusal({"prompt": "x", "guidance": value}, document)


def test_long_values_that_are_allowed_are_shown() -> None:
    """What is allowed comes from the schema, and is shown whole."""
    document = {"type": "object", "properties": {"style": {"enum": ["a very long name of a style, in so many words"]}}}
    assert '"a very long name of a style, in so many words"' in refusal({"style": "x"}, document)


def test_references_are_followed() -> None:
    """Pitfall 1: `Input` refers to enums beside it, in `allOf`."""
    said = refusal({"prompt": "x", "aspect_ratio": "216:9"})
    assert 'input.aspect_ratio must be one of "1:1", "16:9", "21:9"; got "216:9" (did you mean "21:9"?)' in said


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
    """Pitfall 4: such schemas let misspelt keys pass. They are told with the nearest known one, or refused if asked."""
    schema = InputSchema(OPENAPI, "the schema")
    given = {"prompt": "x", "aspect_ration": "1:1", "zzz": 1}
    schema.check(given)
    assert schema.unknown_keys(given) == [
        'input.aspect_ration is not a parameter that the schema knows (did you mean "aspect_ratio"?)',
        "input.zzz is not a parameter that the schema knows",
    ]
    said = refusal(given, strict=True)
    assert all(words in said for words in schema.unknown_keys(given))


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
    """Where a schema lets other keys in, or can't be read to its end, none is called unknown."""
    assert InputSchema({**PLAIN, **more}, "the schema").unknown_keys({"prompt": "x", "zzz": 1}) == []


def test_a_schema_that_names_no_key() -> None:
    """One that says nothing of keys knows of no unknown ones."""
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
def test_keys_that_stand_elsewhere_in_a_schema(more: dict[str, Any]) -> None:
    """A key is known wherever the schema names it, and `strict` still refuses those that it names nowhere."""
    schema = InputSchema({**PLAIN, **more}, "the schema")
    assert schema.unknown_keys({"prompt": "x", "zzz": {"prompt": "x"}}) == []
    assert schema.unknown_keys({"prompt": "x", "zz": 1}) == [
        'input.zz is not a parameter that the schema knows (did you mean "zzz"?)'
    ]
    with pytest.raises(InvalidInputError, match=r"input\.zz is not a parameter"):
        schema.check({"prompt": "x", "zz": 1}, strict=True)


def test_a_schema_that_never_ends() -> None:
    """One that refers to itself is read once, and is the schema's fault when an input is checked."""
    assert "the schema can't be used: " in refusal({"prompt": "x"}, {**PLAIN, "allOf": [{"$ref": "#"}]})


def test_a_schema_that_allows_no_other_keys() -> None:
    """`additionalProperties: false` refuses them without being asked."""
    said = refusal({"prompt": "x", "num_output": 1}, {**PLAIN, "additionalProperties": False})
    assert 'input has keys that are not allowed: num_output (did you mean "num_outputs"?)' in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_outputs": "4"}, 'input.num_outputs must be a whole number; got "4"'),
        ({"guidance": "3.5"}, 'input.guidance must be a number; got "3.5"'),
        ({"go_fast": "False"}, 'input.go_fast must be true or false; got "False"'),
        ({"frames": '["https://x/y"]'}, "input.frames must be of type array"),
        ({"width": "256"}, "input.width must be"),
    ],
)
def test_what_a_template_has_made_text_of(given: dict[str, Any], words: str) -> None:
    """Pitfall 5: text where a number is wanted comes from a template, and the error says what to do."""
    said = refusal({"prompt": "x", **given})
    assert words in said
    assert "render_template_as_native_obj=True" in said


def test_other_text_gets_no_such_hint() -> None:
    """Text that is no number does not come from a template that rendered one."""
    for key, text in [("num_outputs", "four"), ("num_outputs", "4.5"), ("num_outputs", ""), ("guidance", "four")]:
        assert "render_template_as_native_obj" not in refusal({"prompt": "x", key: text})


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


def test_defaults_stay_the_servers() -> None:
    """Pitfall 7: defaults are applied by the server; the input stays what it was."""
    given = {"prompt": "x"}
    InputSchema(OPENAPI, "the schema").check(given)
    assert given == {"prompt": "x"}


def test_all_violations_in_one_message() -> None:
    """All that is wrong is said at once, each with its place."""
    said = refusal({"aspect_ratio": "2:1", "num_outputs": 9, "frames": ["https://a", "https://b", "c"]})
    for words in (
        "input lacks prompt",
        "input.aspect_ratio must be one of",
        "input.num_outputs must be at most 4.0; got 9",
        "input.frames must be a list of at most 2; got 3",
        "input.frames[2] must be a URL",
    ):
        assert words in said
    assert "nothing was paid" in said


def test_long_lists_have_an_end() -> None:
    """A message has at most so many violations, and says how many more there are."""
    document = {"type": "object", "properties": {f"k{n}": {"type": "integer"} for n in range(MAX_SHOWN_VIOLATIONS + 5)}}
    said = refusal({f"k{n}": "x" for n in range(MAX_SHOWN_VIOLATIONS + 5)}, document)
    assert MAX_SHOWN_VIOLATIONS >= 100
    assert said.count("must be a whole number") == MAX_SHOWN_VIOLATIONS
    assert "and 5 more" in said


@pytest.mark.parametrize(
    "value", ["a prompt that nobody else has to know of, " * 3, "data:image/png;base64,SECRET", "a\nb"]
)
@pytest.mark.parametrize("key", ["num_outputs", "aspect_ratio", "frames", "go_fast"])
def test_long_values_are_not_shown(key: str, value: str) -> None:
    """A prompt or a file in the wrong place stays out of the message."""
    said = refusal({"prompt": "x", key: value})
    assert value not in said
    assert "SECRET" not in said
    assert f"text of {len(value)} characters" in said


def test_the_prompt_itself_is_not_shown() -> None:
    """Not even where it is too long, or no text at all; a short one in another text's place neither."""
    assert "lighthouse" not in refusal({"prompt": "lighthouse " * 1000})
    assert "lighthouse" not in refusal({"prompt": ["lighthouse"]})
    assert "got text of 10 characters" in refusal({"prompt": "x", "image": "lighthouse"})
    assert "got text of 10 characters" in refusal({"prompt": "x", "frames": "lighthouse"})


def test_one_of_several_forms() -> None:
    """What fits none of several forms is told by the nearest one."""
    document = {"type": "object", "properties": {"size": {"anyOf": [{"type": "integer"}, {"enum": ["auto"]}]}}}
    InputSchema(document, "the schema").check({"size": "auto"})
    assert "input.size must be" in refusal({"size": 1.5}, document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_our_examples(path: Path) -> None:
    """The schemas of example_dags take a prompt, say since when they hold, and refuse what no model takes."""
    document = json.loads(path.read_text())
    assert "20" in document["$comment"]
    schema = InputSchema(document, str(path))
    schema.check({"prompt": "a lighthouse", "seed": 7, "output_format": "png"}, strict=True)
    for wrong in ({"seed": 7}, {"prompt": "x", "output_format": "gif"}, {"prompt": 1}, {"prompt": "x", "seeds": 1}):
        with pytest.raises(InvalidInputError):
            schema.check(wrong, strict=True)


def test_there_are_examples() -> None:
    """The test above has something to look at."""
    assert [path.stem for path in EXAMPLES] == ["flux-2-pro", "flux-kontext-pro", "flux-schnell"]
