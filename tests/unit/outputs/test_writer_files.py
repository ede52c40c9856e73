"""``outputs/writer.py`` over real sockets: what counts as a file, what type it has, and files that arrive packed."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.prediction import Prediction
from tests.support.file_server import Answer, FileServer
from tests.unit.outputs.conftest import KEY, LOCAL, Clock
from tests.unit.outputs.stores import store_missing

PICTURE = b"RIFF....WEBP" * 1000
PAGE = Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<!doctype html><html>A web page")
STORED_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


@pytest.fixture(scope="module")
def file_server() -> Iterator[FileServer]:
    with FileServer(PICTURE) as server:
        yield server


@pytest.fixture
def server(file_server: FileServer) -> FileServer:
    """The server of the module, as it was at its start: to stop a server takes half a second."""
    file_server.answers, file_server.otherwise, file_server.requests = [], Answer(), []
    return file_server


def store_output(
    folder: Path, clock: Clock, output: Any, *, max_bytes: int = 1 << 30, schema: OutputSchema | None = None
) -> dict[str, Any]:
    """Store a prediction with this output as a task does; return what the task hands over."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.outputs.download import Downloader
    from airflow_provider_comet.outputs.writer import OutputWriter

    prediction = Prediction("abc", "succeeded", output=output)
    path = ObjectStoragePath(f"file://{folder}")
    options: dict[str, Any] = {"max_bytes": max_bytes, "write_input": False, "stored_by": STORED_BY}
    options["find_schema"] = lambda model: schema
    with (
        Downloader(Config(KEY, LOCAL), sleep=clock.sleep, clock=clock) as downloader,
        OutputWriter(path, lambda prediction_id: prediction, downloader, **options) as writer,
    ):
        return store_missing(writer, prediction.summary())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        ("my picture.png", "/my%20picture.png"),
        ("my%20picture.png", "/my%20picture.png"),
        ("100% done.png", "/100%25%20done.png"),
        ("50%.png", "/50%25.png"),
        ("a%2Fb 100%.png?sig=a%2Bb", "/a%2Fb%20100%25.png?sig=a%2Bb"),
        ("picture #2.png", "/picture%20%232.png"),
        ("b\u00fccher (1).png", "/b%C3%BCcher%20(1).png"),
        ("my\u3000picture.png", "/my%E3%80%80picture.png"),
        ("picture.png\n", "/picture.png"),
    ],
)
@pytest.mark.parametrize("is_list", [False, True], ids=["alone", "in a list"])
def test_links_with_blanks_and_the_like(
    clock: Clock, server: FileServer, tmp_path: Path, name: str, requested: str, is_list: bool
) -> None:
    """The file is fetched, and what has to be quoted in a URL is quoted once."""
    link = f"http://127.0.0.1:{server.port}/{name}"
    output = [link, link] if is_list else link
    assert Prediction("abc", "succeeded", output=output).files == [link.strip()] * (1 + is_list)
    stored = store_output(tmp_path, clock, output)
    assert {headers["path"] for headers in server.requests} == {requested}
    assert [file["content_type"] for file in stored["files"]] == ["image/webp"] * (1 + is_list)
    assert (tmp_path / "abc-0.webp").read_bytes() == PICTURE
    source = json.loads((tmp_path / "abc.manifest.json").read_text())["files"][0]["source"]
    assert source.endswith(requested.partition("?")[0]) or "\u00fc" in source
    assert len(source.split()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9/x is a good place to start",
        "http://127.0.0.1:9/a.png and http://127.0.0.1:9/b.png",
        "http://127.0.0.1:9/a.png\nb.png",
        "http://127.0.0.1:9/a\x07.png",
        "http://127.0.0.1:9/a\x9f.png",
        "http://127.0.0.1:9 a/b.png",
        "http://127.0.0.1:9/a.png?what is this.png",
    ],
)
def test_sentences_that_begin_with_a_link(clock: Clock, server: FileServer, tmp_path: Path, text: str) -> None:
    """They are text, and a control character is never part of a link."""
    assert Prediction("abc", "succeeded", output=text).files == []
    store_output(tmp_path, clock, text)
    assert (tmp_path / "abc-0.txt").read_bytes().decode() == text


