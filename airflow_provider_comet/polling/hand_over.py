"""When a wait for many hands over what has finished, while the rest still runs. Pure: outcomes and times come in."""

from __future__ import annotations

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.schedule import LONGEST_DELAY

HAND_OVER_COUNT = 50
"""So many results are worth a start of the task: some three seconds, of them one of CPU."""
HAND_OVER_SECONDS = 600.0
"""A result waits no longer for others: CometAPI's links last about an hour, and a store may need to be repeated."""

PAUSE_SECONDS = 10.0
"""So long after its start a trigger hands over at the earliest. If a task resumes before the executor has reported the
end of the process that deferred it, Airflow takes the task for killed, and uses up a retry (seen with Airflow 3.3.2 and
LocalExecutor on a busy machine: 1,000 short predictions, each trigger had 50 results within a second or two)."""
FIRST_ROUND_SECONDS = LONGEST_DELAY
"""The first polls of a trigger are spread over so long. If many have ended long before it starts (the triggerer was
away, the creates took an hour), the first of them must not be handed over alone: each start of the task would store
one or two, while the links of the others expire."""


class HandOver:
    """Decides when the predictions that have ended are handed over: many of them, or one that has ended long ago.

    :param began: when the trigger began, whose first polls are spread over ``FIRST_ROUND_SECONDS``; by default the
        polls are made on a worker.
    """

    def __init__(self, began: float = float("-inf")) -> None:
        self._began = began
        self._count = 0
        self._oldest = float("inf")

    def add(self, outcome: Prediction | CometError, now: float) -> float:
        """Count a wait that has ended, and return the seconds until the hand-over; 0: it is due.

        The age of a result counts by the server's clocks, where they are known: a triggerer that starts anew sees the
        same age.
        """
        self._count += 1
        age = outcome.finished_ago if isinstance(outcome, Prediction) else None
        self._oldest = min(self._oldest, now - (age or 0.0))
        return self.delay(now)

    def delay(self, now: float) -> float:
        """Return the seconds until the hand-over; 0: it is due, infinity: nothing has ended."""
        due = max(self._oldest + HAND_OVER_SECONDS, self._began + FIRST_ROUND_SECONDS)
        return self.pause(now) if self._count >= HAND_OVER_COUNT else max(self.pause(now), due - now)

    def pause(self, now: float) -> float:
        """Return the seconds until a hand-over is possible at all, also of the last results."""
        return max(0.0, self._began + PAUSE_SECONDS - now)
