"""Find the schema of a model's input or output: a parameter of the task, or a file in the folder of a setting."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.providers.common.compat.sdk import conf

from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.redaction import log_value
from airflow_provider_comet.api.validation import is_model
from airflow_provider_comet.inputs.schemas import InputSchema

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    SchemaSource: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | ObjectStoragePath

log = logging.getLogger(__name__)

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
            return InputSchema(_read_document(text), text)
        except FileNotFoundError:
            raise InvalidInputError(f"input_schema: there is no file {text}") from None
    found = _read_from_folder(model)
    return InputSchema(*found) if found else None


def output_schemas(models: Iterable[str]) -> Callable[[str], OutputSchema | None]:
    """Return a function that returns what the folder of schemas says about a model's output.

    :param models: read at once, because threads can't read the connection that a folder may need.
    """
    find = functools.cache(_find_output_schema)
    for model in models:
        find(model)
    return find


def _find_output_schema(model: str) -> OutputSchema | None:
    try:
        found = _read_from_folder(model)
    except CometError as error:  # the output is paid for: trouble with its description must not keep it back
        log.warning("The description of model %s is not used: %s", log_value(model), error)
        return None
    return OutputSchema.from_document(found[0]) if found else None


def _read_from_folder(model: str) -> tuple[object, str] | None:
    """Return the document about a model from the folder of Airflow's setting, and its path; ``None``: there is none."""
    folder = conf.get(SECTION, OPTION, fallback="")
    if not folder or not is_model(model):  # the model becomes a part of the path
        return None
    setting = f"Airflow's setting [{SECTION}] {OPTION}"
    if not _is_absolute(folder):
        raise InvalidInputError(f"{setting} must be an absolute path or a URL; it is {folder!r}")
    path = f"{folder.rstrip('/')}/{model}.json"
    try:
        return _read_document(path), path
    except FileNotFoundError:
        if _exists(folder):
            return None
        raise InvalidInputError(f"there is no folder {folder}, which {setting} names") from None


def _read_document(path: str) -> object:
    with _storage_errors(path):  # FileNotFoundError passes
        content = _location(path).read_bytes()
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor JSON, or nested too deeply for Python
        raise InvalidInputError(f"{path} is not JSON: {error}") from None


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
