"""``links/prediction.py``: the link from a create task to its model's page."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import TaskRunner, dag

SCHNELL = "black-forest-labs/flux-schnell"


def link_for(value: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the link for a value of the XCom."""
    from airflow_provider_comet.links import prediction

    requests: list[dict[str, Any]] = []

    class XCom:
        @staticmethod
        def get_value(**key: Any) -> Any:
            requests.append(key)
            return value

    monkeypatch.setattr(prediction, "XCom", XCom)
    # No operator: Airflow passes a new operator without rendered fields, so nothing may be read from it.
    url: str = prediction.ModelLink().get_link(None, ti_key="the key")  # type: ignore[arg-type]
    assert requests == [{"ti_key": "the key", "key": "model"}]
    return url


def test_model_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link leads to the public page of the model that the XCom names."""
    assert link_for(SCHNELL, monkeypatch) == f"https://replicate.com/{SCHNELL}"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "flux-schnell",
        7,
        [SCHNELL],
        {"model": SCHNELL},
        "{{ params.model }}",
        "a/b/c",
        f"{SCHNELL}\n",
        "a/b?c=d",
        "javascript:alert(1)//x",
        "../x",
    ],
    ids=repr,
)
def test_no_link_for_anything_else(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no link for a value that is no model id."""
    assert link_for(value, monkeypatch) == ""


def test_link_of_a_finished_task(comet: Emulator, runner: TaskRunner) -> None:
    """The task runner stores the link of the rendered model when a task succeeds or fails."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        good, bad = (
            CreatePredictionOperator(task_id=name, model="{{ 'black-forest-labs' }}/flux-schnell", input=input)
            for name, input in (("good", {"prompt": "x"}), ("bad", {"prompt": None}))
        )
    assert runner.run(good).xcoms["_link_ModelLink"] == f"https://replicate.com/{SCHNELL}"
    outcome = runner.run(bad)
    assert outcome.state == "failed"
    assert outcome.xcoms["_link_ModelLink"] == f"https://replicate.com/{SCHNELL}"


def test_link_is_named() -> None:
    """The button's label is what users see; the XCom key is what Airflow's API server reads."""
    from airflow_provider_comet.links.prediction import ModelLink
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    (link,) = CreatePredictionOperator.operator_extra_links
    assert isinstance(link, ModelLink)
    assert (link.name, link.xcom_key) == ("Model", "_link_ModelLink")
