"""`make demo`: a real Airflow creates a prediction, waits for it in its triggerer and hands over the picture.

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
from tests.e2e.standalone import Standalone, clean_env

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "demo-output"
DAG = "example_prediction"
EMULATOR_KEY = "sk-emulator"
# Long enough for the wait to be taken over by the triggerer: a finished prediction is never deferred.
EMULATOR_SECONDS = 8
LARGEST_FILE = 256 * 1024 * 1024
EXTENSIONS = {"image/webp": "webp", "image/png": "png", "image/jpeg": "jpg"}


class DemoError(Exception):
    """The demo did not end as it should; the text is for the person at the terminal."""


def say(text: str = "") -> None:
    """One line, at once also when the output is a pipe."""
    print(text, flush=True)


@contextmanager
def emulator(home: Path) -> Iterator[str]:
    """CometAPI's emulator as a process of its own; gives its base URL."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    # The variable only marks the process as ours; the home itself is not used by the emulator.
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
    """What the emulator has accepted and served."""
    content: dict[str, Any] = json.loads(fetch(f"{url}/_emulator/ledger")[0])
    return content


def fetch(url: str) -> tuple[bytes, str]:
    """A file and its content type. No Authorization header: a delivery host gets no key."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"https", "http", "data"}:
        raise DemoError(f"not a URL to fetch a file from: {url[:100]}")
    # The emulator is on this machine, where no proxy can reach it.
    proxies = urllib.request.ProxyHandler({} if parts.hostname == "127.0.0.1" else None)
    with urllib.request.build_opener(proxies).open(url, timeout=60) as response:
        content: bytes = response.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise DemoError(f"the file is larger than {LARGEST_FILE} bytes")
        return content, response.headers.get_content_type()


def save(prediction: dict[str, Any]) -> tuple[Path, str]:
    """Store the prediction's first file under demo-output/; gives the path and the SHA-256 of its bytes."""
    url = prediction["files"][0]
    content, kind = fetch(url)
    extension = EXTENSIONS.get(kind) or Path(urllib.parse.urlsplit(url).path).suffix.lstrip(".") or "bin"
    OUTPUT.mkdir(exist_ok=True)
    name = re.sub(r"[^\w-]", "_", str(prediction["id"]))
    path = OUTPUT / f"{name}.{extension}"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def boot_progress() -> Callable[[float], None]:
    """Says every five seconds that Airflow is still starting."""
    said = 0

    def progress(seconds: float) -> None:
        nonlocal said
        if seconds >= said + 5:
            said += 5
            say(f"starting Airflow ... {said} s")

    return progress


def run(airflow: Standalone, emulator_url: str | None) -> None:
    """One run of the example, from the trigger to the verified picture."""
    rest = airflow.rest
    rest.wait_for_dag(DAG)
    run_id = rest.trigger(DAG)
    say(f"\n{DAG} ({run_id})")
    deferred = False
    for change in rest.changes(DAG, run_id, timeout=180 if emulator_url else 1800):
        say(f"{change.seconds:6.1f} s  {change.task_id:<8} {change.state or 'none'}")
        deferred = deferred or (change.task_id, change.state) == ("wait", "deferred")
    failed = [one for one in rest.task_instances(DAG, run_id) if one["state"] == "failed"]
    if failed:
        one = failed[0]
        log = rest.log(DAG, run_id, one["task_id"], try_number=one["try_number"])
        raise DemoError(f"task {one['task_id']} failed; the end of its log:\n" + "\n".join(log.splitlines()[-30:]))
    if rest.run_state(DAG, run_id) != "success":
        raise DemoError(f"the run ended as {rest.run_state(DAG, run_id)}")

    prediction = rest.xcom(DAG, run_id, "wait")
    path, sha256 = save(prediction)
    say()
    say(f"prediction  {prediction['id']}  {prediction['status']}")
    say(f"picture     {path.relative_to(ROOT)}  ({path.stat().st_size} bytes, sha256 {sha256[:16]}...)")
    say(f"waited in   {holder(airflow, run_id, deferred, required=emulator_url is not None)}")
    if emulator_url:
        served = [entry["sha256"] for entry in ledger(emulator_url)["served"] if entry["id"] == prediction["id"]]
        if sha256 not in served:
            raise DemoError(f"the file is not what the emulator served for {prediction['id']}: {sha256}, {served}")


def holder(airflow: Standalone, run_id: str, deferred: bool, *, required: bool) -> str:
    """The triggerer that held `wait`, as Airflow's own records show it."""
    # Airflow writes what a trigger logs to a file named after the triggerer's job.
    jobs = set(re.findall(r"\.log\.trigger\.(\d+)\.log", airflow.rest.log(DAG, run_id, "wait")))
    known = {str(job["id"]) for job in airflow.rest.send("GET", "/api/v2/jobs?job_type=TriggererJob")["jobs"]}
    if deferred and jobs and jobs <= known:
        return f"the triggerer, a process of its own (job {', '.join(sorted(jobs))}, pid {airflow.triggerer_pid()})"
    if required:
        raise DemoError(f"`wait` was not held by a triggerer: deferred={deferred}, jobs {jobs} of {known}")
    return "no triggerer: the prediction had finished before the first look"


def real_service() -> dict[str, str]:
    """The variables through which the provider itself finds the real service; never an argument, never printed."""
    if not os.environ.get("COMETAPI_KEY"):
        raise DemoError("EMULATOR=0 runs against the real service and needs COMETAPI_KEY in the environment")
    return {name: os.environ[name] for name in ("COMETAPI_KEY", "COMETAPI_BASE_URL") if name in os.environ}


def demo(*, keep: bool, use_emulator: bool) -> None:
    """Start everything, run the example once, and keep it up if asked."""
    service = {} if use_emulator else real_service()
    with tempfile.TemporaryDirectory(prefix="comet-demo-", ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        if not use_emulator:
            say("against the real service: the picture is billed to the account of COMETAPI_KEY")
            with_airflow(home, service, None, keep=keep)
            return
        with emulator(home) as url:
            say(f"emulator at {url}")
            connection = {"conn_type": "cometapi", "host": url, "password": EMULATOR_KEY}
            with_airflow(home, {"AIRFLOW_CONN_COMETAPI_DEFAULT": json.dumps(connection)}, url, keep=keep)


def with_airflow(home: Path, env: dict[str, str], emulator_url: str | None, *, keep: bool) -> None:
    """The part of the demo that needs Airflow."""
    say("starting Airflow (scheduler, API server, DAG processor, triggerer) ...")
    start = time.monotonic()
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
        say("\nNext: `make up` keeps Airflow running to look around, example_dags/ holds the DAGs, README.md the rest.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
