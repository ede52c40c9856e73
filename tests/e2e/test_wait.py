"""Waits in real Airflow processes: begun in the triggerer, over a list, and while triggerers die."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from airflow_provider_comet.emulator import Emulator
from tests.e2e.rest import FINISHED
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "wait_dags"
CREATE = "/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
CAP = 20
WAITS = 24  # as in the DAG
THRESHOLD = 5
"""Seconds without a heartbeat after which Airflow gives a triggerer's waits to another one."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standalone, Emulator]]:
    """An Airflow that notices a lost triggerer soon, and an emulator whose predictions take six seconds."""
    with Emulator(duration=6) as emulator:
        connection = emulator.connection_json()[:-1] + f', "extra": {{"max_polls_per_second": {CAP}}}}}'
        env = {
            "AIRFLOW_CONN_COMETAPI_DEFAULT": connection,
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(THRESHOLD),
        }
        home = tmp_path_factory.mktemp("wait") / "airflow"
        with Standalone(dags_folder=DAGS, home=home, env=env) as airflow:
            yield airflow, emulator


def created(emulator: Emulator, **fields: Any) -> str:
    """A prediction that no task has created."""
    if fields:
        emulator.next_outcome(**fields)
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    body = {"input": {"prompt": "a lighthouse"}}
    return str(requests.post(emulator.base_url + CREATE, json=body, headers=headers, timeout=10).json()["id"])


def finish(airflow: Standalone, dag_id: str, run_id: str, timeout: float = 240.0) -> dict[Any, dict[str, Any]]:
    """Wait for the end of a run: its task instances by task and map index."""
    until(lambda: airflow.rest.run_state(dag_id, run_id) in FINISHED, timeout)
    return {(one["task_id"], one["map_index"]): one for one in airflow.rest.task_instances(dag_id, run_id)}


def until(check: Callable[[], object], timeout: float) -> None:
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"not within {timeout:.0f} s"
        time.sleep(0.5)


def test_started_in_the_triggerer(world: tuple[Standalone, Emulator]) -> None:
    """No worker is taken before the prediction has finished; result and timeouts are those of any other wait."""
    airflow, emulator = world
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
    assert (ended["late", -1]["state"], ended["late", -1]["try_number"]) == ("failed", 1)
    assert "AirflowSensorTimeout: Prediction" in log("late")
    for task_id in ("killed", "killed_deferred"):
        assert (ended[task_id, -1]["state"], ended[task_id, -1]["try_number"]) == ("failed", 2)
        assert "AirflowTaskTimeout: Prediction" in log(task_id)


def test_one_wait_for_a_list(world: tuple[Standalone, Emulator]) -> None:
    """One sensor waits for what a mapped create has made; what was paid for is handed over whatever the others did."""
    airflow, _ = world
    airflow.rest.wait_for_dag("lists")
    run = airflow.rest.trigger("lists")
    ended = finish(airflow, "lists", run)
    ids = [airflow.rest.xcom("lists", run, "create", map_index=index) for index in range(3)]
    assert ended["create", 3]["state"] == "failed"
    assert (ended["all_success", -1]["state"], ended["all_done", -1]["state"]) == ("failed", "success")
    for task_id, key in (("all_success", "predictions"), ("all_done", "return_value")):
        results = airflow.rest.xcom("lists", run, task_id, key=key)
        assert [(one["id"], one["status"]) for one in results] == [
            (ids[0], "succeeded"),
            (ids[1], "failed"),
            (ids[2], "succeeded"),
        ]
        text = airflow.rest.log("lists", run, task_id, try_number=ended[task_id, -1]["try_number"])
        assert "1 of 4 instances of task 'create' have no id" in text
        assert f"Prediction {ids[1]}: the model refused the input" in text


def test_triggerers_die(world: tuple[Standalone, Emulator]) -> None:
    """Killed, stopped and frozen triggerers lose no wait, and what takes over never looks faster than the cap."""
    airflow, emulator = world
    airflow.rest.wait_for_dag("restarts")
    emulator.next_outcome(count=WAITS, status="processing")
    run = airflow.rest.trigger("restarts")

    def waiting() -> list[str]:
        return [one["state"] for one in airflow.rest.task_instances("restarts", run) if one["task_id"] == "wait"]

    until(lambda: waiting() == ["deferred"] * WAITS, 240)
    time.sleep(5)
    airflow.kill("triggerer")
    began = time.time()
    airflow.start("triggerer")
    until(lambda: looked_since(emulator, began) == WAITS, 90)
    airflow.component("triggerer").send_signal(signal.SIGTERM)
    until(lambda: not alive(airflow), 60)
    began = time.time()
    airflow.start("triggerer")
    until(lambda: looked_since(emulator, began) == WAITS, 90)
    frozen = airflow.component("triggerer")
    family = [frozen, *frozen.children(recursive=True)]
    for process in family:
        process.suspend()
    began = time.time()
    airflow.start("triggerer")  # and this one takes over
    until(lambda: looked_since(emulator, began) == WAITS, 90)
    for process in family:
        process.resume()
    for one in emulator.ledger()["creates"]:
        if one["input"]["prompt"].startswith("picture"):
            emulator.set_prediction(one["id"], status="succeeded")
    ended = finish(airflow, "restarts", run)
    for index in range(WAITS):
        assert ended["wait", index]["state"] == "success"
        made = airflow.rest.xcom("restarts", run, "create", map_index=index)
        assert airflow.rest.xcom("restarts", run, "wait", map_index=index)["id"] == made
    lost = sum(ended["wait", index]["try_number"] > 1 for index in range(WAITS))
    most = busiest(emulator)
    print(
        f"{WAITS} waits outlived three triggerers; Airflow lost {lost} attempts; at most {most} looks within a second"
    )
    # Two triggerers may be alive at once, each with the cap; the looks of workers (6 at once) come on top.
    assert most <= 2 * (CAP + 1) + 6


def alive(airflow: Standalone) -> bool:
    try:
        return airflow.component("triggerer").is_running()
    except (RuntimeError, psutil.Error):
        return False


def looked_since(emulator: Emulator, began: float) -> int:
    """How many predictions were looked at since then."""
    return len({one["path"] for one in emulator.ledger()["requests"] if one["method"] == "GET" and one["at"] > began})


def busiest(emulator: Emulator) -> int:
    """The most looks within any second."""
    looks = sorted(one["at"] for one in emulator.ledger()["requests"] if one["method"] == "GET")
    return max(sum(1 for later in looks[start : start + 200] if later < at + 1) for start, at in enumerate(looks))
