"""Files in a prediction's input: what an ``ObjectStoragePath`` points to is sent along, as a data URI."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.api.media_types import media_type_of
from airflow_provider_comet.api.validation import DEEPEST

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

LONGEST_DATA_URI = 10_000_000
"""Characters. CometAPI's blog on Replicate's image models says to keep each input under 10 MB; nothing else is said.
Three bytes of a file take four characters, so this is a file of 7.5 MB."""


def embedded(input: Any) -> Any:
    """Return the same input with a data URI in the place of each ``ObjectStoragePath``.

    Only such objects are read: a text is never taken for a path, whatever a template has rendered.

    :raises InvalidInputError: a file is not there, is empty or too large, or the path is of another kind.
    :raises InputFileError: it can't be read now.
    """
    return _embedded(input, "input", 0)


def _embedded(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, (str, int, float, type(None))) or depth > DEEPEST:  # validation refuses what is deeper
        return value
    if isinstance(value, dict):
        return {key: _embedded(item, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_embedded(item, f"{name}[{index}]", depth + 1) for index, item in enumerate(value)]
    from airflow.sdk import ObjectStoragePath  # loads fsspec: only where there may be one

    if isinstance(value, ObjectStoragePath):
        return _data_uri(value, name)
    if isinstance(value, os.PathLike):
        raise InvalidInputError(
            f"{name} is of type {type(value).__name__}; a file that is to be sent along is given as an "
            "airflow.sdk.ObjectStoragePath"
        )
    return value


def _data_uri(path: ObjectStoragePath, name: str) -> str:
    head = f"data:{media_type_of(path.suffix)};base64,"
    most = (LONGEST_DATA_URI - len(head)) // 4 * 3
    try:
        with path.open("rb") as file:  # type: ignore[no-untyped-call]
            content = file.read(most + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInputError(f"{name}: there is no file {path} ({type(error).__name__})") from error
    except Exception as error:  # s3fs passes errors of botocore on, which are no OSError
        raise InputFileError(f"{name}: {path}: {type(error).__name__}: {error}") from error
    if not content:
        raise InvalidInputError(f"{name}: the file {path} is empty")
    if len(content) > most:
        raise InvalidInputError(
            f"{name}: the file {path} is larger than {most / 1e6:.1f} MB, which is the most that can be sent along (a "
            "data URI of 10 MB). Put it where CometAPI can fetch it, and give its https URL in place of the path"
        )
    return head + base64.b64encode(content).decode()
