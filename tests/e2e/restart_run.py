"""Triggerers that die one after the other while they hold waits, and what that does to the waits and to the API.

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
LOOK = "/replicate/v1/predictions/"
THRESHOLD = 5
"""Seconds without a heartbeat after which Airflow gives a triggerer's waits to another one."""
BOTH_SECONDS = 5.0
"""How long two triggerers are watched, the one that woke up and the one that took over."""
ASK_EVERY_SECONDS = 0.5
WINDOW_SECONDS = 4.0
"""The rate is counted over so long: on a busy machine looks are noted late, and then many at once."""


@contextmanager
def world(home: Path, *, cap: float, duration: float = 6, **settings: str) -> Iterator[tuple[Standalone, Emulator]]:
    """An Airflow that notices a lost triggerer soon, and an emulator.

    :param cap: looks a second that each triggerer may send.
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
    """A prediction that no task has created."""
    if fields:
        emulator.next_outcome(**fields)
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    body = {"input": {"prompt": "a lighthouse"}}
    send = session.post if session else requests.post
    return str(send(emulator.base_url + CREATE, json=body, headers=headers, timeout=10).json()["id"])


@dataclass
class Takeover:
    """What the API saw after a triggerer was started.

    :param triggerers: how many were alive.
    :param first_after: seconds until the first look.
    :param all_after: seconds until each prediction had been looked at.
    :param busiest: looks a second, in the busiest `WINDOW_SECONDS` from then on.
    """

    event: str
    triggerers: int
    first_after: float
    all_after: float
    busiest: float

    def __str__(self) -> str:
        return (
            f"{self.event:8} first look {self.first_after:5.1f} s, last first look {self.all_after:5.1f} s after the "
            f"start; at most {self.busiest:.1f} looks a second"
        )


class Restarts:
    """A run of the DAG whose waits go on until they are let go.

    :param waits: how many.
    """

    def __init__(self, airflow: Standalone, emulator: Emulator, waits: int, patience: float = 240.0) -> None:
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
        """How many waits are in a state."""
        answer = self.airflow.rest.send("GET", f"{self._path}?task_id=wait&state={state}&limit=1")
        return int(answer["total_entries"])

    def until_deferred(self) -> None:
        """Wait until a triggerer has them all, and has looked at them all."""
        self._until("all are deferred", lambda: self.count("deferred") == len(self.ids))

    def terminate(self) -> None:
        """Stop the triggerer as a deployment does, and start another one."""
        self.airflow.component("triggerer").send_signal(signal.SIGTERM)
        self._until("the triggerer has ended", lambda: not self._is_alive())
        self._take_over("SIGTERM")

    def kill(self) -> None:
        """Kill the triggerer's whole family, and start another one."""
        self.airflow.kill("triggerer")
        self._take_over("SIGKILL")

    def freeze(self) -> None:
        """Stop the triggerer's family for longer than Airflow waits for it; another one takes over, then it wakes."""
        first = self.airflow.component("triggerer")
        family = [first, *first.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            self._take_over("SIGSTOP")
        finally:
            for process in family:
                process.resume()
        began = time.time()
        time.sleep(BOTH_SECONDS)
        looks = [at for _, at in self._looks(began)]
        self._note(Takeover("SIGCONT", 2, 0.0, BOTH_SECONDS, busiest(looks)))

    def finish(self) -> dict[int, int]:
        """Let the predictions end; the tries that each wait took, by map index. A result that is not its own fails."""
        for one in self.ids:
            self.emulator.set_prediction(one, status="succeeded")
        rest = self.airflow.rest
        # Counted first: to say a run's state, Airflow reads all of its task instances.
        self._until(
            "the run has ended",
            lambda: (
                self.count("success") + self.count("failed") == len(self.ids)
                and rest.run_state(DAG, self.run_id) in FINISHED
            ),
        )
        tries: dict[int, int] = {}
        wrong: list[str] = []
        for one in self._task_instances():
            index = one["map_index"]
            tries[index] = one["try_number"]
            if one["state"] != "success":
                wrong.append(f"wait {index} is {one['state']}")
            elif (got := rest.xcom(DAG, self.run_id, "wait", map_index=index)["id"]) != self.ids[index]:
                wrong.append(f"wait {index} has the result of {got}")
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
        self._until(f"each was looked at after {event}", lambda: len(self._first_looks(began)) == len(self.ids))
        first = sorted(self._first_looks(began).values())
        # They are spread by the wait itself; what comes after them only by the cap.
        time.sleep(2 * WINDOW_SECONDS)
        looks = [at for _, at in self._looks(began)]
        after = first[0] - began, first[-1] - began
        self._note(Takeover(event, 1, *after, busiest(looks)))

    def _note(self, takeover: Takeover) -> None:
        self.takeovers.append(takeover)
        print(takeover, flush=True)

    def _looks(self, began: float) -> list[tuple[str, float]]:
        requests_seen = self.emulator.ledger()["requests"]
        return [(one["path"], one["at"]) for one in requests_seen if one["method"] == "GET" and one["at"] > began]

    def _first_looks(self, began: float) -> dict[str, float]:
        first: dict[str, float] = {}
        ours = {LOOK + one for one in self.ids}
        for path, at in self._looks(began):
            if path in ours:
                first.setdefault(path, at)
        return first

    def _until(self, what: str, check: Callable[[], bool]) -> None:
        end = time.monotonic() + self.patience
        while True:
            with suppress(OSError):  # an API server without CPU answers late
                if check():
                    return
            assert time.monotonic() < end, f"not within {self.patience:.0f} s: {what}"
            time.sleep(ASK_EVERY_SECONDS)

    def _is_alive(self) -> bool:
        try:
            return self.airflow.component("triggerer").is_running()
        except (RuntimeError, psutil.Error):
            return False


def busiest(looks: list[float]) -> float:
    """The highest rate of looks, over `WINDOW_SECONDS`."""
    looks = sorted(looks)
    ends = (bisect.bisect_left(looks, at + WINDOW_SECONDS) for at in looks)
    return max((end - position for position, end in enumerate(ends)), default=0) / WINDOW_SECONDS
