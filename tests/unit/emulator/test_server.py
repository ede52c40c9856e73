from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.emulator.catalog import CATALOG
from airflow_provider_comet.emulator.store import Store

if TYPE_CHECKING:
    from tests.unit.emulator.conftest import Api

CREATE = "/replicate/v1/models/black-forest-labs/flux-schnell/predictions"


def request_id_in(message: str) -> str:
    match = re.search(r"\(request id: (\d{20,}\w{8})\)$", message)
    assert match, message
    return match[1]


def test_create_then_query(api: Api) -> None:
    """A create is accepted with 201 and its id can be queried until the result is there."""
    response = api.post(prompt="a lighthouse")
    assert response.status_code == 201
    created = response.json()
    assert (created["status"], created["output"]) == ("starting", None)
    found = api.query(created["id"])
    assert (found["id"], found["status"]) == (created["id"], "succeeded")


def test_wrapped_wire() -> None:
    """With the wrapped wire, queries come in the task envelope while creates stay flat."""
    with Emulator(duration=0, wire="wrapped") as emulator:
        key = {"Authorization": "Bearer sk-emulator"}
        created = requests.post(
            emulator.base_url + CREATE, json={"input": {"prompt": "x"}}, headers=key, timeout=5
        ).json()
        assert created["status"] == "starting"
        url = f"{emulator.base_url}/replicate/v1/predictions/{created['id']}"
        found = requests.get(url, headers=key, timeout=5).json()
        assert (found["code"], found["data"]["status"]) == ("success", "SUCCESS")
        assert found["data"]["data"]["output"]


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
    """A request without input or prompt answers 500, but with the code that says it is the caller's mistake."""
    response = api.send("POST", CREATE, data=body)
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].startswith("field prompt is required (request id: ")
    assert api.emulator.ledger()["accepted"] == 0


def test_unknown_model(api: Api) -> None:
    """An unknown model answers 503 in the gateway's own words."""
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
    """Every error tells the same request id in its message and in its header."""
    response = break_it(api)
    body = response.json()
    message = body["message"] if "message" in body else body["error"]["message"]
    assert request_id_in(message) == response.headers["x-cometapi-request-id"]


def test_successes_have_a_request_id_each(api: Api) -> None:
    """Good answers carry a request id too, a new one each time."""
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
    """Whatever is not a documented route answers 200 with a web page instead of JSON."""
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


