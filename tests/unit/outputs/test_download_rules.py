"""``outputs/download_rules.py``: where a link may lead, and what a delivery host's response means."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.outputs.download_rules import (
    NO_RESUME_STATUSES,
    FileInfo,
    check_address,
    check_link,
    read_file_info,
    resume_headers,
)

KEY = "sk-rules-0123456789"
REMOTE = Config(KEY)
LOCAL = Config(KEY, "http://127.0.0.1:8765")
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = {
    "127.0.0.1": "this machine",
    "127.8.9.1": "this machine",
    "::1": "this machine",
    "0.0.0.0": "this machine",
    "::": "this machine",
    "10.1.2.3": "private",
    "172.16.0.1": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "carrier-grade NAT",
    "fd00::1": "private",
    "fec0::1": "private, deprecated",
    "169.254.169.254": "metadata of a cloud",
    "fd00:ec2::254": "metadata of a cloud",
    "fe80::1%eth0": "link-local",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
    "192.0.2.1": "documentation",
    "::ffff:169.254.169.254": "IPv4 in IPv6",
    "::ffff:7f00:1": "IPv4 in IPv6",
    "64:ff9b::169.254.169.254": "NAT64",
    "64:ff9b::a00:1": "NAT64",
    "64:ff9b:1::a9fe:a9fe": "NAT64, for local use",
    "2002:a9fe:a9fe::1": "6to4",
    "2001:0:a9fe:a9fe::1": "Teredo",
    "::7f00:1": "IPv4 in IPv6, deprecated",
    "::ffff:0:7f00:1": "IPv4 in IPv6, translated",
    "4000::1": "unassigned",
    "192.0.0.192": "metadata of a cloud",
    "192.0.0.9": "of a protocol",
    "192.88.99.1": "a relay of 6to4",
    "64:ff9b::192.0.0.192": "NAT64",
    "3fff::1": "documentation",
    "2606:4700::5efe:a9fe:a9fe": "ISATAP",
    "2606:4700::200:5efe:8.8.8.8": "ISATAP",
    "2002:808:808::5efe:a00:1": "ISATAP in 6to4",
    "168.63.129.16": "services of the host at Azure",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Addresses that everybody can reach are allowed, in each of their forms."""
    check_address(address, "files.example", REMOTE)


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_only_a_worker_can_reach(address: str, is_local: bool) -> None:
    """They are refused, also in the forms that hide an IPv4 address. With an API on this machine, the machine's own
    addresses are allowed."""
    if is_local and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        check_address(address, "files.example", LOCAL)
        return
    with pytest.raises(OutputRefusedError, match="not a public address"):
        check_address(address, "files.example", LOCAL if is_local else REMOTE)


@given(st.ip_addresses(v=4))
def test_no_form_hides_an_ipv4_address(address: ipaddress.IPv4Address) -> None:
    """What is refused as IPv4 is refused inside of IPv6."""

    def is_refused(text: str) -> bool:
        try:
            check_address(text, "files.example", REMOTE)
        except OutputRefusedError:
            return True
        return False

    packed = int(address)
    forms = [f"::ffff:{address}", f"64:ff9b::{address}", str(ipaddress.IPv6Address(0x2002 << 112 | packed << 80 | 1))]
    if is_refused(str(address)):
        assert all(is_refused(form) for form in forms)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://replicate.delivery/a.webp", "is not https"),
        ("ftp://replicate.delivery/a.webp", "is not https"),
        ("file:///etc/passwd", "is no URL"),
        ("file://host/etc/passwd", "is not https"),
        ("http://127.0.0.1/a.webp", "is not https"),
        ("https://127.0.0.1/a.webp", "not a public address"),
        ("https://[::1]/a.webp", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://a.example:port/b", "is no URL"),
        ("https://[::1/b", "is no URL"),
        ("https://a..b/x.png", "is no URL"),
        ("https://.b/x.png", "is no URL"),
        (f"https://{'a' * 64}.example/x.png", "is no URL"),
        (f"https://{'.'.join(['a' * 60] * 5)}/x.png", "is no URL"),
        ("https://2130706433/x.png", "is no URL"),
        ("https://a%2eb/x.png", "is no URL"),
        ("https://[fe80::1%25eth0]/x.png", "is no URL"),
    ],
)
def test_refused_links(url: str, words: str) -> None:
    """They are refused before anything is sent."""
    with pytest.raises(OutputRefusedError, match=words):
        check_link(url, REMOTE)


@pytest.mark.parametrize(
    "url", ["https://replicate.delivery/a.webp", "https://8.8.8.8/a", "https://a.example:444/b?c=d"]
)
def test_links_to_any_public_host(url: str) -> None:
    """Without a list of hosts every name is allowed: its address is checked after connecting."""
    check_link(url, REMOTE)


