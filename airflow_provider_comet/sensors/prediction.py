"""``PredictionSensor``: wait for a prediction and hand over its result."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_comet import outcome
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.polling import LONGEST, Wait
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.hooks.comet_replicate import DEFAULT_CONN_ID, CometReplicateHook
from airflow_provider_comet.triggers.prediction import defer, resumed

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class PredictionSensor(BaseSensorOperator):
    """Wait until a prediction has finished, without holding a worker, and return its result.

    Returns, in every mode, exactly ``{id, model, version, status, files, output, error, metrics, created_at,
    started_at, completed_at, data_removed}``; ``files`` is the list of all output URLs.

    Raises ``AirflowFailException`` for what no retry changes (failed, canceled, aborted, unknown id, output removed or
    empty), ``AirflowSensorTimeout`` at the timeout, and a plain ``CometError`` if the API can't be read (wrong key or
    URL), which Airflow's ``retries`` repeat: looking costs nothing.

    :param prediction_id: what ``CreatePredictionOperator`` returned. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. The prediction is looked at once more
        before the task gives up.
    :param poke_interval: seconds between looks, or a ``timedelta``. ``None`` (default): at a second of age, then each
        time the prediction's age has grown by a fifth, at least every minute.
    :param deferrable: wait in the triggerer (a triggerer must run). ``None`` (default): yes, unless
        ``mode="reschedule"``. ``[operators] default_deferrable`` is not read: it is off by default, and a wait that
        holds a worker is what this sensor is there to avoid.
    :param allow_empty: accept a success without output.
    :param mode: ``poke`` or ``reschedule``, for ``deferrable=False``.
    :param soft_fail: skip instead of failing for facts about the prediction and for the timeout, never for trouble in
        reaching the API.
    """

    template_fields: Sequence[str] = ("prediction_id", "conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prediction_id: str,
        conn_id: str = DEFAULT_CONN_ID,
        timeout: timedelta | float = 3600,
        poke_interval: timedelta | float | None = None,
        deferrable: bool | None = None,
        allow_empty: bool = False,
        mode: str = "poke",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            timeout=timeout, poke_interval=LONGEST if poke_interval is None else poke_interval, mode=mode, **kwargs
        )
        if deferrable and mode == "reschedule":
            raise ValueError("PredictionSensor waits either deferrable=True or mode='reschedule'; give one of them")
        self.prediction_id = prediction_id
        self.conn_id = conn_id
        self.deferrable = mode != "reschedule" if deferrable is None else deferrable
        self.allow_empty = allow_empty
        self.adaptive = poke_interval is None
        self._active: Wait | None = None
        self._next_look_seconds = self.poke_interval

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Look once on the worker, and go on in the triggerer if the prediction has not finished."""
        if not self.deferrable:
            summary: dict[str, Any] = super().execute(context)
            return summary
        with self._as_airflow():
            wait = self._wait(context)
            ended = self.hook.look(wait)
            if isinstance(ended, float):
                defer(self, wait, self.conn_id)
            return self._conclude(ended)

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Judge what the trigger saw."""
        ended = outcome.from_event(event)
        return self._conclude(self.hook.get_prediction(self.prediction_id) if ended is None else ended)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer, by this sensor's own rules for what is an error and what is skipped."""
        with self._as_airflow(), resumed():
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Say what goes on. Called by a signal handler: no request to Airflow may be made here."""
        self.log.warning(outcome.GOES_ON, self.prediction_id)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once, for the modes that hold a worker or come back to one."""
        with self._as_airflow():
            ended = self.hook.look(self._wait(context))
            if isinstance(ended, float):
                self._next_look_seconds = ended
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._conclude(ended))

    def _get_next_poke_interval(
        self, started_at: datetime | float, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        if not (self.reschedule and self.adaptive and self._active):
            return self._next_look_seconds
        # Each look costs a start of the task in this mode, so the adaptive schedule keeps to a minute.
        return min(max(LONGEST, self._next_look_seconds), max(0.0, self._active.deadline - time.time()))

    def _wait(self, context: Context) -> Wait:
        """The wait of this attempt; its clock runs from the attempt's start, also over reschedules and deferrals."""
        if self._active is None:
            ti = context["ti"]
            began = ti.get_first_reschedule_date(context) if self.mode == "reschedule" else ti.start_date
            started_at = began.timestamp() if began else time.time()
            interval = None if self.adaptive else self.poke_interval
            self._active = Wait(self.prediction_id, started_at, started_at + self.timeout, interval)
        return self._active

    def _conclude(self, ended: Prediction | CometError | dict[str, Any]) -> dict[str, Any]:
        return outcome.judge(ended, allow_empty=self.allow_empty)

    @contextlib.contextmanager
    def _as_airflow(self) -> Iterator[None]:
        """Raise errors as Airflow's. ``soft_fail`` and ``never_fail`` are applied here: Airflow's own rules for them
        differ between a poke, an own ``execute`` and a resumed deferral."""
        try:
            yield
        except Exception as error:
            raised = error
            if isinstance(error, CometError):
                raised = outcome.airflow_error(error.about(self.prediction_id))
            is_fact = isinstance(raised, (AirflowFailException, AirflowSensorTimeout))
            if self.never_fail or (self.soft_fail and is_fact):
                raise AirflowSkipException(str(raised)) from error
            if raised is error:
                raise
            raise raised from error
