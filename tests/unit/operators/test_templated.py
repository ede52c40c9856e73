"""``TemplatedOperator``: no task pays for, waits for or stores what a template has made of a missing value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, dag, run_sensor
from tests.unit.submissions.batches import SCHNELL
from tests.unit.test_architecture import PACKAGE, ROOT
from tests.unit.test_docs import PAGES

EMPTY = {"image": None, "customer": None, "none": "None"}
PULLED = "{{ ti.xcom_pull('nobody') }}"
IMAGE = "{{ params.image }}"


def create(input: Any, dag_options: dict[str, Any] | None = None, **options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options = {"task_id": "create", "model": SCHNELL, "retries": 2, **options}
    with dag(params=EMPTY, **(dag_options or {})):
        return CreatePredictionOperator(input=input, **options)


def sensor(prediction_id: Any, **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    with dag(params=EMPTY):
        return PredictionSensor(task_id="wait", prediction_id=prediction_id, retries=2, **options)


def store(prediction: Any, output_path: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag(params=EMPTY):
        return DownloadPredictionOutputOperator(
            task_id="store", prediction=prediction, output_path=output_path, retries=2, **options
        )


def batch(inputs: Any, **options: Any) -> Any:
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    options = {"task_id": "create", "model": SCHNELL, "max_in_flight": 1, "retries": 2, **options}
    with dag(params=EMPTY):
        return CreatePredictionBatchOperator(inputs=inputs, **options)


def assert_refused(outcome: Outcome, path: str, template: str) -> None:
    """The task has failed for good, and the reason names the field and its template."""
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert f"{path} has rendered to the text None; its template is {template!r}" in outcome.message
    assert len(outcome.message.splitlines()) <= 3


def sent(comet: Emulator) -> list[Any]:
    return [made["input"] for made in comet.ledger()["creates"]]


def warnings_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The warnings of the task's log about a None that was rendered into a text."""
    said = capfd.readouterr()
    return re.findall(r"\[warning +\] (.*put None into the text.*?) \[airflow", said.out + said.err)


# Creates


@pytest.mark.parametrize(
    ("input", "path", "template"),
    [
        ({"prompt": "x", "image": IMAGE}, "input.image", IMAGE),
        ({"prompt": "x", "image": " {{ params.image | trim }} "}, "input.image", "{{ params.image | trim }}"),
        ({"prompt": "x", "image": PULLED}, "input.image", PULLED),
        ({"prompt": "x", "image": "{{ params.none }}"}, "input.image", "{{ params.none }}"),
        ({"prompt": "x", "images": [{"url": ("y", IMAGE)}]}, "input.images[0].url[1]", IMAGE),
        ({"prompt": "{% if params.image %}y{% else %}{{ params.image }}{% endif %}"}, "input.prompt", None),
        (IMAGE, "input", IMAGE),
    ],
    ids=str,
)
def test_a_rendered_none_is_not_paid_for(
    comet: Emulator, runner: TaskRunner, input: Any, path: str, template: str | None
) -> None:
    """At any depth of the input: nothing is sent, and no retry sends it either."""
    outcome = runner.run(create(input))
    assert_refused(outcome, path, template or input["prompt"])
    assert outcome.message.startswith("Not sent, nothing was paid: ")
    assert comet.ledger()["requests"] == []


def test_a_model_that_has_rendered_to_none_is_named(comet: Emulator, runner: TaskRunner) -> None:
    """The model is part of the request's path."""
    assert_refused(runner.run(create({"prompt": "x"}, model=IMAGE)), "model", IMAGE)
    assert comet.ledger()["requests"] == []


def test_what_is_meant_is_sent(comet: Emulator, runner: TaskRunner, capfd: pytest.CaptureFixture[str]) -> None:
    """`literal("None")`, a text that was written without a template, what another task returned, and an empty text."""
    from airflow.sdk import XComArg
    from airflow.sdk.definitions.template import literal

    runner.xcoms["dag/run/think/return_value"] = "None"
    with dag(params=EMPTY):
        from airflow_provider_comet.operators.prediction import CreatePredictionOperator

        think = CreatePredictionOperator(task_id="think", model=SCHNELL, input={"prompt": "x"})
        input = {
            "a": literal("None"),
            "b": "None",
            "c": XComArg(think),
            "d": "{{ '' }}",
            "prompt": "None of {{ run_id }}",
        }
        task = CreatePredictionOperator(task_id="create", model=SCHNELL, input=input)
    assert runner.run(task).state == "success"
    assert sent(comet) == [{"a": "None", "b": "None", "c": "None", "d": "", "prompt": "None of run"}]
    assert warnings_of(capfd) == []


