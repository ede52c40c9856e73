"""Store hundreds of predictions as they finish, in a real Airflow, while links expire and processes are killed.

``tests/e2e/test_store.py`` runs a short version of two of its three variants. The full version takes 20 minutes, on a
machine that has nothing else to do: ``python -m tests.e2e.store_run --full``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.processes import Interrupted, interruptible
from tests.e2e.rest import FINISHED
from tests.e2e.standalone import Standalone
from tests.e2e.store_findings import Findings, Folder

HERE = Path(__file__).resolve().parent
FILE_BYTES = 64_000
BATCH = 12
"""So many predictions end right before a process that stores is killed: more than it stores at the same time."""
DAG = "store"


@dataclass(frozen=True)
class Variant:
    """How long links live, and what is killed meanwhile.

    :param link_seconds: how long a link lives.
    :param are_refreshed: whether each poll of a prediction brings links that live as long again. If not, its files are
        gone for good so many seconds after its end.
    :param file_seconds: how long a file takes to arrive.
    :param slow: how many files take longer at first, and how long.
    :param kills: what dies, one after the other: the process of the ``task``, the ``machine`` (that process and its
        supervisor), or the ``triggerer``.
    """

    name: str
    link_seconds: float
    are_refreshed: bool
    file_seconds: float
    kills: tuple[str, ...] = ()
    slow: tuple[int, float] | None = None

    def emulator(self, duration: tuple[float, float]) -> Emulator:
        lives = {"link_seconds": self.link_seconds} if self.are_refreshed else {"retention": self.link_seconds}
        return Emulator(duration=duration, file_bytes=FILE_BYTES, **lives)


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    :param count: how many predictions.
    :param duration: the shortest and the longest of them, in seconds.
    :param hand_over: how many results, and of which age, are handed over.
    :param poke_interval: seconds between the polls of a prediction.
    :param pause: seconds before each kill.
    """

    count: int
    duration: tuple[float, float]
    hand_over: tuple[int, float]
    poke_interval: float
    pause: float
    variants: tuple[Variant, ...]


SHORT = Plan(
    120,
    (2, 45),
    (25, 5),
    3,
    1,
    (  # without A, which is a matter of seconds: on a busy machine a process may start later than a link lives
        Variant("B", 600, False, 0.4, ("task", "triggerer", "machine", "triggerer")),
        Variant("C", 3, True, 0.8, ("triggerer", "task", "triggerer", "task")),
    ),
)
FULL = Plan(
    300,
    (5, 240),
    (30, 10),
    8,
    15,
    (
        Variant("A", 60, False, 0.2),
        Variant("B", 600, False, 1, ("task", "triggerer", "machine", "triggerer", "task", "triggerer")),
        Variant("C", 60, True, 1, ("triggerer", "task", "triggerer", "machine", "triggerer", "task"), slow=(20, 35)),
    ),
)


@contextmanager
def airflow_and_emulators(home: Path, plan: Plan) -> Iterator[tuple[Standalone, dict[str, Emulator]]]:
    """Run an Airflow that notices lost processes soon, and an emulator for each variant."""
    notes = home / "notes"
    notes.mkdir(parents=True)
    with ExitStack() as stack:
        emulators = {v.name: stack.enter_context(v.emulator(plan.duration)) for v in plan.variants}
        env = {
            **{f"AIRFLOW_CONN_STORE_{name}": emulator.connection_json() for name, emulator in emulators.items()},
            "STORE_COUNT": str(plan.count),
            "STORE_NOTES": str(notes),
            "STORE_HAND_OVER_COUNT": str(plan.hand_over[0]),
            "STORE_HAND_OVER_SECONDS": str(plan.hand_over[1]),
            "STORE_POKE_INTERVAL": str(plan.poke_interval),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "store_settings"), os.environ.get("PYTHONPATH")])),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        }
        airflow = stack.enter_context(Standalone(dags_folder=HERE / "store_dags", home=home / "airflow", env=env))
        yield airflow, emulators