def test_links_of_an_api_on_this_machine() -> None:
    """They may lead to this machine over http, and nowhere else over http."""
    check_link("http://127.0.0.1:8765/delivery/a.webp", LOCAL)
    check_link("http://localhost:8765/delivery/a.webp", LOCAL)
    for url in ("http://replicate.delivery/a.webp", "https://10.0.0.1/a.webp"):
        with pytest.raises(OutputRefusedError):
            check_link(url, LOCAL)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("replicate.delivery", True),
        ("REPLICATE.delivery", True),
        ("replicate.delivery.", True),
        ("pbxt.replicate.delivery", True),
        ("a.b.replicate.delivery", True),
        ("evilreplicate.delivery", False),
        ("replicate.delivery.evil.example", False),
        ("files.example", True),
        ("a.files.example", False),
        ("user@files.example", True),
        ("files.example@evil.example", False),
    ],
)
def test_list_of_hosts(host: str, is_allowed: bool) -> None:
    """Only these names, and those below a wildcard; user names don't fool the check."""
    config = Config(KEY, output_hosts=("replicate.delivery", "*.replicate.delivery", "files.example"))
    if is_allowed:
        check_link(f"https://{host}/a.webp", config)
        return
    with pytest.raises(OutputRefusedError, match="not among the connection's output_hosts"):
        check_link(f"https://{host}/a.webp", config)


PRIVATE = ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_named_host_may_be_private(address: str) -> None:
    """A host that the connection names, with or without a scheme, may be in a private network; another host that
    resolves to the same address may not, and a wildcard names nobody."""
    config = Config(KEY, output_hosts="minio, http://store:9000, *.inner.example")
    for host in ("minio", "store"):
        check_address(address, host, config)
    for host in ("files.example", "a.inner.example", "inner.example"):
        with pytest.raises(OutputRefusedError, match="not a public address"):
            check_address(address, host, config)


@pytest.mark.parametrize("address", [*METADATA, "0.0.0.0", "224.0.0.1", "fec0::1", "2606:4700::5efe:a00:1"])
def test_a_metadata_service_is_refused_whoever_names_it(address: str) -> None:
    """No list of hosts lets a worker reach the credentials of its machine, nor what is no host at all: not by a name
    that resolves to it, not by the address itself, and not over an API that is allowed to be http."""
    config = Config(KEY, "http://gateway", output_hosts=f"gateway, minio, {address}", allow_insecure_http=True)
    for host in ("minio", "gateway", address):
        with pytest.raises(OutputRefusedError, match="not a public address"):
            check_address(address, host, config)
    bracketed = f"[{address}]" if ":" in address else address
    with pytest.raises(OutputRefusedError):
        check_link(f"https://{bracketed}/latest/meta-data", config)


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("http://minio:9000/a.webp", True),
        ("http://MINIO:9000/a.webp", True),
        ("http://minio.:9000/a.webp", True),
        ("http://store/a.webp", True),
        ("http://store:80/a.webp", True),
        ("https://10.0.0.5/a.webp", True),
        ("https://10.0.0.5:9000/a.webp", True),
        ("https://[fd00:0::5]/a.webp", True),
        ("http://minio/a.webp", False),
        ("http://minio:9001/a.webp", False),
        ("https://minio:9000/a.webp", False),
        ("http://10.0.0.5/a.webp", False),
        ("https://10.0.0.6/a.webp", False),
        ("https://[fd00::6]/a.webp", False),
        ("http://replicate.delivery/a.webp", False),
        ("http://minio:9000@evil.example/a.webp", False),
        ("https://replicate.delivery/a.webp", False),
    ],
)
def test_hosts_of_ones_own(url: str, is_allowed: bool) -> None:
    """``http://minio:9000`` allows http to this host and port; an address or a name alone allows https, at any port."""
    config = Config(KEY, output_hosts="http://minio:9000, http://store, 10.0.0.5, fd00::5")
    if is_allowed:
        check_link(url, config)
        return
    with pytest.raises(OutputRefusedError):
        check_link(url, config)


def test_files_of_an_api_over_http() -> None:
    """An API that is allowed to be http delivers its files by itself, over http: from its own port, also if it is in a
    private network. Where hosts are named, it has to be among them."""
    config = Config(KEY, "http://comet-emulator:8765", allow_insecure_http=True)
    check_link("http://comet-emulator:8765/delivery/a.webp", config)
    check_address("172.18.0.2", "comet-emulator", config)
    check_link("https://replicate.delivery/a.webp", config)
    for url in ("http://comet-emulator:8766/a.webp", "http://other:8765/a.webp", "http://127.0.0.1:8765/a.webp"):
        with pytest.raises(OutputRefusedError, match="is not https"):
            check_link(url, config)
    with pytest.raises(OutputRefusedError, match="not a public address"):
        check_address("172.18.0.2", "files.example", config)
    for hosts, is_allowed in (("files.example", False), ("comet-emulator", True), ("http://comet-emulator:8765", True)):
        config = Config(KEY, "http://comet-emulator:8765", output_hosts=hosts, allow_insecure_http=True)
        if is_allowed:
            check_link("http://comet-emulator:8765/delivery/a.webp", config)
        else:
            with pytest.raises(OutputRefusedError, match="output_hosts"):
                check_link("http://comet-emulator:8765/delivery/a.webp", config)