def test_a_link_among_tokens(
    clock: Clock, server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a part of the text; nothing is requested, and the log says so."""
    tokens = ["See ", f"http://127.0.0.1:{server.port}/page", " for more"]
    assert Prediction("abc", "succeeded", output=tokens).files == []
    stored = store_output(tmp_path, clock, tokens)
    assert names(tmp_path) == ["abc-0.txt", "abc.manifest.json"]
    assert (tmp_path / "abc-0.txt").read_text() == "".join(tokens)
    assert (stored["files"][0]["content_type"], server.requests) == ("text/plain", [])
    assert "Prediction abc: 1 links stand among texts" in caplog.text


@pytest.mark.parametrize("shape", ["text", "list", "object"])
@pytest.mark.parametrize("path", ["page?id=1", "index.html"])
def test_a_link_to_a_web_page(
    clock: Clock,
    server: FileServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shape: str,
    path: str,
) -> None:
    """A lone link that leads to a web page is a language model's answer: its text is stored, and not the page."""
    server.otherwise = PAGE
    text = f"http://127.0.0.1:{server.port}/{path}"
    output = {"text": text, "list": [text], "object": {"source": text}}[shape]
    stored = store_output(tmp_path, clock, output)
    (file,) = stored["files"]
    assert (file["content_type"], file["size"]) == ("text/plain", len(text))
    assert (tmp_path / "abc-0.txt").read_text() == text
    assert "output 0 is a link to a web page, so it is stored as the text that it is" in caplog.text
    server.requests.clear()
    assert store_output(tmp_path, clock, output) == stored
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "paths", "error"),
    [
        (PAGE, ["0.webp"], DeliveryError),
        (PAGE, ["a", "b"], DeliveryError),
        (Answer(body=b"<html>Sign in", headers={"Content-Type": None}), ["0.webp"], DeliveryError),
        (Answer(body=b"<html>Sign in"), ["0.webp"], DeliveryError),
        (Answer(404), ["0.webp"], OutputExpiredError),
        (Answer(404), ["page"], OutputExpiredError),
        (Answer(403), ["page"], OutputExpiredError),
        (Answer(500), ["page"], DeliveryError),
    ],
)
def test_a_dead_link_is_no_text(
    clock: Clock,
    server: FileServer,
    tmp_path: Path,
    answer: Answer,
    paths: list[str],
    error: type[CometError],
) -> None:
    """A picture that can't be fetched is never replaced by the text of its link in a task that succeeds."""
    server.otherwise = answer
    links = [f"http://127.0.0.1:{server.port}/{path}" for path in paths]
    with pytest.raises(error):
        store_output(tmp_path, clock, links if len(links) > 1 else links[0])
    assert names(tmp_path) == []


def test_names_of_files(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """The keys under which a model gives its files are in the manifest and in what the task hands over."""
    link = f"http://127.0.0.1:{server.port}/x.webp"
    output = {"vocals": link, "stems": {"drums": link, "bass": [link, link]}, "b\0": "data:,x", "tempo": 97}
    stored = store_output(tmp_path, clock, output)
    expected = ["vocals", "stems.drums", "stems.bass", "stems.bass", "b\ufffd", None]
    assert [file["name"] for file in stored["files"]] == expected
    manifest = json.loads((tmp_path / "abc.manifest.json").read_text())
    assert [file["name"] for file in manifest["files"]] == expected
    assert [file["name"] for file in store_output(tmp_path, clock, output)["files"]] == expected
    assert Prediction("abc", "succeeded", output={"vocals": link}).summary()["output"] == {"vocals": link}


SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpg": b"\xff\xd8\xff\xe0",
    "mkv": b"\x1a\x45\xdf\xa3\x01",
    "mp4": b"\0\0\0\x20ftypisom",
    "mp3": b"ID3\x04",
    "zip": b"PK\x03\x04",
}


@pytest.mark.parametrize(
    ("content_type", "body", "suffix", "media_type"),
    [
        ("image/jpg", b"?", "jpg", "image/jpeg"),
        ("image/pjpeg", b"?", "jpg", "image/jpeg"),
        ("audio/mp3", b"?", "mp3", "audio/mpeg"),
        ("audio/x-m4a", b"?", "m4a", "audio/mp4"),
        ("video/x-matroska", b"?", "mkv", "video/x-matroska"),
        ("video/webm", SIGNATURES["mkv"], "mkv", "video/x-matroska"),
        ("image/png", SIGNATURES["jpg"], "jpg", "image/jpeg"),
        *(("application/octet-stream", head, suffix, None) for suffix, head in SIGNATURES.items()),
        *((None, head, suffix, None) for suffix, head in SIGNATURES.items()),
    ],
)
def test_suffixes(
    clock: Clock,
    server: FileServer,
    tmp_path: Path,
    content_type: str | None,
    body: bytes,
    suffix: str,
    media_type: str | None,
) -> None:
    """A link that names no type gets its suffix by the first bytes, else by what the server calls the type."""
    server.otherwise = Answer(headers={"Content-Type": content_type}, body=body + bytes(900), piece=1)
    stored = store_output(tmp_path, clock, f"http://127.0.0.1:{server.port}/file")
    assert names(tmp_path) == [f"abc-0.{suffix}", "abc.manifest.json"]
    assert media_type in {None, stored["files"][0]["content_type"]}


