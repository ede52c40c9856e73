from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_comet.emulator import Emulator
from tests.unit.emulator.conftest import CREATE, request_id_in

if TYPE_CHECKING:
    from tests.unit.emulator.conftest import Api


def test_create_then_query(api: Api) -> None:
    """A create is accepted with 201 and its id can be queried until the result is there."""
    response = api.post(prompt="a lighthouse")
    assert response.status_code == 201
    created = response.json()
    assert (created["status"], created["output"]) == ("starting", None)
    answer = api.query(created["id"])
    assert (answer["id"], answer["status"]) == (created["id"], "succeeded")


def test_wrapped_wire() -> None:
    """With the wrapped wire, queries come in the task envelope while creates stay flat."""
    with Emulator(duration=0, wire="wrapped") as emulator:
        key = {"Authorization": "Bearer sk-emulator"}
        created = requests.post(
            emulator.base_url + CREATE, json={"input": {"prompt": "x"}}, headers=key, timeout=5
        ).json()
        assert created["status"] == "starting"
        url = f"{emulator.base_url}/replicate/v1/predictions/{created['id']}"
        answer = requests.get(url, headers=key, timeout=5).json()
        assert (answer["code"], answer["data"]["status"]) == ("success", "SUCCESS")
        assert answer["data"]["data"]["output"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "sk-emulator"}])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", CREATE), ("GET", "/replicate/v1/predictions/x"), ("GET", "/v1/models")]
)
def test_wrong_key(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    """Without the right bearer key every API route answers 401 in the error envelope, and accepts nothing."""
    response = api.send(method, path, headers=headers, json={"input": {"prompt": "x"}})
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "comet_api_error"
    assert api.emulator.ledger()["accepted"] == 0


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "{}", '{"input": 3}', '{"input": {}}', '{"input": {"prompt": ""}}', '{"prompt": "x"}']
)
def test_missing_prompt(api: Api, body: str) -> None:
    """A request without input or prompt is answered 500, with a code that says that the caller is wrong."""
    response = api.send("POST", CREATE, data=body)
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith("field prompt is required (request id: ")
    assert api.emulator.ledger()["accepted"] == 0


def test_unknown_model(api: Api) -> None:
    """An unknown model is answered 503 with the message of the gateway."""
    response = api.post("some/thing", prompt="x")
    assert response.status_code == 503
    error = response.json()["error"]
    assert error["code"] == "model_not_found"
    assert error["message"].startswith("no available channel for group default and model some/thing (distributor) (")


def test_unknown_prediction(api: Api) -> None:
    """An unknown prediction id answers 400 task_not_exist, outside the usual error envelope."""
    response = api.send("GET", "/replicate/v1/predictions/nope")
    assert response.status_code == 400
    body = response.json()
    assert (body["code"], body["data"]) == ("task_not_exist", None)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda api: api.send("GET", "/v1/models", headers={}),
        lambda api: api.post(),
        lambda api: api.post("some/thing", prompt="x"),
        lambda api: api.send("GET", "/replicate/v1/predictions/nope"),
    ],
    ids=["401", "500", "503", "400"],
)
def test_errors_carry_the_request_id_twice(api: Api, break_it: Callable[[Api], requests.Response]) -> None:
    """Every error has the same request id in its message and in its header."""
    response = break_it(api)
    body = response.json()
    message = body["message"] if "message" in body else body["error"]["message"]
    assert request_id_in(message) == response.headers["x-cometapi-request-id"]


