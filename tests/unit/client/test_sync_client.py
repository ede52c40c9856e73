"""``client.py`` over real sockets: one contract for both clients, and what a create may and may not repeat."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.client.async_client import AsyncCometClient
from airflow_provider_comet.client.sync_client import CometClient
from airflow_provider_comet.emulator import Emulator
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import PrivateCA, private_ca
from tests.support.sockets import full_backlog, raw_server, reset, unused_port

KEY = "sk-client-Test_0123456789"
MODEL = "black-forest-labs/flux-schnell"
INPUT = {"prompt": "a lighthouse"}
PAGE = "<!doctype html><html><head><title>Somewhere else</title></head></html>"
GUARD = 3.0  # seconds after which a call that hangs is broken off
ENVIRONMENT = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"]

Look = Callable[[Config, str], Prediction]


def look_blocking(config: Config, prediction_id: str) -> Prediction:
    """One look with ``CometClient``."""
    client = CometClient(config)
    try:
        return client.look(prediction_id)
    finally:
        client.close()


def look_async(config: Config, prediction_id: str) -> Prediction:
    """One look with ``AsyncCometClient``."""

    async def look() -> Prediction:
        async with AsyncCometClient(config) as client:
            return await client.look(prediction_id)

    return asyncio.run(asyncio.wait_for(look(), GUARD))


@pytest.fixture(params=[look_blocking, look_async], ids=["requests", "aiohttp"])
def look(request: pytest.FixtureRequest) -> Look:
    """Both clients, by turns."""
    chosen: Look = request.param
    return chosen


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither proxies, nor a CA bundle, nor a netrc of the machine that runs the tests."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    """An emulator whose predictions are done at once."""
    with Emulator(duration=0, api_key=KEY) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator) -> Emulator:
    """The shared emulator as if freshly started."""
    shared.reset()
    return shared


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateCA:
    """A private certificate authority."""
    return private_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared_tls(authority: PrivateCA) -> Iterator[Emulator]:
    """The same emulator behind https, with a certificate of the private authority."""
    with Emulator(duration=0, api_key=KEY, ssl_context=authority.server) as emulator:
        yield emulator


@pytest.fixture
def tls(shared_tls: Emulator) -> Emulator:
    """The shared https emulator as if freshly started."""
    shared_tls.reset()
    return shared_tls


def config_of(emulator: Emulator | str | int, **fields: Any) -> Config:
    """Settings for an emulator, a URL or a port of this machine."""
    if isinstance(emulator, int):
        emulator = f"http://127.0.0.1:{emulator}"
    url = emulator if isinstance(emulator, str) else emulator.base_url
    return Config(KEY, url, **{"connect_timeout": 2, "read_timeout": 2, **fields})


def create(emulator: Emulator) -> str:
    """The id of a new prediction."""
    client = CometClient(config_of(emulator))
    try:
        return client.create_prediction(MODEL, INPUT).id
    finally:
        client.close()


class Time:
    """A clock that moves only while somebody sleeps."""

    def __init__(self, least: float = 0.0) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._least = least

    def sleep(self, seconds: float) -> None:
        """Go on at once, later."""
        self.slept.append(seconds)
        self.now += max(seconds, self._least)

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def client(self, config: Config) -> CometClient:
        """A client that lives in this time."""
        return CometClient(config, sleep=self.sleep, clock=self.clock)


def failed_create(config: Config, time: Time) -> e.CometError:
    """The error of a create."""
    client = time.client(config)
    try:
        with pytest.raises(e.CometError) as caught:
            client.create_prediction(MODEL, INPUT)
    finally:
        client.close()
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
    return caught.value


def posts(emulator: Emulator) -> int:
    """How many creates have reached the emulator."""
    return sum(entry["method"] == "POST" for entry in emulator.ledger()["requests"])


# ---------------------------------------------------------------------------------------------------------------------
# one contract for both clients


@pytest.mark.parametrize("wire", ["flat", "wrapped"])
def test_both_wire_shapes_are_read(look: Look, wire: Any) -> None:
    """A look returns the finished prediction, flat or wrapped."""
    with Emulator(duration=0, api_key=KEY, wire=wire) as emulator:
        identity = create(emulator)
        prediction = look(config_of(emulator), identity)
        assert (prediction.id, prediction.status, prediction.model) == (identity, "succeeded", MODEL)
        assert prediction.files == [f"{emulator.base_url}/delivery/{identity}/0.webp"]


def test_a_look_is_one_get_with_the_key(look: Look, emulator: Emulator) -> None:
    """A look sends exactly one GET to the documented path, authorised."""
    identity = create(emulator)
    look(config_of(emulator), identity)
    seen = emulator.ledger()["requests"][1:]
    assert [(one["method"], one["path"], one["authorization"], one["status"]) for one in seen] == [
        ("GET", f"/replicate/v1/predictions/{identity}", True, 200)
    ]


def envelope(message: str, code: str = "") -> dict[str, Any]:
    """CometAPI's error envelope with a request id in its message."""
    return {"error": {"message": f"{message} (request id: {{request_id}})", "type": "comet_api_error", "code": code}}


