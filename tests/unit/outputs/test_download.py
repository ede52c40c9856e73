"""``outputs/download.py`` over real sockets: every byte once or an error, and no request to a forbidden address."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import ByteBudget
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS
from tests.support.file_server import Answer, FileServer
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import private_ca
from tests.support.sockets import raw_server
from tests.unit.outputs.conftest import KEY, LOCAL, Clock

ROOT = Path(__file__).parents[3]
CONTENT = random.Random(5).randbytes(1_000_000)
MOST = ByteBudget(10_000_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(CONTENT) as server:
        yield server


def fetch(downloader: Downloader, url: str, budget: ByteBudget = MOST) -> tuple[bytes, str]:
    download = downloader.open(url, budget)
    content = b"".join(download)
    assert download.received == len(content)
    return content, download.sha256


def is_whole(got: tuple[bytes, str]) -> bool:
    return got == (CONTENT, hashlib.sha256(CONTENT).hexdigest())


def test_a_file(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """A single request gets it, and its type and size are known before it is read."""
    download = downloader.open(server.url, MOST)
    assert (download.info.media_type, download.info.size) == ("image/webp", len(CONTENT))
    assert b"".join(download) == CONTENT
    assert (len(server.requests), clock.slept) == (1, [])


def test_what_a_delivery_host_receives(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no cookie, no user from netrc: also not from the host whose key the connection holds."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers = [Answer(302, {"Location": "/elsewhere", "Set-Cookie": "a=b"}), Answer()]
    with Downloader(Config(KEY, f"http://127.0.0.1:{server.port}")) as downloader:
        assert is_whole(fetch(downloader, server.url))
    assert [headers["path"].partition("?")[0] for headers in server.requests] == ["/x/out-0.webp", "/elsewhere"]
    for headers in server.requests:
        assert headers["accept-encoding"] == "identity"
        assert not {"authorization", "cookie", "referer"} & headers.keys()
        assert KEY not in str(headers)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_broken_connection(downloader: Downloader, clock: Clock, quarter: int, ranges: bool) -> None:
    """The rest is requested, or the whole file where the server can't resume; every byte is yielded once."""
    with FileServer(CONTENT, ranges=ranges) as server:
        cut = len(CONTENT) * quarter // 4
        server.answers = [Answer(break_after=cut), Answer(503), Answer(break_after=max(cut, 1))]
        assert is_whole(fetch(downloader, server.url))
        rest = f"bytes={max(cut, 1)}-" if ranges else None
        assert server.requested_ranges == [None, rest if cut else None, rest if cut else None, rest]
    assert len(clock.slept) == 3


@pytest.mark.parametrize("cut", [0, 1, 65_536, 999_999, 1_000_000])
def test_a_connection_that_breaks_between_chunks(
    downloader: Downloader, server: FileServer, clock: Clock, cut: int
) -> None:
    """Without a length the last chunk is the sign of the end. If that alone is lost, there is nothing after what came
    (416): the whole file is requested again, and compared."""
    server.answers = [Answer(chunked=True, break_after=cut)]
    server.otherwise = Answer(chunked=True)
    assert is_whole(fetch(downloader, server.url))
    rest = [f"bytes={cut}-"] if cut else [None]
    assert server.requested_ranges == [None, *rest, *([None] if cut == len(CONTENT) else [])]