def test_successes_have_a_request_id_each(api: Api) -> None:
    """Successful answers carry a request id too, and each answer has an id of its own."""
    id = api.create()
    ids = {api.send("GET", f"/replicate/v1/predictions/{id}").headers["x-cometapi-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1" + CREATE),
        ("GET", "/v1/replicate/v1/predictions/x"),
        ("POST", CREATE + "/"),
        ("POST", CREATE.replace("labs/flux", "labs%2Fflux")),
        ("GET", CREATE),
        ("POST", "/replicate/v1/predictions"),
        ("POST", "/replicate/v1/predictions/x/cancel"),
        ("GET", "/"),
    ],
)
def test_wrong_path_is_a_web_page(api: Api, method: str, path: str) -> None:
    """An undocumented route is answered 200 with a web page instead of JSON."""
    response = api.send(method, path, json={"input": {"prompt": "x"}})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<!doctype html>")
    assert api.emulator.ledger()["accepted"] == 0


def test_model_list(api: Api) -> None:
    """The list of models has OpenAI's shape and contains what can be created."""
    body = api.send("GET", "/v1/models").json()
    assert body["object"] == "list"
    assert {"black-forest-labs/flux-schnell", "stability-ai/sdxl"} <= {model["id"] for model in body["data"]}
    assert all(model["object"] == "model" for model in body["data"])


def test_large_input_is_accepted(api: Api) -> None:
    """Pictures of several megabytes can be part of the input as data: URIs."""
    assert api.create(input_image="data:image/png;base64," + "A" * 4_000_000)


def test_nothing_is_left_after_retention() -> None:
    """After the retention time the files are gone and the output is null, while the status stays succeeded."""
    key = {"Authorization": "Bearer sk-emulator"}
    with Emulator(duration=0, retention=0) as emulator:
        created = requests.post(
            emulator.base_url + CREATE, json={"input": {"prompt": "x"}}, headers=key, timeout=5
        ).json()
        url = f"{emulator.base_url}/replicate/v1/predictions/{created['id']}"
        answer = requests.get(url, headers=key, timeout=5).json()
        assert (answer["status"], answer["output"], answer["data_removed"]) == ("succeeded", None, True)
        assert requests.get(f"{emulator.base_url}/delivery/{created['id']}/0.webp", timeout=5).status_code == 404


def test_creates_above_the_limit() -> None:
    """Creates above the limit are answered 429 with Retry-After and not accepted; queries are never limited."""
    key = {"Authorization": "Bearer sk-emulator"}
    with Emulator(duration=0, creates_per_second=2) as emulator:
        answers = [
            requests.post(emulator.base_url + CREATE, json={"input": {"prompt": "x"}}, headers=key, timeout=5)
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert answers[2].headers["retry-after"] == "1"
        assert answers[2].json()["error"]["type"] == "comet_api_error"
        assert emulator.ledger()["accepted"] == 2
        assert requests.get(emulator.base_url + "/v1/models", headers=key, timeout=5).ok


def test_the_limit_holds_for_creates_at_once() -> None:
    """Creates whose bodies arrive at the same time can't exceed the limit: it is checked after the whole body."""
    body = b'{"input": {"prompt": "x"}}'
    fields = f"Host: x\r\nAuthorization: Bearer sk-emulator\r\nContent-Length: {len(body)}\r\n\r\n"
    with Emulator(duration=0, creates_per_second=1) as emulator, ExitStack() as stack:
        address = ("127.0.0.1", urlsplit(emulator.base_url).port)
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(5)]
        for connection in connections:
            connection.sendall(f"POST {CREATE} HTTP/1.1\r\n{fields}".encode())
        assert requests.get(emulator.base_url + "/other", timeout=5).ok  # by now the headers have been read
        for connection in connections:
            connection.sendall(body)
        statuses = sorted(connection.recv(10_000).split()[1] for connection in connections)
        assert statuses == [b"201", *[b"429"] * 4]


def test_connections_are_numbered(api: Api) -> None:
    """Requests over the same connection have the same number; a new connection has a new number."""
    for _ in range(3):
        api.send("GET", "/v1/models")
    requests.get(api.emulator.base_url + "/v1/models", headers=api.key, timeout=5)
    numbers = [entry["connection"] for entry in api.emulator.ledger()["requests"]]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
