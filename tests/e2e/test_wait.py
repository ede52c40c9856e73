"""Waits in real Airflow processes: begun in the triggerer, over a list, and while triggerers die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.rest import FINISHED
from tests.e2e.restart_run import Restarts, created, world
from tests.e2e.standalone import Standalone

CAP = 10
WAITS = 40
INTERVAL = 2
"""Seconds between two looks of a wait: all together want to look twice as often as they may."""


@pytest.fixture(scope="module")
def airflow_and_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standalone, Emulator]]:
    """One Airflow for all of them; predictions take six seconds."""
    with world(tmp_path_factory.mktemp("wait") / "airflow", cap=CAP, RESTARTS_POKE_INTERVAL=str(INTERVAL)) as both:
        yield both


def finish(airflow: Standalone, dag_id: str, run_id: str, timeout: float = 240.0) -> dict[Any, dict[str, Any]]:
    """Wait for the end of a run: its task instances by task and map index."""
    until(f"{dag_id} has ended", lambda: airflow.rest.run_state(dag_id, run_id) in FINISHED, timeout)
    return {(one["task_id"], one["map_index"]): one for one in airflow.rest.task_instances(dag_id, run_id)}


def test_started_in_the_triggerer(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """No worker is taken before the prediction has finished; result and timeouts are those of any other wait."""
    airflow, emulator = airflow_and_emulator
    airflow.rest.wait_for_dag("modes")
    ready, never = created(emulator), created(emulator, status="processing")
    run = airflow.rest.trigger("modes", {"id": ready, "never": never})
    ended = finish(airflow, "modes", run)

    def log(task_id: str, try_number: int = 1) -> str:
        return airflow.rest.log("modes", run, task_id, try_number=try_number)

    made = airflow.rest.xcom("modes", run, "create")
    for task_id, prediction in (("from_output", made), ("from_template", ready)):
        assert ended[task_id, -1]["state"] == "success"
        result = airflow.rest.xcom("modes", run, task_id)
        assert (result["id"], result["status"], len(result)) == (prediction, "succeeded", 12)
        text = log(task_id)
        seen = text.index(f"Prediction {prediction}: status 'succeeded'")
        assert seen < text.index("Worker startup parse complete"), "a worker was started before the end"
    assert (ended["from_skipped", -1]["state"], ended["from_skipped", -1]["try_number"]) == ("failed", 1)
    assert "task 'left_out' has left nothing in XCom 'return_value': it was skipped" in log("from_skipped")
    assert (ended["late", -1]["state"], ended["late", -1]["try_number"]) == ("failed", 1)
    assert "AirflowSensorTimeout: Prediction" in log("late")
    for task_id in ("killed", "killed_deferred"):
        assert (ended[task_id, -1]["state"], ended[task_id, -1]["try_number"]) == ("failed", 2)
        assert "AirflowTaskTimeout: Prediction" in log(task_id)


def test_one_wait_for_a_list(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """One sensor waits for what a mapped create has made; what was paid for is handed over whatever the others did."""
    airflow, _ = airflow_and_emulator
    airflow.rest.wait_for_dag("lists")
    run = airflow.rest.trigger("lists")
    ended = finish(airflow, "lists", run)
    ids = [airflow.rest.xcom("lists", run, "create", map_index=index) for index in range(3)]
    assert (ended["create", 3]["state"], ended["create", 4]["state"]) == ("failed", "skipped")
    assert (ended["all_success", -1]["state"], ended["all_done", -1]["state"]) == ("failed", "success")
    for task_id, key in (("all_success", "predictions"), ("all_done", "return_value")):
        results = airflow.rest.xcom("lists", run, task_id, key=key)
        assert [(one["id"], one["status"]) for one in results] == [
            (ids[0], "succeeded"),
            (ids[1], "failed"),
            (ids[2], "succeeded"),
        ]
        text = airflow.rest.log("lists", run, task_id, try_number=ended[task_id, -1]["try_number"])
        assert "2 of 5 instances of task 'create' have left nothing" in text
        assert f"Prediction {ids[1]}: the model refused the input" in text


def test_triggerers_die(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """Stopped, killed and frozen triggerers lose no wait, and what takes over keeps to the cap."""
    airflow, emulator = airflow_and_emulator
    run = Restarts(airflow, emulator, WAITS)
    run.until_deferred()
    run.terminate()
    run.kill()
    run.freeze()
    tries = run.finish()
    lost = sum(one - 1 for one in tries.values())
    print(f"{WAITS} waits outlived three triggerers; Airflow lost {lost} attempts")
    # Together they want to look twice as often as they may. Not even a half more gets through, where that much is
    # allowed for the clock of the API: while Airflow's processes start, it notes up to two seconds' looks at once.
    for one in run.takeovers:
        assert one.busiest <= one.triggerers * CAP * 1.5, one
