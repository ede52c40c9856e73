"""Where the schema of a model's input comes from: a parameter of the task, or a folder that Airflow's settings name."""

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
from airflow_provider_comet.api.validation import check_create, is_model
from airflow_provider_comet.inputs.input_files import embedded
from airflow_provider_comet.inputs.schemas import InputSchema

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    GivenSchema: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | ObjectStoragePath

SECTION, OPTION = "comet", "input_schemas"


def find_schema(model: str, given: GivenSchema | None) -> InputSchema | None:
    """Return the schema for a model, or ``None`` if there is none: then its input is not checked.

    :param given: of the task: a document, or where one is. By default ``<owner>/<name>.json`` in the folder that
        ``[comet] input_schemas`` names, if it is there.
    :raises InvalidInputError: what was given, or the setting, can't be used.
    :raises InputFileError: it can't be read now.
    """
    if isinstance(given, Mapping):
        return InputSchema(given, "input_schema")
    if given is not None:
        text = str(given)
        if not _is_absolute(text):
            raise InvalidInputError(
                f"input_schema must be a document, a URL that ObjectStoragePath takes, or an absolute path; got "
                f"{text!r} (Path(__file__).parent makes one beside the DAG file)"
            )
        try:
            return _schema(text)
        except FileNotFoundError:
            raise InvalidInputError(f"input_schema: there is no file {text}") from None
    folder = conf.get(SECTION, OPTION, fallback="")
    if not folder or not is_model(model):  # it becomes a part of a path
        return None
    setting = f"Airflow's setting [{SECTION}] {OPTION}"
    if not _is_absolute(folder):
        raise InvalidInputError(f"{setting} must be an absolute path or a URL; it is {folder!r}")
    path = f"{folder.rstrip('/')}/{model}.json"
    try:
        return _schema(path)
    except FileNotFoundError:
        if _is_there(folder):
            return None
        raise InvalidInputError(f"there is no folder {folder}, which {setting} names") from None


def prepare(
    model: str, input: Mapping[str, Any], schema: InputSchema | None, *, strict: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return what is to be sent of an input, with its files and checked before anything is paid, and what to say of
    keys that the schema does not know.

    :param strict: refuse such keys.
    :raises InvalidInputError: it can only fail, does not fit its schema, or is to be checked strictly without one.
    :raises InputFileError: a file of it can't be read now.
    """
    complete: dict[str, Any] = embedded(input)
    check_create(model, complete)  # first: of what is no object a schema says less
    if schema is None:
        if strict:
            raise InvalidInputError(
                f"strict=True, but there is no schema for {model}: give input_schema, or put {model}.json into the "
                f"folder that Airflow's setting [{SECTION}] {OPTION} names"
            )
        return complete, []
    schema.check(complete, strict=strict)
    return complete, [
        f"{words}; it is sent all the same (strict=True refuses it)" for words in schema.unknown(complete)
    ]


def _schema(path: str) -> InputSchema:
    """The schema in a file.

    :raises FileNotFoundError: there is none.
    """
    with _file_errors(path):
        content = _location(path).read_bytes()
    try:
        document = json.loads(content.decode())
    except ValueError as error:  # neither UTF-8 nor JSON
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
    return InputSchema(document, path)


def _is_there(folder: str) -> bool:
    with _file_errors(folder):
        return _location(folder).exists()


@contextlib.contextmanager
def _file_errors(path: str) -> Iterator[None]:
    """Not all raise ``OSError``: s3fs passes errors of botocore on."""
    try:
        yield
    except (FileNotFoundError, CometError):
        raise
    except Exception as error:
        raise InputFileError(f"input_schema {path}: {type(error).__name__}: {error}") from error


def _is_absolute(path: str) -> bool:
    return "://" in path or os.path.isabs(path)


def _location(path: str) -> Path | ObjectStoragePath:
    if "://" not in path:
        return Path(path)
    from airflow.sdk import ObjectStoragePath  # loads fsspec: only where it is needed

    try:
        return ObjectStoragePath(path)
    except (ValueError, ImportError) as error:  # a protocol that nobody knows, or whose package is not there
        raise InvalidInputError(f"{path} can't be read: {error}") from error
