"""Start a wait in the triggerer: no worker is taken before the prediction has finished (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import BaseTrigger, StartTriggerArgs

from airflow_provider_comet.polling.schedule import find_deadline
from airflow_provider_comet.triggers.deferral import BACKSTOP_SECONDS
from airflow_provider_comet.triggers.prediction import PATH


def start_trigger_args(sensor: Any) -> StartTriggerArgs:
    """Return what Airflow stores with the DAG to start a sensor's wait.

    It is the same at each parse. If it depended on the time, each parse would make a new version of the DAG.

    :param sensor: a ``PredictionSensor``, complete but for these arguments.
    :raises ValueError: says why the wait can't start in the triggerer.
    """
    if not sensor.deferrable:
        raise ValueError("start_from_trigger is a way to defer: leave deferrable and mode as they are")
    # Also of an instance that got it by expand_kwargs, which parsing does not know.
    if getattr(sensor, "_BaseOperator__from_mapped", False) or sensor.get_closest_mapped_task_group() is not None:
        raise ValueError("start_from_trigger can't be mapped: Airflow would not give the trigger its ids")
    if not hasattr(BaseTrigger, "render_template_fields"):
        raise ValueError("start_from_trigger needs Airflow 3.3: older triggers do not render templates")
    if conf.getboolean("triggerer", "queues_enabled", fallback=False):
        raise ValueError(
            "start_from_trigger can't be used with [triggerer] queues_enabled: such a trigger would have no queue"
        )
    if not isinstance(sensor.conn_id, str) or "xcom_pull" in sensor.conn_id:
        raise ValueError("start_from_trigger: conn_id can't come from an XCom, which hangs in the triggerer")
    # An execution_timeout may interrupt the last poll, which the worker then repeats.
    airflow_timeout, _ = find_deadline(sensor.timeout + BACKSTOP_SECONDS, sensor.execution_timeout)
    kwargs = {
        "conn_id": sensor.conn_id,
        "poke_interval": None if sensor.is_adaptive else sensor.poke_interval,
        "timeout_margin": max(airflow_timeout - sensor.timeout, 0.0),
        "airflow_timeout": airflow_timeout,
        **_source(sensor.prediction_id),
    }
    return StartTriggerArgs(
        trigger_cls=PATH,
        trigger_kwargs=kwargs,
        next_method="execute_complete",
        timeout=timedelta(seconds=sensor.timeout + BACKSTOP_SECONDS),
    )


def _source(prediction_id: Any) -> dict[str, Any]:
    """Return the trigger's kwarg that says where the id is.

    A template that pulls an XCom would hang in the triggerer until the timeout, so the trigger reads the XCom itself.
    """
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
