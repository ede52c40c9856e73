"""The API as the benchmarks need it, in a process of its own: its work must not count as the client's.

``python -m benchmarks.server`` prints its address as a line of JSON. For each line on its standard input it prints what
it counted since the last one, and it ends when that input does. An id says how long its prediction takes: after the
last dot, ``n8`` means that the eighth look sees the end, ``t1800000000123`` that it ends then, in milliseconds since
1970. Below ``/sensor`` a prediction that is not finished is a 404: that is what ``HttpSensorTrigger`` waits for.
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
    """What is known of the predictions, and what was asked.

    :param slow_share: the share of answers that take longer, chosen by a fixed seed.
    :param slow_seconds: how long those take.
    """

    def __init__(self, slow_share: float = 0.0, slow_seconds: float = 0.0) -> None:
        self.slow_share = slow_share
        self.slow_seconds = slow_seconds
        self._chance = random.Random(SEED)
        self._seen: Counter[str] = Counter()
        self._created: dict[str, float] = {}
        self._looks: Counter[str] = Counter()
        self._connections = 0
        self._held: set[str] = set()
        self._date = (0, "")

    def count_connection(self) -> None:
        """Note that somebody has connected."""
        self._connections += 1

    def report(self) -> dict[str, object]:
        """Return what was counted, and begin anew.

        :returns: under ``held`` the ids whose end fell into a slow answer, or whose next look had one: these could not
            be seen sooner, however well somebody waits. Under ``looks_by`` how many looks were for ids that begin so,
            up to their first dot.
        """
        report = {
            "looks": self._looks.total(),
            "looks_by": self._looks.copy(),
            "connections": self._connections,
            "held": sorted(self._held),
        }
        self._looks.clear()
        self._connections = 0
        self._held.clear()
        return report

    def take(self, path: str, transport: asyncio.Transport) -> None:
        """Answer one request, now or after the slow answer's time."""
        self._looks[path.rpartition("/")[2].partition(".")[0]] += 1
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
        """The prediction as it stands, in the documented shape."""
        self._seen[prediction_id] += 1
        created = self._created.setdefault(prediction_id, now)
        _, _, plan = prediction_id.rpartition(".")
        amount = int(plan[1:])
        is_over = self._seen[prediction_id] >= amount if plan.startswith("n") else now >= amount / 1000
        ended = (now if plan.startswith("n") else amount / 1000) if is_over else None
        return {
            "id": prediction_id,
            "model": "black-forest-labs/flux-schnell",
            "version": "hidden",
            "input": {"prompt": "a lighthouse on a cliff at dawn, watercolour", "aspect_ratio": "16:9"},
            "logs": "Using seed: 49218\n",
            "output": None if ended is None else ["https://replicate.delivery/xezq/lighthouse/out-0.webp"],
            "data_removed": False,
            "error": None,
            "source": "api",
            "status": "processing" if ended is None else "succeeded",
            "created_at": _iso(created),
            "started_at": _iso(created),
            "completed_at": None if ended is None else _iso(ended),
            "metrics": {} if ended is None else {"predict_time": 1.234},
            "urls": {
                "cancel": f"https://api.replicate.com/v1/predictions/{prediction_id}/cancel",
                "get": f"https://api.replicate.com/v1/predictions/{prediction_id}",
                "web": f"https://replicate.com/p/{prediction_id}",
            },
        }


class Connection(asyncio.Protocol):
    """One client: requests without a body, one after the other."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._api.count_connection()

    def data_received(self, data: bytes) -> None:
        """Answer each request whose head is complete."""
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
