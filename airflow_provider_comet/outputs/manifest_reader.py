"""``ManifestReader``: what is stored of a prediction already."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_comet import metrics
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.outputs import manifest
from airflow_provider_comet.outputs.manifest import StoredFile
from airflow_provider_comet.outputs.storage import read_blocks, read_if_exists

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath


class ManifestReader:
    """Reads the manifests of a folder. Others may write there, too: only files under our own names count.

    :param folder: where files and manifests are.
    :param raise_if_aborted: raises an error when the task ends.
    """

    def __init__(self, folder: ObjectStoragePath, raise_if_aborted: Callable[[], None]) -> None:
        self._folder = folder
        self._raise_if_aborted = raise_if_aborted

    def path(self, prediction_id: str) -> ObjectStoragePath:
        """Return where the manifest of a prediction is."""
        return self._folder / f"{prediction_id}{manifest.SUFFIX}"

    def check(self, prediction_id: str) -> list[StoredFile | None] | None:
        """Return the files that a manifest names, each read to its end; ``None`` in the place of a missing file.

        The content is read, because a file that somebody has altered may have its old size.

        :returns: ``None`` if there is no manifest.
        :raises CometError: the storage can't be read.
        """
        with store_errors(prediction_id):
            files = self._read(prediction_id)
            return None if files is None else [file if file and self._is_intact(file) else None for file in files]

    def result(self, prediction_id: str) -> dict[str, Any] | None:
        """Return the task's result for a prediction whose files were checked or stored before.

        :returns: ``None`` if the manifest has gone, or is another one now.
        :raises CometError: the storage can't be read.
        """
        with store_errors(prediction_id):
            files = self._read(prediction_id)
            own = [file for file in files or () if file is not None]
            return None if files is None or len(own) < len(files) else self.result_of(prediction_id, own)

    def result_of(self, prediction_id: str, files: Sequence[StoredFile]) -> dict[str, Any]:
        """Return the task's result for a prediction with these files."""
        return manifest.xcom_value(prediction_id, str(self.path(prediction_id)), files)

    def _read(self, prediction_id: str) -> list[StoredFile | None] | None:
        """Return the files that a manifest names, where they are in our folder; ``None`` for a name that is not ours.

        A manifest's own URIs lack the connection id.
        """
        self._raise_if_aborted()
        content = read_if_exists(self.path(prediction_id), manifest.MAX_BYTES)
        files = None if content is None else manifest.parse(content, prediction_id)
        if files is None:
            return None
        names = [manifest.own_name(file.uri, prediction_id, index) for index, file in enumerate(files)]
        return [
            dataclasses.replace(file, uri=str(self._folder / name)) if name else None
            for file, name in zip(files, names, strict=True)
        ]

    def _is_intact(self, file: StoredFile) -> bool:
        digest, size = hashlib.sha256(), 0
        try:
            for block in read_blocks(self._folder / file.uri.rpartition("/")[2]):
                self._raise_if_aborted()
                digest.update(block)
                if (size := size + len(block)) > file.size:
                    return False
        except FileNotFoundError:
            return False
        return (size, digest.hexdigest()) == (file.size, file.sha256)


@contextlib.contextmanager
def store_errors(prediction_id: str) -> Iterator[None]:
    """Count errors, and let them name the prediction."""
    try:
        yield
    except CometError as error:
        metrics.count("comet.store_errors", error=type(error).__name__)
        error.about(prediction_id)
        raise
