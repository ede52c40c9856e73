"""``CometClient``: what a create may and may not repeat, and the session behind the hook's ``get_conn``."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
import requests

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.client.sync_client import CometClient
from airflow_provider_comet.emulator import Emulator
from tests.support.forward_proxy import forward_proxy
from tests.support.sockets import full_backlog, raw_server, reset, unused_port
from tests.unit.client.conftest import (
    ERROR_ANSWERS,
    KEY,
    PAGE,
    FakeTime,
    config_of,
    create,
    create_prediction,
    envelope,
    get_prediction,
)
from tests.unit.polling.test_wait import FATAL


def failed_create(config: Config) -> e.CometError:
    """Return the error of a create, which shows no key."""
    client = CometClient(config)
    try:
        with pytest.raises(e.CometError) as caught:
            create_prediction(client)
    finally:
        client.close()
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
    return caught.value


def posts(emulator: Emulator) -> int:
    """Return how many creates have reached the emulator."""
    return sum(entry["method"] == "POST" for entry in emulator.ledger()["requests"])


def test_a_create_is_one_post(emulator: Emulator, time: FakeTime) -> None:
    """A create that is accepted is one POST with the input, and returns the new prediction."""
    client = CometClient(config_of(emulator))
    prediction = create_prediction(client, input={"prompt": "Türme 🗼", "seed": 7})
    client.close()
    ledger = emulator.ledger()
    assert [entry["method"] for entry in ledger["requests"]] == ["POST"]
    assert ledger["creates"][0]["id"] == prediction.id
    assert ledger["creates"][0]["input"] == {"prompt": "Türme 🗼", "seed": 7}
    assert (prediction.status, time.slept) == ("starting", [])


def test_a_create_that_is_refused_here_sends_nothing(emulator: Emulator) -> None:
    """A create that can only fail is refused before any request."""
    client = CometClient(config_of(emulator))
    with pytest.raises(e.InvalidInputError):
        create_prediction(client, model="no-owner")
    with pytest.raises(e.InvalidInputError):
        create_prediction(client, input={})
    client.close()
    assert emulator.ledger()["requests"] == []


def test_each_create_has_a_connection_of_its_own(emulator: Emulator) -> None:
    """Polls share a connection, and each create opens a new connection."""
    client = CometClient(config_of(emulator))
    get_prediction(client, create_prediction(client).id)
    get_prediction(client, create_prediction(client).id)
    client.close()
    first_create, poll, second_create, next_poll = (entry["connection"] for entry in emulator.ledger()["requests"])
    assert len({first_create, second_create, poll}) == 3
    assert poll == next_poll


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
def test_a_create_without_a_clear_answer_is_sent_once(
    emulator: Emulator, fault: dict[str, Any], accepted: int, time: FakeTime
) -> None:
    """Where a prediction may exist, the POST is sent once, and the error says that it may be billed."""
    emulator.fault(method="POST", count=None, **fault)
    error = failed_create(config_of(emulator, read_timeout=0.15))
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
def test_a_create_that_breaks_off_is_sent_once(
    end: Callable[[socket.socket], None], answer: bytes, time: FakeTime
) -> None:
    """A connection that breaks at any point after the request was sent leaves the create ambiguous."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        end(connection)

    with raw_server(talk) as (port, accepted):
        assert type(failed_create(config_of(port))) is e.AmbiguousSubmissionError
        assert (len(accepted), time.slept) == (1, [])


REPEATED: list[tuple[str, dict[str, Any], type[e.CometError]]] = [
    ("429", {"status": 429, "body": envelope("slow")}, e.RateLimitedError),
    ("429 text", {"status": 429, "body": "slow"}, e.RateLimitedError),
    ("503 envelope", {"status": 503, "body": envelope("all channels are busy")}, e.ServerError),
    ("521 by Cloudflare", {"status": 521, "body": PAGE, "headers": {"cf-ray": "x"}}, e.ServerError),
]


