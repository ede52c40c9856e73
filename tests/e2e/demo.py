"""`make demo`: a real Airflow creates predictions, waits for them in its triggerer and stores the pictures.

EMULATOR=0 with COMETAPI_KEY set (and COMETAPI_BASE_URL if wanted) runs the same against the real service.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.processes import Interrupted, Program, free_ports, interruptible, tail
from tests.e2e.rest import FINISHED
from tests.e2e.standalone import Standalone, clean_env

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "demo-output"
DAG, FOLLOWING = "example_prediction_to_storage", "example_new_pictures"
EMULATOR_KEY = "sk-emulator"
# Long enough for the wait to be taken over by the triggerer: a task whose predictions have finished does not defer.
EMULATOR_SECONDS = 8


class DemoError(Exception):
    """The demo failed; the message is for the person at the terminal."""


def say(text: str = "") -> None:
    """Print a line and flush it, also if the output is a pipe."""
    print(text, flush=True)


@contextmanager
def emulator(home: Path) -> Iterator[str]:
    """Run CometAPI's emulator in a process of its own and yield its base URL."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    # The variable only marks the process as ours; the emulator does not use the folder.
    command = [sys.executable, "-m", "airflow_provider_comet.emulator", "--port", str(port)]
    program = Program(
        [*command, "--duration", str(EMULATOR_SECONDS)],
        log=home / "emulator.log",
        env={**clean_env(), "COMET_DEMO_HOME": str(home)},
        marker="COMET_DEMO_HOME",
        cwd=ROOT,
    )
    try:
        program.start()
        end = time.monotonic() + 30
        while True:
            try:
                ledger(url)
                break
            except OSError:
                if program.exit_code is not None or time.monotonic() > end:
                    raise DemoError(f"the emulator did not start\n{tail(program.log)}") from None
                time.sleep(0.1)
        yield url
    finally:
        program.stop(grace=5)


def ledger(url: str) -> dict[str, Any]:
    """Return what the emulator has accepted and served."""
    # The emulator is on this machine, which a proxy can't reach.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{url}/_emulator/ledger", timeout=60
    ) as answer:
        content: dict[str, Any] = json.load(answer)
        return content


def boot_progress() -> Callable[[float], None]:
    """Return a function that prints every five seconds that Airflow is still starting."""
    printed = 0

    def progress(seconds: float) -> None:
        nonlocal printed
        if seconds >= printed + 5:
            printed += 5
            say(f"starting Airflow ... {printed} s")

    return progress


