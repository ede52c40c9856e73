"""``CreatePredictionOperator``: submit a prediction, once, and hand over its id."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseOperator,
    TaskDeferred,
)

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import CometError, PredictionError, PredictionTimeoutError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.links.prediction import MODEL_XCOM_KEY, ModelLink
from airflow_provider_comet.polling import events
from airflow_provider_comet.polling.schedule import Wait, find_deadline
from airflow_provider_comet.submissions.submission import Submission
from airflow_provider_comet.triggers.deferral import defer, resumed

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_comet.inputs.schema_files import GivenSchema

PREDICTION_XCOM_KEY = "prediction"
# The key Airflow pushes a task's return value under; its own constant has moved between 3.0 and 3.3.
RETURN_VALUE_XCOM_KEY = "return_value"
DEFAULT_POOL = "default_pool"


class CreatePredictionOperator(BaseOperator):
    """Submit a prediction to CometAPI, exactly once paid for, and return its id.

    Each accepted create costs money. It is sent once, and again only if it certainly was not accepted. What was paid is
    on record (Airflow 3.3 and later), so a retry after a crash goes on with it, and only a clear buys a new prediction
    for a result that was handed over: docs/paid-once.md.

    Raises ``AirflowFailException`` where a retry can't help or might pay twice (wrong key, bad input, no clear answer),
    and a plain ``CometError`` where Airflow's ``retries`` can (rate limit, server unreachable).

    :param model: the model's id, ``owner/name``, for example ``black-forest-labs/flux-schnell``. (templated)
    :param input: all parameters of the model, a non-empty JSON object; what they are stands on the model's page.
        Leave keys out rather than giving ``None``. An ``ObjectStoragePath`` in it is a file that is sent along, up to
        7.5 MB each; a text never is. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param input_schema: what the model takes; an input that does not fit is refused before it is paid for. A JSON
        Schema, Replicate's description of the model, or where one is: an absolute path, an ``ObjectStoragePath`` or its
        URL. By default ``<owner>/<name>.json`` in the folder that Airflow's setting ``[comet] input_schemas`` names.
    :param strict: refuse input keys that the schema does not know; by default the log has a warning for each.
    :param on_ambiguous_submit: what to do if nobody knows whether a create was accepted (its answer was lost, or the
        process died while it was sent). ``fail`` (default): fail for good and say how to go on, which never pays twice.
        ``retry``: let Airflow's next try submit again, which may; ``retries`` bounds how often.
    :param wait_for_completion: also wait for the result, without a worker, and push it as XCom ``prediction`` (what
        ``PredictionSensor`` returns). If the prediction fails, the task's ``retries`` buy a new one, unless the model
        refused the input. Otherwise wait with ``PredictionSensor``, whose retries never pay.
    :param deferrable: wait in the triggerer (default); ``False`` holds the worker.
    :param poll_interval: seconds between looks, or a ``timedelta``; by default they grow with the prediction's age.
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. The prediction goes on, and a cleared
        task goes on waiting for it.
    """

    template_fields: Sequence[str] = ("model", "input", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"input": "json"}
    operator_extra_links = (ModelLink(),)
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        model: str,
        input: Mapping[str, Any],
        conn_id: str = DEFAULT_CONN_ID,
        input_schema: GivenSchema | None = None,
        strict: bool = False,
        on_ambiguous_submit: Literal["fail", "retry"] = "fail",
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poll_interval: timedelta | float | None = None,
        timeout: timedelta | float = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_ambiguous_submit not in ("fail", "retry"):
            raise ValueError(f"on_ambiguous_submit must be 'fail' or 'retry', not {on_ambiguous_submit!r}")
        self.model = model
        self.input = input
        self.conn_id = conn_id
        self.input_schema = input_schema
        self.strict = strict
        self.on_ambiguous_submit = on_ambiguous_submit
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = None if poll_interval is None else _seconds("poll_interval", poll_interval)
        self.timeout = _seconds("timeout", timeout)
        self._submission: Submission | None = None
        self._paid_id: str | None = None
        # Whether the deadline is that of the execution_timeout; ``timeout`` counts from the create, so a wait knows.
        _, self._is_execution_timeout = find_deadline(self.timeout, self.execution_timeout)

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> str:
        """Submit, unless an earlier attempt has paid for a result already, and return the prediction's id."""
        self._warn_of_no_limit(context)
        # Before the create: if this fails, nothing was paid.
        context["ti"].xcom_push(key=MODEL_XCOM_KEY, value=self.model)
        self._submission = submission = self._new_submission(context)
        with self._final_where_paid(submission):
            prediction_id, is_known = self._create(context, submission)
            with self._errors_of_paid(submission):
                if not self.wait_for_completion:
                    return self._hand_over(context, submission, prediction_id)
                now = time.time()
                deadline, self._is_execution_timeout = find_deadline(
                    self.timeout,
                    self.execution_timeout,
                    started_at=now,
                    attempt_started_at=context["ti"].start_date.timestamp(),
                )
                wait = Wait(prediction_id, now, deadline, self.poll_interval)
                seen = self.hook.look(wait, time.time) if is_known else 0.0  # a new one has not finished yet
                if not isinstance(seen, float):
                    return self._conclude(context, submission, seen)
                if self.deferrable:
                    defer(self, [wait], self.conn_id, kwargs={"is_execution_timeout": self._is_execution_timeout})
                return self._conclude(context, submission, self._block(wait))

    def execute_complete(
        self, context: Context, event: Any = None, is_execution_timeout: bool | None = None, **_unknown: Any
    ) -> str:
        """Judge what the trigger saw, and hand it over."""
        if is_execution_timeout is not None:
            self._is_execution_timeout = is_execution_timeout
        submission = self._submission or self._new_submission(context)
        ended: Prediction | CometError | Mapping[str, Any] | None = events.from_event(event)
        if ended is None:
            prediction_id = event.get("prediction_id") or self._paid_id
            if prediction_id is None:  # nothing came from the triggerer, and this Airflow keeps no record
                raise PredictionTimeoutError("its id is in the log of the create")
            ended = events.read_again(self.hook.read([prediction_id])[prediction_id], event)
        return self._conclude(context, submission, ended)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer."""
        self._submission = submission = self._new_submission(context)
        event = (next_kwargs or {}).get("event")
        self._paid_id = event.get("prediction_id") if isinstance(event, dict) else None
        with self._final_where_paid(submission, is_paid=True), self._errors_of_paid(submission):
            submission.read()
            self._paid_id = submission.record.id if submission.record else self._paid_id
            return resumed(
                functools.partial(super().resume_execution, next_method, next_kwargs, context),
                functools.partial(self.execute_complete, context),
            )

    def on_kill(self) -> None:
        """Buy nothing from now on, and say what goes on. A signal handler: no request to Airflow may be made here."""
        if self._submission is not None:
            self._submission.stop.killed = True
        if self._paid_id is not None:
            self.log.warning(outcome.GOES_ON, self._paid_id)
        elif self._submission is not None and self._submission.is_under_way:
            self.log.warning(outcome.UNDER_WAY)

    def _create(self, context: Context, submission: Submission) -> tuple[str, bool]:
        """Return the id to go on with, and whether an earlier attempt has paid for it."""
        judged = functools.partial(
            outcome.airflow_create_error,
            on_ambiguous_submit=self.on_ambiguous_submit,
            has_record=submission.has_store,
        )
        with outcome.raised_as(judged):
            self._paid_id = submission.resume()
        if self._paid_id is not None:
            return self._paid_id, True
        submission.input = self._make_input(context)  # may call a function, whose errors stay its own
        with outcome.raised_as(judged):
            prediction_id = self._paid_id = self.hook.create_prediction(
                self.model, self._checked(submission.input), journal=submission
            ).id
            submission.accepted(prediction_id)
        return prediction_id, False

    def _warn_of_no_limit(self, context: Context) -> None:
        limits = self.max_active_tis_per_dag, self.max_active_tis_per_dagrun
        # The first of the mapped ones says it for all.
        if context["ti"].map_index == 0 and self.pool == DEFAULT_POOL and limits == (None, None):
            self.log.warning(
                "This create is mapped, and neither a pool of its own nor max_active_tis_per_dag(run) says how many "
                "run at a time, while CometAPI limits the rate of requests. Make a pool, `airflow pools set cometapi 4 "
                "creates`, and give the task pool='cometapi'."
            )

    def _make_input(self, context: Context) -> Any:
        """Return the input; called only by an attempt that submits. What it raises stays as it is."""
        return self.input

    def _checked(self, input: Any) -> dict[str, Any]:
        from airflow_provider_comet.inputs.schema_files import find_schema, prepare  # loads jsonschema

        complete, unknown = prepare(self.model, input, find_schema(self.model, self.input_schema), strict=self.strict)
        for words in unknown:
            self.log.warning("%s", words)
        return complete

    def _new_submission(self, context: Context) -> Submission:
        return Submission(context, self.model, self.input, self.on_ambiguous_submit)

    def _block(self, wait: Wait) -> Prediction | CometError:
        try:
            return self.hook.wait_for_prediction(
                wait.prediction_id, timeout=max(0.0, wait.deadline - time.time()), poke_interval=wait.poke_interval
            )
        except CometError as error:
            return error

    def _conclude(
        self, context: Context, submission: Submission, seen: Prediction | CometError | Mapping[str, Any]
    ) -> str:
        try:
            summary = outcome.judge(seen, allow_empty=False)
        except PredictionTimeoutError:  # it goes on
            raise
        except PredictionError as error:
            submission.reported(error)
            raise
        context["ti"].xcom_push(key=PREDICTION_XCOM_KEY, value=summary)
        return self._hand_over(context, submission, str(summary["id"]))

    def _hand_over(self, context: Context, submission: Submission, prediction_id: str) -> str:
        # What is called delivered has to be there: Airflow pushes it only afterwards, and that may fail.
        if self.do_xcom_push:
            context["ti"].xcom_push(key=RETURN_VALUE_XCOM_KEY, value=prediction_id)
        submission.delivered(prediction_id)
        return prediction_id

    @contextlib.contextmanager
    def _final_where_paid(self, submission: Submission, *, is_paid: bool = False) -> Iterator[None]:
        """Let nothing be retried where a retry would pay again: whatever ended the try, if no record is kept."""
        try:
            yield
        except (CometError, TaskDeferred, AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            raise  # judged already
        except BaseException as error:  # the task's timeout, say
            is_paid = is_paid or self._paid_id is not None
            may_be_paid = submission.is_under_way and self.on_ambiguous_submit == "fail"
            if submission.has_store or not (is_paid or may_be_paid):
                raise
            what = outcome.UNDER_WAY if self._paid_id is None else outcome.going_on(self._paid_id)
            raise AirflowFailException(f"{type(error).__name__}: {error}. {what} {outcome.NO_RECORD}") from error

    @contextlib.contextmanager
    def _errors_of_paid(self, submission: Submission) -> Iterator[None]:
        """Raise errors as Airflow's, named after the prediction."""

        def airflow_error(error: CometError) -> BaseException:
            return outcome.airflow_error_of_paid(
                error.about(self._paid_id),
                has_record=submission.has_store,
                is_execution_timeout=self._is_execution_timeout,
            )

        with outcome.raised_as(airflow_error):
            yield


def _seconds(name: str, value: timedelta | float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not seconds > 0:
        raise ValueError(f"{name} must be a positive number of seconds or a timedelta, not {value!r}")
    return float(seconds)
