"""``outputs/file_download.py`` over real sockets: files that are too large together, too slow, or never end.

What becomes of broken connections is tested in ``test_download.py``, through the ``Downloader``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import GRACE_SECONDS, MIN_BYTES_PER_SECOND, ByteBudget
from tests.support.file_server import Answer, FileServer
from tests.support.sockets import raw_server
from tests.unit.outputs.conftest import Clock

LOCAL = Config("sk-delivery-0123456789", "http://127.0.0.1:1")
CONTENT = bytes(1_000_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(CONTENT) as server:
        yield server


@pytest.mark.parametrize("chunked", [False, True])
def test_files_that_are_too_large_together(downloader: Downloader, server: FileServer, chunked: bool) -> None:
    """The first is received, and the second refused: when its size is announced, or when so much has come."""
    server.otherwise = Answer(chunked=chunked)
    budget = ByteBudget(1_999_999)
    assert b"".join(downloader.open(server.url, budget, 0)) == CONTENT
    with pytest.raises(OutputRefusedError, match=r"of output 1, its files have \d+ bytes so far; max_bytes is 1999999"):
        list(downloader.open(server.url, budget, 1))


def test_an_expired_link_does_not_count_twice(downloader: Downloader, server: FileServer) -> None:
    """A file that is received anew takes the place of what was received of it before."""
    budget = ByteBudget(1_000_000)
    for _ in range(3):
        assert b"".join(downloader.open(server.url, budget, 0)) == CONTENT


def test_what_was_announced_counts_until_the_end(downloader: Downloader) -> None:
    """Also after a connection that broke, and a second answer that does not say how long the file is."""
    with FileServer(CONTENT, ranges=False) as server:
        server.answers = [Answer(break_after=400_000), Answer(chunked=True)]
        budget, received = ByteBudget(1_500_000), 0
        download = downloader.open(server.url, budget, 0)
        for chunk in download:
            received += len(chunk)
            if received > 400_000:
                break
        with pytest.raises(OutputRefusedError):
            budget.claim(1, 600_000)
        download.close()


def slow_server(clock: Clock, seconds_per_answer: float, new_bytes: int) -> Callable[[socket.socket], None]:
    """Answer with some more bytes than the time before, and break off: without ranges, so that all is repeated."""
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(10_000)
        sent += new_bytes
        clock.now += seconds_per_answer
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + bytes(sent))
        connection.shutdown(socket.SHUT_WR)

    return answer


def test_a_server_that_breaks_off_for_ever(downloader: Downloader, clock: Clock) -> None:
    """It is given up after four minutes and what its bytes are worth, although each answer has new bytes."""
    started = clock.now
    with raw_server(slow_server(clock, 100, 70_000)) as (port, accepted):
        with pytest.raises(DeliveryError, match="less than 8192 bytes a second") as caught:
            list(downloader.open(f"http://127.0.0.1:{port}/a.webp", ByteBudget(1 << 40)))
        assert caught.value.retryable
        assert len(accepted) == 3
    assert GRACE_SECONDS < clock.now - started < GRACE_SECONDS + 210_000 / MIN_BYTES_PER_SECOND + 120


def test_a_slow_line_gets_its_file(downloader: Downloader, clock: Clock) -> None:
    """A connection that is lost again and again at 10 kB/s is no reason to give up."""
    total, piece = 2_000_000, 200_000

    def answer(connection: socket.socket) -> None:
        request = connection.recv(10_000).decode().lower()
        start = int(request.partition("range: bytes=")[2].partition("-")[0] or 0)
        head = f'Content-Range: bytes {start}-{total - 1}/{total}\r\nETag: "v1"\r\nContent-Length: {total - start}'
        clock.now += piece / 10_000
        connection.sendall(f"HTTP/1.1 {206 if start else 200} OK\r\n{head}\r\n\r\n".encode() + bytes(piece))
        connection.shutdown(socket.SHUT_WR)

    with raw_server(answer) as (port, accepted):
        assert b"".join(downloader.open(f"http://127.0.0.1:{port}/a.webp", ByteBudget(total))) == bytes(total)
    assert len(accepted) == total / piece


@pytest.mark.parametrize("digits", [19, 5000])
def test_a_size_that_no_file_has(downloader: Downloader, digits: int) -> None:
    """It is an error of the package, in the headers of a whole file and of a part."""
    size = "9" * digits
    heads = [
        f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\nRIFF",
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-{size}/{size}\r\n\r\nRIFF",
    ]

    for head in heads:

        def answer(connection: socket.socket, head: str = head) -> None:
            connection.recv(10_000)
            connection.sendall(head.encode())
            connection.shutdown(socket.SHUT_WR)

        with raw_server(answer) as (port, _), pytest.raises((DeliveryError, OutputRefusedError)):
            list(downloader.open(f"http://127.0.0.1:{port}/a.webp", ByteBudget(1 << 40)))
