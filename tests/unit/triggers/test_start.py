"""`PredictionSensor(start_from_trigger=True)`: what Airflow stores with the DAG, and what is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag, event_of

GOLDEN_ID = "kv7m2qexample4wd5o3hzrcb6a"


def sensor(prediction_id: Any = "abc", **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    return PredictionSensor(task_id="wait", prediction_id=prediction_id, start_from_trigger=True, **options)


def create(task_id: str = "create") -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    return CreatePredictionOperator(task_id=task_id, model="black-forest-labs/flux-schnell", input={"prompt": "x"})


def started(task: Any, clock: Clock) -> Any:
    """Return the trigger that Airflow makes of the arguments that it stored with the DAG."""
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    trigger = PredictionTrigger(**json.loads(json.dumps(task.start_trigger_args.trigger_kwargs)))
    timeouts = [task.start_trigger_args.timeout, task.execution_timeout]
    trigger.timeout_after = clock.utcnow() + min(
        timeout for timeout in timeouts if timeout
    )  # as TaskInstance.defer_task does
    trigger.task_instance = types.SimpleNamespace(task_id="wait", dag_id="dag", run_id="run")
    return trigger


def error_of(event: Any) -> Any:
    """Return the error in an event about a single prediction."""
    (outcome,) = event["outcomes"].values()
    return outcome["error"]


def test_each_parse_gives_the_same(clock: Clock) -> None:
    """Nothing depends on the time: the DAG would have a new version at each parse."""
    first = sensor(timeout=600, poke_interval=20).start_trigger_args
    clock.sleep(1000)
    assert sensor(timeout=600, poke_interval=20).start_trigger_args == first
    assert first.trigger_kwargs == {
        "prediction_id": "abc",
        "conn_id": "cometapi_default",
        "poke_interval": 20,
        "timeout_margin": 300,
        "airflow_timeout": 900,
    }
    assert (first.next_method, first.timeout) == ("execute_complete", dt.timedelta(seconds=900))


def test_the_serialized_dag_holds_it() -> None:
    """Airflow serializes the arguments, and finds the edge from create to wait."""
    from airflow.serialization.serialized_objects import DagSerialization

    with dag() as made:
        sensor(create().output)
    tasks = {task["__var"]["task_id"]: task["__var"] for task in DagSerialization.to_dict(made)["dag"]["tasks"]}
    assert tasks["create"]["downstream_task_ids"] == ["wait"]
    assert tasks["wait"]["start_from_trigger"] is True
    assert '"source": {"' in json.dumps(tasks["wait"]["start_trigger_args"])


def test_the_xcom_is_read_in_the_triggerer(
    comet: Emulator, create: Callable[..., str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger gets the task and key of `create.output`, and reads the id itself."""
    from airflow.sdk.execution_time.xcom import XCom

    prediction, reads = create(), []

    async def aget_one(**what: Any) -> str:
        reads.append(what)
        return prediction

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    with dag():
        task = sensor(globals()["create"]().output)
    assert task.start_trigger_args.trigger_kwargs["source"] == {"task_id": "create", "key": "return_value"}
    event = event_of(started(task, clock))
    assert event["outcomes"][prediction]["summary"]["status"] == "succeeded"
    assert reads == [{"dag_id": "dag", "run_id": "run", "task_id": "create", "key": "return_value", "map_index": -1}]


