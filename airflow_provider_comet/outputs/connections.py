"""Connections to delivery hosts: nothing of ours goes along, their real address is checked, and they can be cut."""

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

from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.client.common import HEADERS
from airflow_provider_comet.outputs import download_rules as delivery
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

# "identity": a packed body would make its length and its ranges say nothing about the file.
_FILE_HEADERS: Final = {**HEADERS, "Accept": "*/*", "Accept-Encoding": "identity"}


class Lines:
    """The connections of one task, which may be cut from outside: a thread that waits for bytes can't be told to end.

    :param head_seconds: how long an answer may take to begin, headers included. The read timeout does not bound that:
        it starts anew with each byte of a header.
    """

    def __init__(self, head_seconds: float = RETRY_BUDGET_SECONDS) -> None:
        self._head_seconds = head_seconds
        self._is_cut = threading.Event()
        self._adding = threading.Lock()
        self._sockets: list[ref[socket.socket | SSLTransport]] = []

    def add(self, line: socket.socket | SSLTransport) -> None:
        """Take in a connection that has been made."""
        with self._adding:
            self._sockets = [*(one for one in self._sockets if one() is not None), ref(line)]
        if self._is_cut.is_set():  # meanwhile
            _cut(line)

    def cut(self) -> None:
        """End all of them, and those to come."""
        self._is_cut.set()
        # Without the lock: a signal handler may have interrupted whoever holds it. What is added now sees the event.
        for one in self._sockets:
            _cut(one())

    def check(self) -> None:
        """Refuse to go on after a cut.

        :raises DeliveryError: there was one.
        """
        if self._is_cut.is_set():
            raise DeliveryError("the task was ended")

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond a cut.

        :raises DeliveryError: there was one.
        """
        self._is_cut.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def head_of(self, line: socket.socket | SSLTransport | None) -> Iterator[None]:
        """Cut a connection whose answer takes too long to begin.

        :raises TimeoutError: it was.
        """
        is_overdue = threading.Event()

        def give_up() -> None:
            is_overdue.set()
            _cut(line)

        timer = threading.Timer(self._head_seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if is_overdue.is_set():  # http.client takes headers that break off for all there are
            raise TimeoutError(f"no answer within {self._head_seconds:.0f} s")


def _cut(line: socket.socket | SSLTransport | None) -> None:
    while isinstance(line, SSLTransport):  # TLS within that of an https proxy: it can't be cut, what is below it can
        line = line.socket
    if line is not None:
        with contextlib.suppress(OSError):  # it has ended by itself
            line.shutdown(socket.SHUT_RDWR)


class Session(requests.Session):
    """Sends no key, no cookie and nothing from netrc, and follows no redirect.

    :param is_local: this machine's own addresses are allowed.
    """

    def __init__(self, lines: Lines, *, is_local: bool) -> None:
        super().__init__()
        self.headers.clear()
        self.headers.update(_FILE_HEADERS)
        self.auth = _no_auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(lines, is_local)
        for scheme in ("https://", "http://"):
            self.mount(scheme, adapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Know of none: requests would read all of a redirect's body, however long, to tell where it leads."""
        return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Attach nothing. Being there at all, it keeps netrc out."""
    return request


class _Adapter(HTTPAdapter):
    """Checks the address that each connection has really come to: a name may lead to another one each time it is looked
    up. Behind a proxy that is the proxy's, and the list of hosts decides alone.
    """

    def __init__(self, lines: Lines, is_local: bool) -> None:
        self._lines = lines
        super().__init__()
        check = functools.partial(delivery.check_address, is_local=is_local)
        self.poolmanager.pool_classes_by_scheme = _pools(lines, check)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of a proxy, whose connections can be cut as well."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):  # those have a class of their own
            manager.pool_classes_by_scheme = _pools(self._lines, lambda address: None)
        return manager


class _Line(HTTPConnection):
    lines: ClassVar[Lines]
    check: ClassVar[Any]
    """Called with the address of the other end."""

    def _new_conn(self) -> socket.socket:
        """Connect, and check the other end before anything is sent, TLS's first words included."""
        connection = super()._new_conn()
        try:
            self.check(connection.getpeername()[0])
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self) -> None:
        super().connect()
        self.lines.add(self.sock)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        with self.lines.head_of(self.sock):
            return super().getresponse()


class _TLSLine(_Line, HTTPSConnection):
    pass


def _pools(lines: Lines, check: Callable[[str], None]) -> dict[str, type[HTTPConnectionPool]]:
    watched = {"lines": lines, "check": staticmethod(check)}

    class Pool(HTTPConnectionPool):
        ConnectionCls = type("Line", (_Line,), watched)

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = type("TLSLine", (_TLSLine,), watched)

    return {"http": Pool, "https": TLSPool}
