"""Serve the files behind the delivery URLs: real pictures, padded on demand, whole or in part, damaged by faults."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from aiohttp import web

from airflow_provider_comet.emulator import pictures
from airflow_provider_comet.emulator.faults import Damage
from airflow_provider_comet.emulator.predictions import EXPIRES, Prediction
from airflow_provider_comet.emulator.store import Store

logger = logging.getLogger(__name__)

MAX_CACHED_FILES = 128  # an older file is drawn again when it is requested, with the same bytes
CHUNK = 256 * 1024
PADDING_PERIOD = 65_521  # a prime: if a client repeats or skips a block, the bytes differ from the right ones
SLOW_CHUNKS_PER_SECOND = 10


@functools.cache
def padding() -> memoryview:
    """Return the bytes that pad a file, long enough for a chunk from any offset in the period.

    They are random, so that a proxy can't compress them.
    """
    period = random.Random(0).randbytes(PADDING_PERIOD)
    return memoryview(period * (CHUNK // PADDING_PERIOD + 2))


@dataclass(frozen=True)
class File:
    """A picture and its padding.

    The padding is made while it is sent, so a file of gigabytes takes no memory.

    :param picture: the bytes of the picture.
    :param size: bytes of the whole file.
    :param sha256: the hash of the whole file.
    """

    picture: bytes
    size: int
    sha256: str = ""

    def chunks(self, start: int, stop: int, chunk_size: int = CHUNK) -> Iterator[memoryview]:
        """Yield the bytes from `start` up to `stop`."""
        chunk_size = min(chunk_size, CHUNK)
        while start < stop:
            if start < len(self.picture):
                chunk = memoryview(self.picture)[start : min(stop, start + chunk_size)]
            else:
                offset = (start - len(self.picture)) % PADDING_PERIOD
                chunk = padding()[offset : offset + min(stop - start, chunk_size)]
            start += len(chunk)
            yield chunk


class Deliveries:
    """Answers requests for files.

    :param store: the predictions and the ledger.
    :param file_bytes: the minimum size of a file; smaller pictures are padded to it.
    """

    def __init__(self, store: Store, *, file_bytes: int = 0) -> None:
        """Start with an empty cache of files."""
        self._store = store
        self._file_bytes = file_bytes
        self._files: OrderedDict[tuple[str, int], asyncio.Future[File]] = OrderedDict()

    async def answer(self, request: web.Request, id: str, name: str, path: str, damage: Damage) -> web.Response:
        """Answer with the file or the requested range of it.

        :param id: the prediction.
        :param name: number and extension of the file, such as `0.webp`.
        :param path: what the ledger shows.
        :param damage: what is wrong with the answer.
        """
        if "Authorization" in request.headers:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="do not send your key to a delivery host")
        prediction = self._store.predictions.get(id)
        number, _, extension = name.partition(".")
        if (
            prediction is None
            or extension != prediction.extension
            or number not in map(str, range(prediction.files))
            or not prediction.delivers(self._store.clock(), self._store.retention)
        ):
            return web.Response(status=HTTPStatus.NOT_FOUND, text="not found, or removed")
        if self._store.link_seconds is not None and not self._store.clock() < expires(request):
            return web.Response(status=HTTPStatus.FORBIDDEN, text="the link has expired")
        try:
            file = await self._file(prediction, int(number))
        except RuntimeError as error:
            logger.error("%s", error)
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text=str(error))
        headers = {"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"}
        status, part = HTTPStatus.OK, range(file.size)
        if (requested := requested_range(request, file.size, headers["ETag"])) is not None:
            if not requested:
                headers["Content-Range"] = f"bytes */{file.size}"
                return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
            status, part = HTTPStatus.PARTIAL_CONTENT, requested
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
        sent = part if damage.cut is None else part[: int(len(part) * damage.cut)]
        length = len(part) if damage.content_length is None else damage.content_length
        headers["Content-Length"] = str(length)
        headers["Content-Type"] = damage.content_type or pictures.CONTENT_TYPES[extension]
        entry = {"id": id, "path": path, "sha256": file.sha256, "bytes": min(len(sent), length), "sent": 0}
        self._store.served.append(entry)
        return web.Response(
            status=status, headers=headers, body=stream(request, file, sent, length, damage.slow, entry)
        )

    async def _file(self, prediction: Prediction, number: int) -> File:
        """Return a file, drawn once outside the event loop although several clients request it at the same time."""
        key = (prediction.id, number)
        file = self._files.get(key)
        if file is None:
            file = asyncio.ensure_future(asyncio.to_thread(draw_file, prediction, number, self._file_bytes))
            self._files[key] = file
            if len(self._files) > MAX_CACHED_FILES:
                self._files.popitem(last=False)
        return await asyncio.shield(file)


def requested_range(request: web.Request, size: int, etag: str) -> range | None:
    """Return the range of bytes that a request wants of a file.

    :returns: `None` for the whole file, also if RFC 9110 tells a server to ignore the `Range`; an empty range if no
        byte of it exists.
    """
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return range(size)[request.http_range]
    except ValueError:  # malformed, or several ranges at once
        return None


def expires(request: web.Request) -> float:
    """Return until when a link can be used, in seconds since 1970; 0 if the link does not say it."""
    try:
        return float(request.query.get(EXPIRES, ""))
    except ValueError:
        return 0.0


async def stream(
    request: web.Request, file: File, part: range, length: int, slow: float | None, entry: dict[str, Any]
) -> AsyncIterator[memoryview]:
    """Yield the bytes to send of a file after headers that promise `length` bytes.

    :param entry: of the ledger; it counts the bytes that were sent, as far as the client was there to take them.
    """
    chunk_size = CHUNK if slow is None else max(1, int(slow / SLOW_CHUNKS_PER_SECOND))
    yield memoryview(b"")  # aiohttp holds the headers back until the first bytes, which may never come after a cut
    for chunk in file.chunks(part.start, part.stop, chunk_size):
        if slow is not None:
            await asyncio.sleep(len(chunk) / slow)
        yield chunk
        entry["sent"] = min(entry["sent"] + len(chunk), entry["bytes"])
    if len(part) < length and request.transport is not None:
        request.transport.close()  # sends what is buffered; otherwise the client would wait for the rest


def draw_file(prediction: Prediction, number: int, min_bytes: int) -> File:
    """Draw and hash a file of at least `min_bytes` bytes."""
    seed = f"{prediction.seed}/{number}"
    picture = pictures.draw(prediction.prompt, seed, prediction.input.get("aspect_ratio"), prediction.extension)
    file = File(picture, max(len(picture), min_bytes))
    digest = sha256()
    for chunk in file.chunks(0, file.size):
        digest.update(chunk)
    return dataclasses.replace(file, sha256=digest.hexdigest())
