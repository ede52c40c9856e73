"""``outputs/connections.py`` over real sockets: servers that take forever, and how a task that ends aborts them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.outputs.connections import Connections, Session
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import ByteBudget
from tests.support.file_server import Answer, FileServer
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import PrivateCA, private_ca
from tests.support.sockets import raw_server

KEY = "sk-delivery-0123456789"
SOON = 20  # seconds: much less than the read timeout of the connection, which is 75


@contextmanager
def talking(
    talk: Callable[[socket.socket], None], scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A server that lets ``talk`` answer each connection; yields its URL."""
    ca: PrivateCA | None = None
    if scheme == "https":
        ca = private_ca(tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.bundle))

    def serve(connection: socket.socket) -> None:
        with connection if ca is None else ca.server.wrap_socket(connection, server_side=True) as line:
            line.recv(10_000)
            talk(line)

    with raw_server(serve) as (port, _):
        yield f"{scheme}://127.0.0.1:{port}/a.webp"


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def test_headers_that_never_end(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a byte of a header now and then times out, although each byte restarts the read timeout."""
    is_over = threading.Event()

    def trickle(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not is_over.wait(0.02):
            line.sendall(b"x")

    with talking(trickle, scheme, tmp_path, monkeypatch) as url:
        session = Session(Connections(0.3), Config(KEY, "http://127.0.0.1:1"))
        began = time.monotonic()
        with pytest.raises(requests.RequestException):
            session.get(url, stream=True, timeout=30)
        assert time.monotonic() - began < SOON
        is_over.set()
        session.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"], ids=["headers", "body"])
def test_an_abort_does_not_wait(scheme: str, sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a server returns at once, whatever it waits for: Airflow kills after five seconds."""
    is_requested, is_over = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def stall(line: socket.socket) -> None:
        line.sendall(sent)
        is_requested.set()
        is_over.wait(60)

    with (
        talking(stall, scheme, tmp_path, monkeypatch) as url,
        Downloader(Config(KEY, "http://127.0.0.1:1")) as downloader,
    ):

        def fetch() -> None:
            try:
                list(downloader.open(url, ByteBudget(10_000)))
            except DeliveryError as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert is_requested.wait(SOON)
        downloader.abort()
        thread.join(SOON)
        assert not thread.is_alive()
        is_over.set()
    assert ["the task was ended" in str(error) for error in errors] == [True]


@pytest.fixture
def behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateCA]:
    """All https goes through a proxy that is itself spoken to over TLS."""
    ca = private_ca(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.bundle))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with forward_proxy(tls=ca.server) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        yield ca
        assert proxy.lines
        assert all(line.startswith("CONNECT 127.0.0.1:") for line in proxy.lines)


def test_behind_a_proxy_with_tls(behind_tls: PrivateCA) -> None:
    """TLS within TLS has a connection class of its own: a file is received through it, and an abort does no harm."""
    with (
        FileServer(b"picture", tls=behind_tls.server) as server,
        Downloader(Config(KEY, "http://127.0.0.1:1")) as downloader,
    ):
        download = downloader.open(server.url, ByteBudget(100))
        assert b"".join(download) == b"picture"
        downloader.abort()


def test_an_abort_behind_a_proxy_with_tls(behind_tls: PrivateCA) -> None:
    """A thread that reads through such a proxy returns at once, too."""
    is_requested, is_over = threading.Event(), threading.Event()

    def stall(connection: socket.socket) -> None:
        with behind_tls.server.wrap_socket(connection, server_side=True) as line:
            line.recv(10_000)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            is_requested.set()
            is_over.wait(60)

    with raw_server(stall) as (port, _), Downloader(Config(KEY, "http://127.0.0.1:1")) as downloader:
        threading.Thread(target=lambda: is_requested.wait(SOON) and downloader.abort()).start()
        with pytest.raises(DeliveryError, match="the task was ended"):
            list(downloader.open(f"https://127.0.0.1:{port}/a.webp", ByteBudget(10_000)))
        is_over.set()


def test_an_abort_ends_pauses() -> None:
    """A thread that waits for the next attempt returns at once."""
    with FileServer(b"x") as server, Downloader(Config(KEY, "http://127.0.0.1:1")) as downloader:
        server.otherwise = Answer(503, {"Retry-After": "60"})
        threading.Timer(0.2, downloader.abort).start()
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="the task was ended"):
            downloader.open(server.url, ByteBudget(10))
        assert time.monotonic() - began < SOON
    with pytest.raises(DeliveryError, match="the task was ended"):
        downloader.raise_if_aborted()