def test_delivery(api: Api) -> None:
    """Output URLs serve real pictures in the asked form, the same bytes each time, and the ledger has their hash."""
    urls = api.query(api.create(num_outputs=2, output_format="jpg", aspect_ratio="16:9", seed=7))["output"]
    files = [api.fetch(url) for url in (*urls, urls[0])]
    assert [file.headers["content-type"] for file in files] == ["image/jpeg"] * 3
    assert files[0].content == files[2].content != files[1].content
    with Image.open(io.BytesIO(files[0].content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (768, 432))
    served = api.emulator.ledger()["served"]
    assert [entry["sha256"] for entry in served] == [hashlib.sha256(file.content).hexdigest() for file in files]
    assert [entry["bytes"] for entry in served] == [len(file.content) for file in files]
    assert urls[0].endswith(served[0]["path"])


def test_delivery_refuses_the_key(api: Api) -> None:
    """Whoever sends the key to the delivery host is told off."""
    url = api.query(api.create())["output"][0]
    assert api.fetch(url, **api.key).status_code == 400
    assert api.emulator.ledger()["served"] == []


def test_delivery_of_what_does_not_exist(api: Api) -> None:
    """Unknown ids, numbers, formats and methods are a plain 404."""
    url = api.query(api.create())["output"][0]
    root = url.rpartition("/")[0]
    for wrong in (f"{root}/1.webp", f"{root}/0.png", f"{root}/00.webp", f"{root}x/0.webp", f"{root}/0", f"{root}/a/b"):
        assert api.fetch(wrong).status_code == 404, wrong
    assert api.session.post(url, timeout=5).status_code == 404


def test_delivery_url_follows_the_host_asked(api: Api) -> None:
    """Output URLs name the host the client used, so that they also work from inside a container."""
    id = api.create()
    response = api.send("GET", f"/replicate/v1/predictions/{id}", headers={**api.key, "Host": "emulator:1234"})
    assert response.json()["output"] == [f"http://emulator:1234/delivery/{id}/0.webp"]


def test_nothing_is_left_after_retention() -> None:
    """After the retention time the files are gone and the output is null, while the status stays succeeded."""
    key = {"Authorization": "Bearer sk-emulator"}
    with Emulator(duration=0, retention=0) as emulator:
        created = requests.post(
            emulator.base_url + CREATE, json={"input": {"prompt": "x"}}, headers=key, timeout=5
        ).json()
        url = f"{emulator.base_url}/replicate/v1/predictions/{created['id']}"
        found = requests.get(url, headers=key, timeout=5).json()
        assert (found["status"], found["output"], found["data_removed"]) == ("succeeded", None, True)
        assert requests.get(f"{emulator.base_url}/delivery/{created['id']}/0.webp", timeout=5).status_code == 404


def test_missing_pillow_answers_with_the_remedy(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow everything but the pictures works, and their answer says what to install."""
    url = api.query(api.create())["output"][0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    response = api.fetch(url)
    assert response.status_code == 500
    assert "airflow-provider-comet[emulator]" in response.text


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
    """It counts when a create has come whole, so those whose bodies come together don't slip through together."""
    body = b'{"input": {"prompt": "x"}}'
    fields = f"Host: x\r\nAuthorization: Bearer sk-emulator\r\nContent-Length: {len(body)}\r\n\r\n"
    with Emulator(duration=0, creates_per_second=1) as emulator, ExitStack() as stack:
        address = ("127.0.0.1", urlsplit(emulator.base_url).port)
        connections = [stack.enter_context(socket.create_connection(address)) for _ in range(5)]
        for connection in connections:
            connection.sendall(f"POST {CREATE} HTTP/1.1\r\n{fields}".encode())
        assert requests.get(emulator.base_url + "/other", timeout=5).ok  # it has read the heads by now
        for connection in connections:
            connection.sendall(body)
        statuses = sorted(connection.recv(10_000).split()[1] for connection in connections)
        assert statuses == [b"201", *[b"429"] * 4]


def test_the_limit_looks_back_one_second() -> None:
    """Accepted creates count for exactly as long as asked; there is room again afterwards."""
    now = [100.0]
    store = Store(clock=lambda: now[0])
    seen = []
    for now[0] in (100.0, 100.5, 101.0, 101.25, 103.0):
        seen.append(store.created_within(1.0))
        store.create(CATALOG["black-forest-labs/flux-schnell"], {"prompt": "x"})
    assert seen == [0, 1, 1, 2, 0]


def test_fault_with_status_answers_instead(api: Api) -> None:
    """A fault's answer replaces the real one once, and nothing is accepted."""
    body = {"error": {"message": "busy (request id: {request_id})", "type": "comet_api_error", "param": "", "code": ""}}
    api.emulator.fault(method="POST", status=429, body=body, headers={"Retry-After": "3"})
    response = api.post(prompt="x")
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert request_id_in(response.json()["error"]["message"]) == response.headers["x-cometapi-request-id"]
    assert api.emulator.ledger()["accepted"] == 0
    assert api.post(prompt="x").status_code == 201


def test_accepted_although_it_failed(api: Api) -> None:
    """With accept the request takes effect and only the answer is bad: the paid, ambiguous case."""
    api.emulator.fault(method="POST", status=524, body="<html>timeout</html>", accept=True)
    response = api.post(prompt="x")
    assert (response.status_code, response.headers["content-type"]) == (524, "text/html")
    assert api.emulator.ledger()["accepted"] == 1


@pytest.mark.parametrize(("drop", "accepted"), [("before", 0), ("after", 1)])
def test_dropped_connection(api: Api, drop: str, accepted: int) -> None:
    """A dropped connection looks the same to the client whether or not the request took effect."""
    api.emulator.fault(method="POST", drop=drop)
    with pytest.raises(requests.ConnectionError, match="without response"):
        api.post(prompt="x")
    ledger = api.emulator.ledger()
    assert ledger["accepted"] == accepted
    assert ledger["requests"][0]["status"] is None


def test_delay_then_normal(api: Api) -> None:
    """A delay alone slows the answer down and changes nothing else."""
    api.emulator.fault(delay=0.1)
    start = time.monotonic()
    assert api.post(prompt="x").status_code == 201
    assert time.monotonic() - start >= 0.1


def test_client_that_gives_up_during_a_delay(api: Api) -> None:
    """A create whose client lost patience is carried out all the same, as a real gateway would."""
    api.emulator.fault(method="POST", status=504, accept=True, delay=0.2)
    with pytest.raises(requests.ReadTimeout):
        api.send("POST", CREATE, json={"input": {"prompt": "x"}}, timeout=0.1)
    assert api.emulator.ledger()["accepted"] == 1


def test_delay_with_status(api: Api) -> None:
    """Delay and status together are a slow error."""
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


def test_control_is_never_faulty(api: Api) -> None:
    """A fault for everything leaves the control routes alone, so that it can be cleared."""
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
    """A control request that makes no sense is refused with a reason."""
    response = api.control(method, path, body)
    assert response.status_code == status
    assert response.json()["error"]


def test_patch_pins_a_prediction(api: Api) -> None:
    """Any part of a result can be pinned over HTTP; a wrong field is refused."""
    id = api.create()
    assert api.control("PATCH", f"predictions/{id}", {"status": "canceled", "logs": "stopped"}).status_code == 200
    found = api.query(id)
    assert (found["status"], found["logs"], found["output"]) == ("canceled", "stopped", None)
    assert api.control("PATCH", f"predictions/{id}", {"model": "x"}).status_code == 400


def test_outcomes_pin_the_next_predictions(api: Api) -> None:
    """Outcomes set in advance apply to predictions that another process creates, whose ids are not known yet."""
    assert api.control("POST", "outcomes", {"count": 2, "fields": {"status": "aborted"}}).status_code == 201
    assert api.control("POST", "outcomes", {"fields": {"output": []}}).status_code == 201
    found = [api.query(api.create()) for _ in range(4)]
    assert [item["status"] for item in found] == ["aborted", "aborted", "succeeded", "succeeded"]
    assert found[2]["output"] == []
    assert found[3]["output"]


def test_outcomes_can_be_taken_back(api: Api) -> None:
    """Outcomes nobody used can be removed."""
    api.control("POST", "outcomes", {"fields": {"status": "aborted"}})
    api.control("DELETE", "outcomes")
    assert api.query(api.create())["status"] == "succeeded"


def test_create_answer_ignores_outcomes(api: Api) -> None:
    """Also a prediction that is bound to fail is first accepted as starting."""
    api.emulator.next_outcome(status="failed", error="E1000")
    assert api.post(prompt="x").json()["status"] == "starting"


def test_ledger_over_http(api: Api) -> None:
    """The ledger says what was accepted and asked, and never contains the key."""
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


def test_connections_are_told_apart(api: Api) -> None:
    """Requests over one kept connection share a number; a new connection has a new one."""
    for _ in range(3):
        api.send("GET", "/v1/models")
    requests.get(api.emulator.base_url + "/v1/models", headers=api.key, timeout=5)
    numbers = [entry["connection"] for entry in api.emulator.ledger()["requests"]]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]


def test_one_drawing_for_many_downloads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that ask for the same file at the same time get one drawing between them."""
    from airflow_provider_comet.emulator import pictures

    drawn, original = [], pictures.draw

    def slow(*args: Any) -> bytes:
        drawn.append(args)
        time.sleep(0.1)
        return original(*args)

    monkeypatch.setattr(pictures, "draw", slow)
    url = api.query(api.create())["output"][0]
    sizes: list[int] = []
    threads = [
        threading.Thread(target=lambda: sizes.append(len(requests.get(url, timeout=5).content))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 1
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
