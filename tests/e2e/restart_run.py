"""Stop triggerers one after the other while they hold waits, and record what becomes of the waits and their polls.

`tests/e2e/test_wait.py` runs it with a few waits, `benchmarks/restart.py` with a thousand.
"""

from __future__ import annotations

import bisect
import json
import signal
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from airflow_provider_comet.emulator import Emulator
from tests.e2e.rest import FINISHED
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "wait_dags"
DAG = "restarts"
CREATE = "/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
QUERY = "/replicate/v1/predictions/"
THRESHOLD = 5
"""Seconds without a heartbeat after which Airflow gives a triggerer's waits to another triggerer."""
BOTH_SECONDS = 5.0
"""How long two triggerers are watched: the resumed triggerer and its successor."""
CHECK_EVERY_SECONDS = 0.5
WINDOW_SECONDS = 4.0
"""The rate is averaged over this time: a busy machine records polls late, and then many at once."""


@contextmanager
def airflow_and_emulator_with_cap(
    home: Path, *, cap: float, duration: float = 6, **settings: str
) -> Iterator[tuple[Standalone, Emulator]]:
    """Run an Airflow that detects a lost triggerer soon, and an emulator.

    :param cap: polls per second of each triggerer.
    """
    with Emulator(duration=duration) as emulator:
        connection = {**json.loads(emulator.connection_json()), "extra": {"max_polls_per_second": cap}}
        env = {
            "AIRFLOW_CONN_COMETAPI_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(THRESHOLD),
            **settings,
        }
        with Standalone(dags_folder=DAGS, home=home, env=env) as airflow:
            yield airflow, emulator


def created(emulator: Emulator, session: requests.Session | None = None, **fields: Any) -> str:
    """Create a prediction outside Airflow and return its id."""
    if fields:
        emulator.next_outcome(**fields)
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    body = {"input": {"prompt": "a lighthouse"}}
    send = session.post if session else requests.post
    return str(send(emulator.base_url + CREATE, json=body, headers=headers, timeout=10).json()["id"])


@dataclass
class Takeover:
    """The polls after a triggerer was started.

    :param event: the signal that its predecessor got.
    :param triggerers: how many were alive.
    :param first_after: seconds until the first poll.
    :param all_after: seconds until each prediction had been polled.
    :param busiest: polls per second in the busiest `WINDOW_SECONDS`.
    """

    event: str
    triggerers: int
    first_after: float
    all_after: float
    busiest: float

    def __str__(self) -> str:
        """Return the figures as a line."""
        return (
            f"{self.event:8} first poll {self.first_after:5.1f} s, all polled {self.all_after:5.1f} s after the start; "
            f"at most {self.busiest:.1f} polls a second"
        )


