"""No API key is in anything that Airflow writes, shows or starts, whatever error occurs.

Run it by `python -m pytest tests/e2e/test_canary.py -s`; it takes some minutes. A real Airflow at log level DEBUG has
tasks for every row of the error table, with answers that echo the key. Afterwards everything is searched for the keys.
Marks that the test plants prove that the search covers each place.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.e2e.canary_marks import PLANTS, check_marks, planted_files, process_with, report
from tests.e2e.canary_rows import ROWS, echo, envelope, page
from tests.e2e.canary_run import Source, TaskOutcome, table, task_outcomes
from tests.e2e.canary_search import Arguments, Contents, Hit, database, files, rest_answers, search
from tests.e2e.demo import OUTPUT
from tests.e2e.rest import AirflowRest
from tests.e2e.spending import logged_creates
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "canary_dags"
HOLD = "canary_hold"
FEW = ("401", "429", "502-html", "success", "failed")


def until(what: str, check: Callable[[], bool], timeout: float = 120.0) -> None:
    """Wait until `check` returns true."""
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.5)


def finish(rest: AirflowRest, source: Source, run_id: str, say: Callable[[str], None]) -> list[TaskOutcome]:
    """Wait until all tasks of a source have ended; tasks that Airflow itself lost are cleared."""
    for _ in range(4):
        until(
            f"{source.dag_id} has finished",
            lambda: rest.run_state(source.dag_id, run_id) in {"success", "failed"},
            timeout=900,
        )
        outcomes = task_outcomes(rest, source, run_id)
        lost = [f"{outcome.row}.{outcome.way}" for outcome in outcomes if outcome.is_lost]
        if not lost:
            break
        say(f"lost by Airflow, and cleared: {lost}")
        rest.clear(source.dag_id, run_id, lost)
    return outcomes


def command(environment: dict[str, str], *arguments: str) -> tuple[str, bytes]:
    """Run an Airflow command and return its name and its output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "airflow"), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return " ".join(arguments[:2]), done.stdout + done.stderr


def check_connections(airflow: Standalone, source: Source) -> Contents:
    """Yield what the `Test` button of the connection form shows if the server echoes the key."""
    for name, fault in (("401", envelope(401, "")), ("html", page(200)), ("none", None)):
        if fault:
            source.emulator.fault(method="GET", path="/v1/models", **{**fault(source.key), "count": 1})
        body = {**next(source.connections()), "connection_id": f"tested_{name}"}
        answer = airflow.rest.send("POST", "/api/v2/connections/test", body)
        assert answer["status"] is (fault is None), answer
        yield f"test of a connection: {name}", json.dumps(answer).encode()


def expected(hit: Hit) -> bool:
    """Return whether the hit is Airflow's encrypted connection, the only place in which a key has to be."""
    return hit.place == "database" and hit.where == "connection.password (decrypted)"


