"""The API for the benchmarks, in a process of its own, so that its CPU does not count as the client's.

``python -m benchmarks.server`` prints its URL as a line of JSON. For each line on its standard input it prints its
counts since the line before, and it ends when the input ends. An id says how long its prediction takes: after the last
dot, ``n8`` means that the eighth poll gets the result, and ``t1800000000123`` that it ends at this time, in
milliseconds since 1970. Below ``/sensor`` a prediction that has not finished is a 404, because ``HttpSensorTrigger``
waits for the end of a 404.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

from tests.support.private_ca import private_ca

SEED = 1
BACKLOG = 10_000


class Api:
    """The predictions, and the counts of the requests.

    :param slow_share: the share of slow answers, chosen by a fixed seed.
    :param slow_seconds: how long slow answers take.
    """

    def __init__(self, slow_share: float = 0.0, slow_seconds: float = 0.0) -> None:
        """Start without predictions."""
        self.slow_share = slow_share
        self.slow_seconds = slow_seconds
        self._chance = random.Random(SEED)
        self._polls_by_id: Counter[str] = Counter()
        self._created: dict[str, float] = {}
        self._polls: Counter[str] = Counter()
        self._connections = 0
        self._held: set[str] = set()
        self._date = (0, "")

    def count_connection(self) -> None:
        """Count a connection."""
        self._connections += 1

    def report(self) -> dict[str, object]:
        """Return the counts and reset them.

        :returns: ``held`` has the ids whose prediction ended during a slow answer, or whose next poll got a slow
            answer: no client could detect their end sooner. ``polls_by`` has the polls by the beginning of the id, up
            to its first dot.
        """
        report = {
            "polls": self._polls.total(),
            "polls_by": self._polls.copy(),
            "connections": self._connections,
            "held": sorted(self._held),
        }
        self._polls.clear()
        self._connections = 0
        self._held.clear()
        return report

    def take(self, path: str, transport: asyncio.Transport) -> None:
        """Answer a request, at once or after ``slow_seconds``."""
        self._polls[path.rpartition("/")[2].partition(".")[0]] += 1
        if self.slow_share and self._chance.random() < self.slow_share:
            prediction_id = path.rpartition("/")[2]
            _, _, plan = prediction_id.rpartition(".")
            if plan.startswith("t") and time.time() + self.slow_seconds > int(plan[1:]) / 1000:
                self._held.add(prediction_id)
            asyncio.get_running_loop().call_later(self.slow_seconds, self._send, path, transport)
        else:
            self._send(path, transport)

    def _send(self, path: str, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            return
        now = time.time()
        body = self._body(path.rpartition("/")[2], now)
        is_running = body["completed_at"] is None
        if int(now) != self._date[0]:
            self._date = int(now), formatdate(now, usegmt=True)
        content = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {'404 Not Found' if is_running and path.startswith('/sensor/') else '200 OK'}\r\n"
            f"Date: {self._date[1]}\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\n"
            "Connection: keep-alive\r\n"
            "Server: cloudflare\r\n"
            "CF-RAY: 9a1b2c3d4e5f6a7b-FRA\r\n"
            "CF-Cache-Status: DYNAMIC\r\n"
            "X-CometAPI-Request-Id: 20260301123456789012345AbCdEfGh\r\n"
            "\r\n"
        )
        transport.write(head.encode() + content)

    def _body(self, prediction_id: str, now: float) -> dict[str, object]:
        """Return the prediction at ``now`` in the documented shape."""
        self._polls_by_id[prediction_id] += 1
        created = self._created.setdefault(prediction_id, now)
        _, _, plan = prediction_id.rpartition(".")
        amount = int(plan[1:])
        is_finished = self._polls_by_id[prediction_id] >= amount if plan.startswith("n") else now >= amount / 1000
        completed = (now if plan.startswith("n") else amount / 1000) if is_finished else None
        return {
            "id": prediction_id,
            "model": "black-forest-labs/flux-schnell",
            "version": "hidden",
            "input": {"prompt": "a lighthouse on a cliff at dawn, watercolour", "aspect_ratio": "16:9"},
            "logs": "Using seed: 49218\n",
            "output": None if completed is None else ["https://replicate.delivery/xezq/lighthouse/out-0.webp"],
            "data_removed": False,
            "error": None,
            "source": "api",
            "status": "processing" if completed is None else "succeeded",
            "created_at": _iso(created),
            "started_at": _iso(created),
            "completed_at": None if completed is None else _iso(completed),
            "metrics": {} if completed is None else {"predict_time": 1.234},
            "urls": {
                "cancel": f"https://api.replicate.com/v1/predictions/{prediction_id}/cancel",
                "get": f"https://api.replicate.com/v1/predictions/{prediction_id}",
                "web": f"https://replicate.com/p/{prediction_id}",
            },
        }


class Connection(asyncio.Protocol):
    """A client's connection: requests without a body, one after the other."""

    def __init__(self, api: Api) -> None:
        """Start without received bytes."""
        self._api = api
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport and count the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._api.count_connection()

    def data_received(self, data: bytes) -> None:
        """Answer each request whose headers are complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            path = self._received.split(b" ", 2)[1].decode()
            self._received = self._received[end + 4 :]
            self._api.take(path, self._transport)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the standard input ends."""
    api = Api(arguments.slow_share, arguments.slow_seconds)
    loop = asyncio.get_running_loop()
    ca = private_ca(arguments.tls) if arguments.tls else None
    server = await loop.create_server(
        lambda: Connection(api), "127.0.0.1", 0, ssl=ca.server if ca else None, backlog=BACKLOG
    )
    port = server.sockets[0].getsockname()[1]
    address = {"url": f"{'https' if ca else 'http'}://127.0.0.1:{port}", "ca": str(ca.bundle) if ca else None}
    print(json.dumps(address), flush=True)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while await commands.readline():
        print(json.dumps(api.report()), flush=True)


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="https; the authority's certificate goes there")
    parser.add_argument("--slow-share", type=float, default=0.0)
    parser.add_argument("--slow-seconds", type=float, default=0.0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
