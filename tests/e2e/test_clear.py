"""What a user's clear buys, in a real Airflow: one new prediction if the paid one was handed over, else none.

`python -m pytest tests/e2e/test_clear.py -s` prints the table: scenario, task, map index, accepted creates, final
state, what the record says. The behaviours stand in `clear_scenarios` and `clear_failures`.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from airflow_provider_comet.emulator import Emulator
from tests.e2e.clear_failures import (
    LOWERED,
    after_refusal,
    after_rejection,
    ambiguous_known_id,
    ambiguous_submit_again,
    changed_input,
    changed_while_running,
    kept,
    lowered_after_no_answer,
    lowered_after_success,
    record_deleted,
)
from tests.e2e.clear_run import HEADER, Story, World
from tests.e2e.clear_scenarios import (
    after_success,
    after_waited_success,
    says_what_goes_on,
    twice_at_once,
    twice_in_queue,
    twice_while_running,
    untouched,
    while_deferred,
    while_running,
    whole_run,
)
from tests.e2e.spending import assert_logs_agree
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "clear_dags"
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "5",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",  # an edited file is not waited for
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
}
REJECTED = {"status": 400, "body": {"error": {"message": "bad picture", "code": "bad_picture"}}}
NO_ANSWER = {"status": 504, "body": "gateway timeout"}
FAULTS = (
    # model, how many of its creates, what happens to them, how many of these are accepted all the same
    ("black-forest-labs/flux-dev", 1, REJECTED, 0),
    ("black-forest-labs/flux-2-dev", 2, REJECTED, 0),
    ("black-forest-labs/flux-pro", 1, {**NO_ANSWER, "accept": True}, 1),
    ("black-forest-labs/flux-1.1-pro", 1, {"drop": "after"}, 1),
    ("black-forest-labs/flux-2-pro", 3, {**NO_ANSWER, "accept": True}, 3),
    ("stability-ai/sdxl", 3, NO_ANSWER, 0),
)


def stories(world: World) -> list[Story]:
    """All of them, for `World.run`."""
    tasks = [
        (while_running, "running"),
        (while_running, "running_mapped", 1),
        (partial(untouched, pinned="succeeded"), "running_mapped", 0),
        (while_deferred, "deferred"),
        (while_deferred, "deferred_mapped", 1),
        (partial(untouched, pinned="succeeded"), "deferred_mapped", 0),
        (after_success, "success"),
        (after_success, "success_mapped", 1),
        (untouched, "success_mapped", 0),
        (untouched, "success_mapped", 2),
        (after_waited_success, "waited"),
        (after_waited_success, "waited_mapped", 0),
        (partial(untouched, pinned="succeeded"), "waited_mapped", 1),
        (after_rejection, "rejected"),
        (after_rejection, "rejected_mapped", 1),
        (partial(untouched, state="failed", creates=0), "rejected_mapped", 0),
        (ambiguous_submit_again, "ambiguous_again"),
        (partial(ambiguous_known_id, request_id=False), "ambiguous_known"),
        (ambiguous_submit_again, "ambiguous_mapped", 0),
        (ambiguous_known_id, "ambiguous_mapped", 1),
        (partial(untouched, state="failed"), "ambiguous_mapped", 2),
        (after_refusal, "refused"),
        (partial(after_refusal, exact=False), "refused_mapped", 0),
        (partial(untouched, state="failed", pinned="failed"), "refused_mapped", 1),
        (twice_at_once, "twice"),
        (twice_at_once, "twice_mapped", 1),
        (untouched, "twice_mapped", 0),
        (twice_in_queue, "twice_queued"),
        (twice_while_running, "twice_running"),
        (kept, "kept"),
        (record_deleted, "deleted"),
        (kept, "kept_mapped", 0),
        (record_deleted, "kept_mapped", 1),
        (partial(untouched, state="failed"), "kept_mapped", 2),
        (changed_input, "changed"),
        (changed_input, "changed_mapped", 0),
        (changed_while_running, "changed_running", 0),
    ]
    whole = [
        (whole_run, "run_plain"),
        (whole_run, "run_mapped", 0),
        (whole_run, "run_mapped", 1),
        (partial(whole_run, waits=True), "run_waited"),
    ]
    edited = [
        (lowered_after_success, "lowered_delivered"),
        (lowered_after_success, "lowered_delivered_mapped", 0),
        (untouched, "lowered_delivered_mapped", 1),
        (lowered_after_no_answer, "lowered_sending"),
        (lowered_after_no_answer, "lowered_sending_mapped", 1),
        (partial(untouched, state="failed", creates=0), "lowered_sending_mapped", 0),
    ]
    dags = {"clear_tasks": tasks, "clear_run": whole, LOWERED: edited}
    return [Story(world, scenario, dag_id, *rest) for dag_id, rows in dags.items() for scenario, *rest in rows]


def test_what_a_clear_buys(tmp_path: Path) -> None:
    """Each behaviour, of unmapped tasks and single map indexes; the logs count what was paid."""
    started = time.monotonic()
    dags = tmp_path / "dags"
    shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))  # one of them is edited
    with Emulator(duration=3600) as emulator:
        for model, count, fault, _ in FAULTS:
            emulator.fault(method="POST", path=f"/models/{model}/", count=count, **fault)
        env = {**SETTINGS, "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json()}
        with Standalone(dags_folder=dags, home=tmp_path / "airflow", env=env) as airflow:
            booted = time.monotonic() - started
            world = World(airflow, emulator, dags)
            all_stories = stories(world)
            for dag_id in dict.fromkeys(story.dag_id for story in all_stories):
                world.start(dag_id)
            world.run(all_stories, timeout=300)
            print("", HEADER, *(story.line() for story in all_stories), sep="\n", flush=True)
            print(f"{booted:.0f} s until Airflow was up, {time.monotonic() - started:.0f} s in all", flush=True)
            wrong = [story.evidence() for story in all_stories if story.wrong]
            assert not wrong, "\n\n".join(wrong)
            # Airflow runs the trigger's on_kill, but now and then drops what it logs: one of them has to get through.
            assert any(says_what_goes_on(story) for story in all_stories)
            logged = assert_logs_agree(airflow.home, emulator, unlogged=sum(fault[-1] for fault in FAULTS))
        ledger = emulator.ledger()
    assert {line["reason"] for line in logged} == {"first", "clear"}, logged
    posts = [request for request in ledger["requests"] if request["method"] == "POST"]
    refused = sum(count - accepted for _, count, _, accepted in FAULTS)
    assert len(posts) == ledger["accepted"] + refused, "every create that was sent was accepted or had its fault"
