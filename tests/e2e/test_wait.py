"""Waits in real Airflow processes: started in the triggerer, for a list, and while triggerers die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.rest import FINISHED
from tests.e2e.restart_run import Restarts, airflow_and_emulator_with_cap, created
from tests.e2e.standalone import Standalone

CAP = 10
WAITS = 40
INTERVAL = 2
"""Seconds between two polls of a wait: all waits together would poll twice as often as the cap allows."""


@pytest.fixture(scope="module")
def airflow_and_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standalone, Emulator]]:
    """Run an Airflow for all tests; predictions take six seconds."""
    home = tmp_path_factory.mktemp("wait") / "airflow"
    with airflow_and_emulator_with_cap(home, cap=CAP, RESTARTS_POKE_INTERVAL=str(INTERVAL)) as running:
        yield running


def finish(airflow: Standalone, dag_id: str, run_id: str, timeout: float = 240.0) -> dict[Any, dict[str, Any]]:
    """Wait for the end of a run and return its task instances by task and map index."""
    until(f"{dag_id} has ended", lambda: airflow.rest.run_state(dag_id, run_id) in FINISHED, timeout)
    return {(task["task_id"], task["map_index"]): task for task in airflow.rest.task_instances(dag_id, run_id)}


def test_started_in_the_triggerer(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """No worker starts before the prediction has finished; result and timeouts are the same as in other modes."""
    airflow, emulator = airflow_and_emulator
    airflow.rest.wait_for_dag("modes")
    ready, never = created(emulator), created(emulator, status="processing")
    run = airflow.rest.trigger("modes", {"id": ready, "never": never})
    tasks = finish(airflow, "modes", run)

    def log(task_id: str, try_number: int = 1) -> str:
        return airflow.rest.log("modes", run, task_id, try_number=try_number)

    created_id = airflow.rest.xcom("modes", run, "create")
    for task_id, prediction_id in (("from_output", created_id), ("from_template", ready)):
        assert tasks[task_id, -1]["state"] == "success"
        result = airflow.rest.xcom("modes", run, task_id)
        assert (result["id"], result["status"], len(result)) == (prediction_id, "succeeded", 12)
        text = log(task_id)
        poll = text.index(f"Prediction {prediction_id}: status 'succeeded'")
        assert poll < text.index("Worker startup parse complete"), "a worker was started before the end"
    assert (tasks["from_skipped", -1]["state"], tasks["from_skipped", -1]["try_number"]) == ("failed", 1)
    assert "task 'left_out' has left nothing in XCom 'return_value': it was skipped" in log("from_skipped")
    assert (tasks["late", -1]["state"], tasks["late", -1]["try_number"]) == ("failed", 1)
    assert "AirflowSensorTimeout: Prediction" in log("late")
    for task_id in ("killed", "killed_deferred"):
        assert (tasks[task_id, -1]["state"], tasks[task_id, -1]["try_number"]) == ("failed", 2)
        assert "AirflowTaskTimeout: Prediction" in log(task_id)


def test_one_wait_for_a_list(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """A sensor waits for all predictions of a mapped create, and returns every result although others have failed."""
    airflow, _ = airflow_and_emulator
    airflow.rest.wait_for_dag("lists")
    run = airflow.rest.trigger("lists")
    tasks = finish(airflow, "lists", run)
    ids = [airflow.rest.xcom("lists", run, "create", map_index=index) for index in range(3)]
    assert (tasks["create", 3]["state"], tasks["create", 4]["state"]) == ("failed", "skipped")
    assert (tasks["fail", -1]["state"], tasks["keep", -1]["state"]) == ("failed", "success")
    for task_id, key in (("fail", "predictions"), ("keep", "return_value")):
        results = airflow.rest.xcom("lists", run, task_id, key=key)
        assert [(result["id"], result["status"]) for result in results] == [
            (ids[0], "succeeded"),
            (ids[1], "failed"),
            (ids[2], "succeeded"),
        ]
        text = airflow.rest.log("lists", run, task_id, try_number=tasks[task_id, -1]["try_number"])
        assert "2 of 5 instances of task 'create' have no output" in text
        assert f"Prediction {ids[1]}: the model refused the input" in text


def test_triggerers_die(airflow_and_emulator: tuple[Standalone, Emulator]) -> None:
    """No wait is lost when triggerers are stopped, killed and frozen, and their successors respect the cap."""
    airflow, emulator = airflow_and_emulator
    run = Restarts(airflow, emulator, WAITS)
    run.until_deferred()
    run.terminate()
    run.kill()
    run.freeze()
    tries = run.finish()
    lost = sum(count - 1 for count in tries.values())
    print(f"{WAITS} waits survived three triggerers; Airflow lost {lost} attempts")
    # The waits together would poll twice as often as the cap allows. The margin of a half is for the clock of the
    # emulator: while Airflow's processes start, it records the polls of up to two seconds at once.
    for takeover in run.takeovers:
        assert takeover.busiest <= takeover.triggerers * CAP * 1.5, takeover
