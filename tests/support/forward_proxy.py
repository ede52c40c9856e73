"""A real forward proxy on loopback: plain requests by absolute URL, tunnels by CONNECT. It records its requests."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class ForwardProxy:
    """A running proxy.

    :param url: what belongs into ``HTTP_PROXY`` and ``HTTPS_PROXY``.
    :param asked: request line and headers of each request, in order.
    :param refuse: answer every request with this status instead.
    """

    url: str
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refuse: int | None = None

    @property
    def lines(self) -> list[str]:
        """Method and target of each request."""
        return [line for line, _ in self.asked]


@contextlib.contextmanager
def forward_proxy(*, refuse: int | None = None, tls: ssl.SSLContext | None = None) -> Iterator[ForwardProxy]:
    """Run a proxy on a free port for as long as the block lasts.

    :param tls: the proxy itself is reached over TLS with this context.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            self._note()
            if self._refused():
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as server:
                self.send_response(200, "Connection established")
                self.end_headers()
                _relay(self.connection, server)
            self.close_connection = True

        def _forward(self) -> None:
            self._note()
            if self._refused():
                return
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=5)
            headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            upstream.request(self.command, target.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _forward

        def _note(self) -> None:
            proxy.asked.append((f"{self.command} {self.path}", dict(self.headers.items())))

        def _refused(self) -> bool:
            if proxy.refuse is None:
                return False
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(proxy.refuse)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy = ForwardProxy(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}", refuse=refuse)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until one side closes."""
    peer = {client: server, server: client}
    while True:
        readable = select.select([client, server], [], [], 5)[0]
        if not readable:
            return
        for ready in readable:
            try:
                data = ready.recv(65_536)
            except OSError:
                return
            if not data:
                return
            with contextlib.suppress(OSError):
                peer[ready].sendall(data)