@pytest.mark.parametrize("name", ["past", "present", "future"])
def test_stored_starts_of_other_releases(
    clock: Clock,
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A wait whose DAG another release has serialized starts, keeps its deadline, and ends with its result."""
    from airflow.sdk.execution_time.xcom import XCom

    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    golden = Path(__file__).parents[1] / "golden"
    stored = json.loads((golden / f"start-{name}.json").read_text(encoding="utf-8"))
    prediction = create(status="processing")
    comet._store.predictions[GOLDEN_ID] = comet._store.predictions[prediction]
    clock.on_sleep = lambda seconds: comet.set_prediction(prediction, status="succeeded")

    async def aget_one(**what: Any) -> Any:
        assert (what["task_id"], what["key"]) == ("create", "return_value")
        return GOLDEN_ID

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    trigger = PredictionTrigger(**stored)
    trigger.timeout_after = clock.utcnow() + dt.timedelta(seconds=3900)
    trigger.task_instance = types.SimpleNamespace(task_id="wait", dag_id="dag", run_id="run")
    ends = clock.time() + 3900 - stored["timeout_margin"]
    event = event_of(trigger)
    assert trigger.deadline == pytest.approx(ends)
    if "airflow_timeout" in stored:
        assert trigger.started_at == pytest.approx(ends - 3600)
    with dag():
        task = sensor(GOLDEN_ID)
    outcome = runner.run(task, event=event)
    assert (outcome.state, outcome.result["id"], outcome.result["status"]) == ("success", GOLDEN_ID, "succeeded")


@pytest.mark.parametrize("execution_timeout", [None, dt.timedelta(hours=1)])
def test_a_restart_knows_when_the_wait_began(
    clock: Clock, comet: Emulator, create: Callable[..., str], execution_timeout: dt.timedelta | None
) -> None:
    """A triggerer that starts such a wait again, half an hour later, continues at its age: an unknown id is given up
    after a minute of further polls, and the first poll is due within a minute, not at once."""
    began = clock.time()

    def restarted(prediction_id: str) -> Any:
        """Return the trigger of the second triggerer: the same kwargs and the same timeout."""
        task = sensor(prediction_id, timeout=7200, execution_timeout=execution_timeout)
        clock.now = began
        timeout_after = started(task, clock).timeout_after
        clock.now = began + 1800
        trigger = started(task, clock)
        trigger.timeout_after = timeout_after
        return trigger

    assert error_of(event_of(restarted("unknown")))["type"] == "PredictionNotFoundError"
    assert len([request for request in comet.ledger()["requests"] if request["method"] == "GET"]) in {2, 3}
    clock.sleeps = []
    assert error_of(event_of(restarted(create(status="processing"))))["type"] == "PredictionTimeoutError"
    assert 0 < clock.sleeps[0] <= 66
    assert clock.sleeps[1] >= 54


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "is an empty list"),
        ([None], "is a list of 1 nulls"),
        (["abc", 7], "item 1 of the list: "),
        (7, "got a value"),
    ],
    ids=str,
)
def test_an_xcom_that_holds_no_ids(
    clock: Clock, comet: Emulator, monkeypatch: pytest.MonkeyPatch, value: Any, words: str
) -> None:
    """A task that has left something else than ids is an error in words, as it is on a worker."""
    from airflow.sdk.execution_time.xcom import XCom

    async def aget_one(**what: Any) -> Any:
        return value

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    with dag():
        task = sensor(create().output)
    error = event_of(started(task, clock))["error"]
    assert (error["type"], words in error["detail"]) == ("InvalidInputError", True), error
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize("is_nested", [False, True], ids=["list", "list of lists"])
def test_a_list_from_one_task(
    clock: Clock,
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    is_nested: bool,
) -> None:
    """A task that is not mapped may return a list, with nulls and repetitions, or such lists: all are waited for."""
    from airflow.sdk.execution_time.xcom import XCom

    first, second = create(), create()
    ids = [first, None, second, first]
    returned = [ids[:3], ids[3:]] if is_nested else ids

    async def aget_one(**what: Any) -> Any:
        return returned

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    with dag():
        task = sensor(globals()["create"]().output)
    event = event_of(started(task, clock))
    assert event["count"] == 2
    with dag():
        resumed = sensor(first)
    resumed.prediction_id = returned
    outcome = runner.run(resumed, event=event)
    assert [result and result["id"] for result in outcome.result] == ids


def test_a_missing_xcom_is_an_error(clock: Clock, comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow gives None for a task that was skipped, has failed or is mapped: an error in words, without a poll."""
    from airflow.sdk.execution_time.xcom import XCom

    async def aget_one(**what: Any) -> None:
        return None

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    with dag():
        task = sensor(create().output)
    error = event_of(started(task, clock))["error"]
    assert error["type"] == "InvalidInputError"
    assert "task 'create' has left nothing in XCom 'return_value'" in error["detail"]
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"timeout": 600}, 600),
        ({"timeout": 600, "execution_timeout": dt.timedelta(hours=1)}, 600),
        ({"timeout": 600, "execution_timeout": dt.timedelta(seconds=700)}, 600),
        ({"timeout": 600, "execution_timeout": dt.timedelta(seconds=601)}, 600),
        ({"timeout": 600, "execution_timeout": dt.timedelta(seconds=100)}, 100),
    ],
    ids=str,
)
def test_its_deadline_is_that_of_any_wait(clock: Clock, options: dict[str, Any], seconds: float) -> None:
    """The earlier of `timeout` and `execution_timeout` decides. At the latter Airflow may kill the trigger during its
    last poll, which the worker then repeats."""
    trigger = started(sensor(**options), clock)
    asyncio.run(trigger._complete_kwargs())
    assert trigger.deadline - clock.time() == pytest.approx(seconds)