def test_no_key_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the error table occurs, and the search finds every planted mark and no key."""
    few = tuple(row for row in ROWS if row.name in FEW)
    stored = Source("stored", "comet_stored", f"ck_{secrets.token_hex(16)}", ROWS, every_mode=True)
    env = Source("env", "comet_env", f"sk-canary-{secrets.token_hex(16)}", ROWS, every_mode=False)
    fallback = Source("fallback", "cometapi_default", f"fb_{secrets.token_hex(16)}", few, every_mode=True)
    sources = (stored, env, fallback)
    keys = [key for source in sources for key in (source.key, source.wrong_key)]
    marks = {name: f"mark_{secrets.token_hex(12)}" for name in PLANTS}
    started = time.monotonic()

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    with ExitStack() as stack:
        for source in sources:
            stack.enter_context(source.emulator)
        plant = {"kind": "plant", "task_id": "plant", "rendered": marks["rendered field"]}
        tasks: dict[str, list[dict[str, Any]]] = {source.dag_id: source.tasks() for source in sources}
        tasks[HOLD] = [plant, *(source.endless_wait() for source in sources)]
        fernet_key = Fernet.generate_key().decode()
        settings = {
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__CORE__FERNET_KEY": fernet_key,
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "10000",
            # The DAGs do not change, so they are parsed only once.
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(DAGS), os.environ.get("PYTHONPATH")])),
            "NO_PROXY": "127.0.0.1,localhost,comet.invalid",
            "no_proxy": "127.0.0.1,localhost,comet.invalid",
            "COMETAPI_KEY": fallback.key,
            "COMETAPI_BASE_URL": fallback.emulator.base_url,
            "CANARY_TASKS": json.dumps(tasks),
            "CANARY_MARKS": json.dumps(marks),
            **{
                f"AIRFLOW_CONN_{connection.pop('connection_id').upper()}": json.dumps(connection)
                for connection in env.connections()
            },
        }
        arguments = stack.enter_context(Arguments())
        home = tmp_path / "airflow"
        airflow = stack.enter_context(Standalone(dags_folder=DAGS, home=home, env=settings, timeout=300))
        say("Airflow is up")

        answers: list[tuple[str, bytes]] = []
        planted = {"connection_id": "planted", "conn_type": "http", "password": marks["connection"]}
        for connection in (*stored.connections(), planted):
            answer = airflow.rest.send("POST", "/api/v2/connections", connection)
            answers.append(("POST connections", json.dumps(answer).encode()))
        answers += check_connections(airflow, stored)
        stack.enter_context(process_with(marks["argument"]))
        for dag_id in tasks:
            airflow.rest.wait_for_dag(dag_id, timeout=120)
        runs = {dag_id: airflow.rest.trigger(dag_id, {"mark": marks["run conf"]}) for dag_id in reversed(tasks)}
        outcomes: list[TaskOutcome] = []
        for source in sources:
            outcomes += finish(airflow.rest, source, runs[source.dag_id], say)
            say(f"{source.dag_id} has finished")

        # 1. The rows occurred.
        assert len(outcomes) == sum(map(len, tasks.values())) - len(tasks[HOLD])
        say("outcomes of the tasks\n" + table(outcomes))
        problems = [problem for outcome in outcomes if (problem := outcome.problem())]
        assert not problems, "\n".join(problems)
        paid = [outcome for outcome in outcomes if outcome.way == "create" and outcome.state == "success"]
        assert len(logged_creates(home)) == len(paid) > 0, "every paid create has a line in the logs"
        for source in sources:
            logs = [outcome.log for outcome in outcomes if outcome.source == source.name]
            echoed = [log for log in logs if "refused: Authorization: " in log]
            assert echoed, "the echo has to reach the log, without the key"
            assert not any(echo(source.key) in log for log in echoed)

        # 2. The search finds what is planted, while triggers run.
        until(
            "all of them wait in the triggerer",
            lambda: {task["state"] for task in airflow.rest.task_instances(HOLD, runs[HOLD])} == {"deferred"},
        )
        until(
            "the trigger has logged", lambda: marks["trigger debug log"] in airflow.rest.log(HOLD, runs[HOLD], "plant")
        )
        for task in airflow.rest.task_instances(HOLD, runs[HOLD]):
            assert task["trigger"]["classpath"].endswith("Trigger"), task
        (home / "planted").mkdir()
        for name, content in planted_files(marks["file"]).items():
            (home / "planted" / name).write_bytes(content.encode("latin-1"))
        (tmp_path / "demo-output").mkdir()
        (tmp_path / "demo-output" / "picture.txt").write_text(marks["demo file"])
        program = airflow.members()[0].environ()
        marks["command"] = marks["rendered field"]
        printed = [
            command(program, "tasks", "render", HOLD, "plant", runs[HOLD]),
            command(program, "tasks", "states-for-dag-run", stored.dag_id, runs[stored.dag_id]),
            command(program, "providers", "hooks"),
        ]
        answers += rest_answers(airflow.rest, runs.items())
        say(f"{len(answers)} answers of the REST API")

        demo = [*files(tmp_path / "demo-output"), *(files(OUTPUT) if OUTPUT.exists() else ())]
        needles = [*keys, *marks.values()]
        hits = [
            *search(needles, "database", database(home / "airflow.db", fernet_key)),
            *search(needles, "files", files(home)),
            *search(needles, "rest", iter(answers)),
            *search(needles, "arguments", arguments.contents()),
            *search(needles, "commands", iter(printed)),
            *search(needles, "demo", iter(demo)),
        ]
        check_marks(hits, marks)
        say("every planted mark was found")

        # 3. No key.
        hits = [hit for hit in hits if hit.needle in keys]
        assert {hit.form for hit in hits if expected(hit)} == {"raw"}, "the stored keys have to be there, encrypted"
        say(f"while everything runs: {len([hit for hit in hits if not expected(hit)])} hits")

    # 4. No key after everything was stopped.
    hits += search(keys, "database", database(home / "airflow.db", fernet_key))
    hits += search(keys, "files", files(home))
    leaks = [hit for hit in hits if not expected(hit)]
    say(f"in the end: {len(leaks)} hits")
    assert not leaks, report(leaks)
