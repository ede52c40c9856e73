from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_comet.emulator import Emulator

SCHNELL = "black-forest-labs/flux-schnell"
CREATE = f"/replicate/v1/models/{SCHNELL}/predictions"


def request_id_in(message: str) -> str:
    """Return the request id at the end of an error message."""
    match = re.search(r"\(request id: (\d{20,}\w{8})\)$", message)
    assert match, message
    return match[1]


class Api:
    """A client that keeps its connection open and does nothing else by itself."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.key = {"Authorization": f"Bearer {emulator.api_key}"}

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, with the key unless there are other headers."""
        options = {"headers": self.key, "timeout": 5, **options}
        return self.session.request(method, self.emulator.base_url + path, **options)

    def post(self, model: str = SCHNELL, **input: Any) -> requests.Response:
        """Create a prediction and return the answer."""
        return self.send("POST", f"/replicate/v1/models/{model}/predictions", json={"input": input})

    def create(self, model: str = SCHNELL, **input: Any) -> str:
        """Create a prediction and return its id."""
        response = self.post(model, **{"prompt": "a lighthouse", **input})
        assert response.status_code == 201
        return str(response.json()["id"])

    def query(self, id: str) -> dict[str, Any]:
        """Return a prediction."""
        response = self.send("GET", f"/replicate/v1/predictions/{id}")
        assert response.status_code == 200
        body = response.json()
        assert isinstance(body, dict)
        return body

    def fetch(self, url: str, **headers: str) -> requests.Response:
        """Fetch a delivery URL without the key."""
        return self.session.get(url, headers=headers, timeout=5)

    def control(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send a request to a control route."""
        return self.send(method, f"/_emulator/{path}", headers={}, json=body)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator whose predictions end at once."""
    with Emulator(duration=0) as emulator:
        yield emulator


@pytest.fixture
def api(emulator: Emulator) -> Iterator[Api]:
    """Return a client of the emulator."""
    api = Api(emulator)
    yield api
    api.session.close()
