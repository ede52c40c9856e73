"""The manifest: what is on record beside the files of a prediction, and the mark that all of them are there.

It is written last. docs/outputs.md describes it to readers of buckets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jsonschema import Draft202012Validator

from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.outputs.output import for_keeping, utf8

VERSION = 1
SUFFIX = ".manifest.json"

_TEXT = {"type": ["string", "null"]}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Files of one prediction, stored by airflow-provider-comet",
    "type": "object",
    "required": ["manifest_version", "prediction_id", "files", "stored_at", "stored_by", "provider_version"],
    "properties": {
        "manifest_version": {"const": VERSION},
        "prediction_id": {"type": "string"},
        "model": _TEXT,
        "version": _TEXT,
        "files": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["uri", "sha256", "size", "content_type"],
                "properties": {
                    "uri": {"type": "string"},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    "size": {"type": "integer", "minimum": 0, "description": "bytes"},
                    "content_type": {"type": "string"},
                    "source": {**_TEXT, "description": "the link, without what signed it"},
                },
            },
        },
        "input": {"description": "what it was made from; data URIs as digests"},
        "metrics": {},
        "created_at": _TEXT,
        "started_at": _TEXT,
        "completed_at": _TEXT,
        "stored_at": {"type": "string", "format": "date-time"},
        "stored_by": {
            "type": "object",
            "required": ["dag_id", "run_id", "task_id", "map_index", "try_number"],
            "properties": {
                "dag_id": {"type": "string"},
                "run_id": {"type": "string"},
                "task_id": {"type": "string"},
                "map_index": {"type": "integer"},
                "try_number": {"type": "integer"},
            },
        },
        "provider_version": {"type": "string"},
    },
}
_VALIDATOR = Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class StoredFile:
    """One file that is where it is to stay.

    :param uri: where; a path below ``output_path``.
    :param sha256: of its content, in hexadecimal digits.
    :param size: bytes.
    :param source: the link it came from, without what signed it; ``None``: it came with the prediction.
    """

    uri: str
    sha256: str
    size: int
    content_type: str
    source: str | None = None


def make(
    prediction: Prediction,
    files: Sequence[StoredFile],
    *,
    stored_at: str,
    stored_by: Mapping[str, Any],
    provider_version: str,
    write_input: bool,
) -> bytes:
    """The manifest's text, with plain URIs: it is read outside of Airflow, too.

    :param stored_at: ISO 8601.
    :param stored_by: the task instance.
    :param write_input: whether what the prediction was made from is in it.
    """
    content = {
        "manifest_version": VERSION,
        "prediction_id": prediction.id,
        "model": prediction.model,
        "version": prediction.version,
        "files": [{**asdict(file), "uri": plain_uri(file.uri)} for file in files],
        **({"input": for_keeping(prediction.input)} if write_input else {}),
        "metrics": for_keeping(prediction.metrics),
        "created_at": prediction.created_at,
        "started_at": prediction.started_at,
        "completed_at": prediction.completed_at,
        "stored_at": stored_at,
        "stored_by": dict(stored_by),
        "provider_version": provider_version,
    }
    return utf8(json.dumps(content, ensure_ascii=False, indent=1))


def plain_uri(uri: str) -> str:
    """A URI without Airflow's connection id: ``s3://bucket/x`` of ``s3://aws_default@bucket/x``."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def read(content: bytes, prediction_id: str) -> list[StoredFile] | None:
    """The files of a manifest; ``None`` if it is none, or another prediction's: then all of it is made anew."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    if not _VALIDATOR.is_valid(found) or found["prediction_id"] != prediction_id:
        return None
    return [StoredFile(**{name: file.get(name) for name in StoredFile.__annotations__}) for file in found["files"]]


def small_form(prediction_id: str, uri: str, files: Sequence[StoredFile]) -> dict[str, Any]:
    """What goes into XCom.

    :param uri: of the manifest.
    """
    kept = ("uri", "sha256", "size", "content_type")
    return {
        "prediction_id": prediction_id,
        "manifest": uri,
        "files": [{name: getattr(file, name) for name in kept} for file in files],
    }
