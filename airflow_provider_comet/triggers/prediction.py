"""``PredictionTrigger``: wait for a prediction without a worker."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.validation import check_prediction_id, check_prediction_ids
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.polling import events
from airflow_provider_comet.polling.prediction_ids import distinct
from airflow_provider_comet.polling.schedule import HEARTBEAT, Wait
from airflow_provider_comet.polling.wait import Progress

if TYPE_CHECKING:
    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.hooks.shared_client import SharedClient

PATH = "airflow_provider_comet.triggers.prediction.PredictionTrigger"
"""Stored with every waiting task: it never moves."""
LAST_LOOK_SECONDS = 200
"""How long after the deadline the last look may have its turn: a pause may hold it. With the time that its answer may
take (``read_timeout``, 75 by default), this is less than ``deferral.BACKSTOP_SECONDS``."""


class PredictionTrigger(BaseTrigger):
    """Look at predictions until all have finished or the deadline has passed.

    It only ever reads: it may be started again, moved or killed at any time, and nothing is created, paid or canceled.
    Its kwargs are stored by Airflow in plain text, so they hold no secret. Rows of other releases load: unknown kwargs
    are ignored, and all but the id have defaults.

    :param prediction_id: what to wait for: an id, or a list of them.
    :param conn_id: Airflow connection of type ``cometapi``.
    :param started_at: when the prediction was created, as far as known, in seconds since 1970; default: now.
    :param deadline: when to stop, in seconds since 1970, after one more look; default: an hour after ``started_at``.
    :param poke_interval: seconds between looks; default: growing with the prediction's age.
    :param looked_at: when the worker looked last, in seconds since 1970: the first look here comes an interval later.
    :param not_before: until when the server asked the worker for no look, in seconds since 1970.
    :param source: of a wait that starts here (``triggers/start.py``): the task and key of the XCom that holds the id.
    :param margin: of such a wait: its deadline is so many seconds before Airflow's own timeout.
    :param limit: of such a wait: it began so many seconds before that.
    """

    def __init__(
        self,
        prediction_id: str | list[str] | None = None,
        conn_id: str = DEFAULT_CONN_ID,
        started_at: float | None = None,
        deadline: float | None = None,
        poke_interval: float | None = None,
        looked_at: float | None = None,
        not_before: float | None = None,
        source: Mapping[str, str] | None = None,
        margin: float | None = None,
        limit: float | None = None,
        **_unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prediction_id = prediction_id
        self.conn_id = conn_id
        self.started_at = time.time() if started_at is None else started_at
        self.deadline = self.started_at + 3600 if deadline is None else deadline
        self.poke_interval = poke_interval
        self.looked_at = looked_at
        self.not_before = not_before
        self.source = source
        self.margin = margin
        self.limit = limit

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and kwargs; both are stored, so neither may change its meaning."""
        rare = {"not_before": self.not_before, "source": self.source, "margin": self.margin, "limit": self.limit}
        return (
            PATH,
            {
                "prediction_id": self.prediction_id,
                "conn_id": self.conn_id,
                "started_at": self.started_at,
                "deadline": self.deadline,
                "poke_interval": self.poke_interval,
                "looked_at": self.looked_at,
                **{name: value for name, value in rare.items() if value is not None},
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: how the wait ended. Raises nothing: an exception would fail the task without a reason."""
        from airflow_provider_comet.hooks.shared_client import shared_client  # loads Airflow's metrics

        try:
            await self._start()
            async with shared_client(self.conn_id, lambda why: self.log.warning("%s", why)) as client:
                event = await self._wait(client)
        except CometError as error:
            event = self._event(error)
        except Exception as error:
            self.log.exception("Waiting for prediction %s failed", self.prediction_id)
            event = self._event(CometError(f"{type(error).__name__}: {error}"))
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Say what goes on when a user ends the task (Airflow 3.3 and later)."""
        self.log.warning(outcome.going_on(self.prediction_id))

    async def _start(self) -> None:
        """What a worker does before it defers, if there was none."""
        timeout_after = getattr(self, "timeout_after", None)
        if self.margin is not None and timeout_after is not None:
            self.deadline = timeout_after.timestamp() - self.margin
            if self.limit is not None:  # it began then, however often a triggerer has started it since
                self.started_at = timeout_after.timestamp() - self.limit
        if self.source is not None and self.prediction_id is None and self.task_instance is not None:
            from airflow.sdk.execution_time.xcom import XCom

            ti = self.task_instance
            self.prediction_id = await XCom.aget_one(dag_id=ti.dag_id, run_id=ti.run_id, map_index=-1, **self.source)
            if self.prediction_id is None:
                raise InvalidInputError(
                    f"task {self.source['task_id']!r} has left nothing in XCom {self.source['key']!r}: it was skipped, "
                    "has failed, or is mapped"
                )

    async def _wait(self, client: SharedClient) -> dict[str, Any]:
        given = self.prediction_id
        if not isinstance(given, list):
            wait = self._new_wait(check_prediction_id(given))
            ended = await self._wait_for(client, wait, Progress([wait]))
            return {"prediction_id": wait.prediction_id, **events.UNSEEN} if ended is None else self._event(ended)
        waits = [self._new_wait(one) for one in distinct(check_prediction_ids(given))]
        progress = Progress(waits)
        async with asyncio.TaskGroup() as group:
            tasks = {wait.prediction_id: group.create_task(self._wait_for(client, wait, progress)) for wait in waits}
        return events.to_list_event({one: task.result() for one, task in tasks.items()})

    def _new_wait(self, prediction_id: str) -> Wait:
        return Wait(prediction_id, self.started_at, self.deadline, self.poke_interval, self.looked_at, self.not_before)

    async def _wait_for(self, client: SharedClient, wait: Wait, progress: Progress) -> Prediction | CometError | None:
        """How the wait for one of them ended; ``None``: its last look had no turn, and is the worker's."""
        loop = asyncio.get_running_loop()
        offset = time.time() - loop.time()  # absolute times, but immune to a clock that is set meanwhile
        give_up_at = max(wait.deadline - offset, loop.time()) + LAST_LOOK_SECONDS

        def tell(look: Prediction | CometError) -> None:
            for news in progress.news(wait, look, loop.time() + offset):
                self.log.log(*news)

        async def sleep(seconds: float) -> None:
            while seconds > 2 * HEARTBEAT:  # the server has asked for it, or the user
                await asyncio.sleep(HEARTBEAT)
                seconds -= HEARTBEAT
                for news in progress.sign_of_life(wait, loop.time() + offset):
                    self.log.log(*news)
            await asyncio.sleep(seconds)

        ended: Prediction | CometError | float = wait.first_delay(loop.time() + offset, random.random())
        with client.waiting():
            while isinstance(ended, float):
                await sleep(ended)
                look: Prediction | CometError | None
                try:
                    look = await client.look(wait.prediction_id, tell, give_up_at)
                except CometError as error:
                    look = error
                except Exception as error:
                    self.log.exception("Waiting for prediction %s failed", wait.prediction_id)
                    return CometError(f"{type(error).__name__}: {error}")
                if look is None:
                    await sleep(wait.deadline - offset - loop.time())
                    return None
                tell(look)
                ended = wait.after(look, now=loop.time() + offset, chance=random.random())
                del look  # it would be kept while this sleeps, an error with all its frames
        return ended

    def _event(self, ended: Prediction | CometError) -> dict[str, Any]:
        return events.to_event(ended.about(self.prediction_id) if isinstance(ended, CometError) else ended)
