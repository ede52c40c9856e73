"""What must hold in every story, whatever happens in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.errors import CometError
from tests.simulation.causes import causes
from tests.simulation.coverage import columns, record_key
from tests.simulation.database import Refused, ServerAway
from tests.simulation.order import Order

if TYPE_CHECKING:
    from tests.simulation.comet import Prediction
    from tests.simulation.database import TaskInstance
    from tests.simulation.kernel import Process
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

KEYS = re.compile(r"sk-simulated")
MAY_BE_ACCEPTED = re.compile(r"may (have been|be) accepted|no clear answer|nobody knows", re.IGNORECASE)
SAME_WORDS = 2
"""So many predictions may fail with the same words before only a clear buys another one."""


class Violated(BaseException):
    """An invariant does not hold. No code of the product catches this."""


@dataclass
class Item:
    """What was bought for one input of one task instance.

    :ivar allowed: how many creates may be accepted from now on: never more than one.
    :ivar reported: the ids of predictions whose bad end was reported.
    :ivar late: how many creates of attempts that were replaced may be accepted besides.
    """

    owner: str
    allowed: int = 1
    late: int = 0
    reported: list[str] = field(default_factory=list)
    bought: list[Prediction] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    is_handed_over: bool = False
    is_cleared_since_sending: bool = False


class Invariants:
    """Keeps the account of a story, and raises ``Violated`` as soon as something is wrong.

    :ivar first: the first thing that was wrong.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.items: dict[str, Item] = {}
        self._states: dict[tuple[str, str], str] = {}
        self._polls_checked = 0
        self.first: Violated | None = None
        self.order = Order(world, self._require)

    # What others tell.

    def accepted(self, prediction: Prediction) -> None:
        """Nothing is bought that is not needed: the first time, or after what allows another one."""
        item = self._item(prediction.owner)
        if item.late and self._is_replaced(prediction.process):
            item.late -= 1
            prediction.is_late = True
            item.bought.insert(0, prediction)  # what counts from now on is its successor's
            return
        item.bought.append(prediction)
        self._require(item.allowed > 0, f"{item.owner}: bought again, although nothing allows it: {prediction.id}")
        item.allowed -= 1
        item.is_handed_over = False

    def wrote(self, row: TaskInstance, key: str, value: Any) -> None:
        """Follow what the product records: whether it sends again although nobody knows of the last create."""
        self.order.wrote(row, key, value)
        if key == "comet_batch":
            for item in self._items(row):
                item.is_handed_over = item.is_handed_over or columns(self.world, item.owner) == ("delivered",)
        if not key.startswith("comet_submission"):
            return
        before = self._states.get((row.name, key))
        state = self._states[row.name, key] = value["state"]
        if state == "sending":
            for item in self._items(row):
                if self.key_of(row, item) == key:
                    is_retry = self.world.cast.options["policy"] == "retry"
                    if before == "sending" and (is_retry or item.is_cleared_since_sending):
                        item.late += item.allowed  # an orphan may still send: both may be accepted
                        item.allowed = 1
                    item.is_cleared_since_sending = False
        if value.get("reported_error"):  # the process may be killed before it says so in its error
            for item in self._items(row):
                self._on_bad_end(item)
        if state == "delivered":
            for item in self._items(row):
                if self.key_of(row, item) == key:
                    item.is_handed_over = True

    def cleared(self, row: TaskInstance, *, is_emptied: bool) -> None:
        """A user clears: what was handed over, or has ended badly, or may have been sent, may be bought again."""
        for item in self._items(row):
            item.is_cleared_since_sending = True
            item.failures.clear()
            last = item.bought[-1] if item.bought else None
            is_bad = last is not None and last.is_bad and last.ended_at <= self.world.kernel.now
            if is_emptied and self._states.get((row.name, self.key_of(row, item))) == "sending":
                item.late += item.allowed  # what is on its way may be accepted beside what the next try buys
            if is_emptied or item.is_handed_over or is_bad or row.state == "success" or not item.bought:
                item.allowed = 1
        if is_emptied:
            self._states = {place: state for place, state in self._states.items() if place[0] != row.name}

    def marked(self, row: TaskInstance) -> None:
        """A user decides about the state of a task instance."""

    def ended(self, attempt: Attempt, state: str) -> None:
        """Judge how an attempt ended."""
        row, world = attempt.row, self.world
        self.order.ended(attempt, state)
        if attempt.error is not None:
            self.left("an error", f"{attempt.error}")
        if row.task_id == "create" and state in ("retry", "failed") and world.cast.waits:
            for item in self._items(row):
                self._on_bad_end(item)
        if row.task_id == "create" and state in ("retry", "failed"):
            self._check_unclear(attempt)
        if state == "success":
            self._check_results(attempt)
        if state in ("retry", "failed"):
            self._check_failure(attempt)

    def left(self, where: str, text: str) -> None:
        self._require(KEYS.search(text) is None, f"the key is in {where}: {text[:300]}")

    def after_effect(self) -> None:
        """Check what can be broken at any moment: the polls of a process never exceed the cap."""
        polls, cap = self.world.api.polls, float(self.world.cast.options["cap"])
        while self._polls_checked < len(polls):
            name, now = polls[self._polls_checked]
            window = [time for other, time in polls[: self._polls_checked + 1] if other == name and now - time < 10.0]
            self._polls_checked += 1
            self._require(len(window) <= cap * 11.0 + 1, f"{name} has polled {len(window)} times in ten seconds")

    def at_rest(self) -> None:
        """Check what must hold when nothing happens any more."""
        world = self.world
        scheduler = world.scheduler
        for row in scheduler.rows.values():
            over = row.state in ("success", "failed", "skipped", "upstream_failed")
            self._require(over, f"{row.name} is {row.state} for ever")
        known = "\n".join([text for _, text in world.logs])
        for row in scheduler.rows.values():
            known += "\n".join([*row.store.values(), json.dumps(row.xcoms), *row.errors])
        for item in self.items.values():
            for prediction in item.bought:
                process = prediction.process
                is_lost = not prediction.is_named or (process is not None and (process.is_dead or process.is_orphan))
                self._require(is_lost or prediction.id in known, f"{item.owner}: nobody knows the id {prediction.id}")
        self._require(not scheduler.triggerers.deferred, "a trigger is left")
        for triggerer in scheduler.triggerers.triggerers:
            if not triggerer.process.is_dead:
                self._require(not triggerer.tasks, "a task of a triggerer is left")
        self._require(world.open_sessions == 0, f"{world.open_sessions} sessions are open")
        world.storage.at_rest()

    # Look-ups.

    def states(self, row: TaskInstance) -> set[str]:
        """Return the states of all records of a create."""
        return {json.loads(text)["state"] for key, text in row.store.items() if key.startswith("comet_submission")}

    def key_of(self, row: TaskInstance, item: Item) -> str:
        """Return the key of the record of an item."""
        if not self.world.cast.is_batch:
            return "comet_submission"
        return record_key(item.owner.partition("#")[2])

    def _is_replaced(self, process: Process | None) -> bool:
        attempt = None if process is None else self.world.scheduler.attempt_of(process)
        return attempt is not None and attempt.id != attempt.row.id

    def _items(self, row: TaskInstance) -> list[Item]:
        if self.world.cast.is_batch and row.task_id == "create":
            for name in self.world.cast.items:
                self._item(f"{row.name}#{name}")
        elif row.task_id == "create":
            self._item(row.name)
        return [item for owner, item in self.items.items() if owner.partition("#")[0] == row.name]

    def _item(self, owner: str) -> Item:
        return self.items.setdefault(owner, Item(owner))

    # Checks.

    def _on_bad_end(self, item: Item) -> None:
        """A failure that was reported may be bought again by a retry, but not for ever with the same words."""
        last = item.bought[-1] if item.bought else None
        if last is None or not last.may_be_bought_again or last.ended_at > self.world.kernel.now:
            return
        if last.id in item.reported:
            return
        item.reported.append(last.id)
        count = item.failures[last.end] = item.failures.get(last.end, 0) + (last.end.startswith("failed"))
        if count < SAME_WORDS:
            item.allowed = 1

    def _check_unclear(self, attempt: Attempt) -> None:
        """Who has sent a create whose fate nobody knows says so."""
        row = attempt.row
        if attempt.id != row.id or attempt.process.is_orphan:
            return
        sent = [item for item in self._items(row) if (attempt.process.name, item.owner) in self.world.api.sent]
        open_items = [item for item in sent if self._states.get((row.name, self.key_of(row, item))) == "sending"]
        words = "\n".join([f"{attempt.error}", *(text for owner, text in self.world.logs if owner == row.name)])
        for item in open_items:
            is_named = any(prediction.id in words for prediction in item.bought)
            self._require(
                is_named or MAY_BE_ACCEPTED.search(words) is not None,
                f"{item.owner}: a create may be accepted, and nothing says so: {attempt.error}",
            )

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
                self._require(
                    made == prompt or is_warned,
                    f"{row.name} hands over a prediction of {made!r} for {prompt!r}: {prediction_id}",
                )
        if row.task_id == "wait":
            given = attempt.operator.prediction_id
            results = value if isinstance(given, list) else [value]
            for prediction_id, result in zip(given if isinstance(given, list) else [given], results, strict=True):
                self._require(
                    result is None or result["id"] == prediction_id,
                    f"{row.name} returns {result and result['id']} for {prediction_id}",
                )
                if result is not None and result["status"] == "succeeded":
                    prediction = world.api.predictions[prediction_id]
                    self._require(
                        prediction.ended_at <= world.kernel.now, f"{row.name}: {prediction_id} has not finished yet"
                    )
        if row.task_id == "store":
            world.storage.check_stored(attempt)

    def _check_failure(self, attempt: Attempt) -> None:
        """A task fails only for a reason: trouble that may pass is waited out, and what is there is handed over."""
        error, row = attempt.error, attempt.row
        self._require(bool(causes(self.world, attempt)), f"{row.name} fails without a reason: {error}")
        self._require(_is_expected(error), f"{row.name} fails with {type(error).__name__}: {error}")

    def _warned(self, row: TaskInstance) -> bool:
        return any(owner == row.name and "renders differently" in text for owner, text in self.world.logs)

    def _require(self, condition: bool, words: str) -> None:
        if not condition:
            self.first = self.first or Violated(words)
            raise self.first


def _is_expected(error: BaseException | None) -> bool:
    """Whether an error is one of the product's, or what a world does to it."""
    from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout

    return isinstance(error, (CometError, AirflowException, AirflowTaskTimeout, ServerAway, Refused))
