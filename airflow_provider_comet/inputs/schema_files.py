"""Find the schema of a model's input: a parameter of the task, or a file in the folder of an Airflow setting."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.providers.common.compat.sdk import conf

from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.api.validation import is_model
from airflow_provider_comet.inputs.schemas import InputSchema

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    SchemaSource: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | ObjectStoragePath

SECTION, OPTION = "comet", "input_schemas"


def find_schema(model: str, source: SchemaSource | None) -> InputSchema | None:
    """Return the schema for a model, or ``None`` if there is none.

    :param model: ``owner/name``.
    :param source: the task's ``input_schema``: a document, or where it is stored. ``None``: the file
        ``<owner>/<name>.json`` in the folder that the setting ``[comet] input_schemas`` names, if that file exists.
    :raises InvalidInputError: the source or the setting can't be used.
    :raises InputFileError: the file can't be read now.
    """
    if isinstance(source, Mapping):
        return InputSchema(source, "input_schema")
    if source is not None:
        text = str(source)
        if not _is_absolute(text):
            raise InvalidInputError(
                f"input_schema must be a document, a URL that ObjectStoragePath takes, or an absolute path; got "
                f"{text!r} (Path(__file__).parent makes a path beside the DAG file)"
            )
        try:
            return _read_schema(text)
        except FileNotFoundError:
            raise InvalidInputError(f"input_schema: there is no file {text}") from None
    folder = conf.get(SECTION, OPTION, fallback="")
    if not folder or not is_model(model):  # the model becomes a part of the path
        return None
    setting = f"Airflow's setting [{SECTION}] {OPTION}"
    if not _is_absolute(folder):
        raise InvalidInputError(f"{setting} must be an absolute path or a URL; it is {folder!r}")
    path = f"{folder.rstrip('/')}/{model}.json"
    try:
        return _read_schema(path)
    except FileNotFoundError:
        if _exists(folder):
            return None
        raise InvalidInputError(f"there is no folder {folder}, which {setting} names") from None


def _read_schema(path: str) -> InputSchema:
    with _storage_errors(path):  # FileNotFoundError passes
        content = _location(path).read_bytes()
    try:
        document = json.loads(content.decode())
    except ValueError as error:  # neither UTF-8 nor JSON
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
    return InputSchema(document, path)


def _exists(folder: str) -> bool:
    with _storage_errors(folder):
        return _location(folder).exists()


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, CometError):
        raise
    except Exception as error:  # s3fs raises errors of botocore, which are no OSError
        raise InputFileError(f"input_schema {path}: {type(error).__name__}: {error}") from error


def _is_absolute(path: str) -> bool:
    return "://" in path or os.path.isabs(path)


def _location(path: str) -> Path | ObjectStoragePath:
    if "://" not in path:
        return Path(path)
    from airflow.sdk import ObjectStoragePath  # loads fsspec: only for a URL

    try:
        return ObjectStoragePath(path)
    except (ValueError, ImportError) as error:  # an unknown protocol, or the package for it is not installed
        raise InvalidInputError(f"{path} can't be read: {error}") from error
