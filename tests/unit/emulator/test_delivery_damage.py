"""Padded files, ranges of them, and files that are delivered damaged."""

from __future__ import annotations

import hashlib
import http.client
import io
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.emulator.delivery import CHUNK, PADDING_PERIOD, File
from tests.unit.emulator.conftest import Api

SIZE = 1_000_000


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator whose predictions end at once and whose files have `SIZE` bytes."""
    with Emulator(duration=0, file_bytes=SIZE) as emulator:
        yield emulator


@pytest.fixture
def url(api: Api) -> str:
    """The URL of a file that can be fetched."""
    return str(api.query(api.create())["output"][0])


def fetch_raw(url: str) -> tuple[http.client.HTTPResponse, bytes, bool]:
    """Return the answer, the received body, and whether it is as long as the headers promised."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        try:
            return response, response.read(), True
        except http.client.IncompleteRead as error:
            return response, error.partial, False
    finally:
        connection.close()


def test_padded_file(api: Api, url: str) -> None:
    """A padded file has the configured size, is always the same, is a picture, and the ledger has its hash."""
    first, second = api.fetch(url).content, api.fetch(url).content
    assert first == second
    assert len(first) == SIZE
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.format == "WEBP"
        picture.load()
    (served, _) = api.emulator.ledger()["served"]
    assert (served["sha256"], served["bytes"]) == (hashlib.sha256(first).hexdigest(), SIZE)


def test_padding_is_made_while_it_is_sent() -> None:
    """Any part of a file of a terabyte is available at once, and the bytes do not depend on the chunk size."""
    file = File(b"picture", 2**40)
    start = 2**40 - 3 * CHUNK
    end = b"".join(file.chunks(start, file.size))
    assert end == b"".join(file.chunks(start, file.size, 1000))
    assert len(end) == 3 * CHUNK
    head = b"".join(file.chunks(0, 3 * PADDING_PERIOD))
    assert head.startswith(b"picture")
    assert head[7 : 7 + PADDING_PERIOD] == head[7 + PADDING_PERIOD : 7 + 2 * PADDING_PERIOD]
    assert head[5:100] == b"".join(file.chunks(5, 100))


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=999990-", 999_990, SIZE),
        ("bytes=-10", 999_990, SIZE),
        ("bytes=500000-9999999", 500_000, SIZE),
        ("bytes=0-", 0, SIZE),
    ],
)
def test_range(api: Api, url: str, value: str, start: int, stop: int) -> None:
    """A range of a file is answered 206 with the position of the part and the size of the file."""
    whole = api.fetch(url)
    assert whole.headers["accept-ranges"] == "bytes"
    part = api.fetch(url, Range=value)
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert part.headers["etag"] == whole.headers["etag"]
    assert part.content == whole.content[start:stop]
    assert api.emulator.ledger()["served"][1]["bytes"] == stop - start


@pytest.mark.parametrize("value", ["bytes=0-1,5-6", "bytes=9-1", "lines=0-1", "bytes"])
def test_ignored_ranges(api: Api, url: str, value: str) -> None:
    """Several ranges, or a value that is no range, are answered with the whole file."""
    response = api.fetch(url, Range=value)
    assert (response.status_code, len(response.content)) == (200, SIZE)


def test_range_beyond_the_end(api: Api, url: str) -> None:
    """A range beyond the end is answered 416 with the size of the file, and is not in the ledger of served files."""
    response = api.fetch(url, Range=f"bytes={SIZE}-")
    assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert api.emulator.ledger()["served"] == []


def test_if_range(api: Api, url: str) -> None:
    """With If-Range, a part is sent only if the file is still the same; otherwise the whole file is sent."""
    etag = api.fetch(url).headers["etag"]
    answers = [api.fetch(url, **{"Range": "bytes=10-", "If-Range": tag}) for tag in (etag, '"another"')]
    assert [(answer.status_code, len(answer.content)) for answer in answers] == [(206, SIZE - 10), (200, SIZE)]


@pytest.mark.parametrize("cut", [0, 0.25, 0.5, 0.75])
def test_cut(api: Api, url: str, cut: float) -> None:
    """The connection closes after exactly this share of the file, and the rest can be fetched afterwards."""
    api.emulator.fault(cut=cut)
    response, first_part, complete = fetch_raw(url)
    assert (response.status, response.headers["content-length"], complete) == (200, str(SIZE), False)
    assert len(first_part) == int(SIZE * cut)
    rest = api.fetch(url, Range=f"bytes={len(first_part)}-").content
    assert hashlib.sha256(first_part + rest).hexdigest() == api.emulator.ledger()["served"][0]["sha256"]
    assert [entry["bytes"] for entry in api.emulator.ledger()["served"]] == [len(first_part), len(rest)]


@pytest.mark.parametrize(("claimed", "received"), [(SIZE + 5, SIZE), (SIZE - 5, SIZE - 5), (0, 0)])
def test_wrong_content_length(api: Api, url: str, claimed: int, received: int) -> None:
    """If the promised length is too long, the connection closes; if it is too short, the file ends early."""
    api.emulator.fault(content_length=claimed)
    response, content, complete = fetch_raw(url)
    assert response.headers["content-length"] == str(claimed)
    assert (len(content), complete) == (received, received == claimed)
    assert api.emulator.ledger()["served"][0]["bytes"] == received


def test_connection_survives_a_shorter_length(api: Api, url: str) -> None:
    """The omitted bytes of a shortened file do not appear in the next answer on the same connection."""
    api.emulator.fault(content_length=10)
    assert [len(api.fetch(url).content) for _ in range(2)] == [10, SIZE]
    numbers = [entry["connection"] for entry in api.emulator.ledger()["requests"]]
    assert len(set(numbers)) == 1


def test_wrong_content_type(api: Api, url: str) -> None:
    """A file can be delivered with a wrong media type, once."""
    api.emulator.fault(content_type="text/html")
    assert [api.fetch(url).headers["content-type"] for _ in range(2)] == ["text/html", "image/webp"]


def test_slow(api: Api, url: str) -> None:
    """A slow file takes as long as its rate says, and arrives in chunks."""
    api.emulator.fault(slow=5 * SIZE)
    start = time.monotonic()
    with requests.get(url, stream=True, timeout=5) as response:
        next(response.iter_content(1))
        first = time.monotonic() - start
        assert 1 + sum(len(chunk) for chunk in response.iter_content(65_536)) == SIZE
    assert first < 0.2 <= time.monotonic() - start


def test_damage_applies_only_to_files(api: Api, url: str) -> None:
    """A fault that damages a file waits for a delivery, whatever is requested before; HTTP can set it too."""
    assert api.control("POST", "faults", {"cut": 0.5}).status_code == 201
    api.create()
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        api.fetch(url)
    assert len(api.fetch(url).content) == SIZE


def test_ledger_counts_what_was_sent(api: Api, url: str) -> None:
    """The ledger tells a file that was sent to its end from a file whose client left early."""
    api.fetch(url)
    api.emulator.fault(slow=SIZE / 10)
    with api.session.get(url, stream=True, timeout=5) as response:
        next(response.iter_content(10))
    whole, part = api.emulator.ledger()["served"]
    assert whole["sent"] == whole["bytes"] == part["bytes"] == SIZE
    assert part["sent"] < SIZE
