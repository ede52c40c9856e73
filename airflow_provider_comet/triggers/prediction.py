"""``PredictionTrigger``: wait for a prediction without a worker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.triggers.base import BaseTrigger, TriggerEvent

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.0 has them elsewhere, and common-compat does not offer them
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]

from airflow_provider_comet import outcome
from airflow_provider_comet.api.errors import CometError, PredictionTimeoutError
from airflow_provider_comet.api.polling import Wait
from airflow_provider_comet.hooks.comet_replicate import DEFAULT_CONN_ID, aget_config

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.client import AsyncCometClient

BACKSTOP_SECONDS = 300
"""How much later than ours Airflow's own timeout comes: it would end the task without the last look."""


class PredictionTrigger(BaseTrigger):
    """Look at a prediction until it has finished or the deadline has passed.

    It only ever reads: it may be started again, moved or killed at any time, and nothing is created, paid or canceled.
    Its kwargs are stored by Airflow in plain text, so they hold no secret. Rows of other releases load: unknown kwargs
    are ignored, and all but the id have defaults.

    :param prediction_id: what to wait for.
    :param conn_id: Airflow connection of type ``cometapi``.
    :param started_at: when the wait began, in seconds since 1970; default: now.
    :param deadline: when to stop, in seconds since 1970, after one more look; default: an hour after ``started_at``.
    :param poke_interval: seconds between looks; default: growing with the prediction's age.
    """

    def __init__(
        self,
        prediction_id: str,
        conn_id: str = DEFAULT_CONN_ID,
        started_at: float | None = None,
        deadline: float | None = None,
        poke_interval: float | None = None,
        **_unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prediction_id = prediction_id
        self.conn_id = conn_id
        self.started_at = time.time() if started_at is None else started_at
        self.deadline = self.started_at + 3600 if deadline is None else deadline
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and kwargs; both are stored, so neither may change its meaning."""
        return (
            "airflow_provider_comet.triggers.prediction.PredictionTrigger",
            {
                "prediction_id": self.prediction_id,
                "conn_id": self.conn_id,
                "started_at": self.started_at,
                "deadline": self.deadline,
                "poke_interval": self.poke_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: how the wait ended. Raises nothing: an exception would fail the task without a reason."""
        from airflow_provider_comet.client import AsyncCometClient  # loads aiohttp: not while DAGs are parsed

        ended: Prediction | CometError
        try:
            async with AsyncCometClient(await aget_config(self.conn_id)) as client:
                ended = await self._wait(client)
        except CometError as error:
            ended = error
        except Exception as error:
            self.log.exception("Waiting for prediction %s failed", self.prediction_id)
            ended = CometError(f"{type(error).__name__}: {error}")
        if isinstance(ended, CometError):
            ended.about(self.prediction_id)
        yield TriggerEvent(outcome.to_event(ended))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Say what goes on when a user ends the task (Airflow 3.3 and later)."""
        self.log.warning(outcome.GOES_ON, self.prediction_id)

    async def _wait(self, client: AsyncCometClient) -> Prediction | CometError:
        loop = asyncio.get_running_loop()
        offset = time.time() - loop.time()  # absolute times, but immune to a clock that is set meanwhile
        wait = Wait(self.prediction_id, self.started_at, self.deadline, self.poke_interval)
        while True:
            look: Prediction | CometError
            try:
                look = await client.look(self.prediction_id)
            except CometError as error:
                look = error
            if news := wait.news(look):
                self.log.log(*news)
            ended = wait.after(look, now=loop.time() + offset, chance=random.random())
            if not isinstance(ended, float):
                return ended
            await asyncio.sleep(ended)


def defer(task: BaseOperator, wait: Wait, conn_id: str) -> NoReturn:
    """Leave the worker; the task's ``execute_complete`` gets the event.

    :param wait: what to wait for, and until when.
    """
    task.defer(
        trigger=PredictionTrigger(wait.prediction_id, conn_id, wait.started_at, wait.deadline, wait.poke_interval),
        method_name="execute_complete",
        timeout=timedelta(seconds=max(0.0, wait.deadline - time.time()) + BACKSTOP_SECONDS),
    )


@contextlib.contextmanager
def resumed() -> Iterator[None]:
    """Raise what Airflow says of a wait that did not end by an event as an error of this package."""
    try:
        yield
    except TaskDeferralTimeout:  # our own timeout should have come before: the triggerer was away
        raise PredictionTimeoutError("Airflow's backstop ended the wait") from None
    except TaskDeferralError as error:
        raise CometError(f"the trigger failed: {error}") from None
