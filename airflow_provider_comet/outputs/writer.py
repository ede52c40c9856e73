"""From a prediction to its files and their manifest below a folder. A repeat fetches nothing that a manifest names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_comet import __version__, metrics
from airflow_provider_comet.api import outcome
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import OutputExpiredError, OutputRefusedError
from airflow_provider_comet.api.prediction import SUMMARY_KEYS, Prediction, has_marker
from airflow_provider_comet.api.validation import check_prediction_id
from airflow_provider_comet.outputs import manifest
from airflow_provider_comet.outputs.manifest import StoredFile
from airflow_provider_comet.outputs.output import Output, check_media_type, clean_url, file_name, outputs_of
from airflow_provider_comet.outputs.storage import storage_errors, whole_file
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.download import Delivery

log = logging.getLogger(__name__)

FILES_AT_ONCE = 4
"""Each of them holds a megabyte or two, in an upload up to four blocks of ``storage.BLOCK_BYTES``."""
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
        self._reader = _Reader(hook)
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
            known = self._known(mark, prediction_id)
            files = [file for file in known or [] if file is not None]
            if known is None or len(files) < len(known):
                files = self._keep(given, prediction_id, mark, known or [])
            else:
                log.info("Prediction %s is stored already: %s", prediction_id, mark)
            return manifest.small_form(prediction_id, str(mark), files)
        except CometError as error:
            metrics.count("comet.store_errors", error=type(error).__name__)
            error.about(prediction_id)
            raise

    def _known(self, mark: ObjectStoragePath, prediction_id: str) -> list[StoredFile | None] | None:
        """The files of a manifest, by index; ``None`` in place of one that is not there. ``None``: no manifest."""
        with storage_errors(mark):
            known = manifest.read(mark.read_bytes(), prediction_id) if mark.exists() else None
            if known is None:
                return None
            return [self._there(file, f"{prediction_id}-{index}.") for index, file in enumerate(known)]

    def _there(self, file: StoredFile, start: str) -> StoredFile | None:
        """A file, unless it is gone. Others may write manifests, too: it is looked for in our folder, by our name."""
        name = file.uri.rpartition("/")[2]
        path = self._folder / name
        is_there = name.startswith(start) and path.exists() and path.stat().st_size == file.size
        return dataclasses.replace(file, uri=str(path)) if is_there else None

    def _keep(
        self,
        given: str | Mapping[str, Any],
        prediction_id: str,
        mark: ObjectStoragePath,
        there: Sequence[StoredFile | None],
    ) -> list[StoredFile]:
        prediction = handed_over = _handed_over(given)
        if prediction is None:
            prediction = self._reader.read(prediction_id)
            # Of an id nobody has said that a success without output will do.
            outcome.judge(prediction, allow_empty=isinstance(given, Mapping))
        links = _Links(self._reader, prediction_id)

        def store(output: Output) -> StoredFile:
            stored = there[output.index] if output.index < len(there) else None
            return stored or self._store(output, prediction_id, links)

        files = [*self._pool.map(store, outputs_of(prediction))]
        if self._write_input and handed_over is not None:
            prediction = self._with_input(handed_over)  # last: if the API is down, links expire meanwhile
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

    def _with_input(self, prediction: Prediction) -> Prediction:
        """A prediction as the API knows it: what a wait hands over lacks the input."""
        try:
            read = self._reader.read(prediction.id)
        except CometError as error:
            log.warning("Prediction %s is stored without its input, which can't be read: %s", prediction.id, error)
            return prediction
        return dataclasses.replace(read, output=prediction.output)

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


def _handed_over(given: str | Mapping[str, Any]) -> Prediction | None:
    """What a wait has handed over, if it is all there; long text and data URIs have to be read."""
    if not isinstance(given, Mapping) or not given.keys() >= set(SUMMARY_KEYS):
        return None
    outcome.judge(given, allow_empty=True)
    if has_marker(given["output"]):
        return None
    return Prediction(**{key: given[key] for key in SUMMARY_KEYS if key != "files"})


class _Reader:
    """Reads predictions for all threads. An API that can't be reached is waited for once, and not for each prediction
    anew: meanwhile the links of others would expire.
    """

    def __init__(self, hook: CometReplicateHook) -> None:
        self._hook = hook
        self._error: CometError | None = None
        self._failed_at = 0.0

    def read(self, prediction_id: str) -> Prediction:
        """Return a prediction. Trouble that may pass is waited out, unless that was in vain a short time ago.

        :raises CometError: it can't be read.
        """
        last = self._error
        if last is not None and time.monotonic() - self._failed_at < RETRY_BUDGET_SECONDS:
            raise CometError.from_dict({**last.to_dict(), "prediction_id": prediction_id})
        try:
            read = self._hook.get_prediction(prediction_id)
        except CometError as error:
            if error.retryable:
                self._failed_at, self._error = time.monotonic(), error
            raise
        self._error = None
        return read


class _Links:
    """Fresh links of a prediction; it is asked for them once, however many of its files need one."""

    def __init__(self, reader: _Reader, prediction_id: str) -> None:
        self._reader = reader
        self._prediction_id = prediction_id
        self._lock = threading.Lock()
        self._files: list[str] | None = None

    def fresh(self, index: int) -> str:
        """The link of an output as it is now.

        :raises OutputExpiredError: the prediction has it no more.
        """
        with self._lock:
            if self._files is None:
                self._files = self._reader.read(self._prediction_id).files
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
