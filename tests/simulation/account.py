"""The account of a story: what was bought, and what allows another create. It knows no record of the product.

The rule is that of ``docs/paid-once.md``: a paid result that was not handed over is never bought again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.coverage import columns, record_key

if TYPE_CHECKING:
    from tests.simulation.comet import Prediction
    from tests.simulation.database import TaskInstance
    from tests.simulation.process import Process
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

MAY_BE_ACCEPTED = re.compile(r"may (have been|be) accepted|no clear answer|nobody knows", re.IGNORECASE)
SAME_WORDS = 2
"""So many predictions may fail with the same words before only a clear buys another one."""


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


class Account:
    """Follows creates, records and clears, and says when something is bought that nothing allows.

    :param require: is called with whether a rule holds, and with words for the case that it does not.
    :ivar items: what was bought, by the task instance and, of a batch, by the input.
    """

    def __init__(self, world: World, require: Callable[[bool, str], None]) -> None:
        self.world = world
        self.items: dict[str, Item] = {}
        self._require = require
        self._states: dict[tuple[str, str], str] = {}

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

    def failed(self, attempt: Attempt) -> None:
        """Judge a create that fails: a bad end may be bought again, and what is unclear has to be said."""
        if self.world.cast.waits:
            for item in self._items(attempt.row):
                self._on_bad_end(item)
        self._check_unclear(attempt)

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