def test_a_page_after_a_lost_connection(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """The type is that of the response which the bytes come from, not of an earlier response without a byte."""
    server.answers = [Answer(break_after=0), Answer(200, {"Content-Type": "text/html"}, body=b"<p>Sign in")]
    download = downloader.open(server.url, MOST)
    assert (download.info.media_type, download.info.size, b"".join(download)) == ("text/html", 10, b"<p>Sign in")
    server.answers = [Answer(break_after=1), Answer(200, {"Content-Type": "text/html"}, body=b"<p>Sign in")]
    with pytest.raises(DeliveryError, match="has changed"):
        fetch(downloader, server.url)


def test_a_file_without_an_end(downloader: Downloader, server: FileServer) -> None:
    """If only the end of the connection ends it, a part of it would count as whole."""
    server.otherwise = Answer(headers={"Content-Length": None, "Connection": "close"}, break_after=500_000)
    with pytest.raises(DeliveryError, match="does not say how long"):
        downloader.open(server.url, MOST)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/webp\r\nContent-Length: 12\r\n\r\n"


@pytest.mark.parametrize("cut", range(0, len(HEAD) + 12, 3))
def test_a_connection_that_breaks_within_the_headers(downloader: Downloader, clock: Clock, cut: int) -> None:
    """Wherever it breaks, the file is requested again: http.client takes headers that break off for complete."""
    tries: list[int] = []

    def answer(connection: socket.socket) -> None:
        connection.recv(10_000)
        tries.append(cut)
        connection.sendall((HEAD + b"RIFF....WEBP")[: cut if len(tries) == 1 else None])
        connection.shutdown(socket.SHUT_WR)

    with raw_server(answer) as (port, _):
        assert fetch(downloader, f"http://127.0.0.1:{port}/a.webp")[0] == b"RIFF....WEBP"
    assert len(tries) == 2


def test_a_server_that_always_breaks_off(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """After two minutes without a further byte the download fails, with an error that a retry may cure."""
    server.ranges = False
    server.otherwise = Answer(break_after=500_000)
    with pytest.raises(DeliveryError, match=r"IncompleteRead|500000 of 1000000") as caught:
        fetch(downloader, server.url)
    assert caught.value.retryable
    assert RETRY_BUDGET_SECONDS / 2 < sum(clock.slept) <= RETRY_BUDGET_SECONDS


def test_a_file_that_grows_a_little_each_time(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """As long as the file grows, connections may break any number of times."""
    server.answers = [Answer(break_after=cut) for cut in range(70_000, 1_000_000, 70_000)]
    assert is_whole(fetch(downloader, server.url))
    assert len(clock.slept) == len(range(70_000, 1_000_000, 70_000))
    assert max(clock.slept) <= 1


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_a_file_that_changes(downloader: Downloader, clock: Clock, ranges: bool) -> None:
    """Two versions are never put together."""
    with FileServer(CONTENT, ranges=ranges) as server:
        server.answers = [Answer(break_after=400_000), Answer(body=CONTENT[::-1])]
        with pytest.raises(DeliveryError, match="has changed"):
            fetch(downloader, server.url)
        assert len(server.requests) == 2


OTHER = CONTENT[:-5] + b"other"


@pytest.mark.parametrize(
    ("headers", "is_changed"),
    [
        ({"ETag": '"v2"'}, True),
        ({"Content-Range": f"bytes 400000-{len(CONTENT) + 4}/{len(CONTENT) + 5}"}, True),
        ({"ETag": None}, False),
    ],
    ids=["tag", "length", "no tag"],
)
def test_a_part_of_another_version(
    downloader: Downloader, server: FileServer, headers: dict[str, str | None], is_changed: bool
) -> None:
    """If a host sends a part of another version, the whole file is requested: the bytes received before are compared,
    so that no file is put together of two."""
    server.answers = [Answer(break_after=400_000), Answer(headers=headers)]
    assert is_whole(fetch(downloader, server.url))
    assert server.requested_ranges == [None, "bytes=400000-", *([None] if is_changed else [])]
    server.requests.clear()
    server.answers = [Answer(break_after=400_000), Answer(headers=headers), Answer(body=OTHER[::-1])]
    if is_changed:
        with pytest.raises(DeliveryError, match="has changed"):
            fetch(downloader, server.url)


@pytest.mark.parametrize("way", ["within the headers", "within the body"])
def test_a_resume_that_breaks_off(downloader: Downloader, way: str) -> None:
    """Where only the second answer says how long the file is, less than that is no file."""
    tag = b'ETag: "v1"\r\n'
    first = (
        b"HTTP/1.1 200 OK\r\nContent-Type: image/webp\r\nTransfer-Encoding: chunked\r\n" + tag + b"\r\n4\r\nRIFF\r\n"
    )
    second = b"HTTP/1.1 206 Partial Content\r\nContent-Type: image/webp\r\n" + tag + b"Content-Range: bytes 4-11/12\r\n"
    cut = second if way == "within the headers" else second + b"Connection: close\r\n\r\n...."
    rest = b"HTTP/1.1 206 Partial Content\r\n" + tag + b"Content-Range: bytes %d-11/12\r\n\r\n%b"
    requests: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        requests.append(connection.recv(10_000))
        received = 4 if way == "within the headers" else 8
        answers = [first, cut, rest % (received, b"RIFF....WEBP"[received:])]
        connection.sendall(answers[min(len(requests), 3) - 1])
        connection.shutdown(socket.SHUT_WR)

    with raw_server(answer) as (port, _):
        assert fetch(downloader, f"http://127.0.0.1:{port}/a.webp")[0] == b"RIFF....WEBP"
    assert len(requests) == 3


@pytest.mark.parametrize("chunked", [False, True])
def test_an_empty_file(downloader: Downloader, server: FileServer, clock: Clock, chunked: bool) -> None:
    """It is requested again: stored, it would count as complete, and the paid result would be lost with its link."""
    server.answers = [Answer(body=b"", chunked=chunked)]
    assert is_whole(fetch(downloader, server.url))
    server.otherwise = Answer(body=b"", chunked=chunked)
    with pytest.raises(DeliveryError, match="an empty file") as caught:
        downloader.open(server.url, MOST)
    assert caught.value.retryable
    assert sum(clock.slept) <= 2 * RETRY_BUDGET_SECONDS


def test_fewer_bytes_than_promised(downloader: Downloader, server: FileServer) -> None:
    """A body that ends too early is not taken for a short file."""
    server.otherwise = Answer(
        headers={"Content-Length": str(len(CONTENT) + 5), "Connection": "close"}, break_after=len(CONTENT)
    )
    with pytest.raises(DeliveryError):
        fetch(downloader, server.url)


def test_a_drop_at_a_time(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """A download that is too slow to finish fails, however regularly the server sends."""
    server.otherwise = Answer(piece=1)
    clock.step = 5.0
    with pytest.raises(DeliveryError, match=r"fewer than 65536 bytes came within 120 s|less than 8192 bytes a second"):
        fetch(downloader, server.url)


def test_a_slow_reader_is_no_slow_server(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """The time that storing takes does not count."""
    received = 0
    for chunk in downloader.open(server.url, MOST):
        received += len(chunk)
        clock.now += 1000
    assert received == len(CONTENT)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_link(downloader: Downloader, server: FileServer, clock: Clock, status: int) -> None:
    """It is an error at once, also in the middle of a file."""
    server.answers = [Answer(status)]
    with pytest.raises(OutputExpiredError):
        downloader.open(server.url, MOST)
    server.answers = [Answer(break_after=400_000), Answer(status)]
    with pytest.raises(OutputExpiredError):
        fetch(downloader, server.url)
    assert len(clock.slept) == 1


def test_trouble_that_passes(downloader: Downloader, server: FileServer, clock: Clock) -> None:
    """The download waits for as long as the server demands."""
    server.answers = [Answer(503, {"Retry-After": "9"}), Answer(429), Answer(500)]
    assert is_whole(fetch(downloader, server.url))
    assert clock.slept[0] >= 9
    assert len(clock.slept) == 3


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large(downloader: Downloader, server: FileServer, chunked: bool) -> None:
    """By the size that the server says, or when so much has come."""
    server.otherwise = Answer(chunked=chunked)
    with pytest.raises(OutputRefusedError, match="max_bytes"):
        fetch(downloader, server.url, ByteBudget(999_999))
    assert is_whole(fetch(downloader, server.url, ByteBudget(1_000_000)))


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://10.0.0.1/",
        "http://replicate.delivery/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
    ],
)
def test_a_redirect_to_where_only_a_worker_gets(downloader: Downloader, server: FileServer, location: str) -> None:
    """It is refused like the link itself, before anything is sent."""
    server.answers = [Answer(302, {"Location": location})]
    with pytest.raises(OutputRefusedError):
        downloader.open(server.url, MOST)
    assert len(server.requests) == 1


def test_redirects(downloader: Downloader, server: FileServer) -> None:
    """Five are followed, also relative redirects; the sixth is refused."""
    server.answers = [Answer(302, {"Location": "elsewhere"})] * 5
    assert is_whole(fetch(downloader, server.url))
    server.otherwise = Answer(307, {"Location": "/again"})
    with pytest.raises(OutputRefusedError, match="more than 5 redirects"):
        downloader.open(server.url, MOST)


def test_a_redirect_to_another_host(server: FileServer) -> None:
    """It is followed if both hosts are allowed, and the other host receives no credentials either."""
    with (
        FileServer(CONTENT) as other,
        Downloader(
            Config(KEY, f"http://127.0.0.1:{server.port}", output_hosts=("127.0.0.1", "localhost"))
        ) as downloader,
    ):
        server.answers = [Answer(302, {"Location": f"http://localhost:{other.port}/b.webp"})]
        assert is_whole(fetch(downloader, server.url))
        (headers,) = other.requests
    assert headers["host"] == f"localhost:{other.port}"
    assert not {"authorization", "cookie", "referer"} & headers.keys()
    assert KEY not in str([server.requests, headers])


IN_A_NETWORK_OF_ITS_OWN = """
ip link set lo up && ip addr add 169.254.169.254/32 dev lo && exec "$@"
"""
TO_THE_METADATA_SERVICE = """
import socket, sys
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import ByteBudget
from tests.support.file_server import Answer, FileServer

original = socket.getaddrinfo
socket.getaddrinfo = lambda host, *args, **options: original(
    "169.254.169.254" if host == "files.example" else host, *args, **options
)
with (
    socket.create_server(("169.254.169.254", 0)) as metadata,
    FileServer(b"x") as server,
    Downloader(Config("sk-delivery-0123456789", server.url.rpartition("/x/")[0])) as downloader,
):
    metadata.settimeout(20)
    location = f"https://files.example:{metadata.getsockname()[1]}/latest/meta-data/"
    server.answers = [Answer(302, {"Location": location})]
    try:
        downloader.open(server.url, ByteBudget(10))
    except Exception as error:
        print(type(error).__name__, error)
    connection, _ = metadata.accept()
    connection.settimeout(20)
    print("connected, and sent", connection.recv(1000))
"""


def test_a_redirect_to_a_name_of_the_metadata_service() -> None:
    """The address that a redirect leads to is checked, too, before a byte is sent there. The machine under that
    address is this one, in a network of its own."""
    unshare = ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec"]
    try:
        subprocess.run([*unshare, IN_A_NETWORK_OF_ITS_OWN, "sh", "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        pytest.skip(
            f"no user may make a network here, so nothing can listen at the metadata service's address ({said}); "
            "test_download_rules.py, which is never skipped, refuses that address without a connection"
        )
    command = [*unshare, IN_A_NETWORK_OF_ITS_OWN, "sh", sys.executable, "-c", TO_THE_METADATA_SERVICE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    refused, sent = done.stdout.splitlines()
    assert refused.startswith("OutputRefusedError ")
    assert "169.254.169.254 is not a public address" in refused
    assert sent == "connected, and sent b''"


def test_the_body_of_a_redirect_is_not_read(server: FileServer) -> None:
    """It may be without an end, and nobody needs it."""
    server.answers = [Answer(302, {"Location": "elsewhere", "Content-Length": "1000000000"}, body=b"x" * 1000)]
    with Downloader(Config(KEY, LOCAL, read_timeout=2), sleep=pytest.fail) as downloader:
        assert is_whole(fetch(downloader, server.url))


def test_a_redirect_to_what_is_no_url(downloader: Downloader, server: FileServer) -> None:
    """It is refused in words."""
    server.answers = [Answer(302, {"Location": "https://[x"})]
    with pytest.raises(OutputRefusedError, match="no URL"):
        downloader.open(server.url, MOST)


@pytest.mark.parametrize("url", ["https://evil.example\\@replicate.delivery/x", "https://[x/y", "https://"])
def test_the_host_that_counts_is_the_requested_host(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Parsers disagree about some URLs; the list of hosts must see the same host as the HTTP library."""
    monkeypatch.setattr(socket, "getaddrinfo", pytest.fail)
    config = Config(KEY, output_hosts=("replicate.delivery",))
    with Downloader(config, sleep=pytest.fail) as downloader, pytest.raises(OutputRefusedError):
        downloader.open(url, MOST)


def test_a_list_of_hosts_holds_for_redirects(server: FileServer) -> None:
    """A host that is not on it gets nothing, whoever sends us there."""
    server.answers = [Answer(302, {"Location": f"http://localhost:{server.port}/"})]
    with (
        Downloader(Config(KEY, LOCAL, output_hosts=("127.0.0.1",))) as downloader,
        pytest.raises(OutputRefusedError, match="'localhost' is not among"),
    ):
        downloader.open(server.url, MOST)
    assert len(server.requests) == 1


def resolve_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    original: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        return original(address if host == "files.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_that_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that the connection has reached is checked, whatever the name resolved to before: no byte is sent."""
    resolve_to(monkeypatch, "127.0.0.1")
    received: list[bytes] = []
    heard = threading.Event()

    def listen(connection: socket.socket) -> None:
        received.append(connection.recv(10))
        heard.set()

    with raw_server(listen) as (port, accepted), Downloader(Config(KEY)) as downloader:
        with pytest.raises(OutputRefusedError, match=r"127\.0\.0\.1 is not a public address"):
            downloader.open(f"https://files.example:{port}/a.webp", MOST)
        assert heard.wait(5)
    assert (len(accepted), received) == (1, [b""])


@pytest.mark.parametrize("hosts", ["http://files.example:{port}", "http://minio, http://files.example:{port}"])
def test_a_private_host_over_http(server: FileServer, monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    """A host that the connection names with ``http://`` delivers over http from a private address; at another port, or
    under another name for the same address, it does not."""
    resolve_to(monkeypatch, "127.0.0.1")
    url = f"http://files.example:{server.port}/a.webp"
    with Downloader(Config(KEY, output_hosts=hosts.format(port=server.port)), sleep=pytest.fail) as downloader:
        assert is_whole(fetch(downloader, url))
        for other in (f"http://127.0.0.1:{server.port}/a.webp", "http://files.example:1/a.webp"):
            with pytest.raises(OutputRefusedError, match="is not https"):
                downloader.open(other, MOST)
        server.answers = [Answer(302, {"Location": f"http://127.0.0.1:{server.port}/b.webp"})]
        with pytest.raises(OutputRefusedError, match="is not https"):
            downloader.open(url, MOST)
    assert len(server.requests) == 2
    assert KEY not in str(server.requests)


def test_files_of_an_emulator_in_another_container(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that is allowed to be http delivers its own files from a private address."""
    resolve_to(monkeypatch, "127.0.0.1")
    config = Config(KEY, f"http://files.example:{server.port}", allow_insecure_http=True)
    with Downloader(config, sleep=pytest.fail) as downloader:
        assert is_whole(fetch(downloader, f"http://files.example:{server.port}/a.webp"))


BROKEN_LINKS = [
    "https://a..b/x.png",
    "https://.b/x.png",
    f"https://{'a' * 64}.example/x.png",
    f"https://{'.'.join(['a' * 60] * 5)}/x.png",
    "https://[::1",
    "https://[::1]x/y.png",
    "https://a.example:99999/x.png",
    "https://\udc80.example/x.png",
    f"https://{'é' * 70}.example/x.png",
    "https://a%00b/x.png",
]


@pytest.mark.parametrize("url", BROKEN_LINKS, ids=ascii)
@pytest.mark.parametrize("is_redirect", [False, True], ids=["link", "redirect"])
def test_a_link_that_is_no_url(
    monkeypatch: pytest.MonkeyPatch, server: FileServer, url: str, is_redirect: bool
) -> None:
    """Whatever is wrong with a link, or with a redirect, it is refused for good and nothing is looked up."""
    if is_redirect:
        server.answers = [Answer(302, {"Location": url.encode("utf-8", "replace").decode("latin-1")})]
    original = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        assert host == "127.0.0.1"
        return original(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    config = Config(KEY, f"http://127.0.0.1:{server.port}")
    with Downloader(config, sleep=pytest.fail) as downloader, pytest.raises(OutputRefusedError, match="no URL"):
        downloader.open(server.url if is_redirect else url, MOST)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(UnicodeError("label empty or too long"), OutputRefusedError), (ValueError("x"), DeliveryError)],
)
def test_a_name_that_no_rule_has_foreseen(
    downloader: Downloader,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[CometError],
) -> None:
    """What the codec for host names raises deep inside the HTTP library is an error of this package, too."""

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(expected):
        downloader.open(server.url, MOST)


def test_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's own address is not judged: it is where all traffic goes. The list of hosts still holds."""
    ca = private_ca(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.bundle))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with forward_proxy() as proxy, FileServer(CONTENT, tls=ca.server) as server:
        monkeypatch.setenv("https_proxy", proxy.url)
        with Downloader(Config(KEY, LOCAL)) as downloader:
            assert is_whole(fetch(downloader, server.url))
        assert len(proxy.lines) == 1
        with (
            Downloader(Config(KEY, LOCAL, output_hosts=("replicate.delivery",))) as downloader,
            pytest.raises(OutputRefusedError, match="output_hosts"),
        ):
            downloader.open(server.url, MOST)
        assert len(proxy.lines) == 1


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_plain_http_on_this_machine_uses_no_proxy(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A file of the emulator is fetched directly, whatever proxy the environment names."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with forward_proxy() as proxy, Downloader(Config(KEY, LOCAL)) as downloader:
        monkeypatch.setenv(variable, proxy.url)
        assert is_whole(fetch(downloader, server.url))
        assert proxy.lines == []


def test_messages_name_the_host_alone(downloader: Downloader, clock: Clock) -> None:
    """What follows the host in a link may be its signature."""
    with pytest.raises(DeliveryError, match=r"127\.0\.0\.1: .*refused") as caught:
        downloader.open("http://127.0.0.1:1/x/out-0.webp?X-Amz-Signature=abc", MOST)
    assert "abc" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert clock.slept