def run(airflow: Standalone, emulator_url: str | None) -> None:
    """Run the example, verify its pictures, and wait for the DAG that they start."""
    rest = airflow.rest
    rest.make_pool("cometapi", 2)
    for dag_id in (DAG, FOLLOWING):
        rest.wait_for_dag(dag_id)
        rest.unpause(dag_id)
    run_id = rest.trigger(DAG)
    say(f"\n{DAG} ({run_id})")
    for change in rest.changes(DAG, run_id, timeout=180 if emulator_url else 1800):
        say(f"{change.seconds:6.1f} s  {change.task_id} {change.map_index:<3} {change.state or 'none'}")
    instances = rest.task_instances(DAG, run_id)
    for task in instances:
        if task["state"] == "failed":
            log = rest.log(DAG, run_id, task["task_id"], try_number=task["try_number"], map_index=task["map_index"])
            end = "\n".join(log.splitlines()[-30:])
            raise DemoError(f"task {task['task_id']} {task['map_index']} failed; the end of its log:\n{end}")
    if rest.run_state(DAG, run_id) != "success":
        raise DemoError(f"the run ended as {rest.run_state(DAG, run_id)}")

    say()
    pictures: list[str] = []
    served = {file["id"]: file["sha256"] for file in ledger(emulator_url)["served"]} if emulator_url else {}
    for stored in rest.xcom(DAG, run_id, "store"):
        for file in stored["files"]:
            path = Path(urllib.parse.urlsplit(file["uri"]).path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            say(f"picture    {path.relative_to(ROOT)}  ({path.stat().st_size} bytes, sha256 {sha256[:16]}...)")
            if sha256 != file["sha256"] or (emulator_url and sha256 != served.get(stored["prediction_id"])):
                raise DemoError(f"the file is not what was served for {stored['prediction_id']}: {file['sha256']}")
            pictures.append(file["uri"])
    say(f"waited in  {holder(airflow, run_id, required=emulator_url is not None)}")
    follow(airflow, set(pictures))


def follow(airflow: Standalone, pictures: set[str]) -> None:
    """Wait for the DAG that the new pictures start."""
    end = time.monotonic() + 60
    while True:
        finished = [run["dag_run_id"] for run in airflow.rest.runs(FOLLOWING) if run["state"] in FINISHED]
        if pictures <= {uri for run_id in finished for uri in airflow.rest.xcom(FOLLOWING, run_id, "show")}:
            break
        if time.monotonic() > end:
            raise DemoError(f"{FOLLOWING} did not run for all new pictures: {finished}")
        time.sleep(0.5)
    say(f"then ran   {FOLLOWING} for them, scheduled by the asset")


def holder(airflow: Standalone, run_id: str, *, required: bool) -> str:
    """Return which triggerer held the wait, according to Airflow's records."""
    # Airflow writes what a trigger logs to a file named after the triggerer's job.
    (store,) = [task for task in airflow.rest.task_instances(DAG, run_id) if task["task_id"] == "store"]
    log = airflow.rest.log(DAG, run_id, "store", try_number=store["try_number"])
    jobs = {*re.findall(r"\.log\.trigger\.(\d+)\.log", log)}
    known = {str(job["id"]) for job in airflow.rest.send("GET", "/api/v2/jobs?job_type=TriggererJob")["jobs"]}
    if jobs and jobs <= known:
        return f"the triggerer, a process of its own (job {', '.join(sorted(jobs))}, pid {airflow.triggerer_pid()})"
    if required:
        raise DemoError(f"the wait was held by no triggerer: jobs {jobs} of {known}")
    return "no triggerer: the predictions had finished before the first poll"


def real_service() -> dict[str, str]:
    """Return the variables in which the provider finds the real service; they are never arguments and never printed."""
    if not os.environ.get("COMETAPI_KEY"):
        raise DemoError("EMULATOR=0 runs against the real service and needs COMETAPI_KEY in the environment")
    return {name: os.environ[name] for name in ("COMETAPI_KEY", "COMETAPI_BASE_URL") if name in os.environ}


def demo(*, keep: bool, use_emulator: bool) -> None:
    """Start everything and run the example once.

    :param keep: keep Airflow running until Ctrl-C.
    :param use_emulator: use the emulator, not the real service.
    """
    service = {} if use_emulator else real_service()
    with tempfile.TemporaryDirectory(prefix="comet-demo-", ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        if not use_emulator:
            say("against the real service: the pictures are billed to the account of COMETAPI_KEY")
            with_airflow(home, service, None, keep=keep)
            return
        with emulator(home) as url:
            say(f"emulator at {url}")
            connection = {"conn_type": "cometapi", "host": url, "password": EMULATOR_KEY}
            with_airflow(home, {"AIRFLOW_CONN_COMETAPI_DEFAULT": json.dumps(connection)}, url, keep=keep)


def with_airflow(home: Path, env: dict[str, str], emulator_url: str | None, *, keep: bool) -> None:
    """Start Airflow and run the example."""
    say("starting Airflow (scheduler, API server, DAG processor, triggerer) ...")
    start = time.monotonic()
    env = {**env, "COMET_PICTURES": OUTPUT.as_uri()}
    with Standalone(
        dags_folder=ROOT / "example_dags", home=home / "airflow", env=env, progress=boot_progress()
    ) as airflow:
        say(f"Airflow is up after {time.monotonic() - start:.0f} s: {airflow.url}")
        try:
            run(airflow, emulator_url)
        except Exception as error:
            raise DemoError(f"{error}\n\nThe end of Airflow's log:\n{airflow.log_tail()}") from error
        if keep:
            say(f"\nAirflow stays up: {airflow.url}/dags/{DAG} (no login; Ctrl-C stops everything)")
            threading.Event().wait()
        say("stopping Airflow ...")


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep Airflow up for exploring until Ctrl-C")
    options = parser.parse_args()
    try:
        with interruptible():
            demo(keep=options.keep, use_emulator=os.environ.get("EMULATOR", "1") != "0")
    except Interrupted as stop:
        say("\nstopped; nothing is left running")
        return stop.exit_code
    except Exception as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr, flush=True)
        return 1
    if not options.keep:
        say("\nNext: `make up` keeps Airflow running for exploring, example_dags/ holds the DAGs, README.md the rest.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
