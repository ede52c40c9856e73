"""``ListWriter``: store many predictions, some of them earlier than others, and report all of them at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.outcome import Outcome, model_of
from airflow_provider_comet.api.redaction import log_value
from airflow_provider_comet.outputs.manifest import StoredFile
from airflow_provider_comet.outputs.store_progress import StoreProgress, parts
from airflow_provider_comet.outputs.writer import OutputWriter
from airflow_provider_comet.polling import threads

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

PREDICTIONS_AT_ONCE = 8


class ListWriter:
    """Stores the predictions of a list as they finish.

    :param writer: stores a prediction.
    :param progress: what earlier processes of this attempt have done; it is kept up to date.
    :param names: the user's own names, by prediction id.
    :param read: returns predictions as the API describes them now, by id, or why they can't be read.
    :param find_schema: returns the schema of a model's output; it is called here, because threads can't read the
        connection that a folder of schemas may need.
    :param is_final: whether no later try can help an error.
    :ivar results: the task's results for what is stored, by prediction id, as far as this process knows them.
    :ivar errors: why predictions could not be stored by this process, or why their waits have ended without a result.
    """

    def __init__(
        self,
        writer: OutputWriter,
        progress: StoreProgress,
        *,
        names: Mapping[str, str],
        read: Callable[[Sequence[str]], Mapping[str, Outcome]],
        find_schema: Callable[[str], object],
        is_final: Callable[[CometError], bool],
    ) -> None:
        self._writer = writer
        self._manifests = writer.manifests
        self._names = names
        self._read = read
        self._find_schema = find_schema
        self._is_final = is_final
        self._known: dict[str, Sequence[StoredFile | None]] = {}
        self.progress = progress
        self.results: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, CometError] = {}

    def check(self) -> None:
        """Find out what earlier attempts have stored, and repair what has gone since.

        A prediction whose manifest can't be read is checked again when it is stored.
        """
        ids, in_part = self.progress.ids, []
        for key, files in zip(ids, self._map(self._manifests.check, ids), strict=True):
            if isinstance(files, CometError):
                log.warning("%s", files)
                self.progress.unchecked.add(key)
            elif files is not None:
                in_part += [] if self._note_checked(key, files) else [key]
        if self.progress.stored:
            log.info(
                "%s of %s predictions are stored already: they are not fetched again",
                len(self.progress.stored),
                len(ids),
            )
        self._read_and_store(in_part)

    def store(self, outcomes: Mapping[str, Outcome]) -> None:
        """Store predictions that have ended; what fails is noted.

        :param outcomes: how they have ended, by id.
        """
        ended = {key: outcome for key, outcome in outcomes.items() if not isinstance(outcome, CometError)}
        for outcome in ended.values():
            self._find_schema(str(model_of(outcome)))
        results: dict[str, Any] = {**outcomes, **dict(zip(ended, self._map(self._store, ended.items()), strict=True))}
        for key, result in results.items():
            if isinstance(result, CometError):
                if key not in self.progress.failed:  # the end of the attempt reads once more why
                    log.warning("%s", result)
                self.errors[key] = result
                self.progress.note_error(key, is_final=self._is_final(result))
            else:
                self._note_stored(key, result)

    def store_delayed(self) -> None:
        """Store what earlier processes could not store for now."""
        self._read_and_store([key for key in self.progress.ids if key in self.progress.delayed])

    def finish(self) -> None:
        """Complete ``results`` and ``errors``: with what earlier processes have stored, and could not store.

        What they could not store is tried once more.
        """
        stored = [key for key in self.progress.ids if key in self.progress.stored and key not in self.results]
        results = dict(zip(stored, self._map(self._manifests.result, stored), strict=True))
        for key, result in results.items():
            if isinstance(result, CometError):
                self.errors[key] = result
            elif result is not None:
                self.results[key] = result
        self._read_and_store([key for key in self.progress.ids if key not in self.results and key not in self.errors])

    def _read_and_store(self, ids: Sequence[str]) -> None:
        for part in parts(ids):
            self.store(self._read(part))

    def _store(self, item: tuple[str, Any]) -> dict[str, Any]:
        key, outcome = item
        if key in self.progress.unchecked:
            self._known[key] = self._manifests.check(key) or ()
            self.progress.unchecked.discard(key)
        known = self._known.get(key, ())
        files = [file for file in known if file is not None]
        if known and len(files) == len(known):
            return self._manifests.result_of(key, files)
        return self._writer.store(outcome, known, self._names.get(key))

    def _note_checked(self, key: str, files: Sequence[StoredFile | None]) -> bool:
        """Return whether all files of a manifest are there."""
        complete = [file for file in files if file is not None]
        if len(complete) < len(files):
            self._known[key] = files
            return False
        self._note_stored(key, self._manifests.result_of(key, complete))
        return True

    def _note_stored(self, key: str, result: dict[str, Any]) -> None:
        self.results[key] = result
        self.progress.note_stored(key)
        self.errors.pop(key, None)

    def _map(self, call: Callable[[T], R], items: Iterable[T]) -> list[R | CometError]:
        """Call a function for each item, several at a time; an item's error must not stop the others."""

        def safely(item: T) -> R | CometError:
            try:
                return call(item)
            except CometError as error:
                return error
            except Exception as error:
                key = item[0] if isinstance(item, tuple) else item
                log.exception("Prediction %s could not be stored", log_value(key))
                return CometError(f"{type(error).__name__}: {error}", prediction_id=str(key))

        wanted = [*items]
        if len(wanted) < 2:
            return [*map(safely, wanted)]
        with threads.Pool(PREDICTIONS_AT_ONCE, "comet-prediction") as pool:
            try:
                return [*pool.map(safely, wanted)]
            except BaseException:
                self._writer.abort()  # the pool waits for its threads
                raise