def test_none_in_a_longer_text_is_sent_with_a_warning(
    comet: Emulator, runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """A single line for the field names all its places, and no text."""
    input = {"prompt": "a picture for {{ params.customer }}", "more": ["{{ params.image }} {{ params.image }}", "x"]}
    assert runner.run(create(input)).state == "success"
    assert sent(comet) == [{"prompt": "a picture for None", "more": ["None None", "x"]}]
    (warning,) = warnings_of(capfd)
    assert warning.startswith("input.prompt, input.more[0]: a template has put None into the text")
    assert "picture" not in warning


def test_native_objects_are_refused_where_they_are_none(comet: Emulator, runner: TaskRunner) -> None:
    """With native rendering the value is None itself, which no model takes; the error names its place."""
    outcome = runner.run(create({"prompt": "x", "image": IMAGE}, {"render_template_as_native_obj": True}))
    assert outcome.state == "failed"
    assert "input.image is None; leave the key out instead (a template" in outcome.message
    assert comet.ledger()["requests"] == []


def test_the_id_that_was_paid_for_is_handed_over(comet: Emulator, runner: TaskRunner) -> None:
    """A retry that renders to None continues with the recorded prediction: the refusal is about what is sent."""
    task = create({"prompt": "x", "image": "{{ 'y' if ti.try_number == 1 else params.image }}"})
    first = runner.run(task)
    runner.record()["state"] = "accepted"  # the process died before it handed the id over
    retried = runner.run(task, try_number=2)
    assert (retried.state, retried.result) == ("success", first.result)
    assert comet.ledger()["accepted"] == 1


@pytest.mark.parametrize("form", ["expand", "expand_kwargs", "partial"])
def test_mapped_creates(comet: Emulator, runner: TaskRunner, form: str) -> None:
    """Each instance of a mapped task is judged by its own templates, wherever they stand."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    inputs = [{"prompt": "x", "image": "y"}, {"prompt": "x", "image": IMAGE}]
    task: Any
    with dag(params=EMPTY):
        if form == "expand":
            task = CreatePredictionOperator.partial(task_id="create", model=SCHNELL).expand(input=inputs)
        elif form == "expand_kwargs":
            kwargs = [{"input": input} for input in inputs]
            task = CreatePredictionOperator.partial(task_id="create", model=SCHNELL).expand_kwargs(kwargs)
        else:
            models = [SCHNELL, IMAGE]
            task = CreatePredictionOperator.partial(task_id="create", input=inputs[0]).expand(model=models)
    assert runner.run(task, map_index=0).state == "success"
    assert_refused(runner.run(task, map_index=1), "model" if form == "partial" else "input.image", IMAGE)
    assert sent(comet) == [inputs[0]]


def test_what_a_mapped_create_got_from_another_task_is_no_template(comet: Emulator, runner: TaskRunner) -> None:
    """Airflow does not render it, so neither braces nor None in it come from a template."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    returned = [{"prompt": "{{ params.image }}", "image": "None"}]
    runner.xcoms["dag/run/think/return_value"] = returned
    with dag(params=EMPTY):
        think = CreatePredictionOperator(task_id="think", model=SCHNELL, input={"prompt": "x"})
        task = CreatePredictionOperator.partial(task_id="create", model=SCHNELL).expand(input=think.output)
    assert runner.run(task, map_index=0).state == "success"
    assert sent(comet) == returned


def test_a_decorated_task(comet: Emulator, runner: TaskRunner) -> None:
    """Its model is a template like any other; what its function makes of its arguments is the function's business."""
    from airflow.sdk import task

    with dag(params=EMPTY):

        @task.comet_prediction(model=SCHNELL)
        def good(image: str) -> dict[str, Any]:
            return {"prompt": image}

        @task.comet_prediction(model=IMAGE)
        def bad() -> dict[str, Any]:
            return {"prompt": "x"}

        first, second = good(IMAGE).operator, bad().operator
    assert runner.run(first).state == "success"
    assert sent(comet) == [{"prompt": "None"}]
    assert_refused(runner.run(second), "model", IMAGE)


def test_a_file_whose_path_has_a_none_in_it(
    comet: Emulator, runner: TaskRunner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A path is a template too: it is read as it is rendered, and the log says what was rendered."""
    from airflow.sdk import ObjectStoragePath

    (tmp_path / "None.png").write_bytes(b"a picture")
    path = ObjectStoragePath(f"file://{tmp_path}/" + "{{ params.image }}.png")
    assert runner.run(create({"prompt": "x", "image": path})).state == "success"
    (warning,) = warnings_of(capfd)
    assert warning.startswith("input.image: ")


# Batches


def test_a_refused_input_of_a_batch_stops_it(comet: Emulator, runner: TaskRunner) -> None:
    """It is found before the first input is paid for, and named by its place."""
    outcome = runner.run(batch([{"prompt": "a"}, {"prompt": IMAGE}, {"prompt": "c"}]))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "inputs[1]" in outcome.message
    assert f"input.prompt has rendered to the text None; its template is {IMAGE!r}" in outcome.message
    assert comet.ledger()["requests"] == []


def test_a_refused_input_of_a_batch_can_be_left_out(comet: Emulator, runner: TaskRunner) -> None:
    """`keep` puts null in its place, and the reason into XCom; an input may be a template as a whole."""
    inputs = [{"prompt": "a"}, {"prompt": IMAGE}, IMAGE, {"prompt": "None"}, {"prompt": "b", "x": "{{ '' }}"}]
    outcome = runner.run(batch(inputs, on_item_error="keep"))
    assert outcome.state == "success"
    assert [prediction_id is None for prediction_id in outcome.result] == [False, True, True, False, False]
    assert sent(comet) == [{"prompt": "a"}, {"prompt": "None"}, {"prompt": "b", "x": ""}]
    rejected = [(item["index"], item["type"], "has rendered" in item["error"]) for item in outcome.xcoms["rejected"]]
    assert rejected == [(1, "InvalidInputError", True), (2, "InvalidInputError", True)]


def test_warnings_of_a_batch_are_counted(
    comet: Emulator, runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """A thousand inputs with the same gap are one line of the log."""
    runner.run(batch([{"prompt": f"{animal} for {{{{ params.customer }}}}"} for animal in ("a fox", "a hare")]))
    assert sent(comet) == [{"prompt": "a fox for None"}, {"prompt": "a hare for None"}]
    (warning,) = warnings_of(capfd)
    assert warning.startswith("In 2 inputs: input.prompt: a template has put None into the text")


@pytest.mark.parametrize(("options", "path"), [({"model": IMAGE}, "model"), ({"inputs": IMAGE}, "inputs")])
def test_fields_of_a_batch_as_a_whole(comet: Emulator, runner: TaskRunner, options: dict[str, Any], path: str) -> None:
    """The model and the whole list may be templates."""
    assert_refused(runner.run(batch(**{"inputs": [{"prompt": "a"}], **options})), path, IMAGE)
    assert comet.ledger()["requests"] == []


# Waits and stores


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("prediction_id", "path"), [(PULLED, "prediction_id"), (["abc", PULLED], "prediction_id[1]")], ids=str
)
def test_a_sensor_names_the_template_that_pulled_nothing(
    comet: Emulator, runner: TaskRunner, clock: Clock, mode: str, prediction_id: Any, path: str
) -> None:
    """In every mode, and without a request."""
    outcome = run_sensor(runner, sensor(prediction_id, **MODES[mode]), clock)
    assert_refused(outcome, path, PULLED)
    assert comet.ledger()["requests"] == []


def test_a_sensor_may_be_skipped_by_it(comet: Emulator, runner: TaskRunner) -> None:
    """`soft_fail` treats it like every fact that no retry changes."""
    assert runner.run(sensor(PULLED, soft_fail=True)).state == "skipped"


def test_a_store_names_the_template(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """Both of what is stored and of where; nothing is read or written."""
    assert_refused(runner.run(store(PULLED, str(tmp_path))), "prediction", PULLED)
    assert_refused(runner.run(store("abc", IMAGE)), "output_path", IMAGE)
    assert comet.ledger()["requests"] == []


def test_a_folder_with_none_in_its_name_is_used(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is paid for is stored, since its links expire; the log says what is odd about the folder."""
    outcome = runner.run(store(create(), f"{tmp_path}/{{{{ params.customer }}}}"))
    assert outcome.state == "success"
    assert len([*(tmp_path / "None").iterdir()]) == 2
    (warning,) = warnings_of(capfd)
    assert warning.startswith("output_path: ")


def test_other_items_of_a_list_are_stored(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """A template that pulled nothing is an item that can't be stored, and what is paid for must not wait for it."""
    outcome = runner.run(store([create(), PULLED], str(tmp_path), on_item_error="keep"))
    assert (outcome.state, outcome.result[1]) == ("success", None)
    assert outcome.result[0]["files"]


# Native objects


def test_native_objects_make_numbers_of_texts(comet: Emulator, runner: TaskRunner) -> None:
    """What docs/inputs.md warns of: a text that looks like Python is no text any more."""
    from airflow.sdk.definitions.template import literal

    texts = {"a": "{{ '42' }}", "b": "{{ 'True' }}", "c": "{{ '[1]' }}", "d": literal("42"), "prompt": "{{ 'x' }}"}
    assert runner.run(create(texts, {"render_template_as_native_obj": True})).state == "success"
    assert sent(comet) == [{"a": 42, "b": True, "c": [1], "d": "42", "prompt": "x"}]


def test_whoever_recommends_native_objects_warns_of_them() -> None:
    """Documents, examples and errors: wherever the setting is named, the text "42" that becomes 42 is near."""
    files = [*PAGES, *ROOT.glob("example_dags/*.py"), *PACKAGE.rglob("*.py")]
    found = 0
    for file in files:
        text = file.read_text(encoding="utf-8")
        for match in re.finditer("render_template_as_native_obj=True", text):
            assert '"42"' in text[max(0, match.start() - 300) : match.end() + 500], file
            found += 1
    assert found >= 6
