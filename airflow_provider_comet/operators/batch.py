"""``CreatePredictionBatchOperator``: submit many predictions in one task, each once, and return their ids."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_comet import airflow_errors
from airflow_provider_comet.api.errors import SHOWN_ERRORS, InvalidInputError
from airflow_provider_comet.api.options import check_choice
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.inputs.labels import LABELS_XCOM_KEY, make_label
from airflow_provider_comet.links.prediction import MODEL_XCOM_KEY, ModelLink
from airflow_provider_comet.operators.prediction import RETURN_VALUE_XCOM_KEY
from airflow_provider_comet.polling.prediction_ids import is_list, read_items
from airflow_provider_comet.templated import TemplatedOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_comet.inputs.schema_files import SchemaSource
    from airflow_provider_comet.submissions.batch import Batch
    from airflow_provider_comet.submissions.batch_submission import BatchSubmission

REJECTED_XCOM_KEY = "rejected"
CREATED_XCOM_KEY = "created"


class CreatePredictionBatchOperator(TemplatedOperator):
    """Submit many inputs to one model of CometAPI, pay for each once, and return the predictions' ids.

    All inputs are checked before the first is paid for (of a file: that it can be read and is small enough). Each has a
    record of its own (Airflow 3.3 and later), found by the input itself and not by its position: a retry submits only
    what is missing, also if the list of inputs has changed. docs/batches.md.

    Returns a list as long as ``inputs``, in the same order: ids, and null for an input that was not accepted. XCom
    ``rejected`` lists these: ``{"index", "type", "error", "record"}``. ``PredictionSensor`` and
    ``DownloadPredictionOutputOperator`` take the returned list as it is.

    If the task fails, XCom ``created`` has that list with the ids so far. It raises ``AirflowFailException`` where a
    retry can't help or might pay twice, and a plain ``CometError`` where Airflow's ``retries`` can help (rate limit,
    server unreachable), whatever ``on_item_error`` says.

    :param model: the model's id, ``owner/name``. (templated)
    :param inputs: a list with the input of each prediction, or the output of a task that returns such a list. Each is
        what ``CreatePredictionOperator`` takes as ``input``. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param max_in_flight: how many creates run at the same time. A 429 slows all of them.
    :param on_item_error: what to do if an input is not accepted, or nobody knows whether it was. ``fail`` (default):
        fail the task; before anything is paid if the check finds the error, else after all other inputs were submitted.
        ``keep``: return null in its place, and fail only if no input has a prediction.
    :param on_ambiguous_submit: what the next try does about a create whose answer was lost. ``fail`` (default): treat
        it as an error of its input. ``retry``: submit it again, which may pay twice.
    :param input_schema: the schema of the model's input, as for ``CreatePredictionOperator``.
    :param strict: refuse input keys that the schema does not know.
    """

    template_fields: Sequence[str] = ("model", "inputs", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"inputs": "json"}
    operator_extra_links = (ModelLink(),)
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        model: str,
        inputs: Any,
        conn_id: str = DEFAULT_CONN_ID,
        max_in_flight: int = 8,
        on_item_error: Literal["fail", "keep"] = "fail",
        on_ambiguous_submit: Literal["fail", "retry"] = "fail",
        input_schema: SchemaSource | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not max_in_flight >= 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight!r}")
        check_choice("on_item_error", on_item_error, "fail", "keep")
        check_choice("on_ambiguous_submit", on_ambiguous_submit, "fail", "retry")
        self.model = model
        self.inputs = inputs
        self.conn_id = conn_id
        self.max_in_flight = max_in_flight
        self.on_item_error = on_item_error
        self.on_ambiguous_submit = on_ambiguous_submit
        self.input_schema = input_schema
        self.strict = strict
        self._submission: BatchSubmission | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> list[str | None]:
        """Check all inputs, submit those that no earlier attempt has paid for, and return the ids."""
        from airflow_provider_comet.submissions.batch_submission import BatchSubmission

        context["ti"].xcom_push(key=MODEL_XCOM_KEY, value=self.model)
        self._submission = submission = BatchSubmission(context, self.model, self.on_ambiguous_submit)
        translated = functools.partial(
            airflow_errors.create_exception,
            on_ambiguous_submit=self.on_ambiguous_submit,
            has_record=submission.has_store,
        )
        try:
            with airflow_errors.raised_as(translated):
                batch = self._prepare(context, submission)
                if not batch.stop.stopped and batch.missing:
                    halt = self.hook.client.halt  # reads Airflow's connection, which threads can't
                    create = functools.partial(self.hook.create_prediction, self.model)
                    submission.submit(create, halt, self.max_in_flight)
            return self._conclude(context, batch, submission)
        except BaseException as error:
            with contextlib.suppress(Exception):  # why the task fails is the better error
                context["ti"].xcom_push(key=CREATED_XCOM_KEY, value=submission.batch.ids)
            if submission.has_store or not submission.batch.may_be_paid or isinstance(error, AirflowFailException):
                raise
            raise AirflowFailException(
                f"{type(error).__name__}: {error}. {airflow_errors.NO_RECORD} XCom {CREATED_XCOM_KEY!r} has the ids."
            ) from error

    def on_kill(self) -> None:
        """Send nothing more. This is a signal handler, which must make no request to Airflow."""
        if self._submission is not None:
            self._submission.kill()
            if self._submission.is_under_way:
                self.log.warning(airflow_errors.MAY_BE_ACCEPTED)

    def _prepare(self, context: Context, submission: BatchSubmission) -> Batch:
        from airflow_provider_comet.api.validation import check_model
        from airflow_provider_comet.submissions.batch import Batch

        check_model(self.rendered("model"))
        inputs = self._read_inputs(context)
        context["ti"].xcom_push(key=LABELS_XCOM_KEY, value=[make_label(input) for input in inputs])
        batch = Batch.of(self.model, inputs, submission.stop)
        submission.resume(batch)
        self.hook.stay_with(submission.records)
        self._check(batch)
        return batch

    def _read_inputs(self, context: Context) -> list[Any]:
        if not is_list(self.inputs):
            self.rendered("inputs")  # says which template has rendered to None
            raise InvalidInputError(
                "inputs must be a list of inputs; if a template rendered it to text, set "
                'render_template_as_native_obj=True on the DAG (then a text "42" becomes the number 42, too); '
                f"got a value of type {type(self.inputs).__name__}"
            )
        inputs = read_items(self.inputs, context)
        if not inputs:
            raise InvalidInputError(
                "inputs is an empty list: there is nothing to submit. If that is right, let a branch or a short "
                "circuit skip this task"
            )
        return inputs

    def _check(self, batch: Batch) -> None:
        """Check the inputs that are to be sent; with ``on_item_error="fail"`` one error stops the batch."""
        if not batch.missing:  # what is paid for needs no schema
            return
        from airflow_provider_comet.inputs.prepare import check_input
        from airflow_provider_comet.inputs.rendered import NONE_IN_TEXT, check_rendered
        from airflow_provider_comet.inputs.schema_files import find_schema  # loads jsonschema

        templates = self.template_of("inputs")
        schema = find_schema(self.model, self.input_schema)
        counts: dict[str, int] = {}
        for item in batch.missing:
            try:
                template = templates[item.index] if isinstance(templates, (list, tuple)) else None
                paths = check_rendered(template, item.input, "input")
                warnings = check_input(self.model, item.input, schema, strict=self.strict)
                warnings += [f"{path}: {NONE_IN_TEXT}" for path in paths]
            except InvalidInputError as error:
                item.error = error
                batch.stop.stopped = batch.stop.stopped or self.on_item_error == "fail"
            else:
                for warning in warnings:
                    counts[warning] = counts.get(warning, 0) + 1
        for warning, count in counts.items():
            self.log.warning("In %s inputs: %s", count, warning)

    def _conclude(self, context: Context, batch: Batch, submission: BatchSubmission) -> list[str | None]:
        ti, ids = context["ti"], batch.ids
        ti.xcom_push(key=REJECTED_XCOM_KEY, value=batch.rejected())
        if batch.failed_items or batch.missing:
            error = batch.error()
            for reason in error.reasons[SHOWN_ERRORS:]:
                self.log.warning("%s", reason)
            raised = airflow_errors.batch_exception(
                error,
                on_ambiguous_submit=self.on_ambiguous_submit,
                has_record=submission.has_store,
                may_be_paid=batch.may_be_paid,
            )
            is_usable = not batch.missing and batch.has_only_items_errors and any(ids)
            if raised is error:
                raise error
            if self.on_item_error == "fail" or not is_usable:
                raise raised from error
            self.log.warning("%s", error)
        # Recorded as delivered only once it is there: Airflow pushes the result after this method, which may fail.
        if self.do_xcom_push:
            ti.xcom_push(key=RETURN_VALUE_XCOM_KEY, value=ids)
        submission.delivered()
        return ids