@pytest.mark.parametrize(("fault", "expected"), [row[1:] for row in REPEATED], ids=[row[0] for row in REPEATED])
def test_a_create_that_was_rejected_for_now_is_repeated(
    emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError], time: FakeTime
) -> None:
    """A create that certainly was not accepted is repeated: it pays once in the end, or fails within two minutes."""
    emulator.fault(method="POST", count=2, **fault)
    client = CometClient(config_of(emulator))
    assert create_prediction(client).status == "starting"
    client.close()
    assert (posts(emulator), emulator.ledger()["accepted"], len(time.slept)) == (3, 1, 2)
    connections = [entry["connection"] for entry in emulator.ledger()["requests"]]
    assert len(set(connections)) == 3

    emulator.fault(method="POST", count=None, **fault)
    time.slept.clear()
    error = failed_create(config_of(emulator))
    assert type(error) is expected
    assert error.retryable
    assert 5 < len(time.slept) < 15
    assert 60 < sum(time.slept) <= 120
    assert posts(emulator) == 3 + len(time.slept) + 1
    assert emulator.ledger()["accepted"] == 1


def test_the_servers_retry_after_is_kept_between_creates(emulator: Emulator, time: FakeTime) -> None:
    """After a 429 with ``Retry-After`` the next POST waits that long; more than two minutes end the call."""
    emulator.fault(method="POST", status=429, headers={"retry-after": "20"})
    emulator.fault(method="POST", status=429, headers={"retry-after": "121"})
    error = failed_create(config_of(emulator))
    assert (type(error), error.retry_after) == (e.RateLimitedError, 121)
    assert len(time.slept) == 1
    assert 20 <= time.slept[0] <= 22
    assert posts(emulator) == 2


