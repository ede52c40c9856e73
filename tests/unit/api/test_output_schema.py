"""``api/output_schema.py``: what Replicate's description of a model says about its output."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api.files import OutputFile, find_files
from airflow_provider_comet.api.output_schema import OutputSchema

PICTURE = "https://files.example/a.png"
PAGE = "https://files.example/page"
DELIVERED = "https://replicate.delivery/xezq/abc"
URI = {"type": "string", "format": "uri"}
TEXT = {"type": "string"}
TOKENS = {"type": "array", "items": TEXT, "x-cog-array-type": "iterator", "x-cog-array-display": "concatenate"}
OBJECT = {"type": "object", "properties": {"image": {"$ref": "#/components/schemas/Link"}, "text": TEXT}}


def document(output: Any) -> dict[str, Any]:
    """The OpenAPI document of a version, as Replicate publishes it."""
    return {"openapi": "3.0.2", "components": {"schemas": {"Input": {}, "Output": output, "Link": URI}}}


@pytest.mark.parametrize(
    ("schema", "output", "files"),
    [
        (URI, PAGE, [PAGE]),
        (URI, "no link", []),
        (URI, "https://files.example/my picture\n", ["https://files.example/my picture"]),
        (URI, "https://files.example/a\nb", []),
        (TEXT, PICTURE, []),
        (TEXT, DELIVERED, [DELIVERED]),
        ({"type": "array", "items": URI}, [PAGE], [PAGE]),
        ({"type": "array", "items": URI}, ["a caption", PAGE], [PAGE]),
        (TOKENS, [PICTURE], []),
        (TOKENS, [PICTURE, PAGE], []),
        (OBJECT, {"image": PAGE, "text": PICTURE, "other": PICTURE}, [PAGE, PICTURE]),
        ({"type": "object", "additionalProperties": URI}, {"a": PAGE}, [PAGE]),
        ({"$ref": "#/components/schemas/Link"}, PAGE, [PAGE]),
        ({"allOf": [{"$ref": "#/components/schemas/Link"}]}, PAGE, [PAGE]),
        ({"anyOf": [URI, {"type": "null"}]}, PAGE, [PAGE]),
    ],
    ids=repr,
)
def test_the_schema_decides(schema: dict[str, Any], output: Any, files: list[str]) -> None:
    """A text that it calls a link is a file without doubt, and another text is none, whatever it looks like."""
    found = find_files(output, OutputSchema.from_document(document(schema)))
    assert [file.link for file in found.files] == files
    assert all(file.is_certain for file in found.files)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"title": "Output"},
        {"anyOf": [URI, TEXT]},
        {"$ref": "#/components/schemas/Missing"},
        {"$ref": "#/components/schemas/Output"},
        {"$ref": "https://elsewhere.example/schema"},
        {"items": 7, "properties": [], "type": 3},
    ],
    ids=repr,
)
def test_a_schema_that_says_nothing(schema: dict[str, Any]) -> None:
    """The shape decides, as without a schema."""
    known = OutputSchema.from_document(document(schema))
    for output in (PAGE, [PAGE, PICTURE], ["See ", PAGE], {"a": PAGE, "b": 7}, [[PICTURE]]):
        assert find_files(output, known) == find_files(output)


@pytest.mark.parametrize("wrap", [{}, {"openapi_schema": None}, {"latest_version": {"openapi_schema": None}}], ids=str)
def test_documents_about_models(wrap: dict[str, Any]) -> None:
    """The model, a version of the model, or the OpenAPI document of a version."""
    openapi = document(URI)
    wrapped = {
        "": openapi,
        "openapi_schema": {"openapi_schema": openapi},
        "latest_version": {"latest_version": {"openapi_schema": openapi}},
    }[next(iter(wrap), "")]
    assert find_files(PAGE, OutputSchema.from_document(wrapped)).files == [OutputFile(PAGE)]


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {}, {"type": "object", "properties": {}}, {"components": 7}, {"latest_version": None}, document(7)],
    ids=repr,
)
def test_documents_that_describe_no_output(value: object) -> None:
    """A schema of the input alone is such a document, too."""
    assert OutputSchema.from_document(value) is None


def test_a_deep_output() -> None:
    """A server decides how deeply its output is nested; the schema is followed as deeply."""
    output: Any = PAGE
    for _ in range(5000):
        output = [output]
    loop = {"type": "array", "items": {"$ref": "#/components/schemas/Output"}}
    assert find_files(output, OutputSchema.from_document(document(loop))).files == find_files(output).files
