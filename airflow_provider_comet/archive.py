"""From a prediction to its files and their manifest below one folder. Safe to repeat: what is there is not fetched."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_comet import __version__, metrics, outcome
from airflow_provider_comet.api import manifest
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import OutputExpiredError, OutputRefusedError
from airflow_provider_comet.api.manifest import StoredFile
from airflow_provider_comet.api.outputs import Output, check_media_type, clean_url, file_name, outputs_of
from airflow_provider_comet.api.prediction import SUMMARY_KEYS, Prediction, is_marked
from airflow_provider_comet.api.validation import check_prediction_id
from airflow_provider_comet.storage import storage_errors, whole_file

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.delivery import Delivery
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

log = logging.getLogger(__name__)

FILES_AT_ONCE = 4
"""Each of them holds up to two blocks of ``storage.BLOCK_BYTES``."""
PROGRESS_SECONDS = 30.0


class Archive:
    """Keeps predictions below a folder; a context manager.

    :param folder: where files and manifests go.
    :param hook: reads predictions.
    :param delivery: fetches files.
    :param max_bytes: of one file.
    :param write_input: whether manifests tell what a prediction was made from.
    :param stored_by: the task instance, for manifests.
    """

    def __init__(
        self,
        folder: ObjectStoragePath,
        hook: CometReplicateHook,
        delivery: Delivery,
        *,
        max_bytes: int,
        write_input: bool,
        stored_by: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._hook = hook
        self._delivery = delivery
        self._max_bytes = max_bytes
        self._write_input = write_input
        self._stored_by = stored_by
        self._pool = ThreadPoolExecutor(FILES_AT_ONCE, "comet-file")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._pool.shutdown()

    def end(self) -> None:
        """Give up what is on its way, at once: nothing half-written stays. Callable from a signal handler."""
        self._delivery.end()

    def keep(self, given: str | Mapping[str, Any]) -> dict[str, Any]:
        """Store a prediction's files, then its manifest, and return the manifest's small form.

        :param given: its id, or what a wait has handed over. Links last about an hour.
        :raises CometError: not all of it could be stored; files that could be stay, and a repeat replaces them.
        """
        prediction_id = check_prediction_id(given.get("id") if isinstance(given, Mapping) else given)
        try:
            self._delivery.check()
            mark = self._folder / f"{prediction_id}{manifest.SUFFIX}"
            files = self._kept(mark, prediction_id)
            if files is None:
                files = self._keep(given, prediction_id, mark)
            else:
                log.info("Prediction %s is stored already: %s", prediction_id, mark)
            return manifest.small_form(prediction_id, str(mark), files)
        except CometError as error:
            metrics.count("comet.store_errors", error=type(error).__name__)
            error.about(prediction_id)
            raise

    def _kept(self, mark: ObjectStoragePath, prediction_id: str) -> list[StoredFile] | None:
        """The files of a manifest, if they are all there."""
        with storage_errors(mark):
            if not mark.exists():
                return None
            if (known := manifest.read(mark.read_bytes(), prediction_id)) is None:
                return None
            files = []
            for file in known:
                path = self._folder / file.uri.rpartition("/")[2]
                if not path.exists() or path.stat().st_size != file.size:
                    return None
                files.append(dataclasses.replace(file, uri=str(path)))
            return files

    def _keep(self, given: str | Mapping[str, Any], prediction_id: str, mark: ObjectStoragePath) -> list[StoredFile]:
        prediction = self._read(given, prediction_id)
        links = _Links(self._hook, prediction_id)
        files = [*self._pool.map(lambda output: self._store(output, prediction_id, links), outputs_of(prediction))]
        content = manifest.make(
            prediction,
            files,
            stored_at=datetime.now(UTC).isoformat(timespec="seconds"),
            stored_by=self._stored_by,
            provider_version=__version__,
            write_input=self._write_input,
        )
        self._write([content], mark)
        return files

    def _read(self, given: str | Mapping[str, Any], prediction_id: str) -> Prediction:
        """The prediction with all of its output. The API is asked for what a summary lacks: the input, long text."""
        known: Prediction | None = None
        if isinstance(given, Mapping) and given.keys() >= set(SUMMARY_KEYS):
            outcome.judge(given, allow_empty=True)
            if not is_marked(given["output"]):
                known = Prediction(**{key: given[key] for key in SUMMARY_KEYS if key != "files"})
        if known is not None and not self._write_input:
            return known
        try:
            read = self._hook.get_prediction(prediction_id)
        except CometError as error:
            if known is None:
                raise
            log.warning("Prediction %s is stored without its input, which can't be read: %s", prediction_id, error)
            return known
        if known is not None:  # its links may still be good when the API has removed them
            return dataclasses.replace(read, output=known.output)
        outcome.judge(read, allow_empty=isinstance(given, Mapping))  # of an id nobody has said that nothing will do
        return read

    def _store(self, output: Output, prediction_id: str, links: _Links) -> StoredFile:
        if output.url is None:
            if len(output.content) > self._max_bytes:
                raise OutputRefusedError(f"output {output.index} has {len(output.content)} bytes; max_bytes is less")
            path = self._folder / file_name(prediction_id, output, output.media_type)
            self._write([output.content], path)
            digest = hashlib.sha256(output.content).hexdigest()
            return self._stored(path, digest, len(output.content), output.media_type, None)
        try:
            return self._fetch(output, output.url, prediction_id)
        except OutputExpiredError:
            log.info(
                "Prediction %s: the link of output %s has expired; asking for a new one", prediction_id, output.index
            )
            return self._fetch(output, links.fresh(output.index), prediction_id)

    def _fetch(self, output: Output, url: str, prediction_id: str) -> StoredFile:
        with contextlib.closing(self._delivery.open(url, self._max_bytes)) as download:
            media_type = check_media_type(output.media_type, download.media_type)
            path = self._folder / file_name(prediction_id, output, media_type)
            self._write(_with_progress(download, path.name, download.size), path)
            return self._stored(path, download.sha256, download.received, media_type, clean_url(url))

    def _write(self, chunks: Iterable[bytes], path: ObjectStoragePath) -> None:
        with whole_file(path) as file:
            for chunk in chunks:
                self._delivery.check()
                file.write(chunk)

    def _stored(
        self, path: ObjectStoragePath, sha256: str, size: int, media_type: str, source: str | None
    ) -> StoredFile:
        log.info("comet.stored uri=%s size=%s sha256=%s", path, size, sha256)
        metrics.count("comet.files")
        return StoredFile(str(path), sha256, size, media_type, source)


class _Links:
    """Fresh links of a prediction; it is asked for them once, however many of its files need one."""

    def __init__(self, hook: CometReplicateHook, prediction_id: str) -> None:
        self._hook = hook
        self._prediction_id = prediction_id
        self._lock = threading.Lock()
        self._files: list[str] | None = None

    def fresh(self, index: int) -> str:
        """The link of an output as it is now.

        :raises OutputExpiredError: the prediction has it no more.
        """
        with self._lock:
            if self._files is None:
                self._files = self._hook.get_prediction(self._prediction_id).files
        if index >= len(self._files):
            raise OutputExpiredError("the prediction has no such file any more")
        return self._files[index]


def _with_progress(chunks: Iterable[bytes], name: str, size: int | None) -> Iterator[bytes]:
    """The same chunks; a long file says every half minute how far it is."""
    began = said = time.monotonic()
    received = 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if (now := time.monotonic()) - said >= PROGRESS_SECONDS:
            said = now
            share = f" of {size / 1e6:.0f}" if size else ""
            log.info("%s: %.0f%s MB, %.1f MB/s", name, received / 1e6, share, received / 1e6 / (now - began))
