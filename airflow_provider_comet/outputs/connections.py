"""Guarded connections to delivery hosts: they send no credentials, reach public addresses only, and can be aborted."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar, Final
from weakref import ref

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse
from urllib3.util.ssltransport import SSLTransport

from airflow_provider_comet.api.base_url import clean_host
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.client.common import HEADERS
from airflow_provider_comet.outputs.download_rules import check_address
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

# "identity": the length and the ranges of a compressed body would say nothing about the file.
_FILE_HEADERS: Final = {**HEADERS, "Accept": "*/*", "Accept-Encoding": "identity"}


class Connections:
    """The open connections of one task, which another thread or a signal handler can abort.

    A thread that waits for bytes can't be interrupted, so its socket is shut down instead.

    :param header_timeout: seconds until the headers of a response are complete. The read timeout does not bound that:
        each byte of a header restarts it.
    """

    def __init__(self, header_timeout: float = RETRY_BUDGET_SECONDS) -> None:
        self._header_timeout = header_timeout
        self._is_aborted = threading.Event()
        self._adding = threading.Lock()
        self._sockets: list[ref[socket.socket | SSLTransport]] = []

    def add(self, connection: socket.socket | SSLTransport) -> None:
        """Register a new connection, so that ``abort`` reaches it."""
        with self._adding:
            self._sockets = [*(known for known in self._sockets if known() is not None), ref(connection)]
        if self._is_aborted.is_set():  # while it was made
            _shut_down(connection)

    def abort(self) -> None:
        """Shut down all connections, and every later one as soon as it is made."""
        self._is_aborted.set()
        # Without the lock: a signal handler may have interrupted the thread that holds it. A connection that is being
        # added sees the event.
        for connection in self._sockets:
            _shut_down(connection())

    def raise_if_aborted(self) -> None:
        """Raise an error if ``abort`` was called.

        :raises DeliveryError: it was.
        """
        if self._is_aborted.is_set():
            raise DeliveryError("the task was ended")

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until ``abort``.

        :raises DeliveryError: ``abort`` was called.
        """
        self._is_aborted.wait(seconds)
        self.raise_if_aborted()

    @contextlib.contextmanager
    def limit_headers(self, connection: socket.socket | SSLTransport | None) -> Iterator[None]:
        """Shut down a connection if the headers, which the block reads, are not complete in time.

        :raises TimeoutError: they were not.
        """
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            _shut_down(connection)

        timer = threading.Timer(self._header_timeout, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if is_late.is_set():  # http.client takes headers that broke off for complete
            raise TimeoutError(f"no answer within {self._header_timeout:.0f} s")


def _shut_down(connection: socket.socket | SSLTransport | None) -> None:
    while isinstance(connection, SSLTransport):  # TLS within the TLS of an https proxy: only the socket below can be
        connection = connection.socket
    if connection is not None:
        with contextlib.suppress(OSError):  # it has been closed already
            connection.shutdown(socket.SHUT_RDWR)


class Session(requests.Session):
    """A session that sends no key, no cookie and nothing from netrc, and follows no redirect.

    :param connections: where its connections are registered.
    :param config: which hosts may deliver. The API key in it is not used.
    """

    def __init__(self, connections: Connections, config: Config) -> None:
        super().__init__()
        self.headers.clear()
        self.headers.update(_FILE_HEADERS)
        self.auth = _no_auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _GuardedAdapter(connections, config)
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return no target: to find it, requests would read the whole body of a redirect, however long."""
        return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no credentials. Without any ``auth``, requests would read netrc."""
    return request


class _GuardedAdapter(HTTPAdapter):
    """Checks the address that each connection has reached, since a host name may resolve to another one each time.

    Behind a proxy that address is the proxy's, so only the list of hosts protects there.
    """

    def __init__(self, connections: Connections, config: Config) -> None:
        self._connections = connections
        super().__init__()
        check = functools.partial(check_address, config=config)
        self.poolmanager.pool_classes_by_scheme = _guarded_pools(connections, check)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of a proxy, whose connections can be aborted as well."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):  # SOCKS pools have a connection class of their own
            manager.pool_classes_by_scheme = _guarded_pools(self._connections, lambda address, host: None)
        return manager


class _GuardedConnection(HTTPConnection):
    connections: ClassVar[Connections]
    check: ClassVar[Any]
    """Called with the address of the other end, and with the host that led there."""

    def _new_conn(self) -> socket.socket:
        """Connect, and check the other end before anything is sent, the TLS handshake included."""
        connection = super()._new_conn()
        try:
            self.check(connection.getpeername()[0], clean_host(self.host))
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self) -> None:
        super().connect()
        self.connections.add(self.sock)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        with self.connections.limit_headers(self.sock):
            return super().getresponse()


class _GuardedTLSConnection(_GuardedConnection, HTTPSConnection):
    pass


def _guarded_pools(connections: Connections, check: Callable[[str, str], None]) -> dict[str, type[HTTPConnectionPool]]:
    """Return pool classes whose connections are registered and checked: urllib3 takes classes, not factories."""
    guards = {"connections": connections, "check": staticmethod(check)}

    class Pool(HTTPConnectionPool):
        ConnectionCls = type("GuardedConnection", (_GuardedConnection,), guards)

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = type("GuardedTLSConnection", (_GuardedTLSConnection,), guards)

    return {"http": Pool, "https": TLSPool}
