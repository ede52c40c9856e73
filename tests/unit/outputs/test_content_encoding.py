"""``outputs/content_encoding.py``: what is packed, and the content of gzip streams.

Over sockets: ``test_writer_files.py``.
"""

from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.outputs.content_encoding import PIECE_BYTES, is_packed, unpack
from tests.support.growth import assert_linear

CONTENT = random.Random(0).randbytes(50_000) + bytes(700_000)


@pytest.mark.parametrize(
    ("encoding", "media_type", "expected"),
    [
        *((word, "image/webp", False) for word in ("", "identity", "utf-8", "aws-chunked", "binary", ", ,", "gzipped")),
        *((word, "image/webp", True) for word in ("gzip", "GZIP ", "x-gzip", "aws-chunked,gzip", "gzip, identity")),
        *(("gzip", media_type, False) for media_type in ("application/gzip", "application/x-gzip; a=b")),
    ],
)
def test_what_is_packed(encoding: str, media_type: str, expected: bool) -> None:
    """Only gzip is; what is no registered encoding is ignored, and a gzip file is left as it is."""
    assert is_packed({"content-encoding": encoding, "content-type": media_type}) is expected
    assert not is_packed({})


@pytest.mark.parametrize("encoding", ["br", "Zstd", "deflate", "compress", "br, gzip", "gzip,gzip", "aws-chunked, br"])
def test_what_can_not_be_unpacked(encoding: str) -> None:
    """It is refused at once, before the file is received."""
    with pytest.raises(OutputRefusedError, match="packs the file"):
        is_packed({"content-encoding": encoding})


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.integers(1, 40), st.sampled_from([b"", b"\0" * 9]))
def test_any_stream(parts: list[bytes], size: int, padding: bytes) -> None:
    """However a stream is cut into chunks, and of however many parts it consists."""
    packed = b"".join(map(gzip.compress, parts)) + padding
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert b"".join(unpack(chunks)) == b"".join(parts)


@given(st.binary(max_size=60).filter(lambda content: not content.startswith(b"\x1f\x8b")), st.integers(1, 40))
def test_what_was_never_packed(content: bytes, size: int) -> None:
    """It is passed on as it is."""
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    assert b"".join(unpack(chunks)) == content


def test_pieces_are_small() -> None:
    """However much a few bytes unpack to."""
    pieces = [*unpack([gzip.compress(CONTENT)])]
    assert b"".join(pieces) == CONTENT
    assert max(map(len, pieces)) <= PIECE_BYTES


def test_damaged_streams() -> None:
    """No content that is not whole passes for whole."""
    packed = gzip.compress(CONTENT)
    for damaged, words in (
        (packed[:-1], "breaks off"),
        (packed[:40_000], "breaks off"),
        (packed + packed[:-1], "breaks off"),
        (packed[:-5] + b"12345", "damaged"),
        (packed[:30_000] + b"?" + packed[30_001:], "damaged"),
        (b"\x1f\x8b" + bytes(20), "damaged"),
    ):
        with pytest.raises(DeliveryError, match=words):
            list(unpack([damaged]))


def test_many_small_parts() -> None:
    """Four times the parts take about four times as long."""
    empty = gzip.compress(b"")
    assert list(unpack([empty * 3])) == []
    assert_linear(lambda text: [*unpack([empty * len(text)])], "x", sizes=(10_000, 40_000, 160_000))