@given(st.one_of(st.text(max_size=20), st.text("ab.:/@[]%-1é\\", max_size=20)))
def test_any_link_is_allowed_or_refused(text: str) -> None:
    """No other error comes of any link, and the name in a link that is allowed can be looked up."""
    for url in (text, f"https://{text}", f"https://{text}/x.png"):
        try:
            check_link(url, REMOTE)
        except OutputRefusedError:
            continue
        assert (urlsplit(url).hostname or "").encode("idna")


def test_a_message_never_shows_what_signs_a_link() -> None:
    """User name, query and fragment stay out."""
    with pytest.raises(OutputRefusedError) as caught:
        check_link("http://user:pass@files.example/a.webp?X-Amz-Signature=abc#frag", REMOTE)
    assert "http://files.example/a.webp" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("pass", "abc", "frag"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_expired(status: int) -> None:
    """Object stores answer so for links that have expired."""
    with pytest.raises(OutputExpiredError):
        read_file_info(status, {}, range_start=0)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 520, 599])
def test_passing_trouble(status: int) -> None:
    """Another attempt may succeed, after the pause that the server demands."""
    with pytest.raises(DeliveryError) as caught:
        read_file_info(status, {"Retry-After": "7"}, range_start=0)
    assert (caught.value.retryable, caught.value.retry_after) == (True, 7.0)


@pytest.mark.parametrize("status", [204, 301, 402, 405, 416, 451])
def test_no_file_ever(status: int) -> None:
    """Nothing that a retry would change."""
    with pytest.raises(OutputRefusedError):
        read_file_info(status, {}, range_start=0)


def test_whole_file() -> None:
    """Size, type and ETag, where the server sends them."""
    headers = {"Content-Length": "12", "Content-Type": "image/webp", "ETag": '"abc"'}
    assert read_file_info(200, headers, range_start=0) == FileInfo(0, 12, "image/webp", '"abc"')
    chunked = {"Transfer-Encoding": "chunked"}
    assert read_file_info(200, {**chunked, "ETag": 'W/"abc"'}, range_start=0) == FileInfo(0, None, None, None)
    assert read_file_info(200, {**chunked, "Content-Length": "many"}, range_start=5) == FileInfo(0, None, None, None)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "many"}, {"Transfer-Encoding": "gzip"}], ids=str)
def test_a_file_without_an_end(headers: dict[str, str]) -> None:
    """If only the end of the connection ends the file, a lost connection looks like the end of the file."""
    with pytest.raises(DeliveryError, match="does not say how long"):
        read_file_info(200, headers, range_start=0)


def test_rest_of_a_file() -> None:
    """A resume requests the same version; without an ETag the whole file is requested."""
    assert resume_headers(5, '"abc"') == {"Range": "bytes=5-", "If-Range": '"abc"'}
    assert resume_headers(5, None) == resume_headers(0, '"abc"') == {}
    headers = {"Content-Range": "bytes 5-11/12", "Content-Length": "7", "ETag": '"abc"'}
    assert read_file_info(206, headers, range_start=5) == FileInfo(5, 12, None, '"abc"')


@pytest.mark.parametrize("given_range", ["", "bytes 0-11/12", "bytes 5-10/12", "bytes 5-11/*", "items 5-11/12"])
def test_another_part_than_was_asked_for(given_range: str) -> None:
    """It is not put together with what is there."""
    with pytest.raises(DeliveryError, match="another part"):
        read_file_info(206, {"Content-Range": given_range}, range_start=5)


def test_nothing_after_what_came() -> None:
    """The whole file was received, and only the mark of its end was lost: a retry requests the whole file."""
    with pytest.raises(DeliveryError, match="no bytes after"):
        read_file_info(416, {"Content-Range": "bytes */12"}, range_start=12)


def test_a_packed_file() -> None:
    """Length and version are those of the packed file, so it can't be resumed within."""
    headers = {"Content-Encoding": "gzip", "Content-Length": "12", "ETag": '"abc"', "Content-Type": "image/webp"}
    assert read_file_info(200, headers, range_start=0) == FileInfo(0, None, "image/webp", None, is_packed=True)
    with pytest.raises(DeliveryError, match="a part of the packed file") as caught:
        read_file_info(206, headers | {"Content-Range": "bytes 5-11/12"}, range_start=5)
    assert caught.value.status in NO_RESUME_STATUSES
