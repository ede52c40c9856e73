"""Files in a prediction's input: the content of an ``ObjectStoragePath`` is sent as a data URI."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.file_errors import InputFileError
from airflow_provider_comet.api.media_types import media_type_of
from airflow_provider_comet.api.validation import MAX_DEPTH

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

MAX_DATA_URI_CHARACTERS = 10_000_000
"""CometAPI's blog on Replicate's image models says to keep each input under 10 MB; no other page names a
limit. Three bytes of a file take four characters, so the largest file has 7.5 MB."""


def embed_files(input: Any) -> Any:
    """Return a copy of an input with a data URI in the place of each ``ObjectStoragePath``.

    Only such objects are read. A text is never taken for a path, whatever a template has rendered.

    :raises InvalidInputError: a file does not exist, is empty or too large, or a path is of another type.
    :raises InputFileError: a file can't be read now.
    """
    return _replace_files(input, _data_uri, "input", 0)


def check_files(input: Any) -> Any:
    """Return a copy of an input with a stand-in for the data URI of each file; of a file one byte is read.

    A stand-in has the media type and the length of the real data URI, so a schema says the same of both unless it
    describes the content. Stand-ins of different files differ, for schemas that want unique items in a list.

    :raises InvalidInputError: as ``embed_files``.
    :raises InputFileError: the size of a file can't be found out now.
    """
    return _replace_files(input, _stand_in, "input", 0)


def _replace_files(value: Any, replace: Callable[[ObjectStoragePath, str], str], name: str, depth: int) -> Any:
    # check_create refuses what is nested deeper, or contains itself.
    if isinstance(value, (str, int, float, type(None))) or depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {key: _replace_files(item, replace, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_files(item, replace, f"{name}[{index}]", depth + 1) for index, item in enumerate(value)]
    from airflow.sdk import ObjectStoragePath  # loads fsspec: only for an input that may hold a path

    if isinstance(value, ObjectStoragePath):
        return replace(value, name)
    if isinstance(value, os.PathLike):
        raise InvalidInputError(
            f"{name} is of type {type(value).__name__}; give a file that is to be sent as an "
            "airflow.sdk.ObjectStoragePath"
        )
    return value


def _data_uri(path: ObjectStoragePath, name: str) -> str:
    start = _data_uri_start(path)
    with _storage_errors(path, name), path.open("rb") as file:  # type: ignore[no-untyped-call]
        content = file.read(_max_bytes(start) + 1)
    _check_size(len(content), path, name)
    return start + base64.b64encode(content).decode()


def _stand_in(path: ObjectStoragePath, name: str) -> str:
    with _storage_errors(path, name):
        info = path.fs.info(path.path)
        if info.get("type") == "directory":
            raise IsADirectoryError(path)
        # A file that can't be read is found before anything is paid. Without a cache one byte is fetched, not a block.
        with path.fs.open(path.path, "rb", cache_type="none") as file:
            first = file.read(1)
    size = (info.get("size") or 1) if first else 0  # a web server, or a special file, may leave the size open
    _check_size(size, path, name)
    length = -(-size // 3) * 4
    return _data_uri_start(path) + hashlib.sha256(str(path).encode()).hexdigest()[:length].ljust(length, "A")


def _data_uri_start(path: ObjectStoragePath) -> str:
    return f"data:{media_type_of(path.suffix)};base64,"


def _max_bytes(start: str) -> int:
    return (MAX_DATA_URI_CHARACTERS - len(start)) // 4 * 3


def _check_size(size: int, path: ObjectStoragePath, name: str) -> None:
    if not size:
        raise InvalidInputError(f"{name}: the file {path} is empty")
    max_bytes = _max_bytes(_data_uri_start(path))
    if size > max_bytes:
        raise InvalidInputError(
            f"{name}: the file {path} is larger than {max_bytes / 1e6:.1f} MB, the most that can be sent (a data URI "
            "of 10 MB). Put it where CometAPI can fetch it, and give its https URL instead of the path"
        )


@contextlib.contextmanager
def _storage_errors(path: ObjectStoragePath, name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidInputError(f"{name}: there is no file {path} ({type(error).__name__})") from error
    except Exception as error:  # s3fs raises errors of botocore, which are no OSError
        raise InputFileError(f"{name}: {path}: {type(error).__name__}: {error}") from error
