"""`CreatePredictionOperator`: pays once, says what it paid for, and refuses what can't succeed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner, dag
from tests.unit.conftest import KEY

SCHNELL = "black-forest-labs/flux-schnell"
PROMPT = "a lighthouse nobody has to know of"


def operator(dag_options: dict[str, Any] | None = None, **options: Any) -> Any:
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    options = {"task_id": "create", "model": SCHNELL, "input": {"prompt": PROMPT}, "retries": 2, **options}
    with dag(**(dag_options or {})):
        return CreatePredictionOperator(**options)


def test_returns_the_id(comet: Emulator, runner: TaskRunner) -> None:
    """The id of the one prediction that was created is the task's result, and the model stands beside it."""
    outcome = runner.run(operator())
    (made,) = comet.ledger()["creates"]
    assert (outcome.state, outcome.error) == ("success", None)
    assert outcome.xcoms == {
        "return_value": made["id"],
        "prediction_id": made["id"],
        "model": SCHNELL,
        "labels": [PROMPT],
        "_link_ModelLink": f"https://replicate.com/{SCHNELL}",
    }
    assert (made["model"], made["input"]) == (SCHNELL, {"prompt": PROMPT})


def test_creates_are_logged_without_key_and_prompt(
    comet: Emulator, runner: TaskRunner, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each accepted create is one line of a fixed form, by which spending can be counted."""
    caplog.set_level("INFO")
    outcome = runner.run(operator(), map_index=4, try_number=2)
    said = capfd.readouterr()
    text = said.out + said.err + caplog.text
    assert re.findall(r"comet\.created .*?reason=\w+", text) == [
        f"comet.created id={outcome.result} model={SCHNELL} dag=dag run=run task=create map=4 try=2 reason=first"
    ]
    assert KEY not in text
    assert PROMPT not in text


def test_refused_create_is_not_logged_as_one(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """What was not accepted is not counted as spending."""
    caplog.set_level("INFO")
    comet.fault(status=400, body={"error": {"message": "no", "code": ""}}, method="POST")
    assert runner.run(operator()).state == "failed"
    assert "comet.created" not in caplog.text


def test_templates(comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, input at any depth and conn_id are rendered, and shown as rendered."""
    monkeypatch.setenv("AIRFLOW_CONN_FOR_RUN", comet.connection_json())
    monkeypatch.delenv("AIRFLOW_CONN_COMETAPI_DEFAULT")
    task = operator(
        model="{{ 'black-forest-labs' }}/flux-schnell",
        input={"prompt": "a {{ run_id }}", "more": [{"dag": "{{ dag.dag_id }}"}]},
        conn_id="for_{{ run_id }}",
    )
    outcome = runner.run(task)
    assert outcome.state == "success"
    (made,) = comet.ledger()["creates"]
    assert made["input"] == {"prompt": "a run", "more": [{"dag": "dag"}]}
    assert outcome.rendered == {"model": SCHNELL, "input": made["input"], "conn_id": "for_run"}


def test_input_from_an_upstream_task(comet: Emulator, runner: TaskRunner) -> None:
    """The whole input may be another task's result."""
    from airflow.sdk import task

    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():

        @task(multiple_outputs=False)
        def think() -> dict[str, Any]:
            return {"prompt": "a thought", "num_outputs": 2}

        thought = think()
        create = CreatePredictionOperator(task_id="create", model=SCHNELL, input=thought)
    assert runner.run(thought.operator).state == "success"
    assert runner.run(create).state == "success"
    assert comet.ledger()["creates"][0]["input"] == {"prompt": "a thought", "num_outputs": 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input": {}}, "input must be a non-empty JSON object"),
        ({"input": "{{ {'prompt': 'x'} }}"}, "render_template_as_native_obj=True"),
        ({"input": None}, "got None"),
        ({"input": {"prompt": "x", "seed": None}}, "input.seed is None"),
        ({"input": {"prompt": "x", "when": {1, 2}}}, "input.when is of type set"),
        ({"input": {"prompt": "x", "deep": [{"a": b"b"}]}}, "input.deep[0].a is of type bytes"),
        ({"model": "flux-schnell"}, "model must be 'owner/name'"),
        ({"model": f"{SCHNELL}:1234"}, "model must be 'owner/name'"),
        ({"model": "a/b/../c"}, "model must be 'owner/name'"),
        ({"model": ""}, "model must be 'owner/name'"),
        ({"model": None}, "model must be 'owner/name'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refuses_before_paying(comet: Emulator, runner: TaskRunner, options: dict[str, Any], words: str) -> None:
    """What can only fail is never sent, the task fails although retries are left, and the reason names the place."""
    outcome = runner.run(operator(**options))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert outcome.message.startswith("Not sent, nothing was paid: ")
    assert words in outcome.message
    assert comet.ledger() == {"accepted": 0, "creates": [], "requests": [], "served": []}


def test_native_templates_make_objects(comet: Emulator, runner: TaskRunner) -> None:
    """With native rendering a template may become the input itself."""
    task = operator({"render_template_as_native_obj": True}, input="{{ {'prompt': 'native', 'num_outputs': 2} }}")
    assert runner.run(task).state == "success"
    assert comet.ledger()["creates"][0]["input"] == {"prompt": "native", "num_outputs": 2}


@pytest.mark.parametrize("failing", ["model", "labels"])
def test_nothing_is_paid_if_an_early_xcom_fails(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whatever can fail by itself comes before the create."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def fail(ti: Any, key: str, value: Any) -> None:
        if key == failing:
            raise RuntimeError("no XCom today")

    monkeypatch.setattr(RuntimeTaskInstance, "xcom_push", fail)
    assert runner.run(operator()).state == "up_for_retry"
    assert comet.ledger()["accepted"] == 0


def test_missing_connection(runner: TaskRunner) -> None:
    """A missing connection is told with the command that makes it."""
    outcome = runner.run(operator(conn_id="missing"))
    assert (outcome.state, outcome.result) == ("up_for_retry", None)
    assert "airflow connections add missing" in outcome.message


def test_outage_of_airflow_is_not_a_missing_connection(comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """Airflow reports a connection as missing when its API server fails: nothing was sent, so retries have to apply."""
    runner.connections["stored"] = {"conn_type": "cometapi", "host": comet.base_url, "password": KEY}
    task = operator(conn_id="stored")
    runner.is_down = True
    assert runner.run(task).state == "up_for_retry"
    runner.is_down = False
    assert runner.run(task, try_number=2).state == "success"


@pytest.mark.parametrize("status", [429, 401])
def test_no_error_is_its_own_cause(comet: Emulator, clock: Clock, runner: TaskRunner, status: int) -> None:
    """Whoever walks from an error to its causes comes to an end."""
    comet.fault(status=status, body={"error": {"message": "no", "code": ""}}, count=None)
    outcome = runner.run(operator())
    assert isinstance(outcome.error, Exception)
    assert outcome.error.__cause__ is not outcome.error
    assert isinstance(outcome.chain[-1], e.CometError)


def test_class_attributes() -> None:
    """What DAG authors and Airflow's serializer rely on."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    assert CreatePredictionOperator.template_fields == ("model", "input", "conn_id")
    assert CreatePredictionOperator.template_fields_renderers == {"input": "json"}
    assert operator().conn_id == "cometapi_default"


def test_making_one_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing a DAG file reads no connection and sends nothing."""
    from airflow_provider_comet.hooks import connection

    def fail(*args: object) -> None:
        raise AssertionError("read while parsing")

    monkeypatch.setattr(connection.BaseHook, "get_connection", fail)
    task = operator()
    assert "hook" not in vars(task)


def test_mapped(comet: Emulator, runner: TaskRunner, create: Callable[..., str]) -> None:
    """`partial().expand()` makes one prediction for each input."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        mapped = CreatePredictionOperator.partial(task_id="create", model=SCHNELL).expand(
            input=[{"prompt": "one"}, {"prompt": "two"}]
        )
    task = mapped.unmap({"input": {"prompt": "two"}, "model": SCHNELL, "task_id": "create"})
    outcome = runner.run(task, map_index=1)
    assert outcome.state == "success"
    assert outcome.xcoms["_link_ModelLink"] == f"https://replicate.com/{SCHNELL}"
    assert comet.ledger()["creates"][0]["input"] == {"prompt": "two"}


@pytest.mark.parametrize("map_index", [-1, 3])
def test_the_label_is_there_before_anything_is_paid(comet: Emulator, runner: TaskRunner, map_index: int) -> None:
    """A create that is refused has said what it was asked for, as rendered, also as an instance of a mapped task."""
    comet.fault(status=400, body={"error": {"message": "no", "code": ""}}, method="POST")
    outcome = runner.run(operator(input={"prompt": "a {{ run_id }}", "seed": 7}), map_index=map_index)
    assert outcome.state == "failed"
    assert outcome.xcoms["labels"] == ["a run seed=7"]


def test_a_retry_of_what_is_paid_has_the_label(comet: Emulator, runner: TaskRunner) -> None:
    """Airflow removes XComs before each try, so a try that continues with a paid prediction pushes its label again."""
    task = operator(input={"prompt": PROMPT, "seed": 7}, wait_for_completion=True)
    assert runner.run(task).state == "deferred"
    runner.xcoms.clear()
    again = runner.run(task, try_number=2)
    assert (again.state, again.xcoms["labels"]) == ("success", [f"{PROMPT} seed=7"])
    assert comet.ledger()["accepted"] == 1


def test_the_label_holds_no_secret(comet: Emulator, runner: TaskRunner) -> None:
    """What signs a link, or is called a token, is in the request only; the prompt may be in the label."""
    link = "https://user:hidden@host.example/start.png?X-Amz-Signature=hidden"
    outcome = runner.run(operator(input={"prompt": f"{PROMPT} {KEY}", "image": link, "hf_token": "hidden"}))
    assert outcome.xcoms["labels"] == [f"{PROMPT} *** image=start.png"]
    assert comet.ledger()["creates"][0]["input"]["image"] == link


@pytest.mark.parametrize(
    "input",
    [None, [], {"prompt": {1, 2}}, {"prompt": "x", "when": object()}],
    ids=["none", "a list", "a set", "an object"],
)
def test_a_bad_input_has_a_label(comet: Emulator, runner: TaskRunner, input: Any) -> None:
    """The error is about the input, and not about its label."""
    outcome = runner.run(operator(input=input))
    assert outcome.message.startswith("Not sent, nothing was paid: ")
    assert len(outcome.xcoms["labels"]) == 1


@pytest.mark.parametrize(
    ("map_index", "options", "warns"),
    [
        (0, {}, True),
        (1, {}, False),
        (-1, {}, False),
        (0, {"pool": "cometapi"}, False),
        (0, {"max_active_tis_per_dag": 4}, False),
        (0, {"max_active_tis_per_dagrun": 4}, False),
    ],
)
def test_many_creates_without_a_limit(
    comet: Emulator,
    runner: TaskRunner,
    capfd: pytest.CaptureFixture[str],
    map_index: int,
    options: dict[str, Any],
    warns: bool,
) -> None:
    """A mapped create without pool or limit gets one warning, in the log of its first instance."""
    assert runner.run(operator(**options), map_index=map_index).state == "success"
    assert ("airflow pools set cometapi" in capfd.readouterr().out) is warns
