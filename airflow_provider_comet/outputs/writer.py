"""Store the files of predictions and their manifests below a folder; what a manifest names is not fetched again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_comet import __version__, metrics
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import OutputExpiredError
from airflow_provider_comet.api.media_types import url_suffix
from airflow_provider_comet.api.outcome import id_of, judge
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.validation import check_prediction_id
from airflow_provider_comet.outputs import manifest
from airflow_provider_comet.outputs.file_types import check_media_type, is_web_page
from airflow_provider_comet.outputs.limits import ByteBudget
from airflow_provider_comet.outputs.manifest import StoredFile
from airflow_provider_comet.outputs.manifest_reader import ManifestReader, store_errors
from airflow_provider_comet.outputs.output import Output, clean_url, file_name, list_outputs
from airflow_provider_comet.outputs.prediction_reader import FreshLinks, PredictionReader, from_summary
from airflow_provider_comet.outputs.progress import log_progress
from airflow_provider_comet.outputs.storage import open_atomic
from airflow_provider_comet.polling import clock, threads

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.outputs.download import Downloader

log = logging.getLogger(__name__)

FILES_AT_ONCE = 4
"""Downloads of one task at the same time. Each takes a megabyte or two of memory; in an upload up to four blocks of
``storage.BLOCK_BYTES``."""


class OutputWriter:
    """Stores predictions below a folder; a context manager that aborts what is still on its way.

    :param folder: where files and manifests are written.
    :param get_prediction: returns a prediction by its id, such as the hook's method.
    :param downloader: fetches files.
    :param max_bytes: of all files of a prediction together.
    :param write_input: whether manifests hold the input of the prediction.
    :param stored_by: the task instance, for manifests.
    :param find_schema: returns the schema of a model's output, if there is one.
    :ivar manifests: what is stored already.
    """

    def __init__(
        self,
        folder: ObjectStoragePath,
        get_prediction: Callable[[str], Prediction],
        downloader: Downloader,
        *,
        max_bytes: int,
        write_input: bool,
        stored_by: Mapping[str, Any],
        find_schema: Callable[[str], OutputSchema | None] = lambda model: None,
    ) -> None:
        self._folder = folder
        self.manifests = ManifestReader(folder, downloader.raise_if_aborted)
        self._reader = PredictionReader(get_prediction, downloader.clock)
        self._downloader = downloader
        self._max_bytes = max_bytes
        self._write_input = write_input
        self._stored_by = stored_by
        self._find_schema = find_schema
        self._pool = threads.Pool(FILES_AT_ONCE, "comet-file")

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
        self._pool.shutdown()

    def abort(self) -> None:
        """Abort everything at once; no partial file stays. It may be called from a signal handler."""
        self._downloader.abort()

    def store(
        self,
        prediction: Prediction | Mapping[str, Any],
        known: Sequence[StoredFile | None] = (),
        name: str | None = None,
    ) -> dict[str, Any]:
        """Store a prediction's files and then its manifest, and return the task's result for it.

        :param prediction: as the API describes it, or the summary that a wait has returned.
        :param known: what is stored of it (``ManifestReader.check``): these files are not fetched again.
        :param name: the user's own name for the prediction, for the manifest.
        :raises CometError: not everything could be stored. What was stored stays, and a repeat replaces it.
        """
        prediction_id = check_prediction_id(id_of(prediction))
        with store_errors(prediction_id):
            self._downloader.raise_if_aborted()
            return self.manifests.result_of(prediction_id, self._store(prediction, prediction_id, known, name))

    def _store(
        self,
        source: Prediction | Mapping[str, Any],
        prediction_id: str,
        known: Sequence[StoredFile | None],
        name: str | None,
    ) -> list[StoredFile]:
        summarized = from_summary(source) if isinstance(source, Mapping) else None
        prediction = summarized or (source if isinstance(source, Prediction) else self._reader.read(prediction_id))
        # A summary has passed a wait, which may accept a success without output.
        judge(prediction, allow_empty=isinstance(source, Mapping))
        schema, budget = self._find_schema(str(prediction.model)), ByteBudget(self._max_bytes)
        links = FreshLinks(self._reader, prediction_id, schema)
        for index, file in enumerate(known):
            budget.claim(index, file.size if file else 0)

        def store(output: Output) -> StoredFile:
            stored = known[output.index] if output.index < len(known) else None
            is_held = stored is not None and stored.holds(output)
            return stored if stored and is_held else self._store_output(output, prediction_id, links, budget)

        files = [*self._pool.map(store, list_outputs(prediction, schema))]
        if self._write_input and summarized is not None:
            prediction = self._with_input(summarized)  # last: the links would expire while the API is unreachable
        content = manifest.render(
            prediction,
            files,
            name=name,
            stored_at=datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="seconds"),
            stored_by=self._stored_by,
            provider_version=__version__,
            write_input=self._write_input,
        )
        path = self.manifests.path(prediction_id)
        self._write([content], path)
        total = sum(file.size for file in files)
        log.info("comet.stored id=%s files=%s bytes=%s manifest=%s", prediction_id, len(files), total, path)
        metrics.count("comet.stored")
        return files

    def _with_input(self, prediction: Prediction) -> Prediction:
        """Return the prediction as the API knows it: a summary lacks the input."""
        try:
            known = self._reader.read(prediction.id)
        except CometError as error:
            log.warning("Prediction %s is stored without its input, which can't be read: %s", prediction.id, error)
            return prediction
        return dataclasses.replace(known, output=prediction.output)

    def _store_output(self, output: Output, prediction_id: str, links: FreshLinks, budget: ByteBudget) -> StoredFile:
        if output.url is None:
            return self._store_content(output, prediction_id, budget)
        try:
            return self._store_link(output, output.url, prediction_id, links, budget)
        except CometError:
            if not output.is_certain:
                log.warning(
                    "Prediction %s: output %s may be a model's words, and no file; the model's description in the "
                    "folder of Airflow's setting [comet] input_schemas decides that",
                    prediction_id,
                    output.index,
                )
            raise

    def _store_link(
        self, output: Output, url: str, prediction_id: str, links: FreshLinks, budget: ByteBudget
    ) -> StoredFile:
        try:
            return self._download(output, url, prediction_id, budget)
        except OutputExpiredError:
            log.info(
                "Prediction %s: the link of output %s has expired; requesting a new one", prediction_id, output.index
            )
            return self._download(output, links.get(output.index), prediction_id, budget)

    def _store_content(self, output: Output, prediction_id: str, budget: ByteBudget) -> StoredFile:
        content, media_type = output.content, output.media_type if output.url is None else "text/plain"
        budget.claim(output.index, len(content))
        path = self._folder / file_name(prediction_id, output, media_type)
        self._write([content], path)
        digest = hashlib.sha256(content).hexdigest()
        return _report(StoredFile(str(path), digest, len(content), media_type, name=output.name))

    def _download(self, output: Output, url: str, prediction_id: str, budget: ByteBudget) -> StoredFile:
        with contextlib.closing(self._downloader.open(url, budget, output.index)) as download:
            announced, head = download.info.media_type, download.head
            if output.is_certain or not is_web_page(announced, head):
                media_type = check_media_type(output.media_type, announced, head, url_suffix(url))
                path = self._folder / file_name(prediction_id, output, media_type)
                self._write(log_progress(download, path.name, download.info.size, self._downloader.clock), path)
                source = clean_url(url)
                return _report(
                    StoredFile(str(path), download.sha256, download.received, media_type, source, output.name)
                )
        log.warning(
            "Prediction %s: output %s is a link to a web page, so it is stored as the text that it is",
            prediction_id,
            output.index,
        )
        return self._store_content(output, prediction_id, budget)

    def _write(self, chunks: Iterable[bytes], path: ObjectStoragePath) -> None:
        with open_atomic(path) as file:
            for chunk in chunks:
                self._downloader.raise_if_aborted()
                file.write(chunk)


def _report(file: StoredFile) -> StoredFile:
    """Log a stored file and count it."""
    log.info("comet.file_stored uri=%s size=%s sha256=%s", file.uri, file.size, file.sha256)
    metrics.count("comet.file_stored")
    return file
