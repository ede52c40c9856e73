"""``PredictionSensor``: wait for predictions and hand over their results."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, BaseSensorOperator

from airflow_provider_comet.airflow_errors import raised_by_sensor, still_running, wait_exception
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.options import check_choice, non_negative_seconds
from airflow_provider_comet.api.outcome import Outcome
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.polling.events import NO_EVENT, WaitResult, read_event
from airflow_provider_comet.polling.prediction_ids import distinct, read_ids
from airflow_provider_comet.polling.schedule import LONGEST_DELAY, find_deadline
from airflow_provider_comet.sensors.results import hand_over
from airflow_provider_comet.templated import TemplatedOperator
from airflow_provider_comet.triggers.deferral import resume
from airflow_provider_comet.triggers.task_wait import DEFER_AFTER_SECONDS, WORTH_A_TRIGGER, TaskWait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_UNSUPPORTED = ("silent_fail", "exponential_backoff", "max_wait")
"""Options of Airflow's sensors that would be ignored without a word: they do nothing while a task is deferred."""


class PredictionSensor(TemplatedOperator, BaseSensorOperator):
    """Wait until a prediction has finished, without holding a worker, and return its result.

    Returns, in every mode, exactly ``{id, model, version, status, files, output, error, metrics, created_at,
    started_at, completed_at, data_removed}``; ``files`` is the list of all output URLs. For a list of ids it returns a
    list of these, in the same order and of the same length.

    Raises ``AirflowFailException`` for what no retry changes (failed, canceled, aborted, unknown id, no output),
    ``AirflowSensorTimeout`` at the timeout, ``AirflowTaskTimeout`` at the ``execution_timeout``, and a plain
    ``CometError`` if the API can't be read. Airflow's ``retries`` repeat the latter two: polling costs nothing.

    :param prediction_id: what ``CreatePredictionOperator`` returned; or a list of ids, for example the output of a
        mapped create: one task waits for all of them. A null in it stays a null. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. There is one more poll at its end.
    :param poke_interval: seconds between polls, or a ``timedelta``. ``None`` (default): growing with its age.
    :param on_item_error: for a list, what to do about a prediction without a result, after all have ended. ``fail``
        (default): the task fails; the results are in XCom ``predictions``. ``keep``: a prediction that failed is
        returned with its status and error, one that is unknown or was not finished in time as null. The task fails if
        no prediction has a result, or if the API could not be read, which a retry may cure.
    :param deferrable: wait in the triggerer (a triggerer must run). ``None`` (default): unless ``mode="reschedule"``.
    :param defer_after: seconds to poll on the worker first, default 3: to resume takes as long. 0: a single poll.
    :param start_from_trigger: begin in the triggerer, without a worker. Needs Airflow 3.3 and one id: as text, as a
        template without XComs, or as ``create.output`` of an unmapped task.
    :param allow_empty: accept a success without output.
    :param mode: ``poke`` or ``reschedule``, for ``deferrable=False``.
    :param soft_fail: skip when the prediction fails or times out, not when the API is unreachable.
    """

    template_fields: Sequence[str] = ("prediction_id", "conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prediction_id: str | Sequence[str | None],
        conn_id: str = DEFAULT_CONN_ID,
        timeout: timedelta | float = 3600,
        poke_interval: timedelta | float | None = None,
        on_item_error: Literal["fail", "keep"] = "fail",
        deferrable: bool | None = None,
        defer_after: timedelta | float = DEFER_AFTER_SECONDS,
        start_from_trigger: bool = False,
        allow_empty: bool = False,
        mode: str = "poke",
        **kwargs: Any,
    ) -> None:
        interval = non_negative_seconds("poke_interval", LONGEST_DELAY if poke_interval is None else poke_interval)
        super().__init__(timeout=non_negative_seconds("timeout", timeout), poke_interval=interval, mode=mode, **kwargs)
        if deferrable and mode == "reschedule":
            raise ValueError("PredictionSensor waits either deferrable=True or mode='reschedule'; give one of them")
        if ignored := [name for name in _UNSUPPORTED if getattr(self, name)]:
            raise ValueError(f"PredictionSensor has no {ignored[0]}: it waits out trouble, its interval grows anyway")
        check_choice("on_item_error", on_item_error, "fail", "keep")
        self.prediction_id = prediction_id
        self.conn_id = conn_id
        self.on_item_error = on_item_error
        self.deferrable = mode != "reschedule" if deferrable is None else deferrable
        self.defer_after = non_negative_seconds("defer_after", defer_after)
        self.allow_empty = allow_empty
        self.is_adaptive = poke_interval is None
        if start_from_trigger:
            from airflow_provider_comet.triggers.start import start_trigger_args  # loads Airflow's trigger classes

            self.start_trigger_args = start_trigger_args(self)
            self.start_from_trigger = True
        self._ids: str | list[str | None] | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    @functools.cached_property
    def _task_wait(self) -> TaskWait:
        return TaskWait(
            self,
            self.hook,
            poke_interval=None if self.is_adaptive else self.poke_interval,
            deferrable=self.deferrable,
            defer_after=self.defer_after,
            reschedules=self.reschedule,
        )

    def execute(self, context: Context) -> Any:
        """Poll, and leave the worker to a trigger or between two polls, as ``deferrable`` and ``mode`` say."""
        with self._translated_errors(context):
            return self._wait(context, self._continued(context), *WORTH_A_TRIGGER)

    def execute_complete(self, context: Context, event: Any = None, **kwargs: Any) -> Any:
        """Judge what the trigger saw; what its event does not carry is read again."""
        return self._conclude_event(context, read_event(event), kwargs.get("started_at"), kwargs.get("deadline"))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume from the triggerer, by this sensor's own rules for what is an error and what is skipped."""
        with self._translated_errors(context):
            self._task_wait.resume(next_kwargs)
            own = super(BaseSensorOperator, self).resume_execution
            resume_task = functools.partial(own, next_method, next_kwargs, context)
            last_poll = functools.partial(self._conclude_event, context, NO_EVENT)
            return resume(
                self.conn_id,
                next_kwargs,
                resume_task,
                last_poll,
                # An error is left to the trigger, which polls again: this process has forgotten what was seen before.
                lambda *times: self._wait(context, self._continued(context, *times), e.CometError),
            )

    def on_kill(self) -> None:
        """End a running poll, and log what keeps running. A signal handler: Airflow can't be called here."""
        self.hook.halt()
        ids = self._ids or self.prediction_id
        self.log.warning("%s", still_running(ids if isinstance(ids, list) else [ids]))

    def _wait(self, context: Context, times: Sequence[float], *left_to_trigger: type[e.CometError]) -> Any:
        polled_before = self.reschedule and bool(context["ti"].get_first_reschedule_date(context))  # but forgotten
        ids = distinct(self._read_ids(context))
        waits = self._task_wait.begin(ids, *times, is_known=polled_before)
        return self._conclude(context, self._task_wait.wait(waits, *left_to_trigger))

    def _read_ids(self, context: Context) -> str | list[str | None]:
        self._ids = self._ids or read_ids(self.rendered("prediction_id"), context)
        return self._ids

    def _times(self, context: Context) -> tuple[float, float, bool]:
        """Return when this attempt began, when it has to end, and whether the ``execution_timeout`` ends it."""
        ti = context["ti"]
        rescheduled_at = ti.get_first_reschedule_date(context) if self.reschedule else None
        started_at = (rescheduled_at or ti.start_date).timestamp()
        deadline, is_execution_timeout = find_deadline(
            self.timeout, self.execution_timeout, started_at=started_at, attempt_started_at=started_at
        )
        return started_at, deadline, is_execution_timeout

    def _continued(self, context: Context, *times: float | None) -> list[float]:
        """Return when the wait began and when it has to end: as earlier processes have said, or as this attempt is."""
        own = self._times(context)[:2]
        return [default if time is None else time for time, default in zip(times or (None, None), own, strict=True)]

    def _conclude_event(self, context: Context, result: WaitResult, *times: float | None) -> Any:
        known_times = self._continued(context, *times)
        outcomes, again = self._task_wait.read(result, distinct(self._read_ids(context)), known_times[1])
        if again:
            return self._wait(context, known_times, e.CometError)
        return self._conclude(context, outcomes)

    def _conclude(self, context: Context, outcomes: Mapping[str, Outcome], *, keep: bool | None = None) -> Any:
        keep = self.on_item_error == "keep" if keep is None else keep
        known = {**outcomes, **self._task_wait.errors}
        return hand_over(context["ti"], self._read_ids(context), known, allow_empty=self.allow_empty, keep=keep)

    def _interrupted(self, context: Context, words: str) -> e.CometError:
        """Return the error for Airflow's own ``execution_timeout``: a signal, which knows no prediction.

        Nothing is kept in place of a result: there was no last poll, and a retry may find what was paid for.
        """
        timeout = e.PredictionTimeoutError(words).about(self.prediction_id)
        if (waits := self._task_wait.waits) is None or not isinstance(self._ids, list):
            return timeout
        pending = {key: e.PredictionTimeoutError(words, prediction_id=key) for key in distinct(self._ids)}
        try:
            self._conclude(context, {**pending, **waits.outcomes}, keep=False)
        except e.CometError as error:
            return error
        return timeout  # it came after the last poll

    @contextlib.contextmanager
    def _translated_errors(self, context: Context) -> Iterator[None]:
        def translate(error: e.CometError) -> BaseException:
            return wait_exception(error.about(self.prediction_id), is_execution_timeout=self._times(context)[2])

        with raised_by_sensor(translate, soft_fail=self.soft_fail, never_fail=self.never_fail):
            try:
                yield
            except AirflowTaskTimeout as signal:
                raise wait_exception(self._interrupted(context, f"{signal}"), is_execution_timeout=True) from signal
