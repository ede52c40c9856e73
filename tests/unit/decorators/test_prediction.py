"""`@task.comet_prediction`: a function makes the input, and only where one is to be paid for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, Outcome, TaskRunner, dag, event_of

SCHNELL = "black-forest-labs/flux-schnell"


@pytest.fixture
def runner(comet: Emulator, monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    Clock().install(monkeypatch)
    return TaskRunner()


def decorated(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The operator of a decorated function that was called in a DAG."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    call = {name: options.pop(name) for name in ("name", "place", "source") if name in options}
    with dag():
        return comet_prediction(**{"model": SCHNELL, "retries": 2, **options})(function)(*args, **call).operator


def test_the_input_is_what_the_function_returns(comet: Emulator, runner: TaskRunner) -> None:
    """The function's result is submitted once; the task's result is the prediction's id."""

    def picture(name: str, place: str = "sea", ds: Any = None) -> dict[str, Any]:
        return {"prompt": f"{name} at the {place} on {ds}", "seed": 7}

    outcome = runner.run(decorated(picture, "a lighthouse", place="{{ 'lake' }}"))
    assert (outcome.state, outcome.error) == ("success", None)
    (made,) = comet.ledger()["creates"]
    assert outcome.result == made["id"]
    assert made["input"] == {"prompt": "a lighthouse at the lake on 2026-01-01", "seed": 7}
    assert set(outcome.rendered) == {"op_args", "op_kwargs", "model", "conn_id"}
    assert "id" not in outcome.xcoms


def test_what_is_returned_is_no_template(comet: Emulator, runner: TaskRunner) -> None:
    """Braces in a text from somewhere else are sent as they are: they can't read Airflow's variables."""

    def picture() -> dict[str, str]:
        return {"prompt": "{{ var.value.secret }}"}

    assert runner.run(decorated(picture)).state == "success"
    assert comet.ledger()["creates"][0]["input"] == {"prompt": "{{ var.value.secret }}"}


def test_a_retry_of_what_is_paid_does_not_call_it(comet: Emulator, runner: TaskRunner) -> None:
    """A retry continues with the paid prediction, whatever the function would return now."""
    calls: list[int] = []

    def picture() -> dict[str, Any]:
        calls.append(1)
        return {"prompt": f"number {len(calls)}"}

    task = decorated(picture, wait_for_completion=True)
    assert runner.run(task).state == "deferred"
    again = runner.run(task, try_number=2)
    assert (again.state, again.error) == ("success", None)
    assert calls == [1]
    assert [one["input"] for one in comet.ledger()["creates"]] == [{"prompt": "number 1"}]


def test_the_label_is_of_what_the_function_returns(comet: Emulator, runner: TaskRunner) -> None:
    """It is there before anything is paid. A retry that does not call the function has an empty label in its place."""

    def picture() -> dict[str, Any]:
        return {"prompt": "a lighthouse", "seed": 7}

    task = decorated(picture, wait_for_completion=True)
    comet.fault(status=429, body={"error": {"message": "no", "code": ""}}, method="POST", count=None)
    assert runner.run(task).xcoms["labels"] == ["a lighthouse seed=7"]
    comet.reset()
    assert runner.run(task, try_number=2).xcoms["labels"] == ["a lighthouse seed=7"]
    assert runner.run(task, try_number=3).xcoms["labels"] == [""]
    assert comet.ledger()["accepted"] == 1


def test_it_can_wait(comet: Emulator, runner: TaskRunner) -> None:
    """With `wait_for_completion` the same task waits in the triggerer and pushes the result."""

    def picture() -> dict[str, Any]:
        return {"prompt": "a lighthouse"}

    task = decorated(picture, wait_for_completion=True)
    first = runner.run(task)
    ended: Outcome = runner.run(task, event=event_of(first.trigger()))
    assert ended.state == "success"
    assert ended.xcoms["prediction"]["id"] == ended.result == comet.ledger()["creates"][0]["id"]


