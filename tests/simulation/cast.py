"""The tasks of a story: the product's operators and sensors, made anew for each process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.database import TaskInstance
    from tests.simulation.scheduler import Scheduler

MODEL = "owner/model"
FOLDER = "s3://storage@bucket/outputs"
OUTLET = "s3://bucket/outputs"
SHAPES = ("single", "waiting", "mapped", "batch")
DEFAULTS: dict[str, Any] = {
    "shape": "single",
    "policy": "fail",
    "retries": 2,
    "inputs": ["a", "b", "c"],
    "mode": "deferrable",
    "timeout": 3600.0,
    "execution_timeout": None,
    "on_item_error": "fail",
    "airflow": "3.3",
    "cap": 50.0,
    "runs": 1,
    "defer_after": 3.0,
    "is_decorated": False,
    "is_stored_twice": False,
    "has_sensor": True,
    "hand_over_count": 50,
    "hand_over_seconds": 600.0,
    "is_named": False,
    "storage": "objects",
    "link_seconds": 3600.0,
    "output_seconds": 3600.0,
}
"""Their defaults: a story names what it has otherwise.

``is_decorated``: the creates are ``@task.comet_prediction``. ``is_stored_twice``: another run stores the same
predictions at the same time. ``has_sensor``: whether a sensor waits before the store, which waits by itself otherwise.
``hand_over_count``, ``hand_over_seconds``: those of ``polling/hand_over.py``. ``is_named``: whether the store has
``names``. ``storage``: an object store (``objects``), the same if nothing in it is small (``parts``), or a file system
of another kind, which can tear a file (``others``). ``link_seconds``, ``output_seconds``: how long a link can be
fetched, and how long CometAPI keeps the output.
"""


class Cast:
    """Makes the tasks of a story.

    :ivar inputs: the inputs that the DAG has now; a story may change them.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        unknown = options.keys() - DEFAULTS.keys()
        assert not unknown, unknown
        self.options = {**DEFAULTS, **options}
        self.inputs = [*self.options["inputs"]]

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["options"][name]

    @property
    def is_batch(self) -> bool:
        return bool(self.options["shape"] == "batch")

    @property
    def is_mapped(self) -> bool:
        return bool(self.options["shape"] == "mapped")

    @property
    def waits(self) -> bool:
        """Whether the create waits for its result."""
        return bool(self.options["shape"] == "waiting")

    @property
    def store_waits(self) -> bool:
        """Whether the store waits for results: no task before it does."""
        return not self.waits and not self.options["has_sensor"]

    @property
    def groups(self) -> list[tuple[str, list[int]]]:
        """The tasks in the order of their dependencies, each with its map indexes."""
        indexes = [*range(len(self.options["inputs"]))] if self.is_mapped else [-1]
        wait = [] if self.waits or self.store_waits else [("wait", [-1])]
        return [("create", indexes), *wait, ("store", [-1])]

    @property
    def items(self) -> list[str]:
        """The inputs of a batch: the prompt of each, with ``~2`` for the second of equal ones."""
        counts = [self.inputs[:index].count(prompt) + 1 for index, prompt in enumerate(self.inputs)]
        return [f"{prompt}~{n}" if n > 1 else prompt for prompt, n in zip(self.inputs, counts, strict=True)]

    def input_of(self, row: TaskInstance) -> dict[str, Any]:
        """Return the input that the DAG has now for a create that is not a batch."""
        return {"prompt": self.inputs[max(0, row.map_index)]}

    def make(self, row: TaskInstance, scheduler: Scheduler) -> Any:
        """Return the operator of a task instance, as a fresh process has it."""
        timeout = self.options["execution_timeout"]
        common: dict[str, Any] = {
            "task_id": row.task_id,
            "retries": row.retries,
            "execution_timeout": None if timeout is None else timedelta(seconds=timeout),
        }
        if row.task_id == "create":
            return self._create(row, common)
        given = self._given(row, scheduler)
        if row.task_id == "wait":
            return self._sensor(given, common)
        return self._store(given, common)

    def _create(self, row: TaskInstance, common: dict[str, Any]) -> Any:
        from airflow_provider_comet.decorators.prediction import CometPredictionDecoratedOperator
        from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
        from airflow_provider_comet.operators.prediction import CreatePredictionOperator

        policy = self.options["policy"]
        if self.is_batch:
            return CreatePredictionBatchOperator(
                model=MODEL,
                inputs=[{"prompt": prompt} for prompt in self.inputs],
                on_ambiguous_submit=policy,
                on_item_error=self.options["on_item_error"],
                max_in_flight=2,
                **common,
            )
        waits = {"wait_for_completion": True, "timeout": self.options["timeout"]} if self.waits else {}
        if self.waits:
            waits["deferrable"] = self.options["mode"] == "deferrable"
        options = {"model": MODEL, "on_ambiguous_submit": policy, **waits, **common}
        if self.options["is_decorated"]:
            return CometPredictionDecoratedOperator(python_callable=make_input, op_kwargs=self.input_of(row), **options)
        return CreatePredictionOperator(input=self.input_of(row), **options)

    def _sensor(self, given: Any, common: dict[str, Any]) -> Any:
        from airflow_provider_comet.sensors.prediction import PredictionSensor

        mode = self.options["mode"]
        modes: dict[str, dict[str, Any]] = {
            "poke": {"deferrable": False},
            "reschedule": {"mode": "reschedule"},
            "deferrable": {"defer_after": self.options["defer_after"]},
        }
        return PredictionSensor(
            prediction_id=given,
            timeout=self.options["timeout"],
            on_item_error=self.options["on_item_error"],
            **modes[mode],
            **common,
        )

    def _store(self, given: Any, common: dict[str, Any]) -> Any:
        from airflow.sdk import Asset

        from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

        return DownloadPredictionOutputOperator(
            prediction=given,
            output_path=FOLDER,
            names=names_of(given) if self.options["is_named"] else None,
            timeout=self.options["timeout"],
            deferrable=self.options["mode"] == "deferrable",
            defer_after=self.options["defer_after"],
            on_item_error=self.options["on_item_error"],
            outlets=[Asset(OUTLET)],
            **common,
        )

    def _given(self, row: TaskInstance, scheduler: Scheduler) -> Any:
        """Return what the tasks before it have left for a task."""
        if row.task_id == "store" and self.waits:
            (create,) = scheduler.creates(row.source_run)
            return create.xcoms.get("prediction")
        before = "wait" if row.task_id == "store" and not self.store_waits else "create"
        rows = [other for other in scheduler.rows.values() if (other.run_id, other.task_id) == (row.source_run, before)]
        values = [other.xcoms.get("return_value") for other in rows]
        if before == "create" and self.is_mapped:
            return [value for value in values if value is not None]
        return values[0]


def names_of(given: Any) -> Any:
    """Return the user's names for what a store was given: of a list each second one has none."""
    if not isinstance(given, list):
        return "the name"
    return [None if index % 2 else f"name {index}" for index in range(len(given))]


def make_input(prompt: str) -> dict[str, Any]:
    """Return the input of a prediction: the function of a ``@task.comet_prediction``."""
    return {"prompt": prompt}
