"""``inputs/violations.py``: how a violation of a schema is described, and that no description shows a prompt."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import FormatChecker
from jsonschema.validators import Draft202012Validator

from airflow_provider_comet.inputs.violations import MAX_SHOWN_CHARACTERS, URL, describe_violation, suggest

PROPERTIES: dict[str, Any] = {
    "prompt": {"type": "string", "maxLength": 5000},
    "aspect_ratio": {"enum": ["1:1", "16:9", "21:9"]},
    "num_outputs": {"type": "integer", "minimum": 1, "maximum": 4},
    "width": {"type": "integer", "enum": [128, 256, 512]},
    "guidance": {"type": "number"},
    "go_fast": {"type": "boolean"},
    "image": {"type": "string", "format": "uri"},
    "frames": {"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": 2},
}


def described(input: Any, schema: dict[str, Any]) -> str:
    """Return the descriptions of all violations."""
    formats = FormatChecker(formats=())
    formats.checks("uri")(lambda value: URL.match(value) is not None)
    formats.checks("color")(lambda value: False)
    errors = [*Draft202012Validator(schema, format_checker=formats).iter_errors(input)]
    assert errors
    return "; ".join(map(describe_violation, errors))


def described_value(key: str, value: Any, schema: dict[str, Any] | None = None) -> str:
    """Return the descriptions of what is wrong with a single parameter."""
    return described({key: value}, {"properties": {key: schema or PROPERTIES[key]}})


@pytest.mark.parametrize(
    ("value", "schema", "text"),
    [
        (2.5, {"type": "integer"}, "must be a whole number; got 2.5"),
        ([2], {"type": ["number", "null"]}, "must be a number or of type null; got a value of type list"),
        (2, {"type": "string"}, "must be text; got 2"),
        ("jpg", {"enum": ["jpeg", "png"]}, 'must be one of "jpeg", "png"; got "jpg" (did you mean "jpeg"?)'),
        (1, {"const": 2}, "must be one of 2; got 1"),
        (0, {"minimum": 1}, "must be at least 1; got 0"),
        (5, {"maximum": 4.0}, "must be at most 4.0; got 5"),
        (0, {"exclusiveMinimum": 0}, "must be more than 0; got 0"),
        (1, {"exclusiveMaximum": 1}, "must be less than 1; got 1"),
        (3, {"multipleOf": 2}, "must be a multiple of 2; got 3"),
        ("", {"minLength": 1}, "must be at least 1 characters long; got 0"),
        ("abc", {"maxLength": 2}, "must be at most 2 characters long; got 3"),
        ([], {"minItems": 1}, "must be a list of at least 1; got 0"),
        ([1, 2], {"maxItems": 1}, "must be a list of at most 1; got 2"),
        ("a.png", {"format": "uri"}, "must be a URL (https://, http:// or data:); got text of 5 characters"),
        ("red", {"format": "color"}, "must be of the format 'color'; got text of 3 characters"),
        ({"b": 1}, {"required": ["a", "b", "c"]}, "lacks a, c"),
        (
            {"seeed": 1},
            {"properties": {"seed": {}}, "additionalProperties": False},
            'has keys that are not allowed: seeed (did you mean "seed"?)',
        ),
        ("a", {"pattern": "^b"}, 'does not fit pattern "^b"'),
        (
            1.5,
            {"anyOf": [{"type": "integer"}, {"enum": ["auto"]}]},
            "must be a whole number; got 1.5, or input.x must be",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_every_rule_has_its_words(value: Any, schema: dict[str, Any], text: str) -> None:
    """A description has the path of the value, what the schema wants, and what it got."""
    assert described_value("x", value, schema).startswith(f"input.x {text}")


def test_a_path_leads_through_lists_and_objects() -> None:
    """The path names keys and positions."""
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}}
    assert described({"a": [{}, {"b": "x"}]}, schema).startswith("input.a[1].b must be a whole number")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("num_outputs", "4", 'input.num_outputs must be a whole number; got "4"'),
        ("guidance", "3.5", 'input.guidance must be a number; got "3.5"'),
        ("go_fast", "False", 'input.go_fast must be true or false; got "False"'),
        ("frames", '["https://x/y"]', "input.frames must be of type array"),
        ("width", "256", "input.width must be"),
    ],
)
def test_a_value_that_a_template_made_text_of(key: str, value: str, text: str) -> None:
    """Pitfall 5: text where another type is wanted comes from a template, and the description says what to do."""
    description = described_value(key, value)
    assert text in description
    assert "render_template_as_native_obj=True" in description


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_outputs", "four"), ("num_outputs", "4.5"), ("num_outputs", ""), ("guidance", "four"), ("guidance", "nan")],
)
def test_other_text_gets_no_such_hint(key: str, value: str) -> None:
    """Text that is no number does not come from a template that rendered a number."""
    assert "render_template_as_native_obj" not in described_value(key, value)


@pytest.mark.parametrize(
    "value", ["a prompt that nobody else has to know of, " * 3, "data:image/png;base64,SECRET", "a\nb"]
)
@pytest.mark.parametrize("key", ["num_outputs", "aspect_ratio", "frames", "go_fast"])
def test_long_values_are_not_shown(key: str, value: str) -> None:
    """A prompt or a file at the wrong key is not shown, only its length."""
    description = described_value(key, value)
    assert value not in description
    assert "SECRET" not in description
    assert f"text of {len(value)} characters" in description


def test_the_prompt_itself_is_not_shown() -> None:
    """A prompt is not shown if it is too long or of the wrong type; nor is a short text where another text belongs."""
    assert "lighthouse" not in described_value("prompt", "lighthouse " * 1000)
    assert "lighthouse" not in described_value("prompt", ["lighthouse"])
    assert "got text of 10 characters" in described_value("image", "lighthouse")
    assert "got text of 10 characters" in described_value("frames", "lighthouse")


def test_long_values_that_are_allowed_are_shown() -> None:
    """The allowed values come from the schema, and are shown whole."""
    style = "a very long name of a style, in so many words"
    assert len(style) > MAX_SHOWN_CHARACTERS
    assert f'"{style}"' in described_value("style", "x", {"enum": [style]})


@pytest.mark.parametrize(
    ("value", "known", "hint"),
    [
        ("aspect_ration", {"aspect_ratio", "seed"}, ' (did you mean "aspect_ratio"?)'),
        ("seed", ["seed"], ""),
        ("zzz", ["seed"], ""),
        ("255", [128, 256], " (did you mean 256?)"),
        (7, ["7"], ""),
    ],
)
def test_a_similar_name_is_suggested(value: Any, known: Any, hint: str) -> None:
    """The hint names the most similar known name, if there is a similar name and the value is text."""
    assert suggest(value, known) == hint