@pytest.mark.parametrize("returned", [None, "a prompt", ["a"], 7], ids=repr)
def test_a_function_that_returns_no_dict(comet: Emulator, runner: TaskRunner, returned: Any) -> None:
    """The error names the function and what it returned, not its value; nothing is sent, and it is not retried."""

    def picture() -> Any:
        return returned

    outcome = runner.run(decorated(picture))
    assert outcome.state == "failed"
    words = f"picture must return the model's input as a dict; it returned a value of type {type(returned).__name__}"
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize(
    "error",
    [ValueError("not yet"), e.BadRequestError("no"), e.PredictionFailedError("no")],
    ids=lambda one: type(one).__name__,
)
def test_a_function_that_fails(comet: Emulator, runner: TaskRunner, error: Exception) -> None:
    """Its own errors are Airflow's to retry, also those that a hook raised in it: nothing was sent, or is on record."""

    def picture() -> dict[str, Any]:
        raise error

    outcome = runner.run(decorated(picture, task_id="create"))
    assert (outcome.state, outcome.error) == ("up_for_retry", error)
    assert comet.ledger()["requests"] == []
    assert runner.record() is None


def test_an_async_function() -> None:
    """It would not be called: that is said when the DAG file is parsed, or where a mapped one is run."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    async def picture(name: str = "x") -> dict[str, Any]:
        return {"prompt": name}

    with pytest.raises(TypeError, match="picture is an async function"):
        decorated(picture)
    with dag() as made:
        comet_prediction(model=SCHNELL)(picture).expand(name=["x"])  # type: ignore[arg-type]
    mapped: Any = made.get_task("picture")
    with pytest.raises(TypeError, match="picture is an async function"):
        mapped.unmap({"op_kwargs": {"name": "x"}})


def test_a_retry_after_a_failed_prediction_calls_it_again(comet: Emulator, runner: TaskRunner) -> None:
    """What is bought anew has a new input."""
    calls: list[int] = []

    def picture() -> dict[str, Any]:
        calls.append(1)
        return {"prompt": f"number {len(calls)}"}

    task = decorated(picture, task_id="create", wait_for_completion=True, deferrable=False)
    comet.next_outcome(status="failed", error="out of memory")
    assert runner.run(task).state == "up_for_retry"
    assert runner.run(task, try_number=2).state == "success"
    assert [one["input"]["prompt"] for one in comet.ledger()["creates"]] == ["number 1", "number 2"]
    assert runner.record()["reason"] == "retry_failed"


def test_templates_of_its_options(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model and connection are templates, as of the operator."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", comet.connection_json())
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")

    def picture() -> dict[str, Any]:
        return {"prompt": "x"}

    outcome = runner.run(decorated(picture, model="meta/{{ 'meta-llama' }}-3-8b-instruct", conn_id="{{ 'other' }}"))
    assert (outcome.state, outcome.error) == ("success", None)
    assert outcome.rendered["conn_id"] == "other"
    assert comet.ledger()["creates"][0]["model"] == outcome.rendered["model"] == "meta/meta-llama-3-8b-instruct"


def test_airflows_context_stays_as_it_is(comet: Emulator, runner: TaskRunner) -> None:
    """An argument that is called as something of Airflow's context hides it from the function alone."""
    from airflow.sdk import get_current_context

    seen: list[Any] = []

    def picture(source: str) -> dict[str, Any]:
        seen.append(get_current_context().get("source"))
        return {"prompt": source}

    assert runner.run(decorated(picture, source="a lighthouse")).state == "success"
    assert seen == [None]


def test_an_asset_as_argument(comet: Emulator, runner: TaskRunner) -> None:
    """It becomes an inlet of the task, as of any decorated one."""
    from airflow.sdk import Asset

    def picture(source: Any) -> dict[str, Any]:
        return {"prompt": source.name}

    assert runner.run(decorated(picture, source=Asset("sketches"))).state == "success"
    assert [one.name for one in runner.running.inlets] == ["sketches"]
    assert comet.ledger()["creates"][0]["input"] == {"prompt": "sketches"}


