"""What the tests of both clients share. Loaded for the pure tests too, so that imports of libraries are late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling import clock

if TYPE_CHECKING:
    from airflow_provider_comet.api.journal import Journal
    from airflow_provider_comet.client.sync_client import CometClient
    from airflow_provider_comet.emulator import Emulator
    from tests.support.private_ca import PrivateCA

KEY = "sk-client-Test_0123456789"
MODEL = "black-forest-labs/flux-schnell"
INPUT = {"prompt": "a lighthouse"}
PAGE = "<!doctype html><html><head><title>Somewhere else</title></head></html>"
GUARD_SECONDS = 3.0
"""After which an asynchronous call that hangs is broken off."""
ENVIRONMENT = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"]

Poll = Callable[[Config, str], Prediction]


def poll_with_requests(config: Config, prediction_id: str) -> Prediction:
    """Poll once with ``CometClient``."""
    from airflow_provider_comet.client.sync_client import CometClient

    client = CometClient(config)
    try:
        return get_prediction(client, prediction_id)
    finally:
        client.close()


def poll_with_aiohttp(config: Config, prediction_id: str) -> Prediction:
    """Poll once with ``AsyncCometClient``."""
    import asyncio

    from airflow_provider_comet.client.async_client import AsyncCometClient

    async def poll() -> Prediction:
        request = protocol.get_prediction(prediction_id)
        async with AsyncCometClient(config) as client:
            return protocol.read_prediction(request, await client.send(request))

    return asyncio.run(asyncio.wait_for(poll(), GUARD_SECONDS))


@pytest.fixture(params=[poll_with_requests, poll_with_aiohttp], ids=["requests", "aiohttp"])
def poll(request: pytest.FixtureRequest) -> Poll:
    """Each of both clients in turn."""
    chosen: Poll = request.param
    return chosen


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide proxies, CA bundles and the netrc of the machine that runs the tests."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc with an entry for this machine and for all others, found by ``HOME`` and by ``NETRC``."""
    for path in (tmp_path / ".netrc", tmp_path / "elsewhere"):
        path.write_text("machine 127.0.0.1 login me password s3cret\ndefault login me password s3cret\n")
        path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[Emulator]:
    """An emulator whose predictions are done at once."""
    from airflow_provider_comet.emulator import Emulator

    with Emulator(duration=0, api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The shared emulator as if freshly started."""
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateCA:
    """A private certificate authority."""
    from tests.support.private_ca import private_ca

    return private_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared_tls(authority: PrivateCA) -> Iterator[Emulator]:
    """The same emulator behind https, with a certificate of the private authority."""
    from airflow_provider_comet.emulator import Emulator

    with Emulator(duration=0, api_key=KEY, ssl_context=authority.server) as emulator:
        yield emulator


@pytest.fixture
def tls(shared_tls: Emulator) -> Emulator:
    """The shared https emulator as if freshly started."""
    shared_tls.reset()
    return shared_tls


@pytest.fixture
def trusted_tls(tls: Emulator, authority: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The same, and both clients trust its certificate."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    return tls


class FakeTime:
    """A clock that moves only while the client sleeps.

    :ivar slept: the seconds of each sleep.
    :ivar min_sleep: how far each sleep moves the clock at least.
    :ivar on_sleep: called with the seconds of each sleep.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.min_sleep = 0.0
        self.on_sleep: Callable[[float], None] = lambda seconds: None

    def wait(self, event: threading.Event, seconds: float) -> None:
        """Return at once, at a later time."""
        self.slept.append(seconds)
        self.now += max(seconds, self.min_sleep)
        self.on_sleep(seconds)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time in which the client lives."""
    fake = FakeTime()
    monkeypatch.setattr(clock, "monotonic", fake.monotonic)
    monkeypatch.setattr(clock, "wait", fake.wait)
    return fake


def config_of(emulator: Emulator | str | int, **fields: Any) -> Config:
    """Return the settings for an emulator, a URL or a port of this machine."""
    if isinstance(emulator, int):
        emulator = f"http://127.0.0.1:{emulator}"
    url = emulator if isinstance(emulator, str) else emulator.base_url
    return Config(KEY, url, **{"connect_timeout": 2, "read_timeout": 2, **fields})


def get_prediction(client: CometClient, prediction_id: str) -> Prediction:
    """Poll once."""
    request = protocol.get_prediction(prediction_id)
    return protocol.read_prediction(request, client.send(request))


def create_prediction(
    client: CometClient, model: str = MODEL, input: Any = INPUT, journal: Journal | None = None
) -> Prediction:
    """Create a prediction as the hook does: repeated while that is safe and of use."""
    request = protocol.create_prediction(model, input)
    return client.retry(request, lambda: protocol.read_prediction(request, client.send(request, journal=journal)))


def create(emulator: Emulator) -> str:
    """Return the id of a new prediction."""
    from airflow_provider_comet.client.sync_client import CometClient

    client = CometClient(config_of(emulator))
    try:
        return create_prediction(client).id
    finally:
        client.close()


def envelope(message: str, code: str = "") -> dict[str, Any]:
    """Return CometAPI's error envelope with a request id in its message."""
    return {"error": {"message": f"{message} (request id: {{request_id}})", "type": "comet_api_error", "code": code}}


TASK = {"code": "task_not_exist", "message": "task_not_exist", "data": None}
ERROR_ANSWERS: list[tuple[str, dict[str, Any], type[e.CometError]]] = [
    ("400", {"status": 400, "body": envelope("no")}, e.BadRequestError),
    ("401", {"status": 401, "body": envelope("Invalid token")}, e.AuthenticationError),
    ("402", {"status": 402, "body": envelope("pay")}, e.BalanceExhaustedError),
    ("403", {"status": 403, "body": envelope("no")}, e.PermissionDeniedError),
    ("403 quota", {"status": 403, "body": envelope("x", "insufficient_user_quota")}, e.PermissionDeniedError),
    ("404", {"status": 404, "body": {"detail": "Not found", "status": 404}}, e.PredictionNotFoundError),
    ("400 task_not_exist", {"status": 400, "body": TASK}, e.PredictionNotFoundError),
    ("200 data null", {"status": 200, "body": {"code": "success", "data": None}}, e.PredictionNotFoundError),
    ("413", {"status": 413, "body": "too large"}, e.BadRequestError),
    ("413 page", {"status": 413, "body": PAGE}, e.BadRequestError),
    ("429", {"status": 429, "body": envelope("slow"), "headers": {"Retry-After": "7"}}, e.RateLimitedError),
    ("500 invalid_request", {"status": 500, "body": envelope("field", "invalid_request")}, e.ServerError),
    ("500", {"status": 500, "body": envelope("do request failed")}, e.ServerError),
    ("502", {"status": 502, "body": PAGE}, e.ServerError),
    ("503", {"status": 503, "body": envelope("busy")}, e.ServerError),
    ("503 model_not_found", {"status": 503, "body": envelope("none", "model_not_found")}, e.ServerError),
    ("524", {"status": 524, "body": PAGE}, e.ServerError),
    ("200 page", {"status": 200, "body": PAGE}, e.WrongURLError),
    ("200 empty", {"status": 200}, e.ServerError),
    ("301", {"status": 301, "headers": {"location": "/v1/models"}}, e.WrongURLError),
    ("307", {"status": 307, "headers": {"location": "https://elsewhere.invalid/"}}, e.WrongURLError),
]