@pytest.mark.parametrize(("name", "suffix"), [("scene.usdz", "usdz"), ("notes.md?x=1", "md"), ("scene", "zip")])
def test_a_zip_file_within(clock: Clock, server: FileServer, tmp_path: Path, name: str, suffix: str) -> None:
    """The suffix of a link is kept if it is unknown: many formats are zip files within."""
    body = b"PK\x03\x04" + bytes(900)
    server.otherwise = Answer(headers={"Content-Type": "application/octet-stream"}, body=body)
    store_output(tmp_path, clock, f"http://127.0.0.1:{server.port}/{name}")
    assert names(tmp_path) == [f"abc-0.{suffix}", "abc.manifest.json"]


PACKED = gzip.compress(PICTURE)
GZIP = {"Content-Encoding": "gzip"}


def gzip_answer(body: bytes = PACKED, **options: Any) -> Answer:
    return Answer(headers=GZIP | {"ETag": '"packed"'}, body=body, **options)


@pytest.mark.parametrize(
    "answer",
    [
        gzip_answer(),
        gzip_answer(piece=1000),
        gzip_answer(chunked=True, piece=7),
        gzip_answer(gzip.compress(PICTURE[:1]) + gzip.compress(b"") + gzip.compress(PICTURE[1:]) + bytes(700)),
        gzip_answer(PICTURE),
        Answer(headers={"Content-Encoding": "X-GZIP"}, body=PACKED),
        Answer(headers={"Content-Encoding": "aws-chunked, gzip"}, body=PACKED),
        *(
            Answer(headers={"Content-Encoding": word})
            for word in ("utf-8", "", "aws-chunked", "none", "\u00e9", "a" * 999)
        ),
    ],
    ids=lambda answer: str(answer.headers)[:60],
)
def test_packed_files(clock: Clock, server: FileServer, tmp_path: Path, answer: Answer) -> None:
    """A file that arrives packed is unpacked; an encoding that is none is ignored."""
    server.otherwise = answer
    (file,) = store_output(tmp_path, clock, server.url)["files"]
    assert (tmp_path / "abc-0.webp").read_bytes() == PICTURE
    assert (file["size"], file["sha256"]) == (len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
    assert len(server.requests) == 1


BIG = bytes(range(256)) * 4000
BIG_PACKED = gzip.compress(BIG, 0)


@pytest.mark.parametrize(
    "answers",
    [
        [gzip_answer(BIG_PACKED, break_after=300_000), gzip_answer(BIG_PACKED)],
        [gzip_answer(BIG_PACKED, break_after=300_000, chunked=True), gzip_answer(BIG_PACKED)],
        [gzip_answer(BIG_PACKED[:300_000]), gzip_answer(BIG_PACKED)],
        [gzip_answer(BIG_PACKED[:-9] + bytes(9)), gzip_answer(BIG_PACKED)],
        [gzip_answer(BIG_PACKED, break_after=300_000), Answer(body=BIG)],
        [Answer(body=BIG, break_after=300_000), gzip_answer(BIG_PACKED)],
        [Answer(body=BIG, break_after=300_000), Answer(206, GZIP, body=b"x"), Answer(body=BIG)],
        [gzip_answer(BIG, break_after=300_000), gzip_answer(BIG)],
    ],
)
def test_a_packed_file_that_breaks_off(clock: Clock, server: FileServer, tmp_path: Path, answers: list[Answer]) -> None:
    """It is requested anew from its start, and each byte is stored once."""
    server.answers = [*answers]
    (file,) = store_output(tmp_path, clock, server.url)["files"]
    assert (tmp_path / "abc-0.webp").read_bytes() == BIG
    assert (file["size"], file["sha256"]) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    if answers[0].headers:
        assert server.requested_ranges == [None, None]


def test_a_packed_file_of_another_version(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Two versions are never put together."""
    server.answers = [gzip_answer(BIG_PACKED, break_after=300_000), gzip_answer(gzip.compress(BIG[::-1], 0))]
    with pytest.raises(DeliveryError, match="has changed"):
        store_output(tmp_path, clock, server.url)
    assert names(tmp_path) == []


def test_a_packed_file_that_is_too_large(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """A few bytes that unpack to a gigabyte are refused as soon as the budget is spent."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(40)) + packer.flush()
    server.otherwise = gzip_answer(bomb)
    with pytest.raises(OutputRefusedError, match=r"of output 0, its files have (\d{7}) bytes so far"):
        store_output(tmp_path, clock, server.url, max_bytes=1 << 20)
    assert names(tmp_path) == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "gzip, br", "gzip, gzip"])
