"""What must have happened before something is written or said: rules about single moments of a story."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.submissions.digests import digest_of_id

if TYPE_CHECKING:
    from tests.simulation.database import TaskInstance
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World


class Order:
    """Checks the order in which a task writes and hands over; ``docs/paid-once.md``, "The record".

    :param require: is called with whether a rule holds, and with words for the case that it does not.
    """

    def __init__(self, world: World, require: Callable[[bool, str], None]) -> None:
        self._world = world
        self._require = require
        self._states: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._delivered: dict[str, set[str]] = {}
        self._max_tries: dict[tuple[str, str], int] = {}

    def wrote(self, row: TaskInstance, key: str, value: dict[str, Any]) -> None:
        """Judge a write to the state store at its moment.

        "accepted: ...; the id is in the log before". "delivered: when the id (with wait_for_completion: and the result)
        is in XCom".
        """
        prediction_id = value.get("id")
        if value.get("state") == "accepted" and prediction_id:
            word = prediction_id.split()[0]  # the log has what follows a blank in another form
            is_logged = any(owner == row.name and word in text for owner, text in self._world.logs)
            self._require(is_logged, f"{row.name}: {prediction_id} is on record, and not in the log")
        # A later report of why it has no result any more writes the record once more.
        was_delivered = self._states.get((row.name, key)) == ("delivered", prediction_id)
        self._states[row.name, key] = value.get("state"), prediction_id
        if value.get("state") == "delivered" and not was_delivered:
            self._require_in_xcom(row, digest_of_id(prediction_id))
        if key == "comet_batch":
            delivered = {digest for digest in value["items"].values() if digest}
            for digest in sorted(delivered - self._delivered.get(row.name, set())):
                self._require_in_xcom(row, digest)
            self._delivered[row.name] = delivered

    def ended(self, attempt: Attempt, state: str) -> None:
        """Judge how an attempt ended."""
        row = attempt.row
        if state == "success" and row.task_id == "create" and attempt.id == row.id:
            for prediction_id in _handed_over(row):
                self._check_cleared(row, prediction_id)
        if type(attempt.error).__name__ == "AirflowSensorTimeout":
            for prediction in self._world.api.predictions.values():
                told_at = prediction.told_at or 0.0  # by this try, not by an earlier one
                is_told = told_at >= row.started_at and prediction.id in str(attempt.error)
                self._require(
                    not is_told, f"{row.name} ends in a timeout after a poll has told how {prediction.id} ended"
                )

    def _check_cleared(self, row: TaskInstance, prediction_id: str) -> None:
        """A clear of what was handed over buys a new one, where a clear is known by a changed ``max_tries``."""
        before = self._max_tries.setdefault((row.name, prediction_id), row.max_tries)
        if self._world.cast.options["airflow"] == "3.3":
            words = f"{row.name} was cleared, and hands {prediction_id} over once more instead of a new one"
            self._require(before == row.max_tries, words)

    def _require_in_xcom(self, row: TaskInstance, digest: str) -> None:
        there = {digest_of_id(prediction_id) for prediction_id in _handed_over(row)}
        self._require(digest in there, f"{row.name}: 'delivered' is on record before XCom 'return_value' has the id")
        if self._world.cast.waits:
            result = row.xcoms.get("prediction") or {}
            is_there = digest == digest_of_id(result.get("id", ""))
            self._require(is_there, f"{row.name}: 'delivered' is on record before XCom 'prediction' has the result")


def _handed_over(row: TaskInstance) -> list[str]:
    """Return the ids that a create has put into XCom."""
    value = row.xcoms.get("return_value")
    return [item for item in (value if isinstance(value, list) else [value]) if item]
