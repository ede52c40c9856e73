"""The API for ``benchmarks.answers``, in a process of its own: answers that a sane server never gives.

``python -m benchmarks.answers_server`` prints its URL as a line of JSON and ends when its standard input ends. An id
says what its answer is: a name of ``SHAPES``, a dot, and a size. Two ids are no shapes: ``silent`` is never answered,
and ``trickle`` is answered a byte at a time, for as many seconds as its size says.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import sys
from collections.abc import Callable

BACKLOG = 10_000
BOMB_BYTES = 500_000_000
"""Unpacked; about 486 kB when compressed."""
TRICKLE_PAUSE = 0.2
LINK = "https://replicate.delivery/xezq/{:08}/out-0.webp"


def _answer(output: object, status: str = "succeeded", **fields: object) -> bytes:
    return json.dumps({"status": status, "output": output, **fields}).encode()


def _raw(output: str) -> bytes:
    """Return an answer whose output is written as it stands."""
    return b'{"status": "succeeded", "output": ' + output.encode() + b"}"


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": "no_such_code"}}).encode()


def _page(text: str) -> bytes:
    return f"<!doctype html><html>{text}</html>".encode()


@functools.cache
def _bomb(size: int) -> bytes:
    """Return a compressed answer with logs of this size."""
    head, tail = _answer(None, "succeeded", logs="0").split(b'"0"')
    block = b"0" * 1_000_000
    return gzip.compress(head + b'"' + block * (size // len(block)) + b'"' + tail, 9)


SHAPES: dict[str, Callable[[int], bytes]] = {
    # Refusals with a long text.
    "blanks": lambda size: _error("a" + " " * size + "b"),
    "request_ids": lambda size: _error("(request id: " * (size // 13)),
    "titles": lambda size: _page("<title" * (size // 6)),
    "open_titles": lambda size: _page("<title>" * (size // 7)),
    "urls": lambda size: _error("http://" * (size // 7)),
    "queries": lambda size: _error("http://a?b " * (size // 11)),
    # Results.
    "text": lambda size: _answer("a" * size),
    "words": lambda size: _answer("word " * (size // 5)),
    "numbers": lambda size: _raw("[" + ",".join(["1"] * (size // 2)) + "]"),
    "nested": lambda size: _raw("[" * (size // 2) + "]" * (size // 2)),
    "nested_900": lambda size: _raw("[" + ",".join(["[" * 900 + "]" * 900] * max(1, size // 1801)) + "]"),
    "keys": lambda size: _answer({f"k{number:06}": 1 for number in range(size // 14)}),
    "links": lambda size: _answer([LINK.format(number) for number in range(size // 60)]),
    "escapes": lambda size: _raw('"' + "\\u00e9" * (size // 6) + '"'),
    "escaped_texts": lambda size: _raw("[" + ",".join(['"\\u00e9"'] * (size // 9)) + "]"),
    "data_uri": lambda size: _answer("data:image/png;base64," + "A" * size),
    "data_words": lambda size: _answer("data:" * (size // 5)),
    "error_text": lambda size: _answer(None, "failed", error="nsfw " * (size // 5)),
    "logs": lambda size: _answer(None, "processing", logs="x" * size),
    "bomb": lambda size: _bomb(size),
    "running": lambda size: _answer(None, "processing"),
}
"""The body of each answer, by its name; a size is about its bytes."""
REFUSED = ("blanks", "request_ids", "urls", "queries")


@functools.cache
def _response(name: str, size: int) -> bytes:
    body = SHAPES[name](size)
    status = "400 Bad Request" if name in REFUSED else "404 Not Found" if "titles" in name else "200 OK"
    kind = "text/html" if "titles" in name else "application/json"
    encoding = "Content-Encoding: gzip\r\n" if name == "bomb" else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{encoding}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """A client's connection: requests without a body, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request whose headers are complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            prediction_id = self._received.split(b" ", 2)[1].decode().rpartition("/")[2]
            self._received = self._received[end + 4 :]
            name, _, size = prediction_id.partition(".")
            if name == "trickle":
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                self._trickle(int(float(size) / TRICKLE_PAUSE))
            elif name != "silent":
                self._transport.write(_response(name, int(size.partition(".")[0])))

    def _trickle(self, remaining: int) -> None:
        if self._transport.is_closing():
            return
        if not remaining:
            self._transport.close()
            return
        self._transport.write(b" ")
        asyncio.get_running_loop().call_later(TRICKLE_PAUSE, self._trickle, remaining - 1)


async def serve() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=BACKLOG)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)  # makes an answer beforehand: its cost is not the client's
        print(json.dumps({"bytes": len(_response(command["name"], command["size"]))}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
