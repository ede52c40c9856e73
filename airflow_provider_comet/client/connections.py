"""Connections of the blocking HTTP library that can be ended from outside: by a time limit, or because a task ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, TypeAlias
from weakref import ref

import requests
from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssltransport import SSLTransport

from airflow_provider_comet.client.common import uses_no_proxy

Socket: TypeAlias = socket.socket | SSLTransport


class TimeLimit:
    """Shuts a connection down when the time is over; a context manager around what the time is for.

    A read timeout does not bound that: each byte restarts it.

    :param seconds: from the first ``watch``.
    :ivar is_over: whether the time was over before the block ended.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._connection: Socket | None = None
        self._timer: threading.Timer | None = None
        self.is_over = False

    def watch(self, connection: Socket | None) -> None:
        """Apply to this connection, which may replace the one before: TLS wraps a socket into another one."""
        self._connection = connection
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self._end)
            self._timer.daemon = True
            self._timer.start()
        elif self.is_over:
            _shut_down(connection)

    def __enter__(self) -> TimeLimit:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connection = None  # the timer refers back to this object: the socket would outlive its last user

    def _end(self) -> None:
        self.is_over = True
        _shut_down(self._connection)


class Connections:
    """The open connections of one task, which another thread or a signal handler can abort.

    A thread that waits for bytes can't be interrupted, so its socket is shut down instead.
    """

    def __init__(self) -> None:
        self._is_aborted = threading.Event()
        self._adding = threading.Lock()
        self._sockets: list[ref[Socket]] = []
        self._thread = threading.local()

    @property
    def is_aborted(self) -> bool:
        """Whether ``abort`` was called."""
        return self._is_aborted.is_set()

    @property
    def is_ended(self) -> bool:
        """Whether this thread's connection was shut down, by ``abort`` or by its time limit."""
        limit: TimeLimit | None = getattr(self._thread, "limit", None)
        return self.is_aborted or (limit is not None and limit.is_over)

    def watch(self, connection: Socket) -> None:
        """Register a connection that is about to be used, so that ``abort`` and this thread's time limit reach it."""
        with self._adding:
            others = [known for known in self._sockets if known() not in (None, connection)]
            self._sockets = [*others, ref(connection)]
        if self.is_aborted:  # while it was made
            _shut_down(connection)
        limit: TimeLimit | None = getattr(self._thread, "limit", None)
        if limit is not None:
            limit.watch(connection)

    def abort(self) -> None:
        """Shut down all connections, and every later one as soon as it is made."""
        self._is_aborted.set()
        # Without the lock: a signal handler may have interrupted the thread that holds it. A connection that is being
        # added sees the event.
        for connection in self._sockets:
            _shut_down(connection())

    @contextlib.contextmanager
    def limited(self, limit: TimeLimit) -> Iterator[None]:
        """Apply a time limit to the connection that this thread uses within the block, once it is connected."""
        self._thread.limit = limit
        try:
            with limit:
                yield
        finally:
            self._thread.limit = None


def _shut_down(connection: Socket | None) -> None:
    while isinstance(connection, SSLTransport):  # TLS within the TLS of an https proxy: only the socket below can be
        connection = connection.socket
    if connection is not None:
        with contextlib.suppress(OSError):  # it has been closed already
            # Not the method of a TLS socket: that takes TLS off first, and what another thread sends at this moment,
            # the key included, would leave in the clear.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Session(requests.Session):
    """A session over guarded connections. It follows no redirect, and asks no proxy for plain http on this machine.

    :param adapter: opens the connections.
    """

    def __init__(self, adapter: GuardedAdapter) -> None:
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request."""
        if uses_no_proxy(request.url or ""):
            kwargs["proxies"] = {}
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return no target: to find it, requests would read the whole body of a redirect, however long."""
        return None


class GuardedConnection(HTTPConnection):
    """A connection that is watched by ``connections`` whenever it is used."""

    connections: ClassVar[Connections]

    def connect(self) -> None:
        """Connect, TLS handshake included."""
        super().connect()
        self.connections.watch(self.sock)

    def _tunnel(self) -> None:
        """Ask a proxy for a tunnel.

        :raises ConnectionAbortedError: the connection was ended meanwhile.
        """
        self.connections.watch(self.sock)
        super()._tunnel()
        if self.connections.is_ended:  # http.client takes headers that broke off for complete; TLS would follow
            self.close()
            raise ConnectionAbortedError

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request."""
        if self.sock is not None:  # kept alive
            self.connections.watch(self.sock)
        super().request(*args, **kwargs)


Pools: TypeAlias = Mapping[str, type[HTTPConnectionPool]]


def pools_of(kind: type[GuardedConnection], **attributes: Any) -> Pools:
    """Return pool classes for connections of a kind: urllib3 takes classes, not factories.

    :param attributes: class attributes of the connections.
    """

    class Pool(HTTPConnectionPool):
        ConnectionCls = type(kind.__name__, (kind,), attributes)

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = type(kind.__name__, (kind, HTTPSConnection), attributes)

    return {"http": Pool, "https": TLSPool}


class GuardedAdapter(HTTPAdapter):
    """Opens guarded connections, directly or through a proxy.

    :param direct: the pools of direct connections.
    :param proxied: the pools of connections to a proxy.
    :param pool_maxsize: how many connections to a host are kept alive.
    """

    def __init__(self, direct: Pools, proxied: Pools, pool_maxsize: int = DEFAULT_POOLSIZE) -> None:
        self._proxied = proxied
        super().__init__(pool_maxsize=pool_maxsize)
        self.poolmanager.pool_classes_by_scheme = dict(direct)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of a proxy, whose connections can be ended as well."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):  # SOCKS pools have a connection class of their own
            manager.pool_classes_by_scheme = dict(self._proxied)
        return manager
