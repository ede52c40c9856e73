"""A task that writes marks, given by the test, into every place where the test will look for the key."""

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
    """The mark for a place; it reaches Airflow through the environment only."""
    return str(json.loads(os.environ["CANARY_MARKS"])[place])


class PlantOperator(BaseOperator):
    """Leave a mark in a log line, in an XCom and in a rendered field, and then in the triggerer."""

    template_fields: Sequence[str] = ("rendered",)

    def __init__(self, *, rendered: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rendered = rendered

    def execute(self, context: Any) -> None:
        """Plant, then defer."""
        context["ti"].xcom_push(key="plant", value={"mark": mark("xcom")})
        self.log.info("a task says %s", mark("task log"))
        logging.getLogger("canary").debug("a task says quietly %s", mark("task debug log"))
        self.defer(trigger=PlantTrigger(mark=mark("trigger kwargs")), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        """Never called: the test ends before."""


class PlantTrigger(BaseTrigger):
    """Says its mark in the triggerer's log and then waits for an hour."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and kwargs, as Airflow stores them."""
        return "canary_plants.PlantTrigger", {"mark": self.mark}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Log, and wait."""
        self.log.info("a trigger says %s", mark("trigger log"))
        self.log.debug("a trigger says quietly %s", mark("trigger debug log"))
        await asyncio.sleep(3600)
        yield TriggerEvent({})
