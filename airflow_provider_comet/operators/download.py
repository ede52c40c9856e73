"""``DownloadPredictionOutputOperator``: wait for predictions, and store their files before their links expire."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_comet.airflow_errors import is_final, raised_as, still_running, wait_exception
from airflow_provider_comet.api.errors import CometError, PredictionListError
from airflow_provider_comet.api.options import check_choice, non_negative_seconds
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.operators.store_attempt import StoreAttempt
from airflow_provider_comet.operators.stored_event import report_lineage, send_event
from airflow_provider_comet.polling.events import NO_EVENT, read_event
from airflow_provider_comet.polling.schedule import find_deadline
from airflow_provider_comet.templated import TemplatedOperator
from airflow_provider_comet.triggers.deferral import resume
from airflow_provider_comet.triggers.task_wait import DEFER_AFTER_SECONDS

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import ObjectStoragePath

STORED_XCOM_KEY = "stored"
DEFAULT_MAX_BYTES = 4 * 1024**3


class DownloadPredictionOutputOperator(TemplatedOperator):
    """Wait for predictions and store their files, each while others still run; return where the files are.

    Each file becomes ``<output_path>/<prediction id>-<index>.<extension>``, verified and never half-written; text, JSON
    and data URIs become files, too. ``<prediction id>.manifest.json`` is written last: it names every file with SHA-256
    and size, and the input of the prediction. Files that a manifest names are not fetched again, so the task can be
    repeated at any time, at no cost. See docs/outputs.md.

    What still runs is waited for in the triggerer, as by ``PredictionSensor``. The task returns to a worker to store
    what has finished when 50 have, when a result is ten minutes old, and at the end.

    Returns for one prediction ``{"prediction_id", "name", "manifest", "files": [{"uri", "sha256", "size",
    "content_type", "name"}]}``; for a list a list of these in the same order, with null for null.

    The outlets get one event at the end: an ``Asset`` or ``Asset.ref`` as it is, an ``AssetAlias`` with ``output_path``
    as asset. ``extra`` holds ``prediction_ids``, ``names``, ``manifests``, ``files`` (the first 50, each ``{"uri",
    "name", "prediction_id"}``) and ``file_count``. URIs are such as ``ObjectStoragePath`` takes, with the connection id
    if ``output_path`` has one; assets and manifests have none.

    Raises ``AirflowFailException`` for what no retry changes (a failed prediction, expired links, a refused file),
    ``AirflowSensorTimeout`` at the timeout, ``AirflowTaskTimeout`` at the ``execution_timeout``, and a plain
    ``CometError`` where ``retries`` can help (network, storage). If the task fails because of some items of a list, the
    others are stored all the same, and XCom ``stored`` has their results.

    :param prediction: what ``CreatePredictionOperator`` or ``CreatePredictionBatchOperator`` has returned: an id, a
        list of ids, or the output of a mapped create; or what ``PredictionSensor`` has returned. (templated)
    :param output_path: the folder, as any URL that ``ObjectStoragePath`` takes: ``s3://aws_default@bucket/pictures``,
        ``gs://...``, ``abfs://...``, ``file:///srv/pictures``. (templated)
    :param names: your own name for each prediction, such as an article number: a list of texts in the same order, or
        null. They are in manifest, result and event. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param timeout: seconds to wait at most for all of them, or a ``timedelta``; default an hour. What was not finished
        by then is an error, after the others were stored.
    :param poke_interval: seconds between polls, or a ``timedelta``. ``None`` (default): growing with the age.
    :param deferrable: wait in the triggerer (default); ``False`` holds the worker.
    :param defer_after: seconds to poll on the worker first, default 3. 0: a single poll.
    :param max_bytes: of all files of a prediction together; more is refused. Default: 4 GiB.
    :param write_input: whether the manifest holds the prediction's input. Default: yes, data URIs as digests.
    :param on_item_error: what to do about an item of a list that no retry can store. ``fail`` (default): the task
        fails, after all other items were stored. ``keep``: null stands in its place, and the task succeeds if any
        other item was stored. What a retry may store fails the task in both cases.
    """

    template_fields: Sequence[str] = ("prediction", "output_path", "names", "conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prediction: Any,
        output_path: str | ObjectStoragePath,
        names: Any = None,
        conn_id: str = DEFAULT_CONN_ID,
        timeout: timedelta | float = 3600,
        poke_interval: timedelta | float | None = None,
        deferrable: bool = True,
        defer_after: timedelta | float = DEFER_AFTER_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
        write_input: bool = True,
        on_item_error: Literal["fail", "keep"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not max_bytes >= 1:
            raise ValueError(f"max_bytes must be a positive number of bytes, not {max_bytes!r}")
        check_choice("on_item_error", on_item_error, "fail", "keep")
        self.prediction = prediction
        self.output_path = output_path
        self.names = names
        self.conn_id = conn_id
        self.timeout = non_negative_seconds("timeout", timeout)
        self.poke_interval = None if poke_interval is None else non_negative_seconds("poke_interval", poke_interval)
        self.deferrable = deferrable
        self.defer_after = non_negative_seconds("defer_after", defer_after)
        self.max_bytes = max_bytes
        self.write_input = write_input
        self.on_item_error = on_item_error
        self._attempt: StoreAttempt | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> Any:
        """Store what has finished, wait for the rest, and report everything at the end."""
        with self._translated_errors(), self._open(context, {}) as attempt:
            attempt.begin()
            return self._conclude(context, attempt)

    def execute_complete(self, context: Context, event: Any = None, **kwargs: Any) -> Any:
        """Store what the trigger has seen finished, and wait for the rest."""
        result = read_event(event)
        with self._open(context, kwargs) as attempt:
            attempt.resume(result)
            return self._conclude(context, attempt)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume from the triggerer."""
        kwargs = next_kwargs or {}

        def last_poll() -> Any:
            with self._open(context, kwargs) as attempt:
                attempt.resume(NO_EVENT)
                return self._conclude(context, attempt)

        def wait_again(started_at: float | None, deadline: float | None) -> Any:
            times = {"started_at": started_at, "deadline": deadline}
            with self._open(context, {"output_path": kwargs.get("output_path"), **times}) as attempt:
                attempt.begin(CometError)  # left to the trigger: this process has forgotten what was seen before
                return self._conclude(context, attempt)

        with self._translated_errors():
            resume_task = functools.partial(super().resume_execution, next_method, next_kwargs, context)
            return resume(self.conn_id, next_kwargs, resume_task, last_poll, wait_again)

    def on_kill(self) -> None:
        """Abort all downloads, so that no partial file stays. A signal handler: Airflow can't be called here."""
        if (attempt := self._attempt) is not None:
            attempt.abort()
            if missing := attempt.progress.missing:
                self.log.warning("%s", still_running(missing))

    @contextlib.contextmanager
    def _open(self, context: Context, kwargs: Mapping[str, Any]) -> Iterator[StoreAttempt]:
        attempt, ti = StoreAttempt(self, context, kwargs), context["ti"]
        names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
        with attempt.open({name: getattr(ti, name) for name in names}):
            self._attempt = attempt
            yield attempt

    def _conclude(self, context: Context, attempt: StoreAttempt) -> Any:
        """Return the result of each prediction, or raise why there is none; then all others are stored."""
        items, writer = attempt.items, attempt.list_writer
        results = items.in_order(writer.results)
        by_id: dict[str, dict[str, Any]] = {}
        for result in filter(None, results):  # of a prediction that is there twice the first name, as in its manifest
            by_id.setdefault(result["prediction_id"], result)
        stored = [*by_id.values()]
        report_lineage(attempt.folder, stored)
        errors = [*(writer.errors[key] for key in items.ids if key in writer.errors), *items.errors]
        if errors and not items.is_list:
            raise errors[0]
        if errors:
            error = PredictionListError.of(errors, len(stored) + len(errors))
            if self.on_item_error == "fail" or not stored or not all(map(is_final, errors)):
                context["ti"].xcom_push(key=STORED_XCOM_KEY, value=results)
                raise error
        send_event(context, self.outlets, attempt.folder, stored)
        return results if items.is_list else results[0]

    def _translated_errors(self) -> contextlib.AbstractContextManager[None]:
        _, is_execution_timeout = find_deadline(self.timeout, self.execution_timeout)
        return raised_as(functools.partial(wait_exception, is_execution_timeout=is_execution_timeout))
