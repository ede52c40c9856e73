"""``StoreAttempt``: the attempt of a store task, in one process: from its start, or from one deferral to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_comet import metrics
from airflow_provider_comet.airflow_errors import is_final
from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.outcome import Outcome
from airflow_provider_comet.outputs.store_items import StoreItems
from airflow_provider_comet.outputs.store_progress import StoreProgress, parts
from airflow_provider_comet.polling.events import WaitResult
from airflow_provider_comet.polling.prediction_ids import is_list, read_flat
from airflow_provider_comet.polling.schedule import find_deadline
from airflow_provider_comet.triggers.task_wait import WORTH_A_TRIGGER, TaskWait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

_SEEN_BEFORE = WaitResult(is_complete=True)
"""What is known of predictions whose end was seen: that one of them is not found is no fact about it."""


class StoreAttempt:
    """Stores predictions that have ended, and waits for the others.

    :param task: the task, with its fields rendered.
    :param kwargs: what an earlier process of this attempt has left; empty if the attempt starts here.
    :ivar items: what is to be stored.
    :ivar folder: where.
    """

    def __init__(self, task: DownloadPredictionOutputOperator, context: Context, kwargs: Mapping[str, Any]) -> None:
        self._task = task
        self._hook = task.hook
        self.items = StoreItems(_read_items(task, "prediction", context), _read_items(task, "names", context))
        output_path = task.rendered("output_path")
        if isinstance(output_path, str):  # Airflow renders templates again at each resume: an attempt has one folder
            output_path = kwargs.get("output_path") or output_path
        self.folder = _open_folder(output_path)
        started_at = context["ti"].start_date.timestamp()
        deadline, _ = find_deadline(
            task.timeout, task.execution_timeout, started_at=started_at, attempt_started_at=started_at
        )
        self._started_at = kwargs.get("started_at") or started_at
        self._deadline = kwargs.get("deadline") or deadline
        progress = StoreProgress.read(self.items.ids, kwargs)
        self._is_resumed = progress is not None
        self.progress = progress or StoreProgress(self.items.ids)
        self._wait = TaskWait(
            task,
            self._hook,
            poke_interval=task.poke_interval,
            deferrable=task.deferrable,
            defer_after=task.defer_after,
            on_ended=lambda outcomes: self._store_ended([outcomes]),
            kwargs=lambda: {**self.progress.to_kwargs(), "output_path": str(self.folder)},
        )
        if self._is_resumed:
            self._wait.resume(kwargs)

    @contextlib.contextmanager
    def open(self, stored_by: Mapping[str, Any]) -> Iterator[None]:
        """Open what downloads and writes, until the block ends.

        :param stored_by: the task instance, for manifests.
        """
        from airflow_provider_comet.inputs.schema_files import output_schemas
        from airflow_provider_comet.outputs.download import Downloader  # loads requests: not while DAGs are parsed
        from airflow_provider_comet.outputs.list_writer import ListWriter
        from airflow_provider_comet.outputs.writer import OutputWriter

        self._hook.get_conn()  # makes the client here, because threads can't read Airflow's connection
        find_schema = output_schemas(())
        with (
            Downloader(self._hook.config) as downloader,
            OutputWriter(
                self.folder,
                self._hook.get_prediction,
                downloader,
                max_bytes=self._task.max_bytes,
                write_input=self._task.write_input,
                stored_by=stored_by,
                find_schema=find_schema,
            ) as self._writer,
        ):
            self.list_writer = ListWriter(
                self._writer,
                self.progress,
                names=self.items.names,
                read=self._read,
                find_schema=find_schema,
                is_final=is_final,
            )
            self.list_writer.errors.update(self._wait.errors)
            yield

    def begin(self, *left_to_trigger: type[CometError]) -> None:
        """Check what is stored, store what needs no wait, and wait for the rest."""
        self.list_writer.check()
        self.list_writer.store({k: v for k, v in self.items.summaries.items() if k not in self.progress.stored})
        self._wait_for_missing(*(left_to_trigger or WORTH_A_TRIGGER))

    def resume(self, result: WaitResult) -> None:
        """Store what the trigger's event names, and wait for the rest; if this is another list now, begin anew."""
        if not self._is_resumed:
            return self.begin(CometError)
        ended, named = self.progress.missing, {*result.outcomes, *result.not_carried}
        if not result.is_final:
            ended = [key for key in ended if key in named]
        self.list_writer.store_delayed()
        self._store_ended(self._read_ended(result, ended))
        return self._wait_for_missing(CometError, is_known=bool(self.progress.stored), polls_first=False)

    def abort(self) -> None:
        """End all downloads and polls at once, so that no partial file stays. For a signal handler."""
        self._writer.abort()
        self._hook.halt()

    def _wait_for_missing(
        self, *left_to_trigger: type[CometError], is_known: bool = False, polls_first: bool = True
    ) -> None:
        if missing := self.progress.missing:
            times, ended_before = (self._started_at, self._deadline), len(self.items.ids) - len(missing)
            waits = self._wait.begin(missing, *times, is_known=is_known, ended_before=ended_before)
            self._store_ended([self._wait.wait(waits, *left_to_trigger, polls_first=polls_first)])
        self.list_writer.finish()

    def _store_ended(self, ended: Iterable[Mapping[str, Outcome]]) -> None:
        for outcomes in ended:
            metrics.finished(outcomes.values())
            errors = {key: error for key, error in outcomes.items() if isinstance(error, CometError)}
            # What a retry may cure is not remembered: it is read again.
            self._wait.errors.update({k: error for k, error in errors.items() if is_final(error)})
            self.list_writer.store(outcomes)
        if self.items.is_list:
            self._task.log.info("%s", self._progress_line())

    def _progress_line(self) -> str:
        """Return a line that says everything: Airflow begins the triggerer's log anew at each deferral."""
        failed, missing = len(self.progress.failed | self.progress.delayed), len(self.progress.missing)
        line = f"{len(self.progress.stored):,} of {len(self.items.ids):,} predictions are stored"
        line += f", {failed:,} could not be" if failed else ""
        if missing:
            seconds = max(0.0, self._deadline - self._wait.now())
            line += f", {missing:,} are waited for; the timeout comes in {seconds:.0f} s"
        return line

    def _read_ended(self, result: WaitResult, ids: Sequence[str]) -> Iterator[Mapping[str, Outcome]]:
        """Yield how waits have ended, in parts; if a whole part can't be read, the others are waited for again, too."""
        for part in parts(ids):
            outcomes, again = self._wait.read(result, part, self._deadline)
            yield outcomes
            if again and not outcomes:
                return

    def _read(self, ids: Sequence[str]) -> Mapping[str, Outcome]:
        return self._wait.read(_SEEN_BEFORE, ids, 0.0)[0]


def _read_items(task: DownloadPredictionOutputOperator, name: str, context: Context) -> Any:
    """Return a field of the task; of a list all items, also of the lists in it."""
    value = getattr(task, name)
    # Of a list, each item is refused for itself: the others are to be stored.
    return read_flat(value, context) if is_list(value) else task.rendered(name)


def _open_folder(output_path: str | ObjectStoragePath) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    folder = ObjectStoragePath(output_path)
    # A relative folder would be lost with its worker.
    if not folder.protocol and not folder.path.startswith("/"):
        raise InvalidInputError(
            f"output_path must be a URL such as 's3://bucket/folder' or an absolute path; got {str(output_path)!r}"
        )
    _ = folder.fs  # reads Airflow's connection here, because threads can't
    return folder