TASK = {"code": "task_not_exist", "message": "task_not_exist", "data": None}
ANSWERS: list[tuple[str, dict[str, Any], type[e.CometError]]] = [
    ("400", {"status": 400, "body": envelope("no")}, e.BadRequestError),
    ("401", {"status": 401, "body": envelope("Invalid token")}, e.AuthenticationError),
    ("402", {"status": 402, "body": envelope("pay")}, e.BalanceExhaustedError),
    ("403", {"status": 403, "body": envelope("no")}, e.PermissionDeniedError),
    ("403 quota", {"status": 403, "body": envelope("x", "insufficient_user_quota")}, e.BalanceExhaustedError),
    ("404", {"status": 404, "body": {"detail": "Not found", "status": 404}}, e.PredictionNotFoundError),
    ("400 task_not_exist", {"status": 400, "body": TASK}, e.PredictionNotFoundError),
    ("200 data null", {"status": 200, "body": {"code": "success", "data": None}}, e.PredictionNotFoundError),
    ("413", {"status": 413, "body": "too large"}, e.BadRequestError),
    ("429", {"status": 429, "body": envelope("slow"), "headers": {"Retry-After": "7"}}, e.RateLimitedError),
    ("500 invalid_request", {"status": 500, "body": envelope("field", "invalid_request")}, e.BadRequestError),
    ("500", {"status": 500, "body": envelope("do request failed")}, e.ServerError),
    ("502", {"status": 502, "body": PAGE}, e.ServerError),
    ("503", {"status": 503, "body": envelope("busy")}, e.ServerError),
    ("503 model_not_found", {"status": 503, "body": envelope("none", "model_not_found")}, e.ModelNotFoundError),
    ("524", {"status": 524, "body": PAGE}, e.ServerError),
    ("200 page", {"status": 200, "body": PAGE}, e.WrongURLError),
    ("200 empty", {"status": 200}, e.ServerError),
    ("301", {"status": 301, "headers": {"location": "/v1/models"}}, e.WrongURLError),
    ("307", {"status": 307, "headers": {"location": "https://elsewhere.invalid/"}}, e.WrongURLError),
]


