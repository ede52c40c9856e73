"""Airflow's task runner in a simulated world: one attempt of a task in a process of its own."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.simulation.database import STORE_SECONDS, RuntimeTaskInstance, ServerAway, StateStore, TaskInstance, request

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

START_SECONDS = 1.0
"""How long a worker takes until it runs a task."""


class Attempt:
    """One process of a task instance.

    :ivar operator: the task, once it is made; a signal handler calls its ``on_kill``.
    :ivar began_at: when its try began.
    :ivar told_by: the processes before it whose work it knows of.
    :ivar pushed: the keys of the XComs that it has left.
    :ivar outlet_events: what it tells of assets.
    """

    def __init__(self, world: World, row: TaskInstance, process: Process) -> None:
        self.world = world
        self.row = row
        self.id = row.id
        self.process = process
        self.input = self.inputs = None
        self.operator: Any = None
        self.error: BaseException | None = None
        self.struck: list[str] = []
        self.began_at = row.started_at
        self.told_by = row.told_by if row.next_kwargs is not None else ()
        self.pushed: list[str] = []
        self.outlet_events: Any = None

    def run(self) -> None:
        """Run the task, and report what came of it."""
        world, row = self.world, self.row
        world.kernel.sleep(START_SECONDS)
        if self.id != row.id:  # cleared meanwhile: Airflow does not let it begin
            return
        from airflow.sdk.execution_time.context import OutletEventAccessors

        ti = RuntimeTaskInstance(world, self)
        self.outlet_events = OutletEventAccessors()
        context = {"ti": ti, "task_state_store": StateStore(world, self), "outlet_events": self.outlet_events}
        self.inputs = [*world.cast.inputs]
        state, details = self._outcome(ti, context)
        world.invariants.ended(self, state)
        try:
            world.kernel.sleep(STORE_SECONDS)
            request(world, self.process)
        except ServerAway:  # the supervisor gives up; the scheduler finds out later
            world.scheduler.notice(self)
            return
        world.effect("state", f"{row.name} {state}", 0.0, lambda: world.scheduler.report(self, state, details))

    def _outcome(self, ti: Any, context: Any) -> tuple[str, Any]:
        from airflow.sdk.exceptions import (
            AirflowFailException,
            AirflowSensorTimeout,
            AirflowSkipException,
            AirflowTaskTimeout,
            TaskDeferred,
        )

        from airflow_provider_comet.airflow_errors import AirflowRescheduleException

        kernel = self.world.kernel
        timer = None
        try:
            self.operator = operator = self.world.cast.make(self.row, self.world.scheduler)
            if operator.execution_timeout is not None:
                error = AirflowTaskTimeout("execution_timeout")
                ends = kernel.now + operator.execution_timeout.total_seconds()
                timer = kernel.call_at(ends, lambda: self._time_out(error))
            result = self._execute(operator, context)
            if result is not None:
                ti.xcom_push("return_value", result)
        except TaskDeferred as deferral:
            return "deferred", self._deferral(deferral)
        except AirflowRescheduleException as reschedule:
            date: datetime = reschedule.reschedule_date
            return "up_for_reschedule", date.timestamp()
        except AirflowSkipException as error:
            self.error = error
            return "skipped", None
        except (AirflowFailException, AirflowSensorTimeout) as error:
            self.error = error
            return "failed", None
        except (Exception, AirflowTaskTimeout) as error:
            self.error = error
            if isinstance(error, AirflowTaskTimeout):
                self.process.is_interruptible = False  # the alarm rings once
                self.operator.on_kill()  # as Airflow's task runner does
            return "retry", None
        finally:
            self.process.is_interruptible = False
            if timer is not None:
                timer.cancel()
        return "success", None

    def _time_out(self, error: BaseException) -> None:
        self.world.met("execution_timeout", self.row.name)
        self.process.interrupt(error)

    def _execute(self, operator: Any, context: Any) -> Any:
        row = self.row
        if row.next_kwargs is None:
            return operator.execute(context)
        kwargs = dict(row.next_kwargs)
        method = kwargs.pop("__method__")
        return operator.resume_execution(method, kwargs, context)

    def _deferral(self, deferral: Any) -> dict[str, Any]:
        """Return what Airflow's database keeps of a deferral."""
        path, kwargs = deferral.trigger.serialize()
        text = json.dumps([path, kwargs, deferral.kwargs], allow_nan=False)
        self.world.left("a deferral", text)
        self.world.invariants.stores.left(self.row, text)
        path, kwargs, next_kwargs = json.loads(text)
        timeout = deferral.timeout.total_seconds() if deferral.timeout else None
        return {"path": path, "kwargs": kwargs, "next_kwargs": next_kwargs or {}, "timeout": timeout}