@dataclass
class Run:
    """A run of one variant.

    :param folder: where the files go.
    :ivar kills: what was killed, and when.
    """

    airflow: Standalone
    emulator: Emulator
    variant: Variant
    plan: Plan
    folder: Path
    notes: Path
    kills: list[tuple[str, float]] = field(default_factory=list)
    _held: list[str] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self) -> Findings:
        """Run it to its end, and return what was found."""
        rest = self.airflow.rest
        rest.wait_for_dag(DAG)
        # What a kill interrupts has to be there when it comes, however fast the machine is.
        if held := BATCH * sum(kind != "triggerer" for kind in self.variant.kills):
            self.emulator.next_outcome(count=held, status="processing")
        for count, seconds in filter(None, (self.variant.slow, (None, self.variant.file_seconds))):
            self.emulator.fault(path="/delivery/", slow=FILE_BYTES / seconds, count=count)
        began = time.time()
        conf = {"conn_id": f"store_{self.variant.name.lower()}", "folder": self.folder.as_uri()}
        self.run_id = rest.trigger(DAG, conf)
        with Folder(self.folder) as folder:
            until("all are created", lambda: len(self._creates()) == self.plan.count)
            self._held = self._creates()[:held]
            for kind in self.variant.kills:
                time.sleep(self.plan.pause)
                getattr(self, f"_kill_{kind}")()
            until(
                "the run has ended",
                lambda: rest.run_state(DAG, self.run_id) in FINISHED,
                timeout=300 + self.plan.duration[1],
                pause=0.5,
            )
        return Findings.of(self, folder, time.time() - began)

    @property
    def state(self) -> str | None:
        """The state of the task that stores."""
        states = {ti["task_id"]: ti["state"] for ti in self.airflow.rest.task_instances(DAG, self.run_id)}
        return states.get("store")

    def processes(self) -> list[dict[str, Any]]:
        """Which processes have run the task, the latest last."""
        notes = self.notes / self.run_id
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def _creates(self) -> list[str]:
        return [create["id"] for create in self.emulator.ledger()["creates"]]

    def _kill_triggerer(self) -> None:
        until("the task is deferred", lambda: self.state == "deferred", timeout=400)
        self.airflow.kill("triggerer")
        self.kills.append(("triggerer", time.time()))
        self.airflow.start("triggerer")

    def _kill_task(self) -> None:
        task = self._storing_process()
        task.kill()
        self.kills.append(("task", time.time()))

    def _kill_machine(self) -> None:
        task = self._storing_process()
        supervisor = task.parent()
        assert supervisor is not None
        assert "LocalExecutor" in " ".join(supervisor.cmdline())
        for process in (supervisor, task):  # in this order: a supervisor that lives reports the end of the task
            process.send_signal(signal.SIGKILL)
        self.kills.append(("machine", time.time()))

    def _storing_process(self) -> psutil.Process:
        """Let some predictions end, and return the process that stores them, at any moment while it does."""
        served = len(self.emulator.ledger()["served"])
        for prediction_id in self._held[:BATCH]:
            self.emulator.set_prediction(prediction_id, status="succeeded")
        del self._held[:BATCH]

        def storing() -> psutil.Process | None:
            if not self._are_arriving(served):
                return None
            time.sleep(self._random.uniform(0, 1.5 * self.variant.file_seconds))
            with suppress(psutil.Error):
                process = psutil.Process(self.processes()[-1]["pid"])
                return process if self._are_arriving(served) and process.status() != psutil.STATUS_ZOMBIE else None
            return None

        return until("files are being stored", storing, timeout=400, pause=0.05)

    def _are_arriving(self, since: int) -> bool:
        return any(0 < entry["sent"] < entry["bytes"] for entry in self.emulator.ledger()["served"][since:])


def run_all(home: Path, plan: Plan) -> list[Findings]:
    """Run all variants, one after the other, and return what was found."""
    found = []
    with airflow_and_emulators(home, plan) as (airflow, emulators):
        for variant in plan.variants:
            folder = home / f"pictures-{variant.name}"
            run = Run(airflow, emulators[variant.name], variant, plan, folder, home / "notes")
            found.append(run.run())
            print(found[-1], flush=True)
    return found


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.store_run", description=__doc__)
    parser.add_argument("--full", action="store_true", help="300 predictions of 5 s to 4 min, links of 60 s")
    parser.add_argument("--variants", default="ABC", help="which of them (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave everything in this new folder")
    options = parser.parse_args()
    plan = FULL if options.full else SHORT
    plan = Plan(**{**vars(plan), "variants": tuple(v for v in plan.variants if v.name in options.variants)})
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="comet-store-") as temporary:
            home = options.keep or Path(temporary)
            found = run_all(home, plan)
            if options.keep:
                for findings in found:
                    (home / f"{findings.name}.log").write_text("\n".join(findings.logs), encoding="utf-8")
    except Interrupted as stop:
        return stop.exit_code
    return int(any(findings.wrong for findings in found))


if __name__ == "__main__":
    sys.exit(main())
