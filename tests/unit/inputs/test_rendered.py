"""``inputs/rendered.py``: a ``None`` that templates have rendered, and one that was written."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.inputs.rendered import check_rendered

T = "{{ params.x }}"


@pytest.mark.parametrize(
    "template",
    [
        T,
        "{{params.x}}",
        "  {{ params.x }}\n",
        "{{ params.x | trim }}",
        "{{ params.get('x') if params.x is not defined else params.x }}",
        "{% if params.y %}{{ params.y }}{% else %}{{ params.x }}{% endif %}",
        "{# the picture #}{{ params.x }}",
        "{{ params.empty }}{{ params.x }}",
    ],
)
@pytest.mark.parametrize("text", ["None", " None\n"])
def test_a_text_that_is_nothing_but_a_rendered_none_is_refused(template: str, text: str) -> None:
    """However the template is written: the error names the field and the template."""
    with pytest.raises(e.InvalidInputError) as caught:
        check_rendered(template, text, "input")
    message = str(caught.value)
    assert message.startswith("Not sent, nothing was paid: input has rendered to the text None; its template is ")
    assert repr(" ".join(template.split())) in message
    assert 'literal("None") sends that text' in message


@pytest.mark.parametrize(
    ("template", "rendered", "path"),
    [
        ({"a": T}, {"a": "None"}, "input.a"),
        ({"a": "b", "c": [{"d": (T, "e")}]}, {"a": "b", "c": [{"d": ("None", "e")}]}, "input.c[0].d[0]"),
        ([[T]], [["None"]], "input[0][0]"),
        ({"a": {"b": "x"}, "c": T, "d": T}, {"a": {"b": "x"}, "c": "None", "d": "None"}, "input.c"),
    ],
    ids=str,
)
def test_the_path_of_the_field_is_named(template: Any, rendered: Any, path: str) -> None:
    """At any depth of lists and objects; of several the first."""
    with pytest.raises(e.InvalidInputError, match="has rendered") as caught:
        check_rendered(template, rendered, "input")
    assert caught.value.detail.startswith(f"{path} has rendered")


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("None", "None"),
        (" None ", " None "),
        ("None\n", "None"),  # Jinja drops the last line break of every text
        ({"a": "None"}, {"a": "None"}),
        (T, ""),
        (T, "none"),
        (T, "NoneType"),
        (T, "Nonetheless"),
        (T, "null"),
        (T, None),  # native objects: refused where None is
        (T, ["None"]),
        (T, {"a": "None"}),
        (b"another type", "None"),  # another task's result
        (None, "None"),
        (["None"], ["None"]),
        ({"a": T}, {"a": 7}),
        ("None of {{ params.x }}", "None of the birds"),
        ("{{ 'a bird' if params.x is none or params.x == None else params.x }}", "a bird"),
        ("{% if params.x != None %}a{% endif %} None", "a None"),
    ],
    ids=str,
)
def test_what_is_meant_is_left_alone(template: Any, rendered: Any) -> None:
    """Texts without a template, other words, what other tasks returned, and None as part of a template's code."""
    assert check_rendered(template, rendered, "input") == []


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("a picture of {{ params.x }}", "a picture of None"),
        ("{{ params.x }}.", "None."),
        ("s3://bucket/{{ params.x }}/a.png", "s3://bucket/None/a.png"),
        ("{{ params.x }}_{{ params.y }}", "None_1"),
        ("{{ params.x }}, {{ params.x }}", "None, None"),
        ("{{ params.x }}{{ params.x }}", "NoneNone"),
        ("None of {{ params.x }}", "None of None"),
        ("{{ params.x if params.x is not none or None else None }} in blue", "None in blue"),
        ("{{ [params.x] }}", "[None]"),
        ("{% for x in params %}{{ x }} {% endfor %}", "a None "),
    ],
)
def test_none_within_a_longer_text_is_reported(template: str, rendered: str) -> None:
    """It may be a word of the text, so it is no error: the caller gets its path, once for each text."""
    assert check_rendered({"a": [template, "b"]}, {"a": [rendered, "b"]}, "input") == ["input.a[0]"]


def test_neither_rendered_values_nor_keys_are_shown() -> None:
    """The template is shown, up to a hundred characters; what other fields have rendered to is not."""
    template = {"prompt": "{{ params.prompt }}", "key": "sk-0123456789abcdef {{ " + "x" * 500 + " }}"}
    with pytest.raises(e.InvalidInputError) as caught:
        check_rendered(template, {"prompt": "nobody has to know", "key": "None"}, "input")
    assert "nobody has to know" not in str(caught.value)
    assert "sk-0123456789abcdef" not in str(caught.value)
    assert len(str(caught.value)) < 350