class ListJournal:
    """A journal that lists what it is told."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def sending(self, key_from: str) -> None:
        self.entries.append(f"sending with the key of the {key_from}")

    def rejected(self) -> None:
        self.entries.append("rejected")

    def unclear(self, error: e.CometError) -> None:
        self.entries.append(f"unclear: {type(error).__name__}")

    def accepted(self, prediction_id: str) -> None:
        self.entries.append("accepted")

    def interrupted(self) -> None:
        self.entries.append("interrupted")


@pytest.mark.parametrize(
    ("fault", "entries"),
    [
        (None, ["sending with the key of the connection", "accepted"]),
        ({"status": 429, "headers": {"retry-after": "121"}}, ["sending with the key of the connection", "rejected"]),
        ({"status": 400, "body": envelope("no")}, ["sending with the key of the connection", "rejected"]),
        ({"status": 502}, ["sending with the key of the connection", "unclear: AmbiguousSubmissionError"]),
        ({"drop": "after"}, ["sending with the key of the connection", "unclear: AmbiguousSubmissionError"]),
    ],
    ids=["accepted", "rejected for now", "rejected", "unclear", "no answer"],
)
@pytest.mark.usefixtures("time")
def test_the_journal_is_told_what_became_of_a_create(
    emulator: Emulator, fault: dict[str, Any] | None, entries: list[str]
) -> None:
    """A journal knows before each POST that it is sent, and after it whether a prediction may exist."""
    journal = ListJournal()
    if fault is not None:
        emulator.fault(method="POST", **fault)
    client = CometClient(config_of(emulator))
    with contextlib.suppress(e.CometError):
        create_prediction(client, journal=journal)
    client.close()
    assert journal.entries == entries


@pytest.mark.parametrize("has_journal", [False, True], ids=["no journal", "journal"])
def test_a_429_pauses_every_create_of_the_client(emulator: Emulator, time: FakeTime, has_journal: bool) -> None:
    """After a 429 for one create, the next create of the same client waits for the end of the same pause."""
    emulator.fault(method="POST", status=429, headers={"retry-after": "121"})
    client = CometClient(config_of(emulator))
    with pytest.raises(e.RateLimitedError):
        create_prediction(client, journal=ListJournal() if has_journal else None)
    assert time.slept == []
    create_prediction(client)
    client.close()
    assert sum(time.slept) == pytest.approx(121)


def test_a_429_of_another_meaning_does_not_slow_creates(emulator: Emulator, time: FakeTime) -> None:
    """A 429 whose code says that the balance is used up is no rate limit: the next create is not slower."""
    body = {"error": {"message": "no credit", "code": "insufficient_user_quota"}}
    emulator.fault(method="POST", status=429, body=body, count=3)
    client = CometClient(config_of(emulator))
    for _ in range(3):
        with pytest.raises(e.BalanceExhaustedError):
            create_prediction(client)
    create_prediction(client)
    client.close()
    assert sum(time.slept) < 0.1


# What a code about creates means to them; a poll that gets the same answer is judged by its status.
OF_CREATES: dict[str, type[e.CometError]] = {
    "403 quota": e.BalanceExhaustedError,
    "404": e.ModelNotFoundError,
    "500 invalid_request": e.BadRequestError,
    "503 model_not_found": e.ModelNotFoundError,
}
REJECTED = [
    (name, fault, OF_CREATES.get(name, error))
    for name, fault, error in ERROR_ANSWERS
    if name in {"400", "401", "402", "403", "413", "413 page", "301", "307", *OF_CREATES}
]


@pytest.mark.parametrize(("fault", "expected"), [row[1:] for row in REJECTED], ids=[row[0] for row in REJECTED])
def test_a_create_that_was_rejected_for_good_is_sent_once(
    emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError], time: FakeTime
) -> None:
    """An answer that no repetition changes is raised after one POST, as the error that it describes."""
    emulator.fault(method="POST", count=None, **fault)
    error = failed_create(config_of(emulator))
    assert type(error) is expected
    assert not error.retryable
    assert re.fullmatch(r"\d{20,}\w{8}", error.request_id or "")
    assert (posts(emulator), emulator.ledger()["accepted"], time.slept) == (1, 0, [])


def assert_not_sent(config: Config, time: FakeTime) -> e.CometError:
    """Assert that a create fails before it is sent, with a retryable error, and is repeated for two minutes."""
    time.min_sleep = 70
    error = failed_create(config)
    assert type(error) is e.TransportError
    assert len(time.slept) == 2
    return error


def test_a_refused_create_was_not_sent(time: FakeTime) -> None:
    """If the connection is refused, nothing was sent: the create is repeated."""
    assert "refused" in str(assert_not_sent(config_of(unused_port()), time))


def test_a_create_to_an_unknown_host_was_not_sent(monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
    """If the name does not resolve, nothing was sent: the create is repeated."""

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in str(assert_not_sent(config_of("https://comet.invalid"), time))


def test_a_create_without_a_connection_was_not_sent(time: FakeTime) -> None:
    """If the connection times out, nothing was sent: the create is repeated."""
    with full_backlog() as port:
        assert_not_sent(config_of(port, connect_timeout=0.05), time)


def test_a_create_to_an_untrusted_server_was_not_sent(tls: Emulator, time: FakeTime) -> None:
    """If the certificate is not trusted, nothing was sent: the create is repeated, and the server sees no request."""
    assert "certificate" in str(assert_not_sent(config_of(tls), time)).lower()
    assert tls.ledger()["requests"] == []


def test_a_create_without_a_handshake_was_not_sent(time: FakeTime) -> None:
    """If the TLS handshake fails, nothing was sent: the create is repeated."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no TLS")
        connection.close()

    with raw_server(talk) as (port, accepted):
        assert_not_sent(config_of(f"https://127.0.0.1:{port}"), time)
        assert len(accepted) == 3


