"""``PredictionSensor``: wait for predictions and hand over their results."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_comet.airflow_errors import still_running, wait_exception
from airflow_provider_comet.api.errors import CometError, PredictionListError, PredictionTimeoutError
from airflow_provider_comet.api.options import check_choice, non_negative_seconds
from airflow_provider_comet.api.outcome import Outcome, judge, judge_all
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook, steady_clock
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.operators.templated import TemplatedOperator
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.events import NO_EVENT, WaitResult, read_event
from airflow_provider_comet.polling.prediction_ids import distinct, read_ids
from airflow_provider_comet.polling.schedule import LONGEST_DELAY, find_deadline
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits
from airflow_provider_comet.triggers.deferral import defer, resume

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PREDICTIONS_XCOM_KEY = "predictions"
DEFER_AFTER_SECONDS = 3.0
MAX_POLLED_ON_WORKER = 50
"""A longer list is deferred at once: one round of polls would hold the worker for longer than a second."""
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
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. The prediction is polled once more
        before the task gives up.
    :param poke_interval: seconds between polls, or a ``timedelta``. ``None`` (default): at a second of age, then each
        time the prediction's age has grown by a fifth, at least every minute.
    :param on_item_error: for a list, what to do about a prediction without a result, after all have ended. ``fail``
        (default): the task fails; the results are in XCom ``predictions``. ``keep``: a prediction that failed is
        returned with its status and error, one that is unknown or was not finished in time as null. The task fails if
        no prediction has a result, or if the API could not be read, which a retry may cure.
    :param deferrable: wait in the triggerer (a triggerer must run). ``None`` (default): yes, unless
        ``mode="reschedule"``. ``[operators] default_deferrable`` is not read, because it is off by default.
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
        self._waits: Waits | None = None
        self._ids: str | list[str | None] | None = None
        self._next_delay = self.poke_interval

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    @functools.cached_property
    def _now(self) -> Callable[[], float]:
        """The clock of this attempt, from its first poll on."""
        return steady_clock()

    def execute(self, context: Context) -> Any:
        """Poll on the worker for some seconds, and defer for what has not finished by then."""
        if not self.deferrable:
            return super().execute(context)
        with self._translated_errors(context):
            defer_at = clock.monotonic() + self.defer_after
            waits = self._begin(context)
            if len(waits.pending) > MAX_POLLED_ON_WORKER:
                defer(self, waits.pending, self.conn_id)
            while True:
                delay = self.hook.poll(waits, self._now)
                # A trigger can wait for a key that is being replaced.
                if waits.reopen_refused() or (delay is not None and clock.monotonic() + delay > defer_at):
                    defer(self, waits.pending, self.conn_id)
                if delay is None:
                    return self._conclude(context, waits.outcomes)
                clock.sleep(delay)

    def execute_complete(self, context: Context, event: Any = None, **_unknown: Any) -> Any:
        """Judge what the trigger saw; what its event does not carry is read again."""
        return self._conclude_event(context, read_event(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume from the triggerer, by this sensor's own rules for what is an error and what is skipped."""
        with self._translated_errors(context):
            own = super(BaseSensorOperator, self).resume_execution
            resume_task = functools.partial(own, next_method, next_kwargs, context)
            without_event = functools.partial(self._conclude_event, context, NO_EVENT)
            return resume(self.conn_id, next_kwargs, resume_task, without_event)

    def on_kill(self) -> None:
        """End a running poll, and log what keeps running. A signal handler: Airflow can't be called here."""
        self.hook.halt()
        ids = self._ids or self.prediction_id
        self.log.warning("%s", still_running(ids if isinstance(ids, list) else [ids]))

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, for the modes that hold a worker or take one for each poll."""
        with self._translated_errors(context):
            waits = self._begin(context)
            if (delay := self.hook.poll(waits, self._now)) is not None:
                self._next_delay = delay
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, waits.outcomes))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        if not (self.reschedule and self.is_adaptive and self._waits):
            return self._next_delay
        # Each poll costs a start of the task in this mode, so the adaptive schedule keeps to a minute.
        remaining = max(0.0, self._waits.pending[0].deadline - self._now())
        return min(max(LONGEST_DELAY, self._next_delay), remaining)

    def _begin(self, context: Context) -> Waits:
        """Return the waits of this attempt; their clock runs from its start, also over reschedules and deferrals."""
        if self._waits is None:
            started_at, deadline, _ = self._times(context)
            interval = None if self.is_adaptive else self.poke_interval
            ids = distinct(self._read_ids(context))
            self._waits = Waits(Wait(prediction_id, started_at, deadline, interval) for prediction_id in ids)
        return self._waits

    def _read_ids(self, context: Context) -> str | list[str | None]:
        self._ids = self._ids or read_ids(self.rendered("prediction_id"), context)
        return self._ids

    def _times(self, context: Context) -> tuple[float, float, bool]:
        """Return when this attempt began, when it has to end, and whether the ``execution_timeout`` ends it."""
        ti = context["ti"]
        began = ti.get_first_reschedule_date(context) if self.mode == "reschedule" else ti.start_date
        started_at = began.timestamp() if began else clock.now()
        deadline, is_execution_timeout = find_deadline(
            self.timeout, self.execution_timeout, started_at=started_at, attempt_started_at=started_at
        )
        return started_at, deadline, is_execution_timeout

    def _conclude_event(self, context: Context, result: WaitResult) -> Any:
        ids = distinct(self._read_ids(context))
        outcomes: dict[str, Outcome] = {**result.outcomes}
        missing = [prediction_id for prediction_id in ids if prediction_id not in outcomes]
        for prediction_id, reread in self.hook.get_predictions(missing).items():
            outcomes[prediction_id] = result.on_reread(reread)
        return self._conclude(context, outcomes)

    def _conclude(self, context: Context, outcomes: Mapping[str, Outcome]) -> Any:
        from airflow_provider_comet import metrics  # loads Airflow's metrics: not while DAGs are parsed

        ids = self._read_ids(context)
        ended = {prediction_id: outcomes[prediction_id] for prediction_id in distinct(ids)}
        metrics.finished(ended.values())
        if isinstance(ids, str):
            return judge(ended[ids], allow_empty=self.allow_empty)
        summaries, errors = judge_all(ended, allow_empty=self.allow_empty)
        results = [None if prediction_id is None else summaries[prediction_id] for prediction_id in ids]
        for error in errors:
            self.log.warning("%s", error)
        # An API that could not be read never makes a result: a retry, which costs nothing, may have it.
        is_final = self.on_item_error == "keep" and all(wait_exception(error) is not error for error in errors)
        if errors and (not is_final or len(errors) == len(summaries)):
            context["ti"].xcom_push(key=PREDICTIONS_XCOM_KEY, value=results)
            raise PredictionListError.of(errors, len(summaries))
        return results

    @contextlib.contextmanager
    def _translated_errors(self, context: Context) -> Iterator[None]:
        """Raise errors as Airflow's, and apply ``soft_fail`` and ``never_fail`` by the same rules in every mode."""
        try:
            yield
        except (Exception, AirflowTaskTimeout) as error:
            raised: BaseException = error
            if isinstance(error, AirflowTaskTimeout):  # Airflow's signal interrupted a poll, and knows no prediction
                timeout = PredictionTimeoutError(f"{error}").about(self.prediction_id)
                raised = wait_exception(timeout, is_execution_timeout=True)
            elif isinstance(error, CometError):
                raised = wait_exception(error.about(self.prediction_id), is_execution_timeout=self._times(context)[2])
            is_fact = isinstance(raised, (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout))
            if self.never_fail or (self.soft_fail and is_fact):
                raise AirflowSkipException(str(raised)) from error
            if raised is error:
                raise
            raise raised from error
