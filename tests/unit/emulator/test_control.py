"""The control routes: faults, outcomes and the ledger over HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.emulator.conftest import CREATE

if TYPE_CHECKING:
    from tests.unit.emulator.conftest import Api


def test_control_is_never_faulty(api: Api) -> None:
    """A fault for every request does not apply to the control routes, so that it can be cleared."""
    assert api.control("POST", "faults", {"status": 503, "count": None}).status_code == 201
    assert [api.send("GET", "/v1/models").status_code for _ in range(2)] == [503, 503]
    assert api.control("DELETE", "faults").status_code == 200
    assert api.send("GET", "/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", {}, 400),
        ("POST", "faults", [], 400),
        ("POST", "faults", None, 400),
        ("POST", "outcomes", {"count": 1}, 400),
        ("POST", "outcomes", {"count": "1", "fields": {"status": "failed"}}, 400),
        ("POST", "outcomes", {"fields": {"id": "x"}}, 400),
        ("PATCH", "predictions/nope", {"status": "failed"}, 404),
        ("GET", "nope", None, 404),
    ],
)
def test_mistakes_in_control(api: Api, method: str, path: str, body: Any, status: int) -> None:
    """An invalid control request is refused with a reason."""
    response = api.control(method, path, body)
    assert response.status_code == status
    assert response.json()["error"]


def test_patch_pins_a_prediction(api: Api) -> None:
    """Any part of a result can be pinned over HTTP; a wrong field is refused."""
    id = api.create()
    assert api.control("PATCH", f"predictions/{id}", {"status": "canceled", "logs": "stopped"}).status_code == 200
    answer = api.query(id)
    assert (answer["status"], answer["logs"], answer["output"]) == ("canceled", "stopped", None)
    assert api.control("PATCH", f"predictions/{id}", {"model": "x"}).status_code == 400


def test_outcomes_pin_the_next_predictions(api: Api) -> None:
    """Outcomes set in advance apply to predictions that another process creates, whose ids are not known yet."""
    assert api.control("POST", "outcomes", {"count": 2, "fields": {"status": "aborted"}}).status_code == 201
    assert api.control("POST", "outcomes", {"fields": {"output": []}}).status_code == 201
    predictions = [api.query(api.create()) for _ in range(4)]
    assert [prediction["status"] for prediction in predictions] == ["aborted", "aborted", "succeeded", "succeeded"]
    assert predictions[2]["output"] == []
    assert predictions[3]["output"]


def test_outcomes_can_be_taken_back(api: Api) -> None:
    """Outcomes that no prediction has used can be removed."""
    api.control("POST", "outcomes", {"fields": {"status": "aborted"}})
    api.control("DELETE", "outcomes")
    assert api.query(api.create())["status"] == "succeeded"


def test_create_answer_ignores_outcomes(api: Api) -> None:
    """A create is answered with the status starting although its prediction will fail."""
    api.emulator.next_outcome(status="failed", error="E1000")
    assert api.post(prompt="x").json()["status"] == "starting"


def test_ledger_over_http(api: Api) -> None:
    """The ledger lists the accepted creates and all requests, and never contains the key."""
    id = api.create(seed=7)
    api.query(id)
    api.send("GET", "/v1/models", headers={})
    response = api.control("GET", "ledger")
    assert api.emulator.api_key not in response.text
    ledger = response.json()
    assert ledger == api.emulator.ledger()
    assert ledger["accepted"] == 1
    (create,) = ledger["creates"]
    assert (create["id"], create["model"]) == (id, "black-forest-labs/flux-schnell")
    assert create["input"] == {"prompt": "a lighthouse", "seed": 7}
    assert [
        (entry["method"], entry["path"], entry["status"], entry["authorization"]) for entry in ledger["requests"]
    ] == [
        ("POST", CREATE, 201, True),
        ("GET", f"/replicate/v1/predictions/{id}", 200, True),
        ("GET", "/v1/models", 401, False),
    ]
    assert abs(ledger["requests"][0]["at"] - time.time()) < 60


def test_resetting_the_ledger(api: Api) -> None:
    """Deleting the ledger forgets the predictions too."""
    id = api.create()
    assert api.control("DELETE", "ledger").status_code == 200
    ledger = api.emulator.ledger()
    assert ledger == {"accepted": 0, "creates": [], "requests": [], "served": []}
    assert api.send("GET", f"/replicate/v1/predictions/{id}").status_code == 400
