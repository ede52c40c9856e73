"""Answers that are large, packed, slow or odd: both clients over real sockets, memory and time bounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.client import body as module
from airflow_provider_comet.client.async_client import AsyncCometClient
from airflow_provider_comet.client.sync_client import CometClient
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import PrivateCA
from tests.support.sockets import raw_server
from tests.unit.client.conftest import KEY, Poll, config_of, create_prediction, get_prediction, poll_with_requests

PREDICTION = {"id": "abc", "status": "succeeded", "output": ["x"]}
SOON = 20  # seconds: a thread that hangs is given up
LIMIT_WORDS = "the body has more than 64 MiB, which is the limit"


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an HTTP answer as it is on the wire."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def bomb(mebibytes: int) -> bytes:
    """Return gzip that unpacks to so many MiB of JSON."""
    packer = zlib.compressobj(1, wbits=31)
    blank = b" " * 1024**2
    return b"".join([
        packer.compress(b'{"id": "abc", "status": "succeeded", "output": "'),
        *(packer.compress(blank) for _ in range(mebibytes)),
        packer.compress(b'"}'),
        packer.flush(),
    ])


def read_request(connection: socket.socket) -> bytes:
    """Read a whole request, so that closing the connection does not reset it; return its head."""
    connection.settimeout(SOON)
    with connection.makefile("rb") as stream:
        lines = [*iter(stream.readline, b"\r\n")] if (first := stream.readline()) else []
        for line in lines:
            if line.lower().startswith(b"content-length:"):
                stream.read(int(line.split(b":")[1]))
    return b"".join([first, *lines])


@contextmanager
def serving(*pieces: bytes) -> Iterator[int]:
    """A server that answers every request with these bytes, and closes; yields its port."""

    def talk(connection: socket.socket) -> None:
        with connection:
            read_request(connection)
            for piece in pieces:
                connection.sendall(piece)

    with raw_server(talk) as (port, _):
        yield port


def test_only_gzip_is_offered(poll: Poll) -> None:
    """What the machine has installed (brotli, zstd) makes no difference: only what is unpacked here is asked for."""
    heads: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with connection:
            heads.append(read_request(connection).lower())
            connection.sendall(answer(json.dumps(PREDICTION).encode()))

    with raw_server(talk) as (port, _):
        assert poll(config_of(port), "abc").succeeded
    assert [head.count(b"accept-encoding: gzip\r\n") + head.count(b"accept-encoding") for head in heads] == [2]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "utf-8"])
@pytest.mark.parametrize("size", [10, 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
def test_a_packed_answer_is_read(poll: Poll, encoding: str, size: int, is_chunked: bool) -> None:
    """gzip and deflate are unpacked; plain JSON under another name is read as it is."""
    content = json.dumps({**PREDICTION, "logs": "é" * size}).encode()
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(content)
    reply = answer(packed, f"Content-Encoding: {encoding}")
    if is_chunked:
        head, body = reply.split(b"\r\n\r\n", 1)
        length = f"Content-Length: {len(packed)}".encode()
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        reply = head.replace(length, b"Transfer-Encoding: chunked") + b"\r\n\r\n" + chunk
    with serving(reply) as port:
        assert poll(config_of(port, read_timeout=20), "abc").logs == "é" * size


TOO_LARGE: list[tuple[str, Callable[[], list[bytes]]]] = [
    ("bomb", lambda: [answer(bomb(200), "Content-Encoding: gzip")]),
    ("plain", lambda: [b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n", *[b" " * 1024**2] * 66]),
    ("until closed", lambda: [b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 1024**2] * 66]),
]


@pytest.mark.parametrize("reply", [row[1] for row in TOO_LARGE], ids=[row[0] for row in TOO_LARGE])
def test_an_answer_that_is_too_large_is_trouble_that_may_pass(poll: Poll, reply: Callable[[], list[bytes]]) -> None:
    """A poll that brings more than the limit is a retryable error that names it: the wait continues to its deadline."""
    with serving(*reply()) as port, pytest.raises(e.ServerError, match=LIMIT_WORDS) as caught:
        poll(config_of(port, read_timeout=20), "abc")
    assert (caught.value.retryable, caught.value.prediction_id, caught.value.status) == (True, "abc", 200)


def failed_create(port: int, **fields: Any) -> tuple[e.CometError, list[str]]:
    """Return the error of a create, and what its journal was told."""
    entries: list[str] = []

    class Journal:
        def sending(self, key_from: str) -> None:
            entries.append("sending")

        def rejected(self) -> None:
            entries.append("rejected")

        def unclear(self, error: e.CometError) -> None:
            entries.append("unclear")

        def accepted(self, prediction_id: str) -> None:
            entries.append("accepted")

        def interrupted(self) -> None:
            entries.append("interrupted")

    client = CometClient(config_of(port, **fields))
    with pytest.raises(e.CometError) as caught:
        create_prediction(client, journal=Journal())
    client.close()
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
    return caught.value, entries


def test_a_create_whose_answer_is_too_large_is_ambiguous() -> None:
    """It may have been accepted, so it is not sent again."""
    with serving(answer(bomb(100), "Content-Encoding: gzip", status="201 Created")) as port:
        error, entries = failed_create(port, read_timeout=20)
    assert type(error) is e.AmbiguousSubmissionError
    assert LIMIT_WORDS in str(error)
    assert entries == ["sending", "unclear"]


def test_the_status_of_an_answer_that_is_too_large_still_counts(poll: Poll) -> None:
    """A refused key is a refused key, however much is said about it, and proves that a create was not accepted."""
    with serving(answer(bomb(100), "Content-Encoding: gzip", status="401 Unauthorized")) as port:
        with pytest.raises(e.AuthenticationError, match=LIMIT_WORDS):
            poll(config_of(port, read_timeout=20), "abc")
        error, entries = failed_create(port, read_timeout=20)
    assert (type(error), entries) == (e.AuthenticationError, ["sending", "rejected"])


@pytest.mark.parametrize("label", ["br", "zstd", "gzip", "deflate", "gzip, br", f"gzip {KEY}"])
def test_an_answer_that_can_not_be_unpacked_is_an_error_of_ours(poll: Poll, label: str) -> None:
    """Neither garbage nor the key is shown, and the wait continues."""
    reply = answer(b"\x1f\x8b\xff\x00\xfe" * 20, f"Content-Encoding: {label}")
    with serving(reply) as port, pytest.raises(e.ServerError, match="the body can't be unpacked") as caught:
        poll(config_of(port), "abc")
    assert KEY not in str(caught.value)


def test_a_large_answer_does_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long to unpack and to parse is done in another thread; a small answer is not worth one."""
    threads: list[tuple[int, bool]] = []
    received = protocol.Response.received

    def spy(status: int, headers: Any, body: bytes, secret: str) -> Any:
        threads.append((len(body), threading.current_thread() is threading.main_thread()))
        return received(status, headers, body, secret)

    monkeypatch.setattr(protocol.Response, "received", spy)
    replies = [
        (1000, ""),
        (module.SMALL_BYTES - 100, ""),
        (module.SMALL_BYTES - 100, "gzip"),
        (module.SMALL_BYTES, ""),
        (module.SMALL_BYTES, "gzip"),
        (20 * 1024**2, "gzip"),
    ]

    async def poll(port: int) -> Prediction:
        request = protocol.get_prediction("abc")
        async with AsyncCometClient(config_of(port, read_timeout=20)) as client:
            return protocol.read_prediction(request, await client.send(request))

    for size, encoding in replies:
        content = json.dumps({**PREDICTION, "logs": "x" * size}).encode()
        reply = answer(gzip.compress(content, 1) if encoding else content, f"Content-Encoding: {encoding}")
        with serving(reply) as port:
            assert len(asyncio.run(poll(port)).logs or "") == size
    assert [size > module.SMALL_BYTES for size, _ in threads] == [not is_main for _, is_main in threads]
    assert [is_main for _, is_main in threads] == [True] * 3 + [False] * 3


