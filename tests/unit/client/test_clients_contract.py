"""The contract of both clients over real sockets: which answers are predictions, and which errors the others are."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.emulator import Emulator
from tests.support.sockets import full_backlog, raw_server, unused_port
from tests.unit.client.conftest import ERROR_ANSWERS, KEY, MODEL, Poll, config_of, create, envelope


@pytest.mark.parametrize("wire", ["flat", "wrapped"])
def test_both_wire_shapes_are_read(poll: Poll, wire: Any) -> None:
    """A poll returns the finished prediction, flat or wrapped."""
    with Emulator(duration=0, api_key=KEY, wire=wire) as emulator:
        prediction_id = create(emulator)
        prediction = poll(config_of(emulator), prediction_id)
        assert (prediction.id, prediction.status, prediction.model) == (prediction_id, "succeeded", MODEL)
        assert prediction.files == [f"{emulator.base_url}/delivery/{prediction_id}/0.webp"]


def test_a_poll_is_one_get_with_the_key(poll: Poll, emulator: Emulator) -> None:
    """A poll sends exactly one GET to the documented path, with the key."""
    prediction_id = create(emulator)
    poll(config_of(emulator), prediction_id)
    requests = emulator.ledger()["requests"][1:]
    assert [(entry["method"], entry["path"], entry["authorization"], entry["status"]) for entry in requests] == [
        ("GET", f"/replicate/v1/predictions/{prediction_id}", True, 200)
    ]


@pytest.mark.parametrize(
    ("fault", "expected"), [row[1:] for row in ERROR_ANSWERS], ids=[row[0] for row in ERROR_ANSWERS]
)
def test_every_error_answer_is_classified(
    poll: Poll, emulator: Emulator, fault: dict[str, Any], expected: type[e.CometError]
) -> None:
    """Each error answer becomes its class, with prediction, status, request id and hint, and is not repeated."""
    emulator.fault(method="GET", **fault)
    with pytest.raises(e.CometError) as caught:
        poll(config_of(emulator), "abc")
    error = caught.value
    assert type(error) is expected
    assert (error.prediction_id, error.status) == ("abc", fault["status"])
    assert re.fullmatch(r"\d{20,}\w{8}", error.request_id or "")
    assert error.retry_after == (7 if fault["status"] == 429 else None)
    assert len(emulator.ledger()["requests"]) == 1


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_dropped_connection_is_a_transport_error(poll: Poll, emulator: Emulator, drop: str) -> None:
    """A connection that ends without an answer is a retryable error that names host and prediction."""
    emulator.fault(method="GET", drop=drop, count=2)  # aiohttp repeats a GET by itself
    with pytest.raises(e.TransportError, match="Prediction abc: CometAPI could not be reached") as caught:
        poll(config_of(emulator), "abc")
    assert emulator.base_url in str(caught.value)


def test_an_answer_that_breaks_off_is_a_transport_error(poll: Poll) -> None:
    """An answer that is shorter than its Content-Length is a transport error."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "abc", "status": "succeeded"')
        connection.close()

    with raw_server(talk) as (port, _), pytest.raises(e.TransportError):
        poll(config_of(port), "abc")


@pytest.mark.parametrize(
    "answer", [b"\x16\x03\x01 what?\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n", b""], ids=["noise", "status", "none"]
)
def test_an_answer_that_is_no_http_is_a_transport_error(poll: Poll, answer: bytes) -> None:
    """Bytes that are no HTTP, or no bytes at all, are a transport error."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        connection.close()

    with raw_server(talk) as (port, _), pytest.raises(e.TransportError):
        poll(config_of(port), "abc")


def test_a_read_timeout_is_a_transport_error(poll: Poll, emulator: Emulator) -> None:
    """No byte within the read timeout is a retryable error that speaks of a timeout."""
    emulator.fault(method="GET", delay=0.3)
    with pytest.raises(e.TransportError) as caught:
        poll(config_of(emulator, read_timeout=0.1), "abc")
    assert re.search(r"timed out|timeout|no answer within 0\.1 s", str(caught.value), re.IGNORECASE)
    assert "Cancelled" not in str(caught.value)


def test_a_connect_timeout_is_a_transport_error(poll: Poll) -> None:
    """A connect timeout is a retryable error that does not read like a missing answer."""
    with full_backlog() as port, pytest.raises(e.TransportError) as caught:
        poll(config_of(port, connect_timeout=0.1, read_timeout=2), "abc")
    assert "no answer within 2 s" not in str(caught.value)
    assert "Cancelled" not in str(caught.value)


def test_a_refused_connection_is_a_transport_error(poll: Poll) -> None:
    """A refused connection is a retryable error that says so."""
    with pytest.raises(e.TransportError, match=r"(?i)refused|connect call failed"):
        poll(config_of(unused_port()), "abc")


def test_an_unknown_host_is_a_transport_error(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is a retryable error that names the host."""

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(e.TransportError, match="Name or service not known") as caught:
        poll(config_of("https://comet.invalid"), "abc")
    assert "https://comet.invalid" in str(caught.value)


def test_a_redirect_is_not_followed(poll: Poll, emulator: Emulator) -> None:
    """A redirect is an error, and no request is sent to its target."""
    with Emulator(duration=0, api_key=KEY) as other:
        emulator.fault(method="GET", status=301, headers={"location": f"{other.base_url}/replicate/v1/predictions/abc"})
        with pytest.raises(e.WrongURLError):
            poll(config_of(emulator), "abc")
        assert other.ledger()["requests"] == []


def test_an_echoed_key_is_not_shown(poll: Poll, emulator: Emulator) -> None:
    """A key that the server repeats shows neither in the message nor in the event."""
    emulator.fault(method="GET", status=401, body=envelope(f"key {KEY} is unknown"), headers={"x-key": KEY})
    with pytest.raises(e.AuthenticationError, match=r"key \*\*\* is unknown") as caught:
        poll(config_of(emulator), "abc")
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
    assert caught.value.__cause__ is None


def test_an_unrelated_error_is_not_blamed(poll: Poll) -> None:
    """While another exception is being handled, the message still names the network's reason."""
    port = unused_port()
    try:
        raise LookupError("nothing to do with it")
    except LookupError:
        with pytest.raises(e.TransportError) as caught:
            poll(config_of(port), "abc")
    assert "nothing to do with it" not in str(caught.value)