@pytest.mark.parametrize(("fault", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_every_error_answer_is_classified(
    look: Look, emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError]
) -> None:
    """An error answer becomes its class, with prediction, status, request id and hint, and is asked for once."""
    emulator.fault(method="GET", **fault)
    with pytest.raises(e.CometError) as caught:
        look(config_of(emulator), "abc")
    error = caught.value
    assert type(error) is expected
    assert (error.prediction_id, error.status) == ("abc", fault["status"])
    assert re.fullmatch(r"\d{20,}\w{8}", error.request_id or "")
    assert error.retry_after == (7 if fault["status"] == 429 else None)
    assert len(emulator.ledger()["requests"]) == 1


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_dropped_connection_is_a_transport_error(look: Look, emulator: Emulator, drop: str) -> None:
    """A connection that ends without an answer is a retryable error that names host and prediction."""
    emulator.fault(method="GET", drop=drop, count=2)  # aiohttp asks a second time by itself: a GET may
    with pytest.raises(e.TransportError, match="Prediction abc: CometAPI could not be reached") as caught:
        look(config_of(emulator), "abc")
    assert emulator.base_url in str(caught.value)


def test_an_answer_that_breaks_off_is_a_transport_error(look: Look) -> None:
    """An answer shorter than announced is no answer."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "abc", "status": "succeeded"')
        connection.close()

    with raw_server(talk) as (port, _), pytest.raises(e.TransportError):
        look(config_of(port), "abc")


@pytest.mark.parametrize(
    "answer", [b"\x16\x03\x01 what?\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n", b""], ids=["noise", "status", "none"]
)
def test_an_answer_that_is_no_http_is_a_transport_error(look: Look, answer: bytes) -> None:
    """Bytes that are no HTTP, or none at all, are no answer."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        connection.close()

    with raw_server(talk) as (port, _), pytest.raises(e.TransportError):
        look(config_of(port), "abc")


def test_a_read_timeout_is_a_transport_error(look: Look, emulator: Emulator) -> None:
    """No byte within the read timeout is a retryable error, in words that make sense."""
    emulator.fault(method="GET", delay=0.3)
    with pytest.raises(e.TransportError) as caught:
        look(config_of(emulator, read_timeout=0.1), "abc")
    assert re.search(r"timed out|timeout|no answer within 0\.1 s", str(caught.value), re.IGNORECASE)
    assert "Cancelled" not in str(caught.value)


def test_a_connect_timeout_is_a_transport_error(look: Look) -> None:
    """A connection that does not come about in time is a retryable error, not told as a missing answer."""
    with full_backlog() as port, pytest.raises(e.TransportError) as caught:
        look(config_of(port, connect_timeout=0.1, read_timeout=2), "abc")
    assert "no answer within 2 s" not in str(caught.value)
    assert "Cancelled" not in str(caught.value)


def test_a_refused_connection_is_a_transport_error(look: Look) -> None:
    """Nobody at home is a retryable error that says so."""
    with pytest.raises(e.TransportError, match=r"(?i)refused|connect call failed"):
        look(config_of(unused_port()), "abc")


def test_an_unknown_host_is_a_transport_error(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is a retryable error that names the host."""

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(e.TransportError, match="Name or service not known") as caught:
        look(config_of("https://comet.invalid"), "abc")
    assert "https://comet.invalid" in str(caught.value)


def test_a_redirect_is_not_followed(look: Look, emulator: Emulator) -> None:
    """A redirect is an error, and nothing is sent to where it leads."""
    with Emulator(duration=0, api_key=KEY) as other:
        emulator.fault(method="GET", status=301, headers={"location": f"{other.base_url}/replicate/v1/predictions/abc"})
        with pytest.raises(e.WrongURLError):
            look(config_of(emulator), "abc")
        assert other.ledger()["requests"] == []


def test_an_echoed_key_is_not_shown(look: Look, emulator: Emulator) -> None:
    """A server that repeats the key does not get it into message or event."""
    emulator.fault(method="GET", status=401, body=envelope(f"key {KEY} is unknown"), headers={"x-key": KEY})
    with pytest.raises(e.AuthenticationError, match=r"key \*\*\* is unknown") as caught:
        look(config_of(emulator), "abc")
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
    assert caught.value.__cause__ is None


def test_an_unrelated_error_is_not_blamed(look: Look) -> None:
    """Called while another exception is being handled, the message still names the network's reason."""
    port = unused_port()
    try:
        raise LookupError("nothing to do with it")
    except LookupError:
        with pytest.raises(e.TransportError) as caught:
            look(config_of(port), "abc")
    assert "nothing to do with it" not in str(caught.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""], ids=["url", "host and port"])
def test_the_proxy_of_the_environment_is_used(
    look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    """Both clients go through the proxy that the environment names, with and without a scheme in its address."""
    identity = create(emulator)
    with forward_proxy() as proxy:
        monkeypatch.setenv(variable, scheme + proxy.url.removeprefix("http://"))
        assert look(config_of(emulator), identity).succeeded
    assert proxy.lines == [f"GET {emulator.base_url}/replicate/v1/predictions/{identity}"]


@pytest.mark.parametrize("password", ["s3cret", "p%40ss"], ids=["plain", "escaped"])
def test_the_proxys_password_is_used(
    look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """User name and password in the proxy's address go to the proxy, unescaped."""
    identity = create(emulator)
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", f"://me:{password}@"))
        assert look(config_of(emulator), identity).succeeded
    expected = base64.b64encode(f"me:{password.replace('%40', '@')}".encode()).decode()
    assert proxy.asked[0][1]["Proxy-Authorization"] == f"Basic {expected}"


@pytest.mark.parametrize("value", ["127.0.0.1", "127.0.0.0/8", "example.org,127.0.0.1", "*"])
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_is_respected(
    look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A host in ``NO_PROXY`` is asked directly by both clients, by the same rules."""
    identity = create(emulator)
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv(variable, value)
        assert look(config_of(emulator), identity).succeeded
    assert proxy.lines == []


def test_https_goes_through_a_tunnel(
    look: Look, tls: Emulator, authority: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For https the proxy is asked for a tunnel and never sees the key."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    identity = create(tls)
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert look(config_of(tls), identity).succeeded
    assert proxy.lines == [f"CONNECT {tls.base_url.removeprefix('https://')}"]
    assert "Authorization" not in proxy.asked[0][1]


def test_a_proxy_that_refuses_is_a_transport_error(look: Look, tls: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel that the proxy refuses is a retryable error that names the proxy's status."""
    with forward_proxy(refuse=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://me:s3cret@"))
        with pytest.raises(e.TransportError, match="407") as caught:
            look(config_of(tls), "abc")
    assert "s3cret" not in str(caught.value)


def test_a_proxy_that_says_nothing_is_a_transport_error(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that takes the connection and never answers does not hold a look for ever."""
    with raw_server(lambda connection: None) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(e.TransportError):
            look(config_of("https://127.0.0.1:9", connect_timeout=0.2, read_timeout=0.2), "abc")


def test_a_kind_of_proxy_that_is_not_supported_is_an_error_of_ours(
    look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of a kind that the HTTP library can't use is a ``CometError`` that says so."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:s3cret@127.0.0.1:9")
    with pytest.raises(e.CometError, match=r"(?i)socks|proxy|proxies") as caught:
        look(config_of(emulator), "abc")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_authority_is_trusted_through_the_environment(
    look: Look, tls: Emulator, authority: PrivateCA, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Both clients trust the CA bundle that the environment names."""
    monkeypatch.setenv(variable, str(authority.bundle))
    identity = create(tls)
    assert look(config_of(tls), identity).succeeded


def test_an_authority_that_is_not_trusted_is_a_transport_error(look: Look, tls: Emulator) -> None:
    """A certificate that can't be verified ends the call before anything is sent, and the message says why."""
    with pytest.raises(e.TransportError, match=r"(?i)certificate"):
        look(config_of(tls), "abc")
    assert tls.ledger()["requests"] == []


def test_a_missing_ca_bundle_is_an_error_that_names_it(
    look: Look, tls: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA bundle that does not exist is a ``CometError`` with its path, from both clients."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(e.CometError, match=r"/nowhere/ca\.pem"):
        look(config_of(tls), "abc")


def test_a_ca_bundle_does_not_matter_to_http(look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no TLS is spoken, a bad CA bundle is no obstacle to either client."""
    identity = create(emulator)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    assert look(config_of(emulator), identity).succeeded


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc with an entry for this machine and for all others, by both ways to name it."""
    for path in (tmp_path / ".netrc", tmp_path / "elsewhere"):
        path.write_text("machine 127.0.0.1 login me password s3cret\ndefault login me password s3cret\n")
        path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("variable", ["NETRC", None], ids=["NETRC", "HOME"])
def test_a_netrc_entry_does_not_replace_the_key(
    look: Look, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """The API gets the connection's key, whatever a netrc says about its host; creates included."""
    if variable is None:
        monkeypatch.delenv("NETRC")
    assert look(config_of(emulator), create(emulator)).succeeded
    assert [one["status"] for one in emulator.ledger()["requests"]] == [201, 200]


# ---------------------------------------------------------------------------------------------------------------------
# creates


def test_a_create_is_one_post(emulator: Emulator) -> None:
    """A create that is accepted is one POST with the input, and returns the new prediction."""
    time = Time()
    client = time.client(config_of(emulator))
    prediction = client.create_prediction(MODEL, {"prompt": "Türme 🗼", "seed": 7})
    client.close()
    ledger = emulator.ledger()
    assert [one["method"] for one in ledger["requests"]] == ["POST"]
    assert ledger["creates"][0]["id"] == prediction.id
    assert ledger["creates"][0]["input"] == {"prompt": "Türme 🗼", "seed": 7}
    assert (prediction.status, time.slept) == ("starting", [])


def test_a_create_that_is_refused_here_sends_nothing(emulator: Emulator) -> None:
    """What can only fail is refused before any request."""
    client = CometClient(config_of(emulator))
    with pytest.raises(e.InvalidInputError):
        client.create_prediction("no-owner", INPUT)
    with pytest.raises(e.InvalidInputError):
        client.create_prediction(MODEL, {})
    client.close()
    assert emulator.ledger()["requests"] == []


def test_each_create_has_a_connection_of_its_own(emulator: Emulator) -> None:
    """Looks share a connection, and each create opens one that nothing else used before."""
    client = CometClient(config_of(emulator))
    client.look(client.create_prediction(MODEL, INPUT).id)
    client.look(client.create_prediction(MODEL, INPUT).id)
    client.close()
    first, look, second, again = (one["connection"] for one in emulator.ledger()["requests"])
    assert len({first, second, look}) == 3
    assert look == again


AMBIGUOUS: list[tuple[str, dict[str, Any], int]] = [
    ("dropped before", {"drop": "before"}, 0),
    ("dropped after", {"drop": "after"}, 1),
    ("read timeout", {"drop": "after", "delay": 0.3}, 1),
    ("500 envelope", {"status": 500, "body": envelope("do request failed", "do_request_failed")}, 0),
    ("500 after", {"status": 500, "body": envelope("lost"), "accept": True}, 1),
    ("500 text", {"status": 500, "body": "oops"}, 0),
    ("502", {"status": 502, "body": PAGE}, 0),
    ("503 text", {"status": 503, "body": "Service Unavailable"}, 0),
    ("504 after", {"status": 504, "accept": True}, 1),
    ("521 not by Cloudflare", {"status": 521}, 0),
    ("522", {"status": 522, "headers": {"cf-ray": "x"}}, 0),
    ("524 after", {"status": 524, "body": PAGE, "headers": {"cf-ray": "x"}, "accept": True}, 1),
    ("408", {"status": 408}, 0),
    ("200 page", {"status": 200, "body": PAGE}, 0),
    ("201 empty", {"status": 201, "accept": True}, 1),
    ("201 without id", {"status": 201, "body": {"status": "starting"}, "accept": True}, 1),
    ("200 data null", {"status": 200, "body": {"code": "success", "data": None}, "accept": True}, 1),
    ("200 cut", {"status": 200, "body": '{"id": "ab', "accept": True}, 1),
]


@pytest.mark.parametrize(("fault", "accepted"), [row[1:] for row in AMBIGUOUS], ids=[row[0] for row in AMBIGUOUS])
def test_a_create_without_a_clear_answer_is_sent_once(emulator: Emulator, fault: dict[str, Any], accepted: int) -> None:
    """Where a prediction may exist, one POST is all there is, and the error says that it may be billed."""
    emulator.fault(method="POST", count=None, **fault)
    time = Time()
    error = failed_create(config_of(emulator, read_timeout=0.15), time)
    assert type(error) is e.AmbiguousSubmissionError
    assert "may have been accepted and billed" in str(error)
    assert (posts(emulator), emulator.ledger()["accepted"], time.slept) == (1, accepted, [])
    assert error.status == fault.get("status")
    assert (error.request_id is not None) is ("status" in fault)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 20", b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"],
    ids=["none", "line", "body"],
)
@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
def test_a_create_that_breaks_off_is_sent_once(end: Callable[[socket.socket], None], answer: bytes) -> None:
    """A connection that breaks at any point after the request was sent leaves the create ambiguous."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        end(connection)

    time = Time()
    with raw_server(talk) as (port, accepted):
        assert type(failed_create(config_of(port), time)) is e.AmbiguousSubmissionError
        assert (len(accepted), time.slept) == (1, [])


REPEATED: list[tuple[str, dict[str, Any], type[e.CometError]]] = [
    ("429", {"status": 429, "body": envelope("slow")}, e.RateLimitedError),
    ("429 text", {"status": 429, "body": "slow"}, e.RateLimitedError),
    ("503 envelope", {"status": 503, "body": envelope("all channels are busy")}, e.ServerError),
    ("521 by Cloudflare", {"status": 521, "body": PAGE, "headers": {"cf-ray": "x"}}, e.ServerError),
]


@pytest.mark.parametrize(("fault", "expected"), [row[1:] for row in REPEATED], ids=[row[0] for row in REPEATED])
def test_a_create_that_was_rejected_for_now_is_repeated(
    emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError]
) -> None:
    """A create that certainly was not accepted is sent again, pays once in the end, or fails within two minutes."""
    time = Time()
    emulator.fault(method="POST", count=2, **fault)
    client = time.client(config_of(emulator))
    assert client.create_prediction(MODEL, INPUT).status == "starting"
    client.close()
    assert (posts(emulator), emulator.ledger()["accepted"], len(time.slept)) == (3, 1, 2)
    connections = [one["connection"] for one in emulator.ledger()["requests"]]
    assert len(set(connections)) == 3

    emulator.fault(method="POST", count=None, **fault)
    time = Time()
    error = failed_create(config_of(emulator), time)
    assert type(error) is expected
    assert error.retryable
    assert 5 < len(time.slept) < 15
    assert 60 < sum(time.slept) <= 120
    assert posts(emulator) == 3 + len(time.slept) + 1
    assert emulator.ledger()["accepted"] == 1


def test_the_servers_hint_is_kept_between_creates(emulator: Emulator) -> None:
    """After a 429 with ``Retry-After`` the next POST waits that long; a hint beyond two minutes ends the call."""
    emulator.fault(method="POST", status=429, headers={"retry-after": "20"})
    emulator.fault(method="POST", status=429, headers={"retry-after": "121"})
    time = Time()
    error = failed_create(config_of(emulator), time)
    assert (type(error), error.retry_after) == (e.RateLimitedError, 121)
    assert len(time.slept) == 1
    assert 20 <= time.slept[0] <= 22
    assert posts(emulator) == 2


REJECTED = [
    row
    for row in ANSWERS
    if row[0]
    in {"400", "401", "402", "403", "403 quota", "413", "500 invalid_request", "503 model_not_found", "301", "307"}
] + [("404", {"status": 404, "body": {"detail": "Not found"}}, e.ModelNotFoundError)]


@pytest.mark.parametrize(("fault", "expected"), [row[1:] for row in REJECTED], ids=[row[0] for row in REJECTED])
def test_a_create_that_was_rejected_for_good_is_sent_once(
    emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError]
) -> None:
    """An answer that no repetition changes is raised after one POST, as what it is."""
    emulator.fault(method="POST", count=None, **fault)
    time = Time()
    error = failed_create(config_of(emulator), time)
    assert type(error) is expected
    assert not error.retryable
    assert re.fullmatch(r"\d{20,}\w{8}", error.request_id or "")
    assert (posts(emulator), emulator.ledger()["accepted"], time.slept) == (1, 0, [])


def assert_not_sent(config: Config) -> e.CometError:
    """A create that fails before it is sent is a retryable error, and is tried again while patience lasts."""
    time = Time(least=70)
    error = failed_create(config, time)
    assert type(error) is e.TransportError
    assert len(time.slept) == 2
    return error


def test_a_refused_create_was_not_sent() -> None:
    """Where nobody listens, nothing was sent: the create is tried again."""
    assert "refused" in str(assert_not_sent(config_of(unused_port())))


def test_a_create_to_an_unknown_host_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name does not resolve, nothing was sent: the create is tried again."""

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in str(assert_not_sent(config_of("https://comet.invalid")))


def test_a_create_without_a_connection_was_not_sent() -> None:
    """Where the connection does not come about in time, nothing was sent: the create is tried again."""
    with full_backlog() as port:
        assert_not_sent(config_of(port, connect_timeout=0.05))


def test_a_create_to_an_untrusted_server_was_not_sent(tls: Emulator) -> None:
    """Where the certificate is not trusted, nothing was sent: the create is tried again, and no server saw it."""
    assert "certificate" in str(assert_not_sent(config_of(tls))).lower()
    assert tls.ledger()["requests"] == []


def test_a_create_without_a_handshake_was_not_sent() -> None:
    """Where TLS does not come about, nothing was sent: the create is tried again."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no TLS")
        connection.close()

    with raw_server(talk) as (port, accepted):
        assert_not_sent(config_of(f"https://127.0.0.1:{port}"))
        assert len(accepted) == 3


def test_a_create_with_a_mute_handshake_was_not_sent() -> None:
    """Where a server does not answer the handshake, nothing was sent: the create is tried again."""
    with raw_server(lambda connection: None) as (port, _):
        assert_not_sent(config_of(f"https://127.0.0.1:{port}", connect_timeout=0.05, read_timeout=0.05))


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_create_that_the_proxy_refused_was_not_sent(
    tls: Emulator, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Where a proxy gives no tunnel, nothing was sent: the create is tried again."""
    with forward_proxy(refuse=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert str(status) in str(assert_not_sent(config_of(tls)))
        assert len(proxy.asked) == 3
    assert tls.ledger()["requests"] == []


def test_a_create_to_a_proxy_that_is_down_was_not_sent(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the proxy is not reached, nothing was sent: the create is tried again."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    assert_not_sent(config_of(emulator))
    assert emulator.ledger()["requests"] == []


def test_a_create_through_a_proxy_that_fails_is_ambiguous(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain proxy that took the whole create and answers 502 may have passed it on: it is sent once."""
    with forward_proxy(refuse=502) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        time = Time()
        assert type(failed_create(config_of(emulator), time)) is e.AmbiguousSubmissionError
        assert (len(proxy.asked), time.slept) == (1, [])


def test_a_create_succeeds_when_the_server_comes_back(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that found nobody at home is accepted once, as soon as there is a server."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    time = Time()

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        monkeypatch.delenv("HTTP_PROXY")

    client = CometClient(config_of(emulator), sleep=sleep, clock=time.clock)
    client.create_prediction(MODEL, INPUT)
    client.close()
    assert (emulator.ledger()["accepted"], posts(emulator), len(time.slept)) == (1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# the rest of the blocking client


def test_get_prediction_waits_trouble_out(emulator: Emulator) -> None:
    """Reading a prediction goes on after transient trouble, and gives up at once where no repetition helps."""
    identity = create(emulator)
    for fault in ({"status": 502}, {"drop": "before"}, {"status": 429}, {"status": 200}):
        emulator.fault(method="GET", **fault)
    time = Time()
    client = time.client(config_of(emulator))
    assert client.get_prediction(identity).succeeded
    assert len(time.slept) == 4
    with pytest.raises(e.PredictionNotFoundError):
        client.get_prediction("unknown")
    client.close()
    assert len([seconds for seconds in time.slept if seconds > 0.1]) == 4


def test_the_models_are_counted(emulator: Emulator) -> None:
    """Counting the models is one read-only request that tells a wrong key and a wrong URL apart."""
    client = CometClient(config_of(emulator))
    assert client.count_models() > 0
    emulator.fault(path="/v1/models", status=401, body=envelope("Invalid token"))
    with pytest.raises(e.AuthenticationError):
        client.count_models()
    client.close()
    assert [(one["method"], one["path"]) for one in emulator.ledger()["requests"]] == [("GET", "/v1/models")] * 2
    wrong = CometClient(config_of(f"{emulator.base_url}/somewhere"))
    with pytest.raises(e.WrongURLError, match="CometAPI emulator"):
        wrong.count_models()
    wrong.close()


@pytest.mark.parametrize("entries", [False, True], ids=["no netrc", "netrc"])
def test_the_session_gives_the_key_to_its_origin_only(
    emulator: Emulator, request: pytest.FixtureRequest, entries: bool
) -> None:
    """The session sends the key to the base URL's origin, and neither a key nor a netrc entry to any other."""
    if entries:
        request.getfixturevalue("netrc")
    client = CometClient(config_of(emulator))
    with Emulator(duration=0, api_key=KEY) as other:
        assert client.session.get(f"{emulator.base_url}/v1/models", timeout=2).status_code == 200
        assert client.session.get(f"{other.base_url}/v1/models", timeout=2).status_code == 401
        assert other.ledger()["requests"][0]["authorization"] is False
    client.close()
    assert not {"authorization", "Authorization"} & set(client.session.headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_session_follows_no_redirect(emulator: Emulator, status: int) -> None:
    """A redirect is returned as it is, to the same host as to another, and no second request is sent."""
    client = CometClient(config_of(emulator))
    with Emulator(duration=0, api_key=KEY) as other:
        for target in (other.base_url, emulator.base_url):
            emulator.fault(status=status, headers={"location": f"{target}/v1/models"})
            answer = client.session.get(f"{emulator.base_url}/v1/x", timeout=2)
            assert (answer.status_code, answer.history) == (status, [])
        assert other.ledger()["requests"] == []
    client.close()
    assert len(emulator.ledger()["requests"]) == 2


def test_the_session_has_the_connections_timeouts(emulator: Emulator) -> None:
    """A request through the session that names no timeout ends by the connection's own."""
    import requests

    client = CometClient(config_of(emulator, read_timeout=0.1))
    emulator.fault(method="GET", delay=0.3)
    with pytest.raises(requests.ReadTimeout):
        client.session.get(f"{emulator.base_url}/v1/models")
    client.close()


def test_the_async_client_works_inside_its_block_only() -> None:
    """Outside of ``async with`` the asynchronous client refuses to work, in words."""
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(AsyncCometClient(config_of(9)).look("abc"))


def test_a_retired_client_closes_after_its_last_look(emulator: Emulator) -> None:
    """Retired, the asynchronous client ends what is on its way, then its connections are closed."""
    created = create(emulator)
    emulator.fault(method="GET", delay=0.2)

    async def main() -> None:
        client = AsyncCometClient(config_of(emulator))
        await client.open()
        look = asyncio.create_task(client.look(created))
        await asyncio.sleep(0.05)
        await client.retire()
        assert (await look).id == created
        with pytest.raises(RuntimeError, match="closed"):
            await client.look(created)

    asyncio.run(main())


def test_a_retired_client_without_looks_closes_at_once(emulator: Emulator) -> None:
    """Retired while nothing is on its way, its connections are closed."""

    async def main() -> None:
        client = AsyncCometClient(config_of(emulator))
        await client.open()
        await client.retire()
        with pytest.raises(RuntimeError, match="closed"):
            await client.look("abc")

    asyncio.run(main())


def test_two_thousand_connections_at_most(emulator: Emulator) -> None:
    """The asynchronous client's pool holds as many connections as looks may be on their way, slow ones included."""

    async def main() -> int:
        async with AsyncCometClient(config_of(emulator)) as client:
            assert client._session is not None
            assert client._session.connector is not None
            return client._session.connector.limit

    assert asyncio.run(main()) == 2000


def test_the_async_client_can_not_create() -> None:
    """What runs in a triggerer can't spend money: there is no create."""
    assert not hasattr(AsyncCometClient, "create_prediction")
