"""``CreatePredictionOperator``: submit a prediction, once, and hand over its id."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_comet import airflow_errors, metrics
from airflow_provider_comet.api.errors import CometError, PredictionError, PredictionTimeoutError
from airflow_provider_comet.api.options import check_choice, positive_seconds
from airflow_provider_comet.api.outcome import Outcome, judge
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.inputs.labels import LABELS_XCOM_KEY, make_label
from airflow_provider_comet.links.prediction import MODEL_XCOM_KEY, ModelLink
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.events import NO_EVENT, WaitResult, read_event
from airflow_provider_comet.polling.schedule import find_deadline
from airflow_provider_comet.submissions.submission import Submission
from airflow_provider_comet.templated import TemplatedOperator
from airflow_provider_comet.triggers.deferral import resume
from airflow_provider_comet.triggers.task_wait import TaskWait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_comet.inputs.schema_files import SchemaSource

PREDICTION_XCOM_KEY = "prediction"
RETURN_VALUE_XCOM_KEY = "return_value"  # of a task's result; Airflow's own constant has moved between 3.0 and 3.3


class CreatePredictionOperator(TemplatedOperator):
    """Submit a prediction to CometAPI, exactly once paid for, and return its id.

    Each accepted create costs money. It is sent once, and again only if it certainly was not accepted. What was paid is
    on record (Airflow 3.3 and later): a retry after a crash continues with it, and only a clear buys a new prediction
    for a result that was handed over. docs/paid-once.md.

    Raises ``AirflowFailException`` where a retry can't help or might pay twice (wrong key, bad input, no clear answer),
    and a plain ``CometError`` where Airflow's ``retries`` can (rate limit, server unreachable).

    :param model: the model's id, ``owner/name``, for example ``black-forest-labs/flux-schnell``. (templated)
    :param input: all parameters of the model, a non-empty JSON object without ``None``; the model's page describes
        them. An ``ObjectStoragePath`` in it is a file that is sent along, up to 7.5 MB; a text never is. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param input_schema: what the model takes; an input that does not fit is refused before it is paid for. A JSON
        Schema, Replicate's description of the model, or where such a document is (an absolute path or a URL). Default:
        ``<owner>/<name>.json`` in the folder that Airflow's setting ``[comet] input_schemas`` names.
    :param strict: refuse input keys that the schema does not know; by default the log has a warning for each.
    :param on_ambiguous_submit: what to do if nobody knows whether a create was accepted (its answer was lost, or the
        process died while it was sent). ``fail`` (default): fail for good, which never pays twice. ``retry``: let
        Airflow's next try submit again, which may.
    :param wait_for_completion: also wait for the result, without a worker, and push it as XCom ``prediction`` (what
        ``PredictionSensor`` returns). If the prediction fails, the task's ``retries`` buy a new one, unless the model
        refused the input, or fails again with the same words. ``PredictionSensor``'s retries never pay.
    :param deferrable: wait in the triggerer (default); ``False`` holds the worker.
    :param poke_interval: seconds between polls, or a ``timedelta``; by default they grow with the prediction's age.
    :param timeout: seconds to wait at most, or a ``timedelta``; default an hour. A cleared task continues the wait.
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
        input_schema: SchemaSource | None = None,
        strict: bool = False,
        on_ambiguous_submit: Literal["fail", "retry"] = "fail",
        wait_for_completion: bool = False,
        deferrable: bool = True,
        poke_interval: timedelta | float | None = None,
        timeout: timedelta | float = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("on_ambiguous_submit", on_ambiguous_submit, "fail", "retry")
        self.model = model
        self.input = input
        self.conn_id = conn_id
        self.input_schema = input_schema
        self.strict = strict
        self.on_ambiguous_submit = on_ambiguous_submit
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = None if poke_interval is None else positive_seconds("poke_interval", poke_interval)
        self.timeout = positive_seconds("timeout", timeout)
        self._submission: Submission | None = None
        _, self._is_execution_timeout = find_deadline(self.timeout, self.execution_timeout)

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> str:
        """Submit, unless an earlier attempt has paid for a result already, and return the prediction's id."""
        self._warn_if_unlimited(context)
        context["ti"].xcom_push(key=MODEL_XCOM_KEY, value=self.model)  # if this fails, nothing was paid
        context["ti"].xcom_push(key=LABELS_XCOM_KEY, value=[make_label(self.input)])
        self._submission = submission = self._new_submission(context)
        with self._final_where_paid(submission):
            prediction_id, is_known = self._create(context, submission)
            with self._errors_of_paid(submission):
                if not self.wait_for_completion:
                    return self._hand_over(context, submission, prediction_id)
                return self._wait(context, submission, prediction_id, is_known)

    def execute_complete(self, context: Context, event: Any = None, **kwargs: Any) -> str:
        """Judge what the trigger saw, and hand it over."""
        return self._conclude_event(context, read_event(event), kwargs.get("started_at"), kwargs.get("deadline"))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume from the triggerer."""
        self._submission = submission = self._new_submission(context)
        kwargs = next_kwargs or {}
        submission.paid_id = kwargs.get("prediction_id")
        self._is_execution_timeout = kwargs.get("is_execution_timeout", self._is_execution_timeout)
        with self._final_where_paid(submission, is_paid=True), self._errors_of_paid(submission):
            submission.read()
            self.hook.stay_with([submission.record])
            submission.paid_id = (submission.record and submission.record.id) or submission.paid_id
            submission.check_unchanged()
            resume_task = functools.partial(super().resume_execution, next_method, next_kwargs, context)
            last_poll = functools.partial(self._conclude_event, context, NO_EVENT)
            paid_id = submission.paid_id
            wait_again = functools.partial(self._wait, context, submission, paid_id, True) if paid_id else None
            return resume(self.conn_id, next_kwargs, resume_task, last_poll, wait_again)

    def on_kill(self) -> None:
        """Buy nothing from now on, and log what keeps running. A signal handler: Airflow can't be called here."""
        self.hook.halt()
        if (submission := self._submission) is not None:
            submission.interrupted()
            if words := airflow_errors.words_about_paid(submission.paid_id, may_be_paid=submission.is_under_way):
                self.log.warning("%s", words)

    def _create(self, context: Context, submission: Submission) -> tuple[str, bool]:
        """Return the prediction's id, and whether an earlier attempt has paid for it."""
        translated = functools.partial(
            airflow_errors.create_exception,
            on_ambiguous_submit=self.on_ambiguous_submit,
            has_record=submission.has_store,
        )
        with airflow_errors.raised_as(translated):
            recorded_id = submission.resume()
        self.hook.stay_with([submission.record])
        if recorded_id is not None:
            return recorded_id, True
        input = self._make_input(context)  # may call a function, whose errors stay its own
        with airflow_errors.raised_as(translated):
            return self._submit(input, submission), False

    def _wait(self, context: Context, submission: Submission, prediction_id: str, is_known: bool, *times: Any) -> str:
        started_at, deadline = times or (None, None)  # of a wait that is resumed
        started_at, attempt_started_at = started_at or clock.now(), context["ti"].start_date.timestamp()
        if deadline is None:
            deadline, self._is_execution_timeout = find_deadline(
                self.timeout, self.execution_timeout, started_at=started_at, attempt_started_at=attempt_started_at
            )
        wait = self._new_wait(prediction_id)
        waits = wait.begin([prediction_id], started_at, deadline, is_known=True)
        outcomes = wait.wait(waits, CometError, polls_first=is_known)  # a new one is not finished
        return self._conclude(context, submission, outcomes[prediction_id])

    def _new_wait(self, prediction_id: str) -> TaskWait:
        kwargs = {"prediction_id": prediction_id, "is_execution_timeout": self._is_execution_timeout}
        return TaskWait(self, self.hook, self.poke_interval, self.deferrable, kwargs=lambda: kwargs)

    def _warn_if_unlimited(self, context: Context) -> None:
        limits = self.max_active_tis_per_dag, self.max_active_tis_per_dagrun  # the first instance speaks for all
        if context["ti"].map_index == 0 and self.pool == "default_pool" and limits == (None, None):
            self.log.warning(
                "CometAPI limits the rate of requests; nothing limits how many of these mapped creates run at once. "
                "Make a pool, `airflow pools set cometapi 4 creates`, and give the task pool='cometapi'."
            )

    def _input_source(self) -> object:
        """Return what the input is made of, as far as each attempt knows it."""
        return self.input

    def _make_input(self, context: Context) -> Any:
        """Return the input; called only by an attempt that submits. What it raises stays as it is."""
        return self.input

    def _submit(self, input: Any, submission: Submission) -> str:
        from airflow_provider_comet.inputs.schema_files import find_schema  # loads jsonschema

        self.rendered("input")  # refuses a template's None
        schema = find_schema(self.rendered("model"), self.input_schema)
        return self.hook.create_prediction(self.model, input, schema=schema, strict=self.strict, journal=submission).id

    def _new_submission(self, context: Context) -> Submission:
        return Submission(context, self.model, self._input_source(), self.on_ambiguous_submit)

    def _conclude_event(self, context: Context, result: WaitResult, *times: float | None) -> str:
        submission = self._submission or self._new_submission(context)
        # Of an event about another prediction nothing is used: the record says what is paid for.
        prediction_id = submission.paid_id or next(iter([*result.outcomes, *result.not_carried]), None)
        if prediction_id is None:  # no event came, and this Airflow keeps no record
            raise PredictionTimeoutError("its id is in the log of the create")
        deadline = (times and times[1]) or 0.0
        outcomes, again = self._new_wait(prediction_id).read(result, [prediction_id], deadline)
        if again:
            return self._wait(context, submission, prediction_id, True, *times)
        return self._conclude(context, submission, outcomes[prediction_id])

    def _conclude(self, context: Context, submission: Submission, outcome: Outcome) -> str:
        metrics.finished([outcome])
        try:
            summary = judge(outcome, allow_empty=False)
        except PredictionTimeoutError:  # it keeps running
            raise
        except PredictionError as error:
            raise submission.reported(error) from None
        context["ti"].xcom_push(key=PREDICTION_XCOM_KEY, value=summary)
        return self._hand_over(context, submission, str(summary["id"]))

    def _hand_over(self, context: Context, submission: Submission, prediction_id: str) -> str:
        if self.do_xcom_push:  # what is called delivered has to be there; Airflow's own push comes later, and may fail
            context["ti"].xcom_push(key=RETURN_VALUE_XCOM_KEY, value=prediction_id)
        submission.delivered(prediction_id)
        return prediction_id

    def _final_where_paid(self, submission: Submission, *, is_paid: bool = False) -> AbstractContextManager[None]:
        def words_about_paid() -> str | None:
            may_be_paid = is_paid or (submission.is_under_way and self.on_ambiguous_submit == "fail")
            return airflow_errors.words_about_paid(submission.paid_id, may_be_paid=may_be_paid)

        return airflow_errors.final_where_paid(has_record=submission.has_store, words_about_paid=words_about_paid)

    def _errors_of_paid(self, submission: Submission) -> AbstractContextManager[None]:
        def translated(error: CometError) -> BaseException:
            about, timed_out = error.about(submission.paid_id), self._is_execution_timeout
            return airflow_errors.paid_exception(about, has_record=submission.has_store, is_execution_timeout=timed_out)

        return airflow_errors.raised_as(translated)