def test_mapped_and_overridden(comet: Emulator, runner: TaskRunner) -> None:
    """`expand`, `partial` and `override` work as of any task."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    with dag() as made:

        @comet_prediction(model=SCHNELL)
        def picture(name: str, place: str) -> dict[str, Any]:
            return {"prompt": f"{name} at the {place}"}

        picture.override(task_id="other", model="meta/meta-llama-3-8b-instruct")("x", "y")
        picture.partial(place="sea").expand(name=["a lighthouse", "a boat"])
    assert runner.run(made.get_task("other")).state == "success"
    mapped: Any = made.get_task("picture")
    for index, name in enumerate(["a lighthouse", "a boat"]):
        task = mapped.unmap({"op_kwargs": {"name": name, "place": "sea"}})
        assert runner.run(task, map_index=index).state == "success"
    assert [(one["model"], one["input"]["prompt"]) for one in comet.ledger()["creates"]] == [
        ("meta/meta-llama-3-8b-instruct", "x at the y"),
        (SCHNELL, "a lighthouse at the sea"),
        (SCHNELL, "a boat at the sea"),
    ]


def test_mapped_over_all_arguments_together(comet: Emulator, runner: TaskRunner) -> None:
    """`expand_kwargs` gives each instance its own set."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    with dag() as made:

        @comet_prediction(model=SCHNELL)
        def picture(name: str, place: str = "sea") -> dict[str, Any]:
            return {"prompt": f"{name} at the {place}"}

        given = [{"name": "a boat"}, {"name": "a fox", "place": "lake"}]
        picture.expand_kwargs(given)
    mapped: Any = made.get_task("picture")
    for index, one in enumerate(given):
        assert runner.run(mapped.unmap({"op_kwargs": one}), map_index=index).state == "success"
    prompts = [one["input"]["prompt"] for one in comet.ledger()["creates"]]
    assert prompts == ["a boat at the sea", "a fox at the lake"]


def test_without_a_model() -> None:
    """What is missing is said when the DAG is parsed."""
    from airflow_provider_comet.decorators.prediction import comet_prediction

    with dag(), pytest.raises(TypeError, match="model"):
        comet_prediction(task_id="x")(lambda: {"prompt": "x"})()  # type: ignore[call-arg]


TYPED = """
from airflow.sdk import task
from airflow_provider_comet.decorators.prediction import comet_prediction

@comet_prediction(model="a/b", wait_for_completion=True, pool="cometapi")
def picture(name: str) -> dict[str, str]:
    return {"prompt": name}

picture("x")
picture.expand(name=["x"])
picture(1)  # an int is no str

@comet_prediction(wait_for_completion=True)  # no model
def without_model() -> dict[str, str]:
    return {}

@comet_prediction(model="a/b", on_ambiguous_submit="pay")  # no such choice
def wrong_choice() -> dict[str, str]:
    return {}

@comet_prediction(model="a/b")  # returns no dict
def wrong_result() -> str:
    return ""

@task.comet_prediction(no_such_option=1)
def unseen(name: str) -> dict[str, str]:
    return {"prompt": name}
"""


@pytest.mark.slow
def test_editors_know_it(tmp_path: Path) -> None:
    """A type checker knows the decorator's options, keeps the function's own parameters, and wants it to return a
    dict. It takes `@task.comet_prediction` as well, and checks nothing of it: docs/create.md says so."""
    (tmp_path / "typed.py").write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "typed.py")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    wrong = [number for number, line in enumerate(TYPED.splitlines(), 1) if "# " in line]
    assert len(wrong) == 4
    assert sorted({int(one) for one in re.findall(r"typed\.py:(\d+): error", done.stdout)}) == wrong, done.stdout
