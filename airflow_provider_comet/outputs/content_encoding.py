"""Unpack files that a delivery host packs although it was asked not to, piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.media_types import clean_media_type

PIECE_BYTES = 256 * 1024
"""What is unpacked at once. A few bytes of gzip can unpack to gigabytes; the file's budget counts each piece."""
_READ_BYTES = 64 * 1024
"""What is handed to zlib at once. It copies the rest of it at the end of each part of the stream."""
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_HEADER = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_OTHERS = frozenset({
    *("br", "compress", "x-compress", "deflate", "zstd", "dcb", "dcz"),
    *("aes128gcm", "exi", "pack200-gzip"),
})
"""The other encodings that are registered. What is not registered was never an encoding: ``utf-8``, ``aws-chunked``."""


def is_packed(headers: Mapping[str, str]) -> bool:
    """Return whether a response says that its file is packed with gzip.

    Servers also say so of files that are gzip files themselves, such as ``.tar.gz``: these are left as they are.

    :param headers: names in lower case.
    :raises OutputRefusedError: it is packed in a way that can't be unpacked here.
    """
    words = [word.strip().lower() for word in headers.get("content-encoding", "").split(",")]
    encodings = [word for word in words if word in _GZIP | _OTHERS]
    if len(encodings) > 1 or not _GZIP.issuperset(encodings):
        raise OutputRefusedError(
            f"the delivery host packs the file ({', '.join(encodings)}) although it was asked not to"
        )
    return bool(encodings) and clean_media_type(headers.get("content-type")) != "application/gzip"


def unpack(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip stream in pieces of at most ``PIECE_BYTES``.

    A stream that does not begin like gzip was never packed, and is yielded as it is. What follows the stream and is no
    gzip is padding.

    :raises DeliveryError: the stream is damaged, or ends too early.
    """
    source = (chunk[start : start + _READ_BYTES] for chunk in chunks for start in range(0, len(chunk), _READ_BYTES))
    packed = _fill(b"", source)
    if not packed.startswith(_GZIP_HEADER):
        yield packed
        yield from source
    while packed.startswith(_GZIP_HEADER):
        unpacker = zlib.decompressobj(_GZIP_WINDOW)
        while not unpacker.eof:
            if not (packed := packed or next(source, b"")):
                raise DeliveryError("the packed file breaks off")
            try:
                piece = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error:
                raise DeliveryError("the packed file is damaged") from None
            packed = unpacker.unconsumed_tail
            if piece:
                yield piece
        packed = _fill(unpacker.unused_data, source)
    for _ in source:  # to the end, so that a lost connection is noticed
        pass


def _fill(start: bytes, source: Iterator[bytes]) -> bytes:
    """Return the next bytes of a stream, as many as tell whether gzip begins with them."""
    while len(start) < len(_GZIP_HEADER) and (chunk := next(source, b"")):
        start += chunk
    return start
