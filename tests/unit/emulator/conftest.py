from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_comet.emulator import Emulator

SCHNELL = "black-forest-labs/flux-schnell"


class Api:
    """A client that believes nothing and remembers nothing, except the connection it keeps open."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.key = {"Authorization": f"Bearer {emulator.api_key}"}

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """With the key, unless other headers are given."""
        options = {"headers": self.key, "timeout": 5, **options}
        return self.session.request(method, self.emulator.base_url + path, **options)

    def post(self, model: str = SCHNELL, **input: Any) -> requests.Response:
        return self.send("POST", f"/replicate/v1/models/{model}/predictions", json={"input": input})

    def create(self, model: str = SCHNELL, **input: Any) -> str:
        response = self.post(model, **{"prompt": "a lighthouse", **input})
        assert response.status_code == 201
        return str(response.json()["id"])

    def query(self, id: str) -> dict[str, Any]:
        response = self.send("GET", f"/replicate/v1/predictions/{id}")
        assert response.status_code == 200
        body = response.json()
        assert isinstance(body, dict)
        return body

    def fetch(self, url: str, **headers: str) -> requests.Response:
        """A delivery URL, without the key."""
        return self.session.get(url, headers=headers, timeout=5)

    def control(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.send(method, f"/_emulator/{path}", headers={}, json=body)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator whose predictions are done at once."""
    with Emulator(duration=0) as emulator:
        yield emulator


@pytest.fixture
def api(emulator: Emulator) -> Iterator[Api]:
    api = Api(emulator)
    yield api
    api.session.close()
