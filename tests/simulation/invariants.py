"""What must hold in every story, whatever happens in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.errors import CometError
from tests.simulation.account import Account
from tests.simulation.causes import causes
from tests.simulation.database import Refused, ServerAway
from tests.simulation.order import Order
from tests.simulation.stores import Stores

if TYPE_CHECKING:
    from tests.simulation.database import TaskInstance
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

KEYS = re.compile(r"sk-simulated")


class Violated(BaseException):
    """An invariant does not hold. No code of the product catches this."""


class Invariants:
    """Keeps the account of a story, and raises ``Violated`` as soon as something is wrong.

    :ivar first: the first thing that was wrong.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._polls_checked = 0
        self.first: Violated | None = None
        self.order = Order(world, self.require)
        self.account = Account(world, self.require)
        self.stores = Stores(world, self.require)

    def wrote(self, row: TaskInstance, key: str, value: Any) -> None:
        """Follow what the product records."""
        self.order.wrote(row, key, value)
        self.account.wrote(row, key, value)

    def ended(self, attempt: Attempt, state: str) -> None:
        """Judge how an attempt ended."""
        row = attempt.row
        self.order.ended(attempt, state)
        if attempt.error is not None:
            self.left("an error", f"{attempt.error}")
        if row.task_id == "create" and state in ("retry", "failed"):
            self.account.failed(attempt)
        if row.task_id == "store":
            self.stores.ended(attempt, state)
        if state == "success":
            self._check_results(attempt)
        if state in ("retry", "failed"):
            self._check_failure(attempt)

    def left(self, where: str, text: str) -> None:
        self.require(KEYS.search(text) is None, f"the key is in {where}: {text[:300]}")

    def after_effect(self) -> None:
        """Check what can be broken at any moment: the polls of a process never exceed the cap."""
        polls, cap = self.world.api.polls, float(self.world.cast.options["cap"])
        while self._polls_checked < len(polls):
            name, now = polls[self._polls_checked]
            window = [time for other, time in polls[: self._polls_checked + 1] if other == name and now - time < 10.0]
            self._polls_checked += 1
            self.require(len(window) <= cap * 11.0 + 1, f"{name} has polled {len(window)} times in ten seconds")

    def at_rest(self) -> None:
        """Check what must hold when nothing happens any more."""
        world = self.world
        scheduler = world.scheduler
        for row in scheduler.rows.values():
            over = row.state in ("success", "failed", "skipped", "upstream_failed")
            self.require(over, f"{row.name} is {row.state} for ever")
        known = "\n".join([text for _, text in world.logs])
        for row in scheduler.rows.values():
            known += "\n".join([*row.store.values(), json.dumps(row.xcoms), *row.errors])
        for item in self.account.items.values():
            for prediction in item.bought:
                process = prediction.process
                is_lost = not prediction.is_named or (process is not None and (process.is_dead or process.is_orphan))
                self.require(is_lost or prediction.id in known, f"{item.owner}: nobody knows the id {prediction.id}")
        self.require(not scheduler.triggerers.deferred, "a trigger is left")
        for triggerer in scheduler.triggerers.triggerers:
            if not triggerer.process.is_dead:
                self.require(not triggerer.tasks, "a task of a triggerer is left")
        self.require(world.open_sessions == 0, f"{world.open_sessions} sessions are open")
        held = [lock.holder for lock in world.locks if lock.holder is not None]
        self.require(all(thread.process.is_dead for thread in held), "a lock is held for ever")
        world.storage.at_rest()

    # Look-ups.

    def states(self, row: TaskInstance) -> set[str]:
        """Return the states of all records of a create."""
        return {json.loads(text)["state"] for key, text in row.store.items() if key.startswith("comet_submission")}

    # Checks.

    def _check_results(self, attempt: Attempt) -> None:
        """No task ends in success with the result of another input."""
        row, world = attempt.row, self.world
        value = row.xcoms.get("return_value")
        if row.task_id == "create":
            cast = world.cast
            inputs = attempt.inputs or []
            ids = value if cast.is_batch else [value]
            wanted = inputs if cast.is_batch else [inputs[max(0, row.map_index)]]
            for prediction_id, prompt in zip(ids or [], wanted, strict=True):
                if prediction_id is None:
                    continue
                made = world.api.predictions[prediction_id].input["prompt"]
                is_warned = not cast.is_mapped and not cast.is_batch and self._warned(row)
                self.require(
                    made == prompt or is_warned,
                    f"{row.name} hands over a prediction of {made!r} for {prompt!r}: {prediction_id}",
                )
        if row.task_id == "wait":
            given = attempt.operator.prediction_id
            results = value if isinstance(given, list) else [value]
            for prediction_id, result in zip(given if isinstance(given, list) else [given], results, strict=True):
                self.require(
                    result is None or result["id"] == prediction_id,
                    f"{row.name} returns {result and result['id']} for {prediction_id}",
                )
                if result is not None and result["status"] == "succeeded":
                    prediction = world.api.predictions[prediction_id]
                    self.require(
                        prediction.ended_at <= world.kernel.now, f"{row.name}: {prediction_id} has not finished yet"
                    )

    def _check_failure(self, attempt: Attempt) -> None:
        """A task fails only for a reason: trouble that may pass is waited out, and what is there is handed over."""
        error, row = attempt.error, attempt.row
        self.require(bool(causes(self.world, attempt)), f"{row.name} fails without a reason: {error}")
        self.require(_is_expected(error), f"{row.name} fails with {type(error).__name__}: {error}")

    def _warned(self, row: TaskInstance) -> bool:
        return any(owner == row.name and "renders differently" in text for owner, text in self.world.logs)

    def require(self, condition: bool, words: str) -> None:
        """Raise ``Violated`` with some words unless a condition holds."""
        if not condition:
            self.first = self.first or Violated(words)
            raise self.first


def _is_expected(error: BaseException | None) -> bool:
    """Whether an error is one of the product's, or what a world does to it."""
    from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout

    return isinstance(error, (CometError, AirflowException, AirflowTaskTimeout, ServerAway, Refused))
