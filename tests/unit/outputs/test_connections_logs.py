"""What the libraries log about downloads, at DEBUG and over real sockets: never the query that signs a link."""

from __future__ import annotations

import http.client
import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_comet.api.comet_error import CometError
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.outputs import connections
from airflow_provider_comet.outputs.connections import Connections, Session
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import ByteBudget
from tests.support.file_server import Answer, FileServer
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import private_ca
from tests.support.sockets import raw_server

LOCAL = Config("sk-delivery-0123456789", "http://127.0.0.1:1")
QUERY = "?X-Amz-Signature=verysecret&b=%2F"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of every logger that exists is DEBUG, and ``http.client`` is told to print what it sends."""
    caplog.set_level(logging.DEBUG)
    for name in [*logging.root.manager.loggerDict]:
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)


@pytest.fixture
def all_that_was_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Every log record with its traceback, and what was printed."""

    def said() -> str:
        printed = capfd.readouterr()
        return caplog.text + str([vars(record) for record in caplog.records]) + printed.out + printed.err

    return said


@pytest.fixture
def downloader() -> Iterator[Downloader]:
    """Its time passes by five seconds whenever it is read, so that retries end soon."""
    ticks = itertools.count(0, 5)
    with Downloader(LOCAL, sleep=lambda seconds: None, clock=lambda: next(ticks)) as downloader:
        yield downloader


def test_a_file(downloader: Downloader, all_that_was_said: Callable[[], str]) -> None:
    """The server receives the query, also that of a redirect and of a repeated request; no log does."""
    with FileServer(b"picture") as server:
        server.answers = [Answer(302, {"Location": f"/b.png{QUERY}"}), Answer(503), Answer(break_after=3)]
        url = f"http://127.0.0.1:{server.port}/a.png{QUERY}"
        assert b"".join(downloader.open(url, ByteBudget(100))) == b"picture"
        assert {headers["path"] for headers in server.requests} == {f"/a.png{QUERY}", f"/b.png{QUERY}"}
        assert len(server.requests) == 4
    said = all_that_was_said()
    assert '"GET /b.png HTTP/1.1" 503' in said
    assert "verysecret" not in said
    assert "Signature" not in said


def test_https_through_a_proxy(
    downloader: Downloader,
    all_that_was_said: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same holds for a tunnel."""
    ca = private_ca(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.bundle))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with forward_proxy() as proxy, FileServer(b"picture", tls=ca.server) as server:
        monkeypatch.setenv("https_proxy", proxy.url)
        url = f"https://127.0.0.1:{server.port}/a.png{QUERY}"
        assert b"".join(downloader.open(url, ByteBudget(100))) == b"picture"
        assert [headers["path"] for headers in server.requests] == [f"/a.png{QUERY}"]
        assert len(proxy.lines) == 1
    assert "verysecret" not in all_that_was_said()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: broken\r\nno header at all\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://[::1%s\r\n\r\n" % QUERY.encode(),
        b"HTTP/1.1 302 Found\r\nLocation: https://a..b/x%s\r\n\r\n" % QUERY.encode(),
        b"HTTP/1.1 302 Found\r\nLocation: ftp://a/x%s\r\n\r\n" % QUERY.encode(),
    ],
)
def test_broken_answers(downloader: Downloader, all_that_was_said: Callable[[], str], answer: bytes) -> None:
    """Warnings and exceptions about broken headers and bodies, or about bad redirects, do not hold it either."""

    def talk(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    errors: list[BaseException | None] = []
    with raw_server(talk) as (port, _):
        try:
            list(downloader.open(f"http://127.0.0.1:{port}/a.png{QUERY}", ByteBudget(100)))
        except CometError as error:
            errors.append(error)
    said = all_that_was_said()
    while errors and errors[-1] is not None:
        said += repr(errors[-1]) + str(errors[-1])
        errors.append(errors[-1].__cause__ or errors[-1].__context__)
    assert "Starting new HTTP connection" in said
    assert "verysecret" not in said


def test_no_connection(all_that_was_said: Callable[[], str]) -> None:
    """The exception of the libraries themselves does not hold it, wherever it is shown."""
    session = Session(Connections(), Config("sk-delivery-0123456789", "http://127.0.0.1:1"))
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(f"http://127.0.0.1:1/a.png{QUERY}")
    session.close()
    assert "verysecret" not in str(caught.value) + repr(caught.value.args) + all_that_was_said()


def test_others_log_as_before(downloader: Downloader, all_that_was_said: Callable[[], str]) -> None:
    """What a DAG's own requests log, in the same thread, is theirs."""
    with FileServer(b"picture") as server:
        list(downloader.open(server.url, ByteBudget(100)))
        requests.get(f"http://127.0.0.1:{server.port}/mine.png?mine=1", timeout=20)
        assert server.requests[-1]["path"] == "/mine.png?mine=1"
    said = all_that_was_said()
    assert '"GET /mine.png?mine=1 HTTP/1.1" 200' in said
    assert "send: b'GET /mine.png?mine=1" in said


def test_pools_of_a_socks_proxy() -> None:
    """They keep their own classes, whose requests hide the query as well."""
    pools = connections._quiet_pools({"http": HTTPConnectionPool, "https": HTTPSConnectionPool})
    assert issubclass(pools["https"], HTTPSConnectionPool)
    for pool in pools.values():
        assert issubclass(pool.ConnectionCls, connections._QuietConnection)
        assert pool.ConnectionCls.putrequest is connections._QuietConnection.putrequest