def test_without_an_id(runner: TaskRunner) -> None:
    """If the upstream task was skipped, the task fails with the trigger's error, not with an error about its own id."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    detail = "task 'create' has left nothing in XCom 'return_value': it was skipped, has failed, or is mapped"
    event = {"error": {"type": "InvalidInputError", "detail": detail}}
    with dag():
        task = PredictionSensor(task_id="wait", prediction_id=None)
    outcome = runner.run(task, event=event)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert detail in outcome.message


def in_a_mapped_group() -> Any:
    from airflow.sdk import task_group

    @task_group
    def group(text: str) -> None:
        sensor("{{ params.id }}")

    return group.expand(text=["a", "b"])


def of_a_mapped_create() -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    partial = CreatePredictionOperator.partial(task_id="create", model="a/b")
    return sensor(partial.expand(input=[{"prompt": "x"}]).output)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "in-a-mapped-group": (in_a_mapped_group, "can't be mapped"),
    "conn_id-xcom": (lambda: sensor(conn_id="{{ ti.xcom_pull('create') }}"), "conn_id can't come from an XCom"),
    "conn_id-output": (lambda: sensor(conn_id=create().output), "conn_id can't come from an XCom"),
    "mapped-create": (of_a_mapped_create, "can't read the output of the mapped task 'create'"),
    "map": (lambda: sensor(create().output.map(str)), "not a map, zip or concat"),
    "list": (lambda: sensor(["a", "b"]), "not a list"),
    "xcom_pull": (lambda: sensor("{{ ti.xcom_pull('create') }}"), "give create.output itself"),
    "reschedule": (lambda: sensor(mode="reschedule"), "leave deferrable and mode as they are"),
    "poke": (lambda: sensor(deferrable=False), "leave deferrable and mode as they are"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_while_parsing(name: str) -> None:
    """A sensor that Airflow would ignore, or hang on, is refused with the reason before any run."""
    make, words = REFUSED[name]
    with dag(), pytest.raises(ValueError, match=words):
        make()


def test_refused_with_queues_of_triggerers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow starts such a trigger without a queue, so no triggerer might take it."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    with pytest.raises(ValueError, match="queues_enabled"):
        sensor()


def test_refused_by_older_airflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.3 a trigger does not render its id."""
    from airflow_provider_comet.triggers import start

    monkeypatch.setattr(start, "BaseTrigger", object)
    with pytest.raises(ValueError, match=r"needs Airflow 3\.3"):
        sensor()


# A mapped sensor. Airflow makes its instances on a worker, so parsing does not show what they refuse.


def mapped(**options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    return PredictionSensor.partial(task_id="wait", retries=2, **options).expand(prediction_id=["a", "b"])


def mapped_by_partial() -> Any:
    with dag():
        return mapped(start_from_trigger=True)


def mapped_by_the_dags_default_args() -> Any:
    with dag(default_args={"start_from_trigger": True}):
        return mapped()


def mapped_by_expand_kwargs() -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag():
        return PredictionSensor.partial(task_id="wait", retries=2).expand_kwargs([
            {"prediction_id": "a", "start_from_trigger": True}
        ])


MAPPED = pytest.mark.parametrize(
    "make",
    [mapped_by_partial, mapped_by_the_dags_default_args, mapped_by_expand_kwargs],
    ids=lambda make: make.__name__,
)


@MAPPED
def test_a_mapped_sensor_is_refused_when_it_runs(comet: Emulator, runner: TaskRunner, make: Callable[[], Any]) -> None:
    """The task fails with the reason, wherever the option is given, and nothing is sent."""
    outcome = runner.run(make(), map_index=0)
    assert outcome.state == "up_for_retry"
    assert type(outcome.error) is ValueError
    assert "start_from_trigger can't be mapped: Airflow would not give the trigger its ids" in outcome.message
    assert comet.ledger()["requests"] == []


@MAPPED
def test_airflow_starts_no_mapped_sensor_in_the_triggerer(make: Callable[[], Any]) -> None:
    """Airflow takes the arguments of the class, which has none: a mapped sensor begins on a worker, which refuses it,
    and never with a trigger that has no ids."""
    from airflow.serialization.serialized_objects import DagSerialization

    task = make()
    stored = DagSerialization.from_dict(DagSerialization.to_dict(task.dag)).get_task("wait")
    assert stored.start_trigger_args is None


def test_airflow_ignores_the_default_args_of_a_mapped_task(comet: Emulator, runner: TaskRunner) -> None:
    """Of ``partial(default_args=...)`` Airflow takes the options that all operators have, so the sensor never gets the
    others: it begins on a worker and defers, as without the option."""
    with dag():
        task = mapped(default_args={"start_from_trigger": True, "conn_id": "missing", "queue": "mine"})
    assert task.partial_kwargs["queue"] == "mine"
    instance = task.unmap({"prediction_id": "a"})
    assert (instance.start_from_trigger, instance.deferrable, instance.conn_id) == (False, True, "cometapi_default")


def test_mapping_without_it_works(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """Without the option a mapped sensor waits for the prediction of its own map index."""
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    ids = [create(), create()]
    with dag():
        task = PredictionSensor.partial(task_id="wait", retries=2).expand(prediction_id=ids)
    assert task.operator_class is PredictionSensor
    for map_index, prediction_id in enumerate(ids):
        outcome = runner.run(task, map_index=map_index)
        assert (outcome.state, outcome.result["id"]) == ("success", prediction_id)
