"""``PredictionSensor``: wait for predictions and hand over their results."""

from __future__ import annotations

import contextlib
import functools
import time
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

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import CometError, PredictionListError, PredictionTimeoutError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook, steady_clock
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.polling import events
from airflow_provider_comet.polling.prediction_ids import distinct, given_ids
from airflow_provider_comet.polling.schedule import LONGEST, Wait, find_deadline
from airflow_provider_comet.polling.wait import Waits
from airflow_provider_comet.triggers.deferral import defer, resumed

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PREDICTIONS_XCOM_KEY = "predictions"
DEFER_AFTER_SECONDS = 3.0
"""To come back from the triggerer takes about as long as this, and a start of a worker process."""
LOOKED_AT_ON_WORKER = 50
"""A longer list is deferred at once: one round over it would hold the worker for longer than a second."""
_NOT_OURS = {
    "silent_fail": "trouble that may pass is waited out until the timeout in any case",
    "exponential_backoff": "by default the interval grows with the prediction's age",
    "max_wait": "by default the interval grows to a minute at most",
}
"""Options of Airflow's sensors that do nothing while a task is deferred."""
NOT_MAPPED = "start_from_trigger does not go with mapping: Airflow would not give the trigger its ids"


class PredictionSensor(BaseSensorOperator):
    """Wait until a prediction has finished, without holding a worker, and return its result.

    Returns, in every mode, exactly ``{id, model, version, status, files, output, error, metrics, created_at,
    started_at, completed_at, data_removed}``; ``files`` is the list of all output URLs. Of a list of ids it returns a
    list of these, in the same order and of the same length.

    Raises ``AirflowFailException`` for what no retry changes (failed, canceled, aborted, unknown id, output removed or
    empty), ``AirflowSensorTimeout`` at the timeout, ``AirflowTaskTimeout`` at the ``execution_timeout``, and a plain
    ``CometError`` if the API can't be read (wrong key or URL). Airflow's ``retries`` repeat the latter two: looking
    costs nothing.

    :param prediction_id: what ``CreatePredictionOperator`` returned; or a list of ids, for example the output of a
        mapped create: one task waits for all of them. A null in it stays a null. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. The prediction is looked at once more
        before the task gives up.
    :param poke_interval: seconds between looks, or a ``timedelta``. ``None`` (default): at a second of age, then each
        time the prediction's age has grown by a fifth, at least every minute.
    :param wait_rule: for a list: ``all_success`` (default) fails if one prediction has no result, after all have
        ended; the results that were paid for are then in XCom ``predictions``. ``all_done`` returns what there is: a
        prediction that failed is returned with its status and error, one that was unknown or late as null; it fails
        only if the API could not be read, which a retry may cure.
    :param deferrable: wait in the triggerer (a triggerer must run). ``None`` (default): yes, unless
        ``mode="reschedule"``. ``[operators] default_deferrable`` is not read: it is off by default, and a wait that
        holds a worker is what this sensor is there to avoid.
    :param defer_after: seconds to look on the worker before it defers, default 3: for a prediction that is done by then
        the way back from the triggerer would take longer. 0: one look.
    :param start_from_trigger: begin in the triggerer: no worker is taken before the prediction has finished. Needs
        Airflow 3.3 and one id: as text, template without XComs, or ``create.output`` of a task that is not mapped.
    :param allow_empty: accept a success without output.
    :param mode: ``poke`` or ``reschedule``, for ``deferrable=False``.
    :param soft_fail: skip instead of failing for facts about the prediction and for the timeouts, never for trouble in
        reaching the API.
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
        wait_rule: Literal["all_success", "all_done"] = "all_success",
        deferrable: bool | None = None,
        defer_after: timedelta | float = DEFER_AFTER_SECONDS,
        start_from_trigger: bool = False,
        allow_empty: bool = False,
        mode: str = "poke",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            timeout=timeout, poke_interval=LONGEST if poke_interval is None else poke_interval, mode=mode, **kwargs
        )
        if deferrable and mode == "reschedule":
            raise ValueError("PredictionSensor waits either deferrable=True or mode='reschedule'; give one of them")
        _check_options({"wait_rule": wait_rule, **{name: getattr(self, name) for name in _NOT_OURS}})
        self.prediction_id = prediction_id
        self.conn_id = conn_id
        self.wait_rule = wait_rule
        self.deferrable = mode != "reschedule" if deferrable is None else deferrable
        self.defer_after = defer_after.total_seconds() if isinstance(defer_after, timedelta) else float(defer_after)
        self.allow_empty = allow_empty
        self.adaptive = poke_interval is None
        if start_from_trigger:
            if not self.deferrable:
                raise ValueError("start_from_trigger is a way to defer: leave deferrable and mode as they are")
            # Also of an instance that got it by expand_kwargs, which parsing does not know.
            if getattr(self, "_BaseOperator__from_mapped", False) or self.get_closest_mapped_task_group() is not None:
                raise ValueError(NOT_MAPPED)
            from airflow_provider_comet.triggers.start import start_trigger_args  # loads Airflow's trigger classes

            self.start_trigger_args = start_trigger_args(
                prediction_id,
                conn_id,
                timeout=self.timeout,
                execution_timeout=self.execution_timeout,
                poke_interval=None if self.adaptive else self.poke_interval,
            )
            self.start_from_trigger = True
        self._waits: Waits | None = None
        self._ids: str | list[str | None] | None = None
        self._next_look_seconds = self.poke_interval

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin to map this sensor (``.partial(...).expand(...)``)."""
        made = super().partial(**kwargs)
        places = (made.kwargs["dag"], made.kwargs["task_group"])
        defaults = [*(getattr(place, "default_args", None) or {} for place in places), kwargs.get("default_args") or {}]
        try:
            _check_options({name: value for given in (*defaults, kwargs) for name, value in given.items()})
        except ValueError:
            made._expand_called = True  # otherwise Airflow complains that it was never mapped
            raise
        return made

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    @functools.cached_property
    def _now(self) -> Callable[[], float]:
        """The clock of this attempt, from its first look on."""
        return steady_clock()

    def execute(self, context: Context) -> Any:
        """Look on the worker for some seconds, and go on in the triggerer with what has not finished by then."""
        if not self.deferrable:
            return super().execute(context)
        with self._as_airflow(context):
            leaves_at = time.monotonic() + self.defer_after
            waits = self._begin(context)
            if len(waits.pending) > LOOKED_AT_ON_WORKER:
                defer(self, waits.pending, self.conn_id, is_list=True)
            while True:
                delay = self.hook.look_at(waits, self._now)
                # A trigger outlasts a key that is being replaced.
                if waits.reopen() or (delay is not None and time.monotonic() + delay > leaves_at):
                    defer(self, waits.pending, self.conn_id, is_list=isinstance(self._ids, list))
                if delay is None:
                    return self._conclude(context, waits.ended)
                time.sleep(delay)

    def execute_complete(self, context: Context, event: Any = None, **_unknown: Any) -> Any:
        """Judge what the trigger saw; what its event does not carry is read again."""
        if (error := events.error_in(event)) is not None:  # first: a wait that found no id has none here either
            raise error
        given = self._given(context)
        ended: dict[str, Prediction | CometError | dict[str, Any]] = {}
        if isinstance(given, list):
            ended.update(events.from_list_event(event))
        elif (known := events.from_event(event)) is not None:
            ended[given] = known
        for one, seen in self.hook.read(one for one in distinct(given) if one not in ended).items():
            ended[one] = events.read_again(seen, event)
        return self._conclude(context, ended)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer, by this sensor's own rules for what is an error and what is skipped."""
        with self._as_airflow(context):
            return resumed(
                functools.partial(super(BaseSensorOperator, self).resume_execution, next_method, next_kwargs, context),
                functools.partial(self.execute_complete, context),
            )

    def on_kill(self) -> None:
        """Say what goes on. Called by a signal handler: no request to Airflow may be made here."""
        self.log.warning(outcome.going_on(self._ids or self.prediction_id))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once, for the modes that hold a worker or come back to one."""
        with self._as_airflow(context):
            waits = self._begin(context)
            delay = self.hook.look_at(waits, self._now)
            if delay is not None:
                self._next_look_seconds = delay
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, waits.ended))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        if not (self.reschedule and self.adaptive and self._waits):
            return self._next_look_seconds
        # Each look costs a start of the task in this mode, so the adaptive schedule keeps to a minute.
        remaining = max(0.0, self._waits.pending[0].deadline - self._now())
        return min(max(LONGEST, self._next_look_seconds), remaining)

    def _begin(self, context: Context) -> Waits:
        """The waits of this attempt; their clock runs from the attempt's start, also over reschedules and deferrals."""
        if self._waits is None:
            started_at, deadline, _ = self._times(context)
            interval = None if self.adaptive else self.poke_interval
            ids = distinct(self._given(context))
            self._waits = Waits(Wait(one, started_at, deadline, interval) for one in ids)
        return self._waits

    def _given(self, context: Context) -> str | list[str | None]:
        if self._ids is None:
            self._ids = given_ids(self.prediction_id, context)
        return self._ids

    def _times(self, context: Context) -> tuple[float, float, bool]:
        """When this attempt began, when it has to end, and whether that is its ``execution_timeout``."""
        ti = context["ti"]
        began = ti.get_first_reschedule_date(context) if self.mode == "reschedule" else ti.start_date
        started_at = began.timestamp() if began else time.time()
        deadline, is_execution_timeout = find_deadline(
            self.timeout, self.execution_timeout, started_at=started_at, attempt_started_at=started_at
        )
        return started_at, deadline, is_execution_timeout

    def _conclude(
        self, context: Context, ended: Mapping[str, Prediction | CometError | Mapping[str, Any]]
    ) -> dict[str, Any] | list[dict[str, Any] | None]:
        given = self._given(context)
        if isinstance(given, str):
            return outcome.judge(ended[given], allow_empty=self.allow_empty)
        seen, errors = outcome.judge_all({one: ended[one] for one in distinct(given)}, allow_empty=self.allow_empty)
        results = [None if one is None else seen[one] for one in given]
        for error in errors:
            self.log.warning("%s", error)
        # Of trouble in reaching the API no rule makes a result: a retry, which costs nothing, may have it.
        if errors and (self.wait_rule == "all_success" or any(outcome.airflow_error(one) is one for one in errors)):
            context["ti"].xcom_push(key=PREDICTIONS_XCOM_KEY, value=results)
            raise PredictionListError.of(errors, len(seen))
        return results

    @contextlib.contextmanager
    def _as_airflow(self, context: Context) -> Iterator[None]:
        """Raise errors as Airflow's. ``soft_fail`` and ``never_fail`` are applied here: Airflow's own rules for them
        differ between a poke, an own ``execute`` and a resumed deferral."""
        try:
            yield
        except (Exception, AirflowTaskTimeout) as error:
            raised: BaseException = error
            if isinstance(error, AirflowTaskTimeout):  # Airflow's signal came amid a look, and knows no prediction
                late = PredictionTimeoutError(f"{error}").about(self.prediction_id)
                raised = outcome.airflow_error(late, is_execution_timeout=True)
            elif isinstance(error, CometError):
                _, _, is_execution_timeout = self._times(context)
                raised = outcome.airflow_error(
                    error.about(self.prediction_id), is_execution_timeout=is_execution_timeout
                )
            is_fact = isinstance(raised, (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout))
            if self.never_fail or (self.soft_fail and is_fact):
                raise AirflowSkipException(str(raised)) from error
            if raised is error:
                raise
            raise raised from error


def _check_options(given: Mapping[str, Any]) -> None:
    """Refuse what can't be meant, given to the sensor, to ``partial``, or by ``default_args``."""
    for name, reason in _NOT_OURS.items():
        if given.get(name):
            raise ValueError(f"PredictionSensor has no {name}: {reason}")
    if (wait_rule := given.get("wait_rule", "all_success")) not in ("all_success", "all_done"):
        raise ValueError(f"wait_rule must be 'all_success' or 'all_done', not {wait_rule!r}")
    if given.get("start_from_trigger"):
        raise ValueError(NOT_MAPPED)
