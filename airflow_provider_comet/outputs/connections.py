"""Guarded connections to delivery hosts: they send no credentials, reach public addresses only, and can be aborted."""

from __future__ import annotations

import functools
import socket
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar, Final

import requests
from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

from airflow_provider_comet.api.base_url import clean_host
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError
from airflow_provider_comet.client import connections as guarded
from airflow_provider_comet.client.common import HEADERS
from airflow_provider_comet.outputs.download_rules import check_address
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

_hidden = threading.local()
"""``query`` is the query of the link that the thread requests; urllib3 does not know it. See ``_QuietConnection``."""

# "identity": the length and the ranges of a compressed body would say nothing about the file.
_FILE_HEADERS: Final = {**HEADERS, "Accept": "*/*", "Accept-Encoding": "identity"}


class Connections(guarded.Connections):
    """The open connections of one task that downloads files.

    :param header_timeout: seconds until the headers of a response are complete. The body has limits of its own.
    """

    def __init__(self, header_timeout: float = RETRY_BUDGET_SECONDS) -> None:
        super().__init__()
        self.header_timeout = header_timeout

    def raise_if_aborted(self) -> None:
        """Raise an error if ``abort`` was called.

        :raises DeliveryError: it was.
        """
        if self.is_aborted:
            raise DeliveryError("the task was ended")

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until ``abort``.

        :raises DeliveryError: ``abort`` was called.
        """
        self._is_aborted.wait(seconds)
        self.raise_if_aborted()


class Session(guarded.Session):
    """A session that sends no key, no cookie and nothing from netrc, and follows no redirect.

    Each connection's address is checked, since a host name may resolve to another address each time. Behind a proxy
    that address is the proxy's, so only the list of hosts protects there.

    :param connections: where its connections are registered.
    :param config: which hosts may deliver. The API key in it is not used.
    """

    def __init__(self, connections: Connections, config: Config) -> None:
        check = functools.partial(check_address, config=config)
        direct = guarded.pools_of(_FileConnection, connections=connections, check=staticmethod(check))
        proxied = guarded.pools_of(_FileConnection, connections=connections)
        super().__init__(_QuietAdapter(direct, proxied))
        self.headers.clear()
        self.headers.update(_FILE_HEADERS)
        self.auth = _no_auth
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add no credentials. Without any ``auth``, requests would read netrc."""
    return request


class _QuietAdapter(guarded.GuardedAdapter):
    """Hides the queries of links from urllib3, which puts each URL that it knows into its log, warnings and errors.

    A query signs its link.
    """

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return what urllib3 requests: the URL without its query."""
        target, question_mark, query = super().request_url(request, proxies).partition("?")
        _hidden.query = question_mark + query
        return target

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the pools of a proxy, whose connections hide queries, too."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if proxy.lower().startswith("socks"):  # SOCKS pools have a connection class of their own
            manager.pool_classes_by_scheme = _quiet_pools(manager.pool_classes_by_scheme)
        return manager


class _QuietConnection(HTTPConnection):
    """Adds the query of a link when the request is sent."""

    debuglevel = 0
    """``http.client`` prints what it sends if somebody sets its own value."""

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Begin a request, for the whole URL."""
        super().putrequest(method, url + _hidden.query, *args, **kwargs)


class _FileConnection(_QuietConnection, guarded.GuardedConnection):
    connections: ClassVar[Connections]
    check: ClassVar[Any] = staticmethod(lambda address, host: None)
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

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 does
        with guarded.TimeLimit(self.connections.header_timeout) as limit:
            limit.watch(self.sock)
            response = super().getresponse()
        if limit.is_over:  # http.client takes headers that broke off for complete
            response.close()
            raise TimeoutError(f"no answer within {self.connections.header_timeout:.0f} s")
        return response


def _quiet_pools(pools: dict[str, Any]) -> dict[str, Any]:
    """Return pool classes like these whose connections hide the queries of links."""
    return {
        scheme: type(
            pool.__name__, (pool,), {"ConnectionCls": type("Quiet", (_QuietConnection, pool.ConnectionCls), {})}
        )
        for scheme, pool in pools.items()
    }