def test_a_create_with_a_mute_handshake_was_not_sent(time: FakeTime) -> None:
    """If the server does not answer the TLS handshake, nothing was sent: the create is repeated."""
    with raw_server(lambda connection: None) as (port, _):
        assert_not_sent(config_of(f"https://127.0.0.1:{port}", connect_timeout=0.05, read_timeout=0.05), time)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_create_that_the_proxy_refused_was_not_sent(
    tls: Emulator, monkeypatch: pytest.MonkeyPatch, status: int, time: FakeTime
) -> None:
    """If a proxy opens no tunnel, nothing was sent: the create is repeated."""
    with forward_proxy(refuse=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert str(status) in str(assert_not_sent(config_of(tls), time))
        assert len(proxy.asked) == 3
    assert tls.ledger()["requests"] == []


def test_a_create_to_a_proxy_that_is_down_was_not_sent(
    trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch, time: FakeTime
) -> None:
    """If the proxy is not reached, nothing was sent: the create is repeated."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_port()}")
    assert_not_sent(config_of(trusted_tls), time)
    assert trusted_tls.ledger()["requests"] == []


def test_a_create_succeeds_when_the_server_is_back(
    trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch, time: FakeTime
) -> None:
    """A create whose connection was refused is accepted once, as soon as there is a server."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_port()}")
    time.on_sleep = lambda seconds: monkeypatch.delenv("HTTPS_PROXY")
    client = CometClient(config_of(trusted_tls))
    create_prediction(client)
    client.close()
    assert (trusted_tls.ledger()["accepted"], posts(trusted_tls), len(time.slept)) == (1, 1, 1)


@pytest.mark.parametrize(
    "error",
    [*FATAL, e.AmbiguousSubmissionError("x", status=502), e.PredictionNotFoundError(), e.ModelNotFoundError()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_not_retryable_is_never_sent_again(
    emulator: Emulator, time: FakeTime, error: e.CometError
) -> None:
    """A call is not repeated where a repetition can't help, above all not a create without a clear answer."""
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise error

    client = CometClient(config_of(emulator))
    with pytest.raises(type(error)):
        client.retry(protocol.create_prediction("a/b", {"prompt": "x"}), call)
    client.close()
    assert (len(calls), time.slept) == (1, [])


def test_retry_waits_trouble_out(emulator: Emulator, time: FakeTime) -> None:
    """A poll is repeated after transient trouble, and fails at once where no repetition helps."""
    prediction_id = create(emulator)
    for fault in ({"status": 502}, {"drop": "before"}, {"status": 429}, {"status": 200}):
        emulator.fault(method="GET", **fault)
    client = CometClient(config_of(emulator))
    assert client.retry(protocol.get_prediction("abc"), lambda: get_prediction(client, prediction_id)).succeeded
    assert len(time.slept) == 4
    with pytest.raises(e.PredictionNotFoundError):
        client.retry(protocol.get_prediction("abc"), lambda: get_prediction(client, "unknown"))
    client.close()
    assert len([seconds for seconds in time.slept if seconds > 0.1]) == 4


def count_models(client: CometClient) -> int:
    """Return the number of models that the key can see."""
    request = protocol.list_models()
    return protocol.read_models(request, client.send(request))


def test_the_models_are_counted(emulator: Emulator) -> None:
    """Counting the models is one read-only request that tells a wrong key and a wrong URL apart."""
    client = CometClient(config_of(emulator))
    assert count_models(client) > 0
    emulator.fault(path="/v1/models", status=401, body=envelope("Invalid token"))
    with pytest.raises(e.AuthenticationError):
        count_models(client)
    client.close()
    assert [(entry["method"], entry["path"]) for entry in emulator.ledger()["requests"]] == [("GET", "/v1/models")] * 2
    wrong = CometClient(config_of(f"{emulator.base_url}/somewhere"))
    with pytest.raises(e.WrongURLError, match="CometAPI emulator"):
        count_models(wrong)
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
    """A redirect to this or another host is returned as it is, and no second request is sent."""
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
    """A request through the session without a timeout has the timeout of the connection."""
    client = CometClient(config_of(emulator, read_timeout=0.1))
    emulator.fault(method="GET", delay=0.3)
    with pytest.raises(requests.ReadTimeout):
        client.session.get(f"{emulator.base_url}/v1/models")
    client.close()
