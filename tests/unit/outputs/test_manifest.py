"""``outputs/manifest.py``: what a manifest says about stored files, what it leaves out, and how it is read again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.outputs import manifest
from airflow_provider_comet.outputs.manifest import StoredFile
from airflow_provider_comet.outputs.output import without_secrets

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
URL = "https://replicate.delivery/x/out-0.webp"


def rendered(**options: Any) -> dict[str, Any]:
    prediction = Prediction(
        "abc",
        "succeeded",
        model="a/b",
        input={"prompt": "x", "image": PNG, "url": "https://u:p@a.example/i.png?X-Amz-Signature=s", "seeds": [1]},
        metrics={"predict_time": 1.5},
        created_at="2026-03-12T11:27:20.258Z",
    )
    files = [StoredFile("s3://bucket/abc-0.webp", "0" * 64, 12, "image/webp", URL)]
    stored_by = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
    options = {"name": None, "write_input": True, "provider_version": "1", "stored_by": stored_by, **options}
    text = manifest.render(prediction, files, stored_at="2026-03-12T11:28:00+00:00", **options)
    found: dict[str, Any] = json.loads(text)
    return found


def test_manifest_follows_its_schema() -> None:
    """The schema that docs/outputs.md shows holds, and the schema itself is one."""
    Draft202012Validator.check_schema(manifest.SCHEMA)
    Draft202012Validator(manifest.SCHEMA).validate(rendered())
    assert not Draft202012Validator(manifest.SCHEMA).is_valid({**rendered(), "files": [{"uri": "x"}]})


def test_manifest_of_half_characters() -> None:
    """A prompt may hold what is no character; the manifest of a paid result is written all the same."""
    halves = Prediction("abc", "succeeded", input={"prompt": "\ud83d", "image": PNG + "\ud83d"})
    stored_by = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
    options = {"stored_by": stored_by, "provider_version": "1", "write_input": True}
    text = manifest.render(halves, [], name=None, stored_at="x", **options)
    assert json.loads(text)["input"]["prompt"] == "\ufffd"


def test_manifest_keeps_no_secret() -> None:
    """Data URIs are digests, URLs lose user name and query; the input can be left out."""
    stored_input = rendered()["input"]
    assert (stored_input["prompt"], stored_input["seeds"], stored_input["url"]) == ("x", [1], "https://a.example/i.png")
    assert stored_input["image"] == without_secrets(PNG) != PNG
    assert "input" not in rendered(write_input=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"manifest_version": 1}', "\xff"], ids=repr)
def test_what_is_no_manifest(text: str) -> None:
    """It counts as none: all is stored anew, over it."""
    assert manifest.parse(text.encode("latin-1"), "abc") is None


def test_manifest_is_read_back() -> None:
    """Of this prediction, whatever a later release has added; another prediction's is none."""
    text = json.dumps({**rendered(), "colour": "red"}).encode()
    (file,) = manifest.parse(text, "abc") or []
    assert (file.uri, file.size, file.source) == ("s3://bucket/abc-0.webp", 12, URL)
    assert manifest.parse(text, "def") is None
    assert manifest.parse(json.dumps({**rendered(), "manifest_version": 2}).encode(), "abc") is None
    small = manifest.xcom_value("abc", "s3://bucket/abc.manifest.json", [file])
    assert small["files"] == [
        {"uri": "s3://bucket/abc-0.webp", "sha256": "0" * 64, "size": 12, "content_type": "image/webp", "name": None}
    ]


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("s3://aws_default@bucket/a/b.webp", "s3://bucket/a/b.webp"),
        ("s3://bucket/a@b.webp", "s3://bucket/a@b.webp"),
        ("file:///srv/a@b.webp", "file:///srv/a@b.webp"),
        ("/srv/a.webp", "/srv/a.webp"),
    ],
)
def test_a_uri_outside_of_airflow(uri: str, plain: str) -> None:
    """It lacks Airflow's connection id, and nothing else."""
    assert manifest.plain_uri(uri) == plain


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("uri", "sha256", "size", "content_type", "source", "name"), JSON)
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """They are no manifest, and no error."""
    assert manifest.parse(content, "abc") is None


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from([*manifest.SCHEMA["properties"]]), JSON | st.lists(FIELDS), max_size=4))
def test_any_fields(fields: dict[str, Any]) -> None:
    """A manifest with some odd fields names files, or is none."""
    files = manifest.parse(json.dumps({**rendered(), **fields}).encode(), "abc")
    assert files is None or all(isinstance(file.uri, str) for file in files)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"files":' * 100_000, b"[" * 990 + b"]" * 990, b"1" * 5000], ids=len
)
def test_what_python_can_not_read(content: bytes) -> None:
    """It counts as none, also if the value is nested too deeply or has too many digits."""
    assert manifest.parse(content, "abc") is None
    within = json.dumps({**rendered(), "input": 0}).encode().replace(b'"input": 0', b'"input": ' + content)
    assert manifest.parse(within, "abc") is None or content[:2] == b"[["


def test_a_manifest_of_deep_values() -> None:
    """A deep input is written; an input that Python could not even have read is an error of the package."""
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    options: dict[str, Any] = {"name": None, "stored_at": "x", "stored_by": {}}
    options |= {"provider_version": "1", "write_input": True}
    assert json.loads(manifest.render(Prediction("abc", "succeeded", input=deep), [], **options))["input"] == deep
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(OutputRefusedError, match="nested too deeply"):
        manifest.render(Prediction("abc", "succeeded", input=deep), [], **options)
