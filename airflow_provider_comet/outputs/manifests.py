"""``read_manifests``: the stored files of a folder as a table, with what each was made from."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_comet.api.portable import RULES, carried_text
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.outputs import manifest
from airflow_provider_comet.outputs.storage import storage_errors

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

MANIFESTS_AT_ONCE = 64
"""Manifests that are read at the same time."""
BYTES_AT_ONCE = manifest.MAX_BYTES
"""Size of all manifests that are read at the same time."""
SHOWN_NAMES = 5

_PREDICTION = (
    *("prediction_id", "name", "model", "version"),
    *("created_at", "started_at", "completed_at", "stored_at"),
)
_TASK = ("dag_id", "run_id", "task_id", "map_index")
_INPUT = "input."
_METRICS = "metrics."


class _Stored(NamedTuple):
    """A stored prediction.

    :param sort_key: when it was created, and its id.
    :param rows: the columns that every prediction has, for each of its files.
    :param parameters: the columns of its input and its metrics.
    """

    sort_key: tuple[float, str]
    rows: list[dict[str, Any]]
    parameters: dict[str, Any]


def read_manifests(folder: str | ObjectStoragePath) -> list[dict[str, Any]]:
    """Return a row for each file that a folder's manifests name, and for each prediction that made none.

    All rows have the same keys in the same order: ``csv.DictWriter(out, rows[0])`` writes them. docs/outputs.md
    explains each of them. A folder that does not exist has no rows. A file that has a manifest's name, but is none that
    this release reads, is left out with a warning in the log.

    :param folder: the ``output_path`` of the task that has stored the files. Folders within it are not read.
    :raises StorageError: the folder, or a manifest in it, can't be read.
    """
    from airflow.sdk import ObjectStoragePath

    stored = sorted(_read_folder(ObjectStoragePath(folder)), key=lambda prediction: prediction.sort_key)
    found = dict.fromkeys(name for prediction in stored for name in prediction.parameters)
    columns = dict.fromkeys(sorted(found, key=lambda name: name.startswith(_METRICS)))
    return [row | columns | prediction.parameters for prediction in stored for row in prediction.rows]


def _read_folder(folder: ObjectStoragePath) -> Iterator[_Stored]:
    count, left_out = 0, []
    for path, content in _read_files(folder):
        name = path.rpartition("/")[2]
        known = None if content is None else manifest.load(content, name.removesuffix(manifest.SUFFIX))
        prediction = known and _describe(known, folder)
        count += 1
        if prediction:
            yield prediction
        else:
            left_out.append(name)
    if left_out:
        shown = excerpt(", ".join([*left_out[:SHOWN_NAMES], *(["..."] if len(left_out) > SHOWN_NAMES else [])]))
        log.warning(
            "%s: %s of %s manifests are left out, because this release can't read them: %s",
            *(folder, len(left_out), count, shown),
        )


def _read_files(folder: ObjectStoragePath) -> Iterator[tuple[str, bytes | None]]:
    """Yield path and content of each file that has a manifest's name; ``None``: it is too large.

    On S3 this is one listing, and one request for each file.
    """
    sizes = _list_files(folder)
    yield from ((path, None) for path, size in sizes.items() if size > BYTES_AT_ONCE)
    for paths in _groups({path: size for path, size in sizes.items() if size <= BYTES_AT_ONCE}):
        with storage_errors(folder):
            contents = folder.fs.cat_ranges(paths, None, None, on_error="return")  # unlike cat() it takes "[" as it is
        for path, content in zip(paths, contents, strict=True):
            if isinstance(content, FileNotFoundError):  # it was removed since
                continue
            with storage_errors(folder):
                if isinstance(content, Exception):
                    raise content
            yield path, content


def _list_files(folder: ObjectStoragePath) -> dict[str, int]:
    """Return the size of each file that has a manifest's name, by its path in the file system."""
    own_path = folder.path.rstrip("/")
    with storage_errors(folder):
        folder.fs.invalidate_cache(folder.path)  # other processes store files, too
        try:
            found = folder.fs.ls(folder.path, detail=True)
        except FileNotFoundError:
            return {}
        if any(info["name"] == own_path and info["type"] == "file" for info in found):
            raise NotADirectoryError("a folder is needed")
    return {
        info["name"]: info.get("size") or 0
        for info in found
        if info["type"] != "directory" and info["name"].endswith(manifest.SUFFIX)
    }


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield the paths in groups that are small enough to be read at once."""
    group: list[str] = []
    group_bytes = 0
    for path, size in sizes.items():
        if group and (len(group) == MANIFESTS_AT_ONCE or group_bytes + size > BYTES_AT_ONCE):
            yield group
            group, group_bytes = [], 0
        group.append(path)
        group_bytes += size
    if group:
        yield group


def _describe(known: Mapping[str, Any], folder: ObjectStoragePath) -> _Stored | None:
    """Return what a manifest says; ``None`` if it names other files than its prediction's own.

    Others may write manifests, too, so of a URI only the file's name is used: it stands in the folder that was read.
    """
    prediction_id, files = known["prediction_id"], known["files"]
    names = [manifest.own_name(file["uri"], prediction_id, index) for index, file in enumerate(files)]
    if None in names:
        return None
    common = {column: _cell(known.get(column)) for column in _PREDICTION}
    common |= {column: _cell(known["stored_by"][column]) for column in _TASK}
    rows = [
        common
        | {
            "index": index if files else None,
            "uri": str(folder / name) if name else None,
            **{column: _cell(file.get(column)) for column in ("content_type", "size", "sha256")},
            "file_name": _cell(file.get("name")),
        }
        for index, (name, file) in enumerate(zip(names or [None], files or [{}], strict=True))
    ]
    input, metrics = known.get("input"), known.get("metrics")
    parameters = _columns(_INPUT, input) | {
        column: value for column, value in _columns(_METRICS, metrics).items() if type(value) in (int, float)
    }
    return _Stored((_timestamp(known.get("created_at")), prediction_id), rows, parameters)


def _columns(prefix: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {}
    return {prefix + carried_text(key): _cell(value) for key, value in values.items()}


def _cell(value: Any) -> Any:
    """Return a value of a manifest as a cell: a text, a number, a truth value or ``None``, which Airflow can carry.

    Anything else becomes JSON text, also a number that is too large.
    """
    if isinstance(value, str):
        return carried_text(value)
    rule = RULES.get(type(value))
    if not isinstance(value, (dict, list)) and (rule is None or rule.is_carried(value)):
        return value
    try:
        return carried_text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return None


def _timestamp(moment: str | None) -> float:
    """Return a time of the API in seconds; what is no time comes last."""
    try:
        time = datetime.fromisoformat(moment or "")
    except ValueError:
        return math.inf
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
