"""``Body``: the body of an answer as it arrives, unpacked within a limit whatever a server sends."""

from __future__ import annotations

import re
import zlib
from typing import Final

from airflow_provider_comet.api.response import SMALL_BYTES

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""The most that an answer may have, unpacked. Outputs can be data URIs, so an answer may hold whole pictures and short
videos. Half a megabyte of gzip can unpack to more than a gigabyte, which would end a triggerer and all its waits."""

_TOO_LARGE = f"the body has more than {MAX_ANSWER_BYTES // 1024**2} MiB, which is the limit; it was not read".encode()
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_WINDOWS = (32 + zlib.MAX_WBITS, -zlib.MAX_WBITS)
"""For zlib: a gzip or zlib header, or none at all, which some servers call "deflate"."""
_SHORT_WORD = re.compile(r"[\w-]{1,20}", re.ASCII)


class Body:
    """The body of an answer, collected piece by piece.

    A body that can't be read is replaced by a sentence that says why: the answer's status still has its meaning.

    :param encoding: the ``Content-Encoding``.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> bool:
        """Append a piece, and return whether another piece may follow."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size <= MAX_ANSWER_BYTES

    def read_small(self) -> bytes | None:
        """Return the body as ``read`` does, or ``None`` if it has more than ``SMALL_BYTES``."""
        return self._unpack(SMALL_BYTES)

    def read(self) -> bytes:
        """Return the unpacked body, or a sentence that says why it can't be read."""
        body = self._unpack(MAX_ANSWER_BYTES)
        return _TOO_LARGE if body is None else body

    def _unpack(self, limit: int) -> bytes | None:
        """Return the body, or ``None`` if it has more than ``limit`` bytes before or after it is unpacked."""
        if self._size > limit:
            return None
        raw = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = [raw]  # a large body is not kept twice
        if not raw or self._encoding in {"", "identity"}:
            return raw
        for window in _WINDOWS if self._encoding in _PACKED else ():
            unpacker = zlib.decompressobj(window)
            try:
                unpacked = unpacker.decompress(raw, limit + 1)
            except zlib.error:
                continue
            if len(unpacked) > limit:
                return None
            if unpacker.eof:
                return unpacked
        return raw if _is_text(raw) else self._unreadable()

    def _unreadable(self) -> bytes:
        # A longer word may be anything that the server was told, even half the key.
        name = f" {self._encoding!r}" if _SHORT_WORD.fullmatch(self._encoding) else ""
        return f"the body can't be unpacked: its Content-Encoding{name} is unknown, not true, or it breaks off".encode()


def _is_text(raw: bytes) -> bool:
    """Return whether a body was sent plain although its ``Content-Encoding`` says otherwise, as some proxies do."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
