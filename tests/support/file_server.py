"""A delivery host on this machine that fails as tests tell it to, and records its requests."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class Answer:
    """How the server answers a request: by default with the whole file.

    :param status: answer this instead of the file.
    :param headers: added, or in place of the usual ones; ``None`` leaves a header out.
    :param break_after: close the connection after so many bytes of the file.
    :param body: instead of the file's bytes.
    :param piece: send so many bytes at a time.
    :param chunked: send it in chunks, without its length.
    :param gate: where the server waits before it sends anything.
    """

    status: int = 200
    headers: dict[str, str | None] = field(default_factory=dict)
    break_after: int | None = None
    body: bytes | None = None
    piece: int = 1 << 20
    chunked: bool = False
    gate: threading.Barrier | None = None


class FileServer:
    """Serves the same file under every path, such as ``url``.

    :param content: the file.
    :param ranges: whether it serves parts, and names the version (``ETag``).
    :param tls: serve https with this context.
    """

    def __init__(self, content: bytes, *, ranges: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.content = content
        self.ranges = ranges
        self.answers: list[Answer] = []
        self.otherwise = Answer()
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore clients that closed their connection."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/x/out-0.webp?X-Amz-Signature=abc"

    @property
    def requested_ranges(self) -> list[str | None]:
        """The ``Range`` header of each request."""
        return [headers.get("range") for headers in self.requests]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append({name.lower(): value for name, value in request.headers.items()} | {"path": request.path})
        answer = self.answers.pop(0) if self.answers else self.otherwise
        if answer.gate is not None:
            answer.gate.wait()
        content = self.content if answer.body is None else answer.body
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start, status = 0, answer.status
        found = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if self.ranges and status == 200 and found and request.headers.get("If-Range") == tag:
            start, status = int(found[1]), 206
        if start and start >= len(content):
            content, start, status = b"", 0, 416
        headers: dict[str, str | None] = {"Content-Type": "image/webp", "Content-Length": str(len(content) - start)}
        if self.ranges:
            headers |= {"ETag": tag, "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if answer.chunked:
            headers |= {"Content-Length": None, "Transfer-Encoding": "chunked"}
        request.send_response(status)
        for name, value in (headers | answer.headers).items():
            if value is not None:
                request.send_header(name, value)
        request.end_headers()
        end = len(content) if answer.break_after is None else answer.break_after
        for position in range(start, end, answer.piece):
            piece = content[position : min(end, position + answer.piece)]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
        if answer.chunked and answer.break_after is None:
            request.wfile.write(b"0\r\n\r\n")
        if answer.break_after is not None:
            request.close_connection = True

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
