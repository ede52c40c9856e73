"""The manifest: a JSON file that describes the stored files of a prediction.

It is written last, so its existence means that all files of the prediction are stored. docs/outputs.md describes its
fields to people who read buckets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jsonschema import Draft202012Validator

from airflow_provider_comet.api.json_values import is_finite, leaves
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.outputs.output import Output, clean_url, json_bytes, without_secrets

VERSION = 1
SUFFIX = ".manifest.json"
MAX_BYTES = 64 * 1024**2
"""A larger manifest is not read, and its prediction is stored anew: the folder may hold anything."""

_TEXT = {"type": ["string", "null"]}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Files of one prediction, stored by airflow-provider-comet",
    "type": "object",
    "required": ["manifest_version", "prediction_id", "files", "stored_at", "stored_by", "provider_version"],
    "properties": {
        "manifest_version": {"const": VERSION},
        "prediction_id": {"type": "string"},
        "name": {**_TEXT, "description": "the user's own name for the prediction"},
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
                    "name": {**_TEXT, "description": "the keys of the output's objects that it stands in"},
                },
            },
        },
        "non_finite_as_null": {
            "type": "boolean",
            "description": "whether a NaN or an infinity of the output, the input or the metrics was written as null",
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
    """One file of a prediction, as it was stored.

    :param uri: a path below ``output_path``.
    :param sha256: of the content, in hexadecimal digits.
    :param size: in bytes.
    :param content_type: the media type.
    :param source: the link it was downloaded from, without its signature; ``None``: it came with the prediction.
    :param name: the keys of the objects that it stands in, such as ``vocals``; ``None``: none.
    """

    uri: str
    sha256: str
    size: int
    content_type: str
    source: str | None = None
    name: str | None = None

    def holds(self, output: Output) -> bool:
        """Return whether it was made from this output: by another rule, or another schema, its number was another's."""
        if self.source is not None:
            return output.url is not None and self.source == clean_url(output.url)
        is_text = output.url is None or not output.is_certain
        return is_text and self.sha256 == hashlib.sha256(output.content).hexdigest()


def render(
    prediction: Prediction,
    files: Sequence[StoredFile],
    *,
    name: str | None,
    stored_at: str,
    stored_by: Mapping[str, Any],
    provider_version: str,
    write_input: bool,
) -> bytes:
    """Return the manifest's content. Its URIs have no connection id: it is read outside of Airflow, too.

    :param prediction: as the API describes it; its input may be missing.
    :param files: what was stored, in the order of the outputs.
    :param name: the user's own name for the prediction.
    :param stored_at: ISO 8601.
    :param stored_by: the task instance.
    :param provider_version: the release of this package.
    :param write_input: whether the manifest holds the prediction's input.
    :raises OutputRefusedError: the input or the metrics are nested so deeply that Python can't write them.
    """
    values = [prediction.output, prediction.metrics, *([prediction.input] if write_input else [])]
    content = {
        "manifest_version": VERSION,
        "prediction_id": prediction.id,
        "name": name,
        "model": prediction.model,
        "version": prediction.version,
        "files": [{**asdict(file), "uri": plain_uri(file.uri)} for file in files],
        "non_finite_as_null": not all(is_finite(leaf) for leaf in leaves(values)),
        **({"input": without_secrets(prediction.input)} if write_input else {}),
        "metrics": without_secrets(prediction.metrics),
        "created_at": prediction.created_at,
        "started_at": prediction.started_at,
        "completed_at": prediction.completed_at,
        "stored_at": stored_at,
        "stored_by": dict(stored_by),
        "provider_version": provider_version,
    }
    return json_bytes(content)


def plain_uri(uri: str) -> str:
    """Return a URI without Airflow's connection id: ``s3://bucket/x`` for ``s3://aws_default@bucket/x``."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def parse(content: bytes, prediction_id: str) -> list[StoredFile] | None:
    """Return the files that a manifest names; ``None`` if it is invalid, or another prediction's.

    Whoever gets ``None`` stores everything anew.
    """
    if (manifest := load(content, prediction_id)) is None:
        return None
    return [StoredFile(**{name: file.get(name) for name in StoredFile.__annotations__}) for file in manifest["files"]]


def load(content: bytes, prediction_id: str) -> dict[str, Any] | None:
    """Return a manifest that follows the schema; ``None`` if it is invalid, or another prediction's."""
    try:
        manifest: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return manifest if _VALIDATOR.is_valid(manifest) and manifest["prediction_id"] == prediction_id else None


def own_name(uri: str, prediction_id: str, index: int) -> str | None:
    """Return the name of a file below the manifest's folder; ``None`` if it is not our name of this output.

    Others may write manifests, too: what such a URI says about a folder is not used.
    """
    name = uri.rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return name if stem == f"{prediction_id}-{index}" and re.fullmatch("[a-z0-9]{1,8}", suffix) else None


def xcom_value(prediction_id: str, manifest_uri: str, files: Sequence[StoredFile]) -> dict[str, Any]:
    """Return what a task hands over about a stored prediction."""
    names = ("uri", "sha256", "size", "content_type", "name")
    return {
        "prediction_id": prediction_id,
        "manifest": manifest_uri,
        "files": [{name: getattr(file, name) for name in names} for file in files],
    }
