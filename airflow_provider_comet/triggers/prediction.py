"""``PredictionTrigger``: wait for predictions without a worker."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_comet import airflow_errors
from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.validation import check_prediction_id, check_prediction_ids
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID, remember_read
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.events import WaitEvent, make_error_event, make_event
from airflow_provider_comet.polling.hand_over import HandOver
from airflow_provider_comet.polling.prediction_ids import distinct, flatten
from airflow_provider_comet.polling.progress import LogLine, Progress
from airflow_provider_comet.polling.schedule import HEARTBEAT_SECONDS
from airflow_provider_comet.polling.wait import Wait

if TYPE_CHECKING:
    from airflow_provider_comet.hooks.shared_client import SharedClient

PATH = "airflow_provider_comet.triggers.prediction.PredictionTrigger"
"""Stored with every waiting task: it never moves."""
LAST_POLL_SECONDS = 200
"""How long after the deadline the last poll may have its slot: a pause may hold it. With the time that its answer may
take (``read_timeout``, 75 by default), this is less than ``deferral.BACKSTOP_SECONDS``."""


class PredictionTrigger(BaseTrigger):
    """Poll predictions until all have finished or the deadline has passed, then send one event (``WaitEvent``).

    For a store it sends the event earlier, when there is something to store (``HandOver``).

    It only ever reads: it may be started again, moved or killed at any time, and nothing is created, paid or canceled.
    Its kwargs are stored by Airflow in plain text, so they hold no secret. Rows of other releases load: unknown kwargs
    are ignored, and all but the ids have defaults.

    :param prediction_ids: the ids to wait for.
    :param conn_id: Airflow connection of type ``cometapi``.
    :param started_at: when the predictions were created, as far as known, in seconds since 1970; default: now.
    :param deadline: when to stop, in seconds since 1970, after one more poll; default: an hour after ``started_at``.
    :param poke_interval: seconds between polls; default: growing with the prediction's age.
    :param last_polled_at: when the worker polled last, in seconds since 1970: the first poll here is an interval later.
    :param not_before: until when the server asked the worker for no poll, in seconds since 1970.
    :param prediction_id: of a wait that starts here (``triggers/start.py``): an id. Airflow renders it as a template.
    :param source: of such a wait: the task and key of the XCom that holds the id.
    :param timeout_margin: of such a wait: its deadline is so many seconds before Airflow's own timeout.
    :param airflow_timeout: of such a wait: it began so many seconds before Airflow's own timeout.
    :param is_known: whether the API has named or described a prediction before: see ``Wait``.
    :param hands_over: whether the event comes when some waits have ended, while others have not.
    :param ended_before: how many predictions of the task have ended before, for the log.
    :param key_from: ``connection`` if the worker has used the connection: ``COMETAPI_KEY`` does not take its place.
    """

    def __init__(
        self,
        prediction_ids: Sequence[str | None] | None = None,
        conn_id: str = DEFAULT_CONN_ID,
        started_at: float | None = None,
        deadline: float | None = None,
        poke_interval: float | None = None,
        last_polled_at: float | None = None,
        not_before: float | None = None,
        prediction_id: str | None = None,
        source: Mapping[str, str] | None = None,
        timeout_margin: float | None = None,
        airflow_timeout: float | None = None,
        key_from: str | None = None,
        is_known: bool | None = None,
        hands_over: bool | None = None,
        ended_before: int | None = None,
        **_unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prediction_ids = prediction_ids
        self.conn_id = conn_id
        self.started_at = clock.now() if started_at is None else started_at
        self.deadline = self.started_at + 3600 if deadline is None else deadline
        self.poke_interval = poke_interval
        self.last_polled_at = last_polled_at
        self.not_before = not_before
        self.prediction_id = prediction_id
        self.source = source
        self.timeout_margin = timeout_margin
        self.airflow_timeout = airflow_timeout
        self.key_from = key_from
        self.is_known = is_known
        self.hands_over = hands_over
        self.ended_before = ended_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and kwargs; both are stored, so neither may change its meaning."""
        always = ("prediction_ids", "conn_id", "started_at", "deadline", "poke_interval", "last_polled_at")
        of_wait = ("not_before", "key_from", "is_known", "hands_over", "ended_before")
        if_set = (*of_wait, "prediction_id", "source", "timeout_margin", "airflow_timeout")
        kwargs = {name: getattr(self, name) for name in always}
        return PATH, {**kwargs, **{name: value for name in if_set if (value := getattr(self, name)) is not None}}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: how the waits ended. Raises nothing: an exception would fail the task without a reason."""
        from airflow_provider_comet.hooks.shared_client import shared_client  # loads Airflow's metrics

        event: WaitEvent
        try:
            await self._complete_kwargs()
            if self.key_from == "connection":
                remember_read(self.conn_id)
            async with shared_client(self.conn_id, lambda error: self.log.warning("%s", error)) as client:
                outcomes, pending = await self._wait_for_all(client)
            make = functools.partial(make_event, outcomes, pending=pending, carries_results=not self.hands_over)
            is_large = any(isinstance(outcome, Prediction) and outcome.is_large for outcome in outcomes.values())
            # Summaries of large results, or of many, take too long for an event loop with other waits on it.
            event = await asyncio.to_thread(make) if is_large or len(outcomes) > 1 else make()
        except CometError as error:
            event = make_error_event(self._about_single(error))
        except Exception as error:
            self.log.exception("Waiting for predictions %s failed", self.prediction_ids)
            reason = error
            while isinstance(reason, ExceptionGroup):
                reason = reason.exceptions[0]
            event = make_error_event(self._about_single(CometError(f"{type(reason).__name__}: {reason}")))
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Log what keeps running when a user ends the task (Airflow 3.3 and later)."""
        self.log.warning("%s", airflow_errors.still_running(self.prediction_ids or [self.prediction_id]))

    async def _complete_kwargs(self) -> None:
        """Find out, for a wait that starts here, what a worker knows when it defers."""
        timeout_after = getattr(self, "timeout_after", None)
        if self.timeout_margin is not None and timeout_after is not None:
            self.deadline = timeout_after.timestamp() - self.timeout_margin
            if self.airflow_timeout is not None:  # it began then, however often a triggerer has started it since
                self.started_at = timeout_after.timestamp() - self.airflow_timeout
        if self.prediction_ids is not None:
            return
        prediction_id: Any = self.prediction_id
        if self.source is not None and self.task_instance is not None:
            from airflow.sdk.execution_time.xcom import XCom

            ti = self.task_instance
            prediction_id = await XCom.aget_one(dag_id=ti.dag_id, run_id=ti.run_id, map_index=-1, **self.source)
            if prediction_id is None:
                raise InvalidInputError(
                    f"task {self.source['task_id']!r} has left nothing in XCom {self.source['key']!r}: it was skipped, "
                    "has failed, or is mapped"
                )
        is_list = isinstance(prediction_id, list)
        self.prediction_ids = [*flatten(prediction_id)] if is_list else [check_prediction_id(prediction_id)]

    async def _wait_for_all(self, client: SharedClient) -> tuple[dict[str, Prediction | CometError | None], int]:
        """Return how waits have ended, and how many have not."""
        ids = distinct(check_prediction_ids(self.prediction_ids or []))
        times = (self.started_at, self.deadline, self.poke_interval, self.last_polled_at, self.not_before)
        waits = [Wait(prediction_id, *times, is_known=self.is_known is True) for prediction_id in ids]
        progress = Progress(waits, self.ended_before or 0)
        if len(waits) == 1 and not self.ended_before:
            # Without a task of its own: what a wait keeps, the garbage collector visits.
            return {ids[0]: await self._wait_for(client, waits[0], progress)}, 0
        outcomes: dict[str, Prediction | CometError | None] = {}
        hand_over, is_due = HandOver(clock.now()), asyncio.Event()

        async def wait_for(wait: Wait) -> None:
            outcome = await self._wait_for(client, wait, progress)
            if self.hands_over and isinstance(outcome, Prediction):  # a store reads it again: no output is kept here
                outcome = dataclasses.replace(outcome, output=None, input=None, logs=None)
            outcomes[wait.prediction_id] = outcome
            if len(outcomes) < len(waits):
                if outcome is None or not self.hands_over:
                    return
                await clock.async_sleep(hand_over.add(outcome, clock.now()))
                if clock.now() >= self.deadline:  # the others end now, too
                    return
            is_due.set()

        async with asyncio.TaskGroup() as group:
            tasks = []
            for wait in waits:
                await client.turnstile.enter()
                tasks.append(group.create_task(wait_for(wait)))
            await is_due.wait()
            for task in tasks:
                task.cancel()
        if self.hands_over:
            await clock.async_sleep(hand_over.pause(clock.now()))
        pending = len(waits) - len(outcomes)
        if pending:
            ended = f"{len(outcomes)} of {len(waits)}"
            self.log.info("Ended: %s predictions. They are stored now, and the wait for the others continues", ended)
        return outcomes, pending

    async def _wait_for(self, client: SharedClient, wait: Wait, progress: Progress) -> Prediction | CometError | None:
        """Return how the wait for one prediction ended; ``None``: the rate limit left its last poll to the worker."""
        offset = clock.now() - clock.loop_time()  # absolute times that do not jump if the machine's clock is set
        give_up_at = max(wait.deadline - offset, clock.loop_time()) + LAST_POLL_SECONDS

        def notify(result: Prediction | CometError) -> None:
            self._write_log(progress.on_result(wait, result, clock.loop_time() + offset))

        async def sleep(seconds: float) -> None:
            while seconds > 2 * HEARTBEAT_SECONDS:  # the server has asked for it, or the user
                await clock.async_sleep(HEARTBEAT_SECONDS)
                seconds -= HEARTBEAT_SECONDS
                self._write_log(progress.heartbeat(wait, clock.loop_time() + offset))
            await clock.async_sleep(seconds)

        outcome: Prediction | CometError | float = wait.first_delay(clock.loop_time() + offset, random.random())
        with client.counted_wait():
            while isinstance(outcome, float):
                await sleep(outcome)
                await client.turnstile.enter()  # waits with the same deadline wake together
                result: Prediction | CometError | None
                sent_at = clock.loop_time() + offset
                try:
                    result = await client.get_prediction(wait.prediction_id, notify, give_up_at)
                except CometError as error:
                    result = error
                except Exception as error:
                    self.log.exception("Waiting for prediction %s failed", wait.prediction_id)
                    return CometError(f"{type(error).__name__}: {error}", prediction_id=wait.prediction_id)
                if result is None:
                    await sleep(wait.deadline - offset - clock.loop_time())
                    await client.turnstile.enter()
                    return None
                notify(result)
                now = clock.loop_time() + offset
                outcome = wait.on_result(result, now=now, chance=random.random(), sent_at=sent_at)
                del result  # it would be kept during the sleep, an error with all its frames
        return outcome.about(wait.prediction_id) if isinstance(outcome, CometError) else outcome

    def _write_log(self, lines: Sequence[LogLine]) -> None:
        for level, text in lines:
            self.log.log(level, "%s", text)

    def _about_single(self, error: CometError) -> CometError:
        ids = self.prediction_ids or []
        return error.about(ids[0]) if len(ids) == 1 else error
