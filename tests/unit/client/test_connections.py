"""``client/connections.py``: connections that are ended from outside. Those of files are tested with the downloads."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import weakref
from collections.abc import Iterator

import pytest

from airflow_provider_comet.client.connections import Connections, TimeLimit

SOON = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(SOON)
        yield near, far


def test_a_reader_is_ended_when_the_time_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    """A thread that waits for bytes gets the end of the stream, and can tell why."""
    with TimeLimit(0.02) as limit:
        limit.watch(pair[0])
        assert pair[0].recv(1) == b""
    assert limit.is_over


def test_a_time_limit_follows_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    """The time runs from the first connection, and ends the one in use: TLS wraps a socket into another one."""
    other, far = socket.socketpair()
    with other, far, TimeLimit(0.02) as limit:
        other.settimeout(SOON)
        limit.watch(pair[0])
        limit.watch(other)
        assert other.recv(1) == b""
        limit.watch(pair[0])
        assert pair[0].recv(1) == b""


def test_a_block_that_ends_in_time_keeps_its_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    """After the block the timer is gone, and nothing keeps the socket alive."""
    with TimeLimit(SOON) as limit:
        limit.watch(pair[0])
    assert not limit.is_over
    pair[1].sendall(b"x")
    assert pair[0].recv(1) == b"x"
    near, far = socket.socketpair()
    with TimeLimit(SOON) as limit:
        limit.watch(near)
    known = weakref.ref(near)
    near.close()
    far.close()
    gc.disable()
    try:
        del near
        assert known() is None
    finally:
        gc.enable()


def test_a_limit_is_for_the_thread_that_set_it(pair: tuple[socket.socket, socket.socket]) -> None:
    """Connections are shared by threads, and each exchange has a limit of its own."""
    connections = Connections()
    limit = TimeLimit(SOON)
    with connections.limited(limit):
        thread = threading.Thread(target=connections.watch, args=(pair[0],))
        thread.start()
        thread.join(SOON)
        assert limit._timer is None
        connections.watch(pair[0])
        assert limit._timer is not None
    with contextlib.suppress(RuntimeError):  # never started, if it was canceled first
        limit._timer.join(SOON)
    assert not limit._timer.is_alive()


def test_an_abort_reaches_earlier_and_later_connections(pair: tuple[socket.socket, socket.socket]) -> None:
    """All that are open are shut down, and one that was being made meanwhile is, too."""
    connections = Connections()
    other, far = socket.socketpair()
    with other, far:
        other.settimeout(SOON)
        connections.watch(pair[0])
        connections.abort()
        connections.watch(other)
        assert connections.is_aborted
        assert (pair[0].recv(1), other.recv(1)) == (b"", b"")


def test_a_connection_is_registered_once_and_not_kept() -> None:
    """A kept-alive connection is used many times, and those that are closed leave the list."""
    connections = Connections()
    near, far = socket.socketpair()
    for _ in range(5):
        connections.watch(near)
    assert len(connections._sockets) == 1
    near.close()
    del near
    connections.watch(far)
    assert len(connections._sockets) == 1
    far.close()
