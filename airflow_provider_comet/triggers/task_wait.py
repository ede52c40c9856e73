"""``TaskWait``: how a task waits for predictions. The same for a sensor, a create that waits, and a store."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_comet.api.errors import AuthenticationError, CometError, PermissionDeniedError
from airflow_provider_comet.api.outcome import Outcome, is_unfinished
from airflow_provider_comet.api.redaction import excerpt
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook, steady_clock
from airflow_provider_comet.polling import clock
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS
from airflow_provider_comet.polling.events import WaitResult
from airflow_provider_comet.polling.hand_over import HandOver
from airflow_provider_comet.polling.schedule import LONGEST_DELAY
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits
from airflow_provider_comet.triggers.deferral import defer, reschedule

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)

DEFER_AFTER_SECONDS = 3.0
MAX_POLLED_ON_WORKER = 50
"""A longer list is deferred at once: one round of polls would hold the worker for longer than a second."""
WORTH_A_TRIGGER = (AuthenticationError, PermissionDeniedError)
"""Errors that a trigger waits out: it can wait until a key is replaced."""


class TaskWait:
    """The wait of one task, in this process: polls here, and leaves the worker to a trigger or until the next poll.

    :param task: what waits; its ``execute_complete`` gets the trigger's event.
    :param hook: polls.
    :param poke_interval: seconds between polls; ``None``: growing with the prediction's age.
    :param deferrable: wait in the triggerer.
    :param defer_after: seconds to poll here first.
    :param reschedules: leave the worker between polls, without a trigger.
    :param on_ended: is called with predictions that have ended, while others run, and before the task leaves the
        worker (``HandOver``). ``None``: the task wants all of them at the end.
    :param kwargs: returns what ``execute_complete`` gets besides the event.
    :ivar waits: what is waited for since this process began.
    :ivar errors: how waits have ended without a prediction, before this process began.
    """

    def __init__(
        self,
        task: BaseOperator,
        hook: CometReplicateHook,
        poke_interval: float | None,
        deferrable: bool,
        *,
        defer_after: float = 0.0,
        reschedules: bool = False,
        on_ended: Callable[[Mapping[str, Outcome]], None] | None = None,
        kwargs: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._task = task
        self._hook = hook
        self._poke_interval = poke_interval
        self._deferrable = deferrable
        self._defer_after = defer_after
        self._reschedules = reschedules
        self._on_ended = on_ended
        self._kwargs = kwargs
        self._patience = RETRY_BUDGET_SECONDS
        self.waits: Waits | None = None
        self.errors: dict[str, CometError] = {}

    @functools.cached_property
    def now(self) -> Callable[[], float]:
        """The clock of this process, from the first poll on."""
        return steady_clock()

    def resume(self, next_kwargs: Mapping[str, Any] | None) -> None:
        """Remember what ``defer`` has left about waits that had ended."""
        errors = (next_kwargs or {}).get("errors") or {}
        self.errors = {key: CometError.from_dict(error) for key, error in errors.items()}

    def begin(
        self, ids: Iterable[str], started_at: float, deadline: float, *, is_known: bool = False, ended_before: int = 0
    ) -> Waits:
        """Return the waits for predictions, but for those that have ended with an error.

        :param started_at: when they were created, as far as known, in seconds since 1970.
        :param deadline: when to stop, after one more poll, in seconds since 1970.
        :param is_known: whether the API is known to have them: see ``Wait``.
        :param ended_before: how many predictions of the task have ended before, for the log.
        """
        times = (started_at, deadline, self._poke_interval)
        waits = [Wait(key, *times, is_known=is_known) for key in ids if key not in self.errors]
        self.waits = Waits(waits, ended_before)
        return self.waits

    def wait(self, waits: Waits, *left_to_trigger: type[CometError], polls_first: bool = True) -> dict[str, Outcome]:
        """Poll until all waits have ended, and return how, or leave the worker: one loop for all modes.

        Airflow's own loop would end a list without its last polls if its timeout comes between two answers.

        :param left_to_trigger: errors that do not end a wait, because a trigger may see more.
        :param polls_first: whether to poll before the task is deferred.
        :returns: by prediction id. What was given to ``on_ended`` is not among it.
        """
        defer_at = clock.monotonic() + self._defer_after
        is_waited_for_elsewhere = len(waits.pending) > MAX_POLLED_ON_WORKER or not (
            polls_first or self.now() >= waits.deadline
        )
        if self._deferrable and waits.pending and is_waited_for_elsewhere:
            self._defer(waits)
        hand_over = HandOver()
        while True:
            ended = {*waits.outcomes}
            delay = self._hook.poll(waits, self.now)
            is_over = self.now() >= waits.deadline  # then the last polls are made here
            for key in [key for key in waits.outcomes if key not in ended]:
                hand_over.add(waits.outcomes[key], self.now())
            if self._deferrable and not is_over:
                is_late = delay is not None and clock.monotonic() + delay > defer_at
                if waits.reopen(*left_to_trigger) or is_late:
                    self._defer(waits)
            if delay is None:
                return {**waits.outcomes}
            if self._on_ended and hand_over.delay(self.now()) <= 0:
                self._on_ended(waits.take_outcomes())
                hand_over = HandOver()
                continue  # to store takes a while: some polls are due
            # The next poke could not tell whether a prediction that is not found was ever seen.
            if self._reschedules and not is_over and not waits.are_missing:
                # Each poll costs a start of the task, so the adaptive schedule keeps to a minute.
                delay = max(delay, LONGEST_DELAY if self._poke_interval is None else 0.0)
                reschedule(min(delay, waits.deadline - self.now()))
            clock.sleep(delay)

    def read(
        self, result: WaitResult, ids: Iterable[str], deadline: float
    ) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
        """Read what a trigger's event does not carry; return how waits have ended, and what is to be waited for again.

        The latter is rare: a create was cleared meanwhile, or the API is in trouble for longer than a reread waits.

        :param ids: of the predictions whose waits have ended, as the event says.
        :param deadline: of the waits. After it there is no further wait.
        """
        known = {**result.outcomes, **self.errors}
        ended = {key: known[key] for key in ids if key in known}
        read = self._hook.get_predictions([key for key in ids if key not in known], patience=self._patience)
        is_in_trouble = any(isinstance(outcome, CometError) and outcome.retryable for outcome in read.values())
        self._patience = 0.0 if is_in_trouble else RETRY_BUDGET_SECONDS  # for the next part of a long list
        outcomes = {key: result.on_reread(outcome) for key, outcome in read.items()}
        again: dict[str, Outcome] = {}
        if not result.has_unfinished and self.now() < deadline:
            again = {key: outcome for key, outcome in outcomes.items() if is_unfinished(outcome)}
        if again:
            names = excerpt(", ".join(again))
            log.warning("The trigger has brought no result of %s: the wait continues", names)
        return {**ended, **{key: outcome for key, outcome in outcomes.items() if key not in again}}, again

    def _defer(self, waits: Waits) -> NoReturn:
        """Leave what has not ended to a trigger, and errors of the rest to ``execute_complete``."""
        if self._on_ended and waits.outcomes:
            self._on_ended(waits.take_outcomes())
        errors = {key: error.to_dict() for key, error in {**self.errors, **waits.errors}.items()}
        kwargs = {**self._kwargs(), **({"errors": errors} if errors else {})}
        hands_over = self._on_ended is not None
        defer(
            self._task,
            waits.pending,
            self._hook.conn_id,
            kwargs=kwargs,
            hands_over=hands_over,
            ended_before=waits.ended,
        )
