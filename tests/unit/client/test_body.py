"""``client/body.py``: how much of an answer is unpacked, and what stands for a body that can't be read."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.client import body as module
from airflow_provider_comet.client.body import MAX_ANSWER_BYTES, SMALL_BYTES, Body

CONTENT = b'{"id": "abc", "logs": "' + b"step " * 1000 + b'"}'


def raw_deflate(content: bytes) -> bytes:
    """Return deflate without a zlib header."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def body_of(raw: bytes, encoding: str, piece: int = 1000) -> Body:
    """Return a body that came in pieces."""
    body = Body(encoding)
    for start in range(0, len(raw), piece):
        body.add(raw[start : start + piece])
    return body


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("", CONTENT),
        ("identity", CONTENT),
        ("gzip", gzip.compress(CONTENT)),
        (" GZIP ", gzip.compress(CONTENT)),
        ("x-gzip", gzip.compress(CONTENT)),
        ("deflate", zlib.compress(CONTENT)),
        ("deflate", raw_deflate(CONTENT)),
        ("gzip", CONTENT),
        ("br", CONTENT),
        ("utf-8", CONTENT),
        ("aws-chunked,", CONTENT),
    ],
)
@pytest.mark.parametrize("piece", [1, 100, 100_000])
def test_a_body_is_unpacked(encoding: str, raw: bytes, piece: int) -> None:
    """gzip and deflate are unpacked, however the pieces fall. A plain body is read whatever its encoding is called."""
    assert body_of(raw, encoding, piece).read() == CONTENT
    assert body_of(raw, encoding, piece).read_small() == CONTENT


def test_an_empty_body_is_empty() -> None:
    """No bytes are no error, whatever the header promises."""
    assert Body("gzip").read() == Body("br").read() == b""


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("br", b"\x0b\x02\x80{}\x03"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x00"),
        ("gzip, gzip", gzip.compress(gzip.compress(CONTENT))),
        ("gzip", gzip.compress(CONTENT)[:-9]),
        ("gzip", b"\x1f\x8b\x08"),
        ("deflate", b"\xff" * 50),
    ],
)
def test_a_body_that_can_not_be_unpacked_is_replaced_by_words(encoding: str, raw: bytes) -> None:
    """An unknown or damaged encoding gives a sentence that says so, and no garbage."""
    assert body_of(raw, encoding).read().startswith(b"the body can't be unpacked: its Content-Encoding")


def test_a_long_encoding_is_not_repeated() -> None:
    """Words of the server are bounded, and a key that it puts there is not shown, whole or in part."""
    assert b"sk-" not in body_of(b"\xff", "sk-Test_0123456789-0123456789-0123456789").read()
    assert b"'br'" in body_of(b"\xff", "br").read()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(encoding: str) -> None:
    """What would unpack to a quarter of a gigabyte costs little more memory than the limit, and is called too large."""
    zeros = bytes(16 * 1024 * 1024)
    packer = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join([*(packer.compress(zeros) for _ in range(16)), packer.flush()])
    assert len(bomb) < 2_000_000
    tracemalloc.start()
    words = body_of(bomb, encoding).read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words == b"the body has more than 64 MiB, which is the limit; it was not read"
    assert peak < 2.5 * MAX_ANSWER_BYTES


@pytest.mark.parametrize("surplus", [-1, 0, 1])
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_the_limit_is_exact(monkeypatch: pytest.MonkeyPatch, encoding: str, surplus: int) -> None:
    """A body of exactly the limit is read, and a byte more is too large; the same for what counts as small."""
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 5000)
    monkeypatch.setattr(module, "SMALL_BYTES", 3000)
    pack = {"": bytes, "gzip": gzip.compress, "deflate": raw_deflate}[encoding]
    assert (body_of(pack(b"x" * (5000 + surplus)), encoding, 500).read() == b"x" * (5000 + surplus)) is (surplus < 1)
    small = body_of(pack(b"x" * (3000 + surplus)), encoding).read_small()
    assert small == (b"x" * (3000 + surplus) if surplus < 1 else None)


def test_too_many_bytes_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told when no more pieces are of use."""
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 10)
    body = Body("")
    assert [body.add(b"x" * 5) for _ in range(3)] == [True, True, False]
    assert body.read().startswith(b"the body has more than")
    assert SMALL_BYTES < MAX_ANSWER_BYTES


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br"]) | st.text(max_size=30))
def test_no_body_is_too_odd(raw: bytes, encoding: str) -> None:
    """Whatever bytes come under whatever name, the body is bytes."""
    assert isinstance(body_of(raw, encoding).read(), bytes)
    assert isinstance(body_of(gzip.compress(raw), encoding).read_small(), bytes)
