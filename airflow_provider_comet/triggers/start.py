"""Start a wait in the triggerer: no worker is taken before the prediction has finished (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, StartTriggerArgs

from airflow_provider_comet.polling.schedule import find_deadline
from airflow_provider_comet.triggers.deferral import BACKSTOP_SECONDS
from airflow_provider_comet.triggers.prediction import PATH


def start_trigger_args(
    prediction_id: Any,
    conn_id: Any,
    *,
    timeout: float,
    execution_timeout: timedelta | None,
    poke_interval: float | None,
) -> StartTriggerArgs:
    """Return what Airflow stores with the DAG. It is the same at each parse: nothing in it depends on the time, or the
    DAG would have a new version each time it is parsed.

    :param prediction_id: an id, a template, or the output of an unmapped task (``create.output``).
    :raises ValueError: says why the wait can't start in the triggerer.
    """
    if not hasattr(BaseTrigger, "render_template_fields"):
        raise ValueError("start_from_trigger needs Airflow 3.3: before, a trigger does not render its id")
    if conf.getboolean("triggerer", "queues_enabled", fallback=False):
        raise ValueError(
            "start_from_trigger does not go with [triggerer] queues_enabled: such a trigger would have no queue"
        )
    if not isinstance(conn_id, str) or "xcom_pull" in conn_id:
        raise ValueError("start_from_trigger: conn_id can't come from an XCom, which hangs in the triggerer")
    # Airflow's own timeout. That of an execution_timeout may come amid the last look, which the worker then repeats.
    limit, _ = find_deadline(timeout + BACKSTOP_SECONDS, execution_timeout)
    kwargs = {
        "conn_id": conn_id,
        "poke_interval": poke_interval,
        "margin": max(limit - timeout, 0.0),
        "limit": limit,
        **_source(prediction_id),
    }
    return StartTriggerArgs(
        trigger_cls=PATH,
        trigger_kwargs=kwargs,
        next_method="execute_complete",
        timeout=timedelta(seconds=timeout + BACKSTOP_SECONDS),
    )


def _source(prediction_id: Any) -> dict[str, Any]:
    """Where the trigger finds the id. A template that pulls an XCom would hang in the triggerer until the timeout, so
    the trigger reads the XCom of a task's output itself."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg

    if isinstance(prediction_id, PlainXComArg):
        operator = prediction_id.operator
        if isinstance(operator, MappedOperator) or operator.get_closest_mapped_task_group() is not None:
            raise ValueError(
                f"start_from_trigger can't read the output of the mapped task {operator.task_id!r}: "
                "give the list to a sensor without start_from_trigger"
            )
        return {"source": {"task_id": operator.task_id, "key": prediction_id.key}}
    if isinstance(prediction_id, XComArg):
        raise ValueError("start_from_trigger takes a task's own output (create.output), not a map, zip or concat of it")
    if not isinstance(prediction_id, str):
        raise ValueError("start_from_trigger takes one id, a template, or a task's output; not a list")
    if "xcom_pull" in prediction_id:
        raise ValueError("start_from_trigger: a template can't pull XComs in the triggerer; give create.output itself")
    return {"prediction_id": prediction_id}
