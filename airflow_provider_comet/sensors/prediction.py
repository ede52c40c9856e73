"""``PredictionSensor``: wait for predictions and hand over their results."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, BaseSensorOperator

from airflow_provider_comet.airflow_errors import raised_by_sensor, still_running, wait_exception
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.options import check_choice, non_negative_seconds
from airflow_provider_comet.api.outcome import Outcome, is_unfinished
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook, steady_clock
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.events import NO_EVENT, WaitResult, read_event
from airflow_provider_comet.polling.prediction_ids import distinct, read_ids
from airflow_provider_comet.polling.schedule import LONGEST_DELAY, find_deadline
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits
from airflow_provider_comet.sensors.results import hand_over
from airflow_provider_comet.templated import TemplatedOperator
from airflow_provider_comet.triggers.deferral import defer, reschedule, resume

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

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
        self._waits: Waits | None = None
        self._ids: str | list[str | None] | None = None
        self._errors: dict[str, e.CometError] = {}

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    @functools.cached_property
    def _now(self) -> Callable[[], float]:
        """The clock of this attempt, from its first poll on."""
        return steady_clock()

    def execute(self, context: Context) -> Any:
        """Poll, and leave the worker to a trigger or between two polls, as ``deferrable`` and ``mode`` say."""
        with self._translated_errors(context):
            # A trigger can wait for a key that is being replaced.
            return self._wait(context, self._begin(context), e.AuthenticationError, e.PermissionDeniedError)

    def execute_complete(self, context: Context, event: Any = None, **kwargs: Any) -> Any:
        """Judge what the trigger saw; what its event does not carry is read again."""
        return self._conclude_event(context, read_event(event), kwargs.get("started_at"), kwargs.get("deadline"))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume from the triggerer, by this sensor's own rules for what is an error and what is skipped."""
        with self._translated_errors(context):
            ended = (next_kwargs or {}).get("errors") or {}
            self._errors = {key: e.CometError.from_dict(error) for key, error in ended.items()}
            own = super(BaseSensorOperator, self).resume_execution
            resume_task = functools.partial(own, next_method, next_kwargs, context)
            last_poll = functools.partial(self._conclude_event, context, NO_EVENT)
            return resume(
                self.conn_id,
                next_kwargs,
                resume_task,
                last_poll,
                # An error is left to the trigger, which polls again: this process has forgotten what was seen before.
                lambda *times: self._wait(context, self._begin(context, *times), e.CometError),
            )

    def on_kill(self) -> None:
        """End a running poll, and log what keeps running. A signal handler: Airflow can't be called here."""
        self.hook.halt()
        ids = self._ids or self.prediction_id
        self.log.warning("%s", still_running(ids if isinstance(ids, list) else [ids]))

    def _wait(self, context: Context, waits: Waits, *left_to_trigger: type[e.CometError]) -> Any:
        """Poll until all waits have ended or this task leaves the worker: one loop for all modes.

        Airflow's own would end a list without its last polls if its timeout comes between two answers.
        """
        defer_at = clock.monotonic() + self.defer_after
        if self.deferrable and len(waits.pending) > MAX_POLLED_ON_WORKER:
            self._defer(waits)
        while True:
            delay = self.hook.poll(waits, self._now)
            is_over = self._now() >= waits.deadline  # then the last polls are made here
            if self.deferrable and not is_over:
                is_late = delay is not None and clock.monotonic() + delay > defer_at
                if waits.reopen(*left_to_trigger) or is_late:
                    self._defer(waits)
            if delay is None:
                return self._conclude(context, waits.outcomes)
            # The next poke could not tell whether a prediction that is not found was ever seen.
            if self.reschedule and not is_over and not waits.are_missing:
                # Each poll costs a start of the task, so the adaptive schedule keeps to a minute.
                delay = max(delay, LONGEST_DELAY if self.is_adaptive else 0.0)
                reschedule(min(delay, waits.deadline - self._now()))
            clock.sleep(delay)

    def _begin(self, context: Context, started_at: float | None = None, deadline: float | None = None) -> Waits:
        """Return the waits of this attempt; their clock runs from its start, also over reschedules and deferrals."""
        if self._waits is None:
            began, ends, _ = self._times(context)
            times = (began if started_at is None else started_at, ends if deadline is None else deadline)
            interval = None if self.is_adaptive else self.poke_interval
            known = self.reschedule and bool(context["ti"].get_first_reschedule_date(context))  # polled, but forgotten
            ids = [key for key in distinct(self._read_ids(context)) if key not in self._errors]
            self._waits = Waits(Wait(key, *times, interval, is_known=known) for key in ids)
        return self._waits

    def _defer(self, waits: Waits) -> NoReturn:
        """Leave what has not ended to a trigger, and errors of the rest to ``execute_complete``."""
        errors = {**self._errors, **waits.errors}
        kwargs = {"errors": {key: error.to_dict() for key, error in errors.items()}} if errors else None
        defer(self, waits.pending, self.conn_id, kwargs=kwargs)

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

    def _conclude_event(self, context: Context, result: WaitResult, *times: float | None) -> Any:
        known: dict[str, Outcome] = {**result.outcomes, **self._errors}
        missing = [key for key in distinct(self._read_ids(context)) if key not in known]
        read = {key: result.on_reread(reread) for key, reread in self.hook.get_predictions(missing).items()}
        # Of a create that was cleared meanwhile, or of an API that is in trouble for longer than a reread waits.
        ids = [key for key in read if is_unfinished(read[key])]
        if ids and not result.has_unfinished and self._now() < (waits := self._begin(context, *times)).deadline:
            self.log.warning("The trigger has brought no result of %s: the wait continues", excerpt(", ".join(ids)))
            return self._wait(context, waits, e.CometError)
        return self._conclude(context, {**known, **read})

    def _conclude(self, context: Context, outcomes: Mapping[str, Outcome], *, keep: bool | None = None) -> Any:
        keep = self.on_item_error == "keep" if keep is None else keep
        known = {**outcomes, **self._errors}
        return hand_over(context["ti"], self._read_ids(context), known, allow_empty=self.allow_empty, keep=keep)

    def _interrupted(self, context: Context, words: str) -> e.CometError:
        """Return the error for Airflow's own ``execution_timeout``: a signal, which knows no prediction.

        Nothing is kept in place of a result: there was no last poll, and a retry may find what was paid for.
        """
        timeout = e.PredictionTimeoutError(words).about(self.prediction_id)
        if self._waits is None or not isinstance(self._ids, list):
            return timeout
        pending = {key: e.PredictionTimeoutError(words, prediction_id=key) for key in distinct(self._ids)}
        try:
            self._conclude(context, {**pending, **self._waits.outcomes}, keep=False)
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
