"""A task that writes the marks of the test into every place that the test searches for the key."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent


def mark(place: str) -> str:
    """Return the mark for a place; it reaches Airflow only through the environment."""
    return str(json.loads(os.environ["CANARY_MARKS"])[place])


class PlantOperator(BaseOperator):
    """Leave a mark in a log line, in an XCom and in a rendered field, and then in the triggerer."""

    template_fields: Sequence[str] = ("rendered",)

    def __init__(self, *, rendered: str, **kwargs: Any) -> None:
        """Take the rendered field, which holds a mark."""
        super().__init__(**kwargs)
        self.rendered = rendered

    def execute(self, context: Any) -> None:
        """Write the marks, then defer."""
        context["ti"].xcom_push(key="plant", value={"mark": mark("xcom")})
        self.log.info("a task logs %s", mark("task log"))
        logging.getLogger("canary").debug("a task logs at DEBUG %s", mark("task debug log"))
        self.defer(trigger=PlantTrigger(mark=mark("trigger kwargs")), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        """Is never called, because the test ends before."""


class PlantTrigger(BaseTrigger):
    """Writes its mark into the triggerer's log and then waits for an hour."""

    def __init__(self, mark: str) -> None:
        """Take the mark of the kwargs."""
        super().__init__()
        self.mark = mark

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and kwargs, which Airflow stores."""
        return "canary_plants.PlantTrigger", {"mark": self.mark}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Log, and wait."""
        self.log.info("a trigger logs %s", mark("trigger log"))
        self.log.debug("a trigger logs at DEBUG %s", mark("trigger debug log"))
        await asyncio.sleep(3600)
        yield TriggerEvent({})
