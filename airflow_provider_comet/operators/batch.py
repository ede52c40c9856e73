"""``CreatePredictionBatchOperator``: submit many predictions in one task, each once, and hand over their ids."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import SHOWN_ERRORS, CometError, InvalidInputError, RateLimitedError
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.links.prediction import MODEL_XCOM_KEY, ModelLink
from airflow_provider_comet.operators.prediction import RETURN_VALUE_XCOM_KEY
from airflow_provider_comet.polling.prediction_ids import is_list, read_items

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_comet.client.sync_client import CometClient
    from airflow_provider_comet.inputs.schema_files import SchemaSource
    from airflow_provider_comet.submissions.batch import Batch, Item
    from airflow_provider_comet.submissions.batch_submission import BatchSubmission

REJECTED_XCOM_KEY = "rejected"
CREATED_XCOM_KEY = "created"
PROGRESS_SECONDS = 15.0


class CreatePredictionBatchOperator(BaseOperator):
    """Submit many inputs to one model of CometAPI, each exactly once paid for, and return their predictions' ids.

    All inputs are checked before the first one is paid for. Each has a record of its own (Airflow 3.3 and later) that
    goes by what the input is, not by where it stands: a retry submits only what is missing, and so does one with
    another list of inputs. docs/batches.md.

    Returns a list as long as ``inputs``, in the same order: ids, and null where an input was not accepted. XCom
    ``rejected`` is a list of ``{"index", "type", "error", "record"}`` for those. ``PredictionSensor`` and
    ``DownloadPredictionOutputOperator`` take the list as it is.

    If the task fails, XCom ``created`` is that list as far as it came. It raises ``AirflowFailException`` where a retry
    can't help or might pay twice, and a plain ``CometError`` where Airflow's ``retries`` can (rate limit, server
    unreachable), whatever ``on_item_error`` says.

    :param model: the model's id, ``owner/name``. (templated)
    :param inputs: a list with the input of each prediction, or the output of a task that returns one. Each is what
        ``CreatePredictionOperator`` takes as ``input``. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param max_in_flight: creates that are on their way at once. A 429 slows all of them.
    :param on_item_error: what to do about an input that is not accepted, or of which nobody knows whether it was.
        ``fail`` (default): the task fails, before anything is paid if the check finds it, otherwise after all others
        were submitted. ``keep``: null stands in its place, and the task succeeds if any other was accepted.
    :param on_ambiguous_submit: what the next try does about a create whose answer was lost. ``fail`` (default): it is
        an error of its input. ``retry``: submit it again, which may pay twice.
    :param input_schema: what the model takes, as for ``CreatePredictionOperator``.
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
        if on_item_error not in ("fail", "keep"):
            raise ValueError(f"on_item_error must be 'fail' or 'keep', not {on_item_error!r}")
        if on_ambiguous_submit not in ("fail", "retry"):
            raise ValueError(f"on_ambiguous_submit must be 'fail' or 'retry', not {on_ambiguous_submit!r}")
        self.model = model
        self.inputs = inputs
        self.conn_id = conn_id
        self.max_in_flight = max_in_flight
        self.on_item_error = on_item_error
        self.on_ambiguous_submit = on_ambiguous_submit
        self.input_schema = input_schema
        self.strict = strict
        self._submission: BatchSubmission | None = None
        self._client: CometClient | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> list[str | None]:
        """Check all inputs, submit those that no earlier attempt has paid for, and return the ids."""
        from airflow_provider_comet.submissions.batch_submission import BatchSubmission

        context["ti"].xcom_push(key=MODEL_XCOM_KEY, value=self.model)
        self._submission = submission = BatchSubmission(context, self.model, self.on_ambiguous_submit)
        try:
            with outcome.raised_as(
                functools.partial(
                    outcome.create_exception,
                    on_ambiguous_submit=self.on_ambiguous_submit,
                    has_record=submission.is_kept,
                )
            ):
                batch = self._begin(context, submission)
                if not batch.stopped and batch.missing:
                    self._submit(batch, submission)
            return self._conclude(context, batch, submission)
        except BaseException as error:
            self._keep_what_there_is(context, submission)
            if submission.is_kept or not submission.batch.may_be_paid or isinstance(error, AirflowFailException):
                raise
            raise AirflowFailException(
                f"{type(error).__name__}: {error}. {outcome.NO_RECORD} XCom {CREATED_XCOM_KEY!r} has the ids."
            ) from error

    def on_kill(self) -> None:
        """Buy nothing from now on. A signal handler: no request to Airflow may be made here."""
        if self._submission is not None:
            self._end(self._submission)
            if self._submission.is_under_way:
                self.log.warning(outcome.MAY_BE_ACCEPTED)

    def _begin(self, context: Context, submission: BatchSubmission) -> Batch:
        from airflow_provider_comet.api.validation import check_model
        from airflow_provider_comet.submissions.batch import Batch

        check_model(self.model)
        batch = Batch.of(self.model, self._given(context))
        submission.resume(batch)
        self._check(batch)
        if not batch.stopped and batch.missing:
            self._client = self.hook.client  # reads Airflow's connection: threads can't
            submission.begin()
        return batch

    def _end(self, submission: BatchSubmission) -> None:
        """What is on its way is answered and recorded; nothing more is sent, and nobody waits for a turn to send."""
        submission.killed = True
        if self._client is not None:
            self._client.halt()

    def _given(self, context: Context) -> list[Any]:
        if not is_list(self.inputs):
            raise InvalidInputError(
                "inputs must be a list of inputs; if a template rendered it to text, set "
                f"render_template_as_native_obj=True on the DAG; got a value of type {type(self.inputs).__name__}"
            )
        given = read_items(self.inputs, context)
        if not given:
            raise InvalidInputError(
                "inputs is an empty list: there is nothing to submit. If that is right, let a branch or a short "
                "circuit skip this task"
            )
        return given

    def _check(self, batch: Batch) -> None:
        """Check what is to be sent; with ``on_item_error="fail"`` one error stops all of it."""
        if not batch.missing:  # what is paid for needs no schema
            return
        from airflow_provider_comet.inputs.prepare import check_input
        from airflow_provider_comet.inputs.schema_files import find_schema  # loads jsonschema

        schema = find_schema(self.model, self.input_schema)
        unknown: dict[str, int] = {}
        for item in batch.missing:
            try:
                words = check_input(self.model, item.input, schema, strict=self.strict)
            except InvalidInputError as error:
                item.error = error
                batch.stopped = batch.stopped or self.on_item_error == "fail"
            else:
                for one in words:
                    unknown[one] = unknown.get(one, 0) + 1
        for one, count in unknown.items():
            self.log.warning("In %s inputs: %s", count, one)

    def _submit(self, batch: Batch, submission: BatchSubmission) -> None:
        from airflow_provider_comet.submissions.batch_submission import BatchStopped

        noting = threading.Lock()
        missing, began = batch.missing, time.monotonic()

        def submit(item: Item) -> None:
            if batch.stopped:
                return
            create, accepted_before = submission.of(item), batch.accepted_count
            create.refuse_if_killed()  # before files are read for it, and the end of the task is held up
            try:
                made = self.hook.create_prediction(self.model, item.input, journal=create)
                item.id = made.id
                create.accepted(made.id)
            except BatchStopped:
                return
            except RateLimitedError as error:
                if batch.accepted_count > accepted_before:  # slow, but it goes on: this one's turn comes
                    submit(item)
                else:
                    failed(item, error)
            except CometError as error:
                failed(item, error)
            else:
                with noting:
                    batch.accepted(item)

        def failed(item: Item, error: CometError) -> None:
            self.log.warning("%s: %s", item, error)
            with noting:
                batch.failed(item, error)
            if batch.stopped:
                self.hook.client.halt()

        with ThreadPoolExecutor(self.max_in_flight, "comet-create") as pool:
            try:
                pending = {pool.submit(submit, item) for item in missing}
                while pending:
                    done, pending = wait(pending, PROGRESS_SECONDS, FIRST_EXCEPTION)
                    for one in done:
                        one.result()
                    sent = sum(item.id is not None for item in missing)
                    self.log.info(
                        "%s of %s inputs submitted (%.1f a second), %s not accepted, %s to go",
                        sent,
                        len(missing),
                        sent / max(time.monotonic() - began, 0.001),
                        sum(item.error is not None for item in missing),
                        len(pending),
                    )
            except BaseException:  # the task's timeout, say
                self._end(submission)
                raise

    def _conclude(self, context: Context, batch: Batch, submission: BatchSubmission) -> list[str | None]:
        ti, ids = context["ti"], batch.ids
        ti.xcom_push(key=REJECTED_XCOM_KEY, value=batch.rejected())
        if batch.errors or batch.missing:
            error = batch.error()
            for reason in error.reasons[SHOWN_ERRORS:]:
                self.log.warning("%s", reason)
            raised = outcome.batch_exception(
                error,
                on_ambiguous_submit=self.on_ambiguous_submit,
                has_record=submission.is_kept,
                may_be_paid=batch.may_be_paid,
            )
            is_usable = not batch.missing and batch.has_only_items_errors and any(ids)
            if raised is error:
                raise error
            if self.on_item_error == "fail" or not is_usable:
                raise raised from error
            self.log.warning("%s", error)
        # What is called delivered has to be there: Airflow pushes it only afterwards, and that may fail.
        if self.do_xcom_push:
            ti.xcom_push(key=RETURN_VALUE_XCOM_KEY, value=ids)
        submission.delivered()
        return ids

    def _keep_what_there_is(self, context: Context, submission: BatchSubmission) -> None:
        with contextlib.suppress(Exception):  # why the task ends is the better error
            context["ti"].xcom_push(key=CREATED_XCOM_KEY, value=submission.batch.ids)
