"""Faults over HTTP: what a client sees of them, and what takes effect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.unit.emulator.conftest import CREATE, request_id_in

if TYPE_CHECKING:
    from tests.unit.emulator.conftest import Api


def test_fault_with_status_answers_instead(api: Api) -> None:
    """A fault's answer replaces the real answer once, and nothing is accepted."""
    body = {"error": {"message": "busy (request id: {request_id})", "type": "comet_api_error", "param": "", "code": ""}}
    api.emulator.fault(method="POST", status=429, body=body, headers={"Retry-After": "3"})
    response = api.post(prompt="x")
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert request_id_in(response.json()["error"]["message"]) == response.headers["x-cometapi-request-id"]
    assert api.emulator.ledger()["accepted"] == 0
    assert api.post(prompt="x").status_code == 201


def test_accepted_although_it_failed(api: Api) -> None:
    """With accept the request takes effect and only its answer is an error: the paid, ambiguous case."""
    api.emulator.fault(method="POST", status=524, body="<html>timeout</html>", accept=True)
    response = api.post(prompt="x")
    assert (response.status_code, response.headers["content-type"]) == (524, "text/html")
    assert api.emulator.ledger()["accepted"] == 1


@pytest.mark.parametrize(("drop", "accepted"), [("before", 0), ("after", 1)])
def test_dropped_connection(api: Api, drop: str, accepted: int) -> None:
    """A dropped connection is the same for the client whether or not the request took effect."""
    api.emulator.fault(method="POST", drop=drop)
    with pytest.raises(requests.ConnectionError, match="without response"):
        api.post(prompt="x")
    ledger = api.emulator.ledger()
    assert ledger["accepted"] == accepted
    assert ledger["requests"][0]["status"] is None


def test_delay_then_normal(api: Api) -> None:
    """A delay only delays the answer."""
    api.emulator.fault(delay=0.1)
    start = time.monotonic()
    assert api.post(prompt="x").status_code == 201
    assert time.monotonic() - start >= 0.1


def test_client_that_gives_up_during_a_delay(api: Api) -> None:
    """A create takes effect although its client has timed out, as at the real gateway."""
    api.emulator.fault(method="POST", status=504, accept=True, delay=0.2)
    with pytest.raises(requests.ReadTimeout):
        api.send("POST", CREATE, json={"input": {"prompt": "x"}}, timeout=0.1)
    assert api.emulator.ledger()["accepted"] == 1


def test_delay_with_status(api: Api) -> None:
    """Delay and status together are an error that comes late."""
    api.emulator.fault(status=503, delay=0.1)
    start = time.monotonic()
    assert api.post(prompt="x").status_code == 503
    assert time.monotonic() - start >= 0.1
    assert api.emulator.ledger()["accepted"] == 0


def test_faults_also_hit_deliveries(api: Api) -> None:
    """Downloads can fail like everything else."""
    url = api.query(api.create())["output"][0]
    api.emulator.fault(path="/delivery/", status=403)
    assert [api.fetch(url).status_code for _ in range(2)] == [403, 200]
