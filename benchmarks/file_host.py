"""A delivery host in a process of its own, which sends one file by ``sendfile``: faster than anybody can store it.

``python -m benchmarks.file_host FILE [FOLDER]`` prints its address as a line of JSON, and ends with its standard input.
With a folder it speaks https, and its authority's certificate goes there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web

from tests.support.private_ca import private_ca


async def serve(path: Path, tls: Path | None) -> None:
    """Serve until the standard input ends."""

    async def send(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers={"Content-Type": "video/mp4"})

    app = web.Application()
    app.router.add_get("/{name:.*}", send)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    ca = private_ca(tls) if tls else None
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ca.server if ca else None).start()
    address = f"{'https' if ca else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    print(json.dumps({"url": address, "ca": str(ca.bundle) if ca else None}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(*map(Path, sys.argv[1:3])) if len(sys.argv) > 2 else serve(Path(sys.argv[1]), None))
