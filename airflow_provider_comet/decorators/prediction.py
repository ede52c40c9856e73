"""``@task.comet_prediction``: a function makes the input, the task submits it and returns the prediction's id."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import Asset, DecoratedOperator, determine_kwargs, task_decorator_factory

from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.inputs.labels import LABELS_XCOM_KEY, make_label
from airflow_provider_comet.operators.prediction import CreatePredictionOperator
from airflow_provider_comet.polling.prediction_ids import read_within

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Literal, ParamSpec

    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.bases.decorator import Task

    from airflow_provider_comet.inputs.schema_files import SchemaSource
    from airflow_provider_comet.submissions.submission import Submission


class CometPredictionDecoratedOperator(DecoratedOperator, CreatePredictionOperator):
    """Submit what a function returns to CometAPI, exactly once paid for, and return the prediction's id.

    The function runs only in an attempt that submits: a retry that continues with a paid prediction does not call it.
    Its own errors are raised as they are.

    :param python_callable: returns the input: a dict, sent as it is. Braces in it are no templates, so that a text from
        somewhere else can't read Airflow's variables. No ``async def``.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its keyword arguments. (templated)
    """

    template_fields: Sequence[str] = ("op_args", "op_kwargs", "model", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    shallow_copy_attrs: Sequence[str] = DecoratedOperator.shallow_copy_attrs
    custom_operator_name = "@task.comet_prediction"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Mapping[str, Any]],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if inspect.iscoroutinefunction(python_callable):
            raise TypeError(
                f"{python_callable.__name__} is an async function, which @task.comet_prediction does not call; make it "
                "a plain one, or give it a @task of its own and its result to this one"
            )
        # Airflow takes a function that is annotated to return a dict for one whose task returns one.
        kwargs["multiple_outputs"] = False
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, input=None, **kwargs)

    def execute(self, context: Context) -> str:
        """Submit what the function returns."""
        # All that DecoratedOperator.execute adds for a task that returns a text. It can't be called: in Airflow 3.0 it
        # fails once the prediction has been paid for, because it calls a method that operators no longer have there.
        arguments = (*self.op_args, *self.op_kwargs.values())
        self.inlets.extend(argument for argument in arguments if isinstance(argument, Asset))
        return CreatePredictionOperator.execute(self, context)

    def _input_source(self) -> object:
        """Return the arguments: a retry that continues with a paid prediction does not call the function."""
        arguments = {"op_args": [*self.op_args], **self.op_kwargs}
        try:
            return read_within(arguments)
        except RecursionError:  # refused before it is sent; it must not keep a paid result back
            return arguments

    def _make_input(self, context: Context) -> Any:
        names = {**context, **self.op_kwargs}
        arguments = determine_kwargs(self.python_callable, self.op_args, names)
        input = self.python_callable(*self.op_args, **arguments)
        input = dict(input) if isinstance(input, Mapping) else input
        context["ti"].xcom_push(key=LABELS_XCOM_KEY, value=[make_label(input)])
        return input

    def _submit(self, input: Any, submission: Submission) -> str:
        if not isinstance(input, dict):
            name = getattr(self.python_callable, "__name__", "the function")
            raise InvalidInputError(
                f"{name} must return the model's input as a dict; it returned a value of type {type(input).__name__}"
            )
        return super()._submit(input, submission)


if TYPE_CHECKING:
    Arguments = ParamSpec("Arguments")

    # Airflow's own stub of ``task`` takes any decorator that it does not know, parameters unseen, and can't be extended
    # by a package: ``@comet_prediction(...)`` is the spelling of ``@task.comet_prediction(...)`` that is checked.
    def comet_prediction(
        *,
        model: str,
        conn_id: str = ...,
        input_schema: SchemaSource | None = ...,
        strict: bool = ...,
        on_ambiguous_submit: Literal["fail", "retry"] = ...,
        wait_for_completion: bool = ...,
        deferrable: bool = ...,
        poke_interval: timedelta | float | None = ...,
        timeout: timedelta | float = ...,
        **kwargs: Any,
    ) -> Callable[[Callable[Arguments, Mapping[str, Any]]], Task[Arguments, str]]:
        """Make a task of a function that returns a prediction's input; the task returns the prediction's id.

        Takes what ``CreatePredictionOperator`` takes, but for ``input``.
        """

else:

    def comet_prediction(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        """Make a task of a function that returns a prediction's input; the task returns the prediction's id.

        Takes what ``CreatePredictionOperator`` takes, but for ``input``.
        """
        return task_decorator_factory(
            python_callable, decorated_operator_class=CometPredictionDecoratedOperator, multiple_outputs=False, **kwargs
        )
