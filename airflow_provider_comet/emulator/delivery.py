"""The files behind the delivery URLs: real pictures, padded on demand, whole or in part, and spoilt by faults."""

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

from aiohttp import web

from airflow_provider_comet.emulator import pictures
from airflow_provider_comet.emulator.faults import Damage
from airflow_provider_comet.emulator.predictions import Prediction
from airflow_provider_comet.emulator.store import Store

logger = logging.getLogger(__name__)

FILES_KEPT = 128  # the rest is drawn again when asked for: equal bytes
CHUNK = 256 * 1024
PADDING_PERIOD = 65_521  # a prime: a client that repeats or skips a block of its own never meets the same bytes again
SLOW_STEPS = 10  # chunks per second of a slow delivery


@functools.cache
def padding() -> memoryview:
    """Long enough for a whole chunk from any place in the period. Random, so that nothing on the way compresses it."""
    period = random.Random(0).randbytes(PADDING_PERIOD)
    return memoryview(period * (CHUNK // PADDING_PERIOD + 2))


@dataclass(frozen=True)
class File:
    """A picture and what it is padded with, which is made while it is sent: a file of gigabytes takes no memory."""

    picture: bytes
    size: int
    sha256: str = ""

    def chunks(self, start: int, stop: int, longest: int = CHUNK) -> Iterator[memoryview]:
        """The bytes from `start` up to `stop`."""
        longest = min(longest, CHUNK)
        while start < stop:
            if start < len(self.picture):
                chunk = memoryview(self.picture)[start : min(stop, start + longest)]
            else:
                place = (start - len(self.picture)) % PADDING_PERIOD
                chunk = padding()[place : place + min(stop - start, longest)]
            start += len(chunk)
            yield chunk


class Deliveries:
    """Answers requests for files.

    :param store: which predictions there are, and the ledger.
    :param file_bytes: the least size of a file; smaller pictures are padded to it.
    """

    def __init__(self, store: Store, *, file_bytes: int = 0) -> None:
        self._store = store
        self._file_bytes = file_bytes
        self._files: OrderedDict[tuple[str, int], asyncio.Future[File]] = OrderedDict()

    async def answer(self, request: web.Request, id: str, name: str, path: str, damage: Damage) -> web.Response:
        """The file, or the part of it that was asked for, as damaged as the test wants it."""
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
        try:
            file = await self._file(prediction, int(number))
        except RuntimeError as error:
            logger.error("%s", error)
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR, text=str(error))
        headers = {"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"}
        status, part = HTTPStatus.OK, range(file.size)
        if (asked := part_asked_for(request, file.size, headers["ETag"])) is not None:
            if not asked:
                headers["Content-Range"] = f"bytes */{file.size}"
                return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
            status, part = HTTPStatus.PARTIAL_CONTENT, asked
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
        sent = part if damage.cut is None else part[: int(len(part) * damage.cut)]
        length = len(part) if damage.content_length is None else damage.content_length
        headers["Content-Length"] = str(length)
        headers["Content-Type"] = damage.content_type or pictures.CONTENT_TYPES[extension]
        self._store.served.append({"id": id, "path": path, "sha256": file.sha256, "bytes": min(len(sent), length)})
        return web.Response(status=status, headers=headers, body=body_of(request, file, sent, length, damage.slow))

    async def _file(self, prediction: Prediction, number: int) -> File:
        """Made once, off the event loop, however many ask at the same time."""
        key = (prediction.id, number)
        making = self._files.get(key)
        if making is None:
            making = asyncio.ensure_future(asyncio.to_thread(make, prediction, number, self._file_bytes))
            self._files[key] = making
            if len(self._files) > FILES_KEPT:
                self._files.popitem(last=False)
        return await asyncio.shield(making)


def part_asked_for(request: web.Request, size: int, etag: str) -> range | None:
    """Empty: nothing of it exists. None: the whole file, also for a Range that RFC 9110 has a server ignore."""
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return range(size)[request.http_range]
    except ValueError:  # not understood, or several ranges at once
        return None


async def body_of(
    request: web.Request, file: File, part: range, length: int, slow: float | None
) -> AsyncIterator[memoryview]:
    """What is sent of a file after headers that promise `length` bytes."""
    longest = CHUNK if slow is None else max(1, int(slow / SLOW_STEPS))
    yield memoryview(b"")  # the headers leave now: aiohttp keeps them for the first bytes, which a cut may leave out
    for chunk in file.chunks(part.start, part.stop, longest):
        if slow is not None:
            await asyncio.sleep(len(chunk) / slow)
        yield chunk
    if len(part) < length and request.transport is not None:
        request.transport.close()  # after what was sent; left open, the client would wait for the rest


def make(prediction: Prediction, number: int, least: int) -> File:
    """Draw and hash a file of at least so many bytes."""
    seed = f"{prediction.seed}/{number}"
    picture = pictures.draw(prediction.prompt, seed, prediction.input.get("aspect_ratio"), prediction.extension)
    file = File(picture, max(len(picture), least))
    digest = sha256()
    for chunk in file.chunks(0, file.size):
        digest.update(chunk)
    return dataclasses.replace(file, sha256=digest.hexdigest())