TRICKLES = {
    "status line": b"HTTP/1.1 200 O",
    "headers": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "headers, and an encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-Slow: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{",
    "body until closed": b"HTTP/1.1 200 OK\r\n\r\n{",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{",
    "chunk's size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1",
}


@contextmanager
def trickling(start: bytes, authority: PrivateCA | None = None) -> Iterator[tuple[int, threading.Event]]:
    """A server whose answer never ends and never pauses; yields its port and an event that a request has come."""
    is_over, is_asked = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        line = authority.server.wrap_socket(connection, server_side=True) if authority else connection
        with line:
            read_request(line)
            line.sendall(start)
            is_asked.set()
            while not is_over.wait(0.02):
                line.sendall(b"1")

    def talk(connection: socket.socket) -> None:
        threading.Thread(target=lambda: _quietly(serve, connection), daemon=True).start()

    with raw_server(talk) as (port, _):
        try:
            yield port, is_asked
        finally:
            is_over.set()


def _quietly(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        serve(connection)
    except OSError:
        connection.close()


@pytest.fixture(params=["http", "https"])
def tls_of(request: pytest.FixtureRequest, authority: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> PrivateCA | None:
    """The authority of an https server, or nothing: plain http."""
    if request.param == "http":
        return None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    return authority


def url_of(port: int, tls: PrivateCA | None) -> str:
    """Return the base URL of a server on this machine."""
    return f"{'https' if tls else 'http'}://127.0.0.1:{port}"


@pytest.mark.parametrize("start", TRICKLES.values(), ids=TRICKLES.keys())
def test_an_answer_that_trickles_is_a_timeout(poll: Poll, start: bytes) -> None:
    """``read_timeout`` bounds the whole answer in both clients, although each byte restarts a socket's timeout."""
    with (
        trickling(start) as (port, _),
        pytest.raises(e.TransportError, match=r"no answer within 0\.3 s") as caught,
    ):
        poll(config_of(port, read_timeout=0.3), "abc")
    assert caught.value.prediction_id == "abc"


@pytest.mark.parametrize("start", TRICKLES.values(), ids=TRICKLES.keys())
def test_an_answer_that_trickles_over_tls_is_a_timeout(start: bytes, tls_of: PrivateCA | None) -> None:
    """A TLS connection of the blocking client is ended in the same way."""
    with trickling(start, tls_of) as (port, _), pytest.raises(e.TransportError, match=r"no answer within 0\.5 s"):
        poll_with_requests(config_of(url_of(port, tls_of), read_timeout=0.5), "abc")


@pytest.mark.parametrize("start", TRICKLES.values(), ids=TRICKLES.keys())
def test_a_create_whose_answer_trickles_is_ambiguous(start: bytes) -> None:
    """The body has left when the time is over: it may have been accepted, and is not sent again."""
    with trickling(start) as (port, _):
        error, entries = failed_create(port, read_timeout=0.3)
    assert type(error) is e.AmbiguousSubmissionError
    assert "no answer within 0.3 s" in str(error)
    assert entries == ["sending", "unclear"]


def test_a_server_that_takes_no_body_is_a_timeout() -> None:
    """A server that stops to read a large create does not hold the worker either; some of the body may have arrived."""
    is_over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        threading.Thread(target=is_over.wait, args=(SOON,), daemon=True).start()

    client_input = {"prompt": "x" * 20_000_000}
    with raw_server(talk) as (port, _):
        client = CometClient(config_of(port, connect_timeout=30, read_timeout=0.3))
        with pytest.raises(e.AmbiguousSubmissionError, match=r"no answer within 0\.3 s"):
            create_prediction(client, input=client_input)
        client.close()
        is_over.set()


def test_a_proxy_whose_tunnel_trickles_is_a_timeout(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that never ends its answer to CONNECT does not hold a poll."""
    with trickling(b"HTTP/1.1 200 Connection established\r\nX-Slow: ") as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(e.TransportError):
            poll(config_of("https://127.0.0.1:9", connect_timeout=0.3, read_timeout=0.3), "abc")


def test_an_answer_that_trickles_through_a_tunnel_is_a_timeout(
    authority: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection to a proxy is bounded like a direct connection."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with forward_proxy() as proxy, trickling(TRICKLES["headers"], authority) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(e.TransportError, match="no answer within"):
            poll_with_requests(config_of(f"https://127.0.0.1:{port}", read_timeout=0.5), "abc")
        assert len(proxy.lines) == 1


def test_a_kept_connection_is_bounded_as_well() -> None:
    """The second exchange over a kept-alive connection has a time of its own."""
    is_over = threading.Event()

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer(json.dumps(PREDICTION).encode()).replace(b"Connection: close\r\n", b""))
        read_request(connection)
        connection.sendall(TRICKLES["headers"])
        while not is_over.wait(0.02):
            connection.sendall(b"1")

    with raw_server(talk) as (port, accepted):
        client = CometClient(config_of(port, read_timeout=0.4))
        assert get_prediction(client, "abc").succeeded
        with pytest.raises(e.TransportError, match=r"no answer within 0\.4 s"):
            get_prediction(client, "abc")
        is_over.set()
        client.close()
        assert len(accepted) == 1


@pytest.mark.parametrize("start", [b"", *TRICKLES.values()], ids=["nothing", *TRICKLES])
def test_halt_ends_a_running_poll(start: bytes, tls_of: PrivateCA | None) -> None:
    """A task that ends does not wait for a server: its poll is a transport error at once, and so is each later poll."""
    errors: list[e.CometError] = []
    with trickling(start, tls_of) as (port, is_asked):
        client = CometClient(config_of(url_of(port, tls_of), read_timeout=600))

        def run() -> None:
            with pytest.raises(e.CometError) as caught:
                client.retry(protocol.get_prediction("abc"), lambda: get_prediction(client, "abc"))
            errors.append(caught.value)

        thread = threading.Thread(target=run)
        thread.start()
        assert is_asked.wait(SOON)
        client.halt()
        thread.join(SOON)
        assert not thread.is_alive()
        run()
        client.close()
    assert [(type(error), error.detail) for error in errors] == [(e.TransportError, "the task was ended")] * 2


def test_halt_may_be_called_by_a_signal_handler() -> None:
    """The handler interrupts the thread that waits, and may even come while a connection is being registered."""
    previous = signal.getsignal(signal.SIGUSR1)
    with trickling(b"") as (port, is_asked):
        client = CometClient(config_of(port, read_timeout=600))
        signal.signal(signal.SIGUSR1, lambda number, frame: client.halt())
        main = threading.main_thread().ident
        assert main is not None
        threading.Thread(target=lambda: is_asked.wait(SOON) and signal.pthread_kill(main, signal.SIGUSR1)).start()
        try:
            with pytest.raises(e.TransportError, match="the task was ended"):
                get_prediction(client, "abc")
        finally:
            signal.signal(signal.SIGUSR1, previous)
        client.close()


def test_halt_does_not_end_a_create_that_was_sent() -> None:
    """Its answer says what was paid for: it is read, within ``read_timeout``, and recorded."""
    is_halted = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection:
            read_request(connection)
            client.halt()
            is_halted.set()
            connection.sendall(answer(json.dumps(PREDICTION).encode(), status="201 Created"))

    with raw_server(talk) as (port, _):
        client = CometClient(config_of(port))
        assert create_prediction(client).id == "abc"
        assert is_halted.is_set()
        client.close()


ODD_HEADERS = [
    "Content-Length: 99999999999999999999999999",
    f"Content-Length: {'9' * 5000}",
    "Content-Length: -5",
    "Content-Length: \u0663",
    "Content-Length: x",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked, chunked",
    "Content-Type: \x01\x02; charset=\xff",
    "Content-Type: text/html; charset=nonsense",
    "Content-Encoding: \xff\xfe",
    "Date: Mon, 23 Nov 99999999999 06:00:00 GMT",
    "Set-Cookie: a=b; expires=Mon, 23 Nov 99999999999 06:00:00 GMT; max-age=1e400",
    "Location: http://[",
    "Retry-After: " + "1" * 5000,
    "Keep-Alive: timeout=1e400",
    "Connection: \xff",
    "Bad Header: x",
    "no colon",
    ": empty",
]


@pytest.mark.parametrize("header", ODD_HEADERS, ids=[header[:30].encode().hex()[:40] for header in ODD_HEADERS])
@pytest.mark.parametrize("status", ["200 OK", "302 Found", "429 Slow", "599", "999 ?"])
def test_no_header_is_too_odd(poll: Poll, header: str, status: str) -> None:
    """Whatever headers an answer has, a poll is a prediction or an error of ours."""
    body = json.dumps(PREDICTION).encode()
    length = "" if header.lower().startswith(("content-length", "transfer")) else f"Content-Length: {len(body)}\r\n"
    reply = f"HTTP/1.1 {status}\r\nConnection: close\r\n{length}{header}\r\n\r\n".encode("utf-8", "replace") + body
    with serving(reply) as port:
        result: Prediction | e.CometError
        try:
            result = poll(config_of(port), "abc")
        except e.CometError as error:
            result = error.about("abc")
    assert result == Prediction("abc", "succeeded", output=["x"]) or isinstance(result, e.CometError)