class Restarts:
    """A run of the DAG whose predictions end only in :meth:`finish`.

    :param waits: how many waits it has.
    :param patience: seconds until a step that does not finish is an error.
    """

    def __init__(self, airflow: Standalone, emulator: Emulator, waits: int, patience: float = 240.0) -> None:
        """Create the predictions and start the run."""
        self.airflow = airflow
        self.emulator = emulator
        self.patience = patience
        self.takeovers: list[Takeover] = []
        with requests.Session() as session:
            self.ids = [created(emulator, session, status="processing") for _ in range(waits)]
        airflow.rest.wait_for_dag(DAG)
        self.run_id = airflow.rest.trigger(DAG, {"ids": self.ids})
        self._path = f"/api/v2/dags/{DAG}/dagRuns/{urllib.parse.quote(self.run_id, safe='')}/taskInstances"

    def count(self, state: str) -> int:
        """Return how many waits are in a state."""
        answer = self.airflow.rest.send("GET", f"{self._path}?task_id=wait&state={state}&limit=1")
        return int(answer["total_entries"])

    def until_deferred(self) -> None:
        """Wait until all waits are deferred."""
        self._until("all are deferred", lambda: self.count("deferred") == len(self.ids))

    def terminate(self) -> None:
        """Stop the triggerer by SIGTERM, as a deployment does, and start another triggerer."""
        self.airflow.component("triggerer").send_signal(signal.SIGTERM)
        self._until("the triggerer has ended", lambda: not self._is_alive())
        self._take_over("SIGTERM")

    def kill(self) -> None:
        """Kill the triggerer with its child processes, and start another triggerer."""
        self.airflow.kill("triggerer")
        self._take_over("SIGKILL")

    def freeze(self) -> None:
        """Suspend the triggerer until another triggerer has taken over its waits, then resume it."""
        first = self.airflow.component("triggerer")
        suspended = [first, *first.children(recursive=True)]
        for process in suspended:
            process.suspend()
        try:
            self._take_over("SIGSTOP")
        finally:
            for process in suspended:
                process.resume()
        began = time.time()
        time.sleep(BOTH_SECONDS)
        times = [at for _, at in self._polls(began)]
        self._record(Takeover("SIGCONT", 2, 0.0, BOTH_SECONDS, busiest(times)))

    def finish(self) -> dict[int, int]:
        """Let the predictions succeed and check that each wait has its own result.

        :returns: how many tries each wait took, by map index.
        """
        for prediction_id in self.ids:
            self.emulator.set_prediction(prediction_id, status="succeeded")
        rest = self.airflow.rest
        # The counts come first: for the state of a run, Airflow reads all of its task instances.
        self._until(
            "the run has ended",
            lambda: (
                self.count("success") + self.count("failed") == len(self.ids)
                and rest.run_state(DAG, self.run_id) in FINISHED
            ),
        )
        tries: dict[int, int] = {}
        wrong: list[str] = []
        for task in self._task_instances():
            index = task["map_index"]
            tries[index] = task["try_number"]
            if task["state"] != "success":
                wrong.append(f"wait {index} is {task['state']}")
            elif (result_id := rest.xcom(DAG, self.run_id, "wait", map_index=index)["id"]) != self.ids[index]:
                wrong.append(f"wait {index} has the result of {result_id}")
        assert not wrong, wrong[:10]
        assert sorted(tries) == [*range(len(self.ids))]
        return tries

    def _task_instances(self) -> Iterator[dict[str, Any]]:
        for offset in range(0, len(self.ids), 100):
            answer = self.airflow.rest.send("GET", f"{self._path}?task_id=wait&limit=100&offset={offset}")
            yield from answer["task_instances"]

    def _take_over(self, event: str) -> None:
        began = time.time()
        self.airflow.start("triggerer")
        self._watch(event, began)

    def _watch(self, event: str, began: float) -> None:
        self._until(f"each was polled after {event}", lambda: len(self._first_polls(began)) == len(self.ids))
        first = sorted(self._first_polls(began).values())
        # The first polls are spread by the waits themselves, the polls after them only by the cap.
        time.sleep(2 * WINDOW_SECONDS)
        times = [at for _, at in self._polls(began)]
        after = first[0] - began, first[-1] - began
        self._record(Takeover(event, 1, *after, busiest(times)))

    def _record(self, takeover: Takeover) -> None:
        self.takeovers.append(takeover)
        print(takeover, flush=True)

    def _polls(self, began: float) -> list[tuple[str, float]]:
        entries = self.emulator.ledger()["requests"]
        return [(entry["path"], entry["at"]) for entry in entries if entry["method"] == "GET" and entry["at"] > began]

    def _first_polls(self, began: float) -> dict[str, float]:
        first: dict[str, float] = {}
        ours = {QUERY + prediction_id for prediction_id in self.ids}
        for path, at in self._polls(began):
            if path in ours:
                first.setdefault(path, at)
        return first

    def _until(self, what: str, check: Callable[[], bool]) -> None:
        end = time.monotonic() + self.patience
        while True:
            with suppress(OSError):  # the API server may time out on a busy machine
                if check():
                    return
            assert time.monotonic() < end, f"not within {self.patience:.0f} s: {what}"
            time.sleep(CHECK_EVERY_SECONDS)

    def _is_alive(self) -> bool:
        try:
            return self.airflow.component("triggerer").is_running()
        except (RuntimeError, psutil.Error):
            return False


def busiest(times: list[float]) -> float:
    """Return the highest rate of polls per second, over `WINDOW_SECONDS`."""
    times = sorted(times)
    ends = (bisect.bisect_left(times, at + WINDOW_SECONDS) for at in times)
    return max((end - position for position, end in enumerate(ends)), default=0) / WINDOW_SECONDS