def test_a_file_that_can_not_be_unpacked(clock: Clock, server: FileServer, tmp_path: Path, encoding: str) -> None:
    """It is refused in words that say how it is packed: the server would pack it so again."""
    server.otherwise = Answer(headers={"Content-Encoding": encoding})
    with pytest.raises(OutputRefusedError) as caught:
        store_output(tmp_path, clock, server.url)
    assert f"the delivery host packs the file ({encoding})" in str(caught.value)
    assert len(server.requests) == 1


def test_a_gzip_file_stays_one(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """Servers call such a file packed, too; it is stored as it is."""
    server.otherwise = Answer(headers=GZIP | {"Content-Type": "application/x-gzip"}, body=PACKED)
    store_output(tmp_path, clock, f"http://127.0.0.1:{server.port}/voices.gz")
    assert (tmp_path / "abc-0.gz").read_bytes() == PACKED


@pytest.mark.parametrize("name", ["voices.tar.gz", "voices.TGZ?x=1"])
@pytest.mark.parametrize("content_type", ["application/x-tar", "application/octet-stream", None])
def test_a_link_that_ends_like_a_gzip_file(
    clock: Clock, server: FileServer, tmp_path: Path, name: str, content_type: str | None
) -> None:
    """Some servers call such a file a packed tar file. Its name stays true only if it is stored as it is."""
    server.otherwise = Answer(headers={**GZIP, "Content-Type": content_type}, body=PACKED)
    (file,) = store_output(tmp_path, clock, f"http://127.0.0.1:{server.port}/{name}")["files"]
    assert (tmp_path / file["uri"].rpartition("/")[2]).read_bytes() == PACKED
    assert (file["content_type"], file["uri"][-3:]) == ("application/gzip", ".gz")


def test_another_schema_than_at_the_first_try(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """A stored file stands for the output that it was made from, not for another one that has its number now."""
    output = {name: f"http://127.0.0.1:{server.port}/{name}.webp" for name in ("page", "picture")}
    store_output(tmp_path, clock, output)
    (tmp_path / "abc-1.webp").unlink()
    server.requests.clear()
    properties = {"page": {"type": "string"}, "picture": {"type": "string", "format": "uri"}}
    schemas = {"Output": {"type": "object", "properties": properties}}
    schema = OutputSchema.from_document({"components": {"schemas": schemas}})
    stored = store_output(tmp_path, clock, output, schema=schema)
    assert [headers["path"] for headers in server.requests] == ["/picture.webp"]
    assert [file["name"] for file in stored["files"]] == ["picture", None]
    assert json.loads((tmp_path / "abc-1.json").read_text()) == output


def test_text_by_another_rule_than_at_the_first_try(clock: Clock, server: FileServer, tmp_path: Path) -> None:
    """A text is stored as well if an earlier rule took its link for a file, and one of the earlier files is missing."""
    link = f"http://127.0.0.1:{server.port}/a.webp"
    store_output(tmp_path, clock, {"links": [link, link]})
    (tmp_path / "abc-1.webp").unlink()
    stored = store_output(tmp_path, clock, ["See ", link])
    assert [file["content_type"] for file in stored["files"]] == ["text/plain"]
    assert (tmp_path / "abc-0.txt").read_text() == "See " + link


@pytest.mark.parametrize("location", ["/b\u00fccher.png", "/my picture.png", "/b%C3%BCcher.png"])
def test_a_redirect_to_a_name_in_utf_8(clock: Clock, server: FileServer, tmp_path: Path, location: str) -> None:
    """Its bytes are quoted as they are, once."""
    server.answers = [Answer(302, {"Location": location.encode().decode("latin-1")})]
    store_output(tmp_path, clock, server.url)
    assert unquote(server.requests[1]["path"]) == unquote(location)
