"""Links that are no links: ``Downloader.open`` raises errors of this package for them, and no others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.outputs.download import Downloader
from airflow_provider_comet.outputs.limits import ByteBudget
from tests.support.file_server import Answer, FileServer

KEY = "sk-delivery-0123456789"
LINKS = [
    "https://a..b/x.png",
    "https://.a/x.png",
    "https://[::1",
    "https://[::1]x/",
    "https://[v1.a]/",
    "https://[fe80::1%25eth0]/",
    "https://" + "a" * 64 + ".example/x.png",
    "https://" + "a." * 200 + "example/x.png",
    "https://" + "\u00e9" * 64 + ".example/x.png",
    "https://\ud800/",
    "https://a.example/\ud800",
    "https://a.example:65536/",
    "https://a.example:99999999999999999999/",
    "https://a.example:-1/",
    "https://a.example:x/",
    "https://a.example:\u0663/",
    "https://a.example/" + "x" * 1_000_000,
    "https://" + "x" * 1_000_000,
    "https://a.example/\0",
    "https://\0/",
    "https://a.example\r\nHost: b/",
    "https://%00/",
    "https://*/",
    "https:///x.png",
    "https://xn--a/",
    "https://xn--\u00e9/",
    "https://\u2100.example/",
    "https://a.example\\@b/",
    "https://1.2.3/",
    "https://0x7f000001/",
    "https://-/",
    "",
]


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """No name is found, but the real look-up encodes it first, which has errors of its own."""
    with pytest.MonkeyPatch.context() as patch:

        def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
            if host != "127.0.0.1":
                host.encode("idna")
                raise socket.gaierror(-2, "Name or service not known")
            return found(host, *args, **options)

        found = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


def open_link(url: str) -> None:
    ticks = iter(range(0, 1_000_000, 100))
    config = Config(KEY, "http://127.0.0.1:1")
    with Downloader(config, sleep=lambda seconds: None, clock=lambda: next(ticks)) as downloader:
        downloader.open(url, ByteBudget(10))


@pytest.mark.parametrize("url", LINKS, ids=lambda url: ascii(url)[:40])
def test_a_link_that_leads_nowhere(url: str) -> None:
    """It is refused, or can't be fetched; the error is short."""
    with pytest.raises((OutputRefusedError, DeliveryError)) as caught:
        open_link(url)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("url", ["https://a..b/x.png", "https://" + "a" * 64 + ".example/x.png", "https://\ud800/"])
def test_a_link_that_is_no_url_is_not_tried_again(url: str) -> None:
    """No retry changes it."""
    with pytest.raises(OutputRefusedError, match="no URL"):
        open_link(url)


@pytest.mark.parametrize("url", [url for url in LINKS if len(url) < 1000], ids=ascii)
def test_a_redirect_that_leads_nowhere(url: str) -> None:
    """It is judged like a link. An empty one leads to itself, until there were too many."""
    with FileServer(b"x") as server:
        location = url.encode("utf-8", "surrogatepass").decode("latin-1").replace("\r", "").replace("\n", "")
        server.otherwise = Answer(302, {"Location": location})
        with pytest.raises((OutputRefusedError, DeliveryError)):
            open_link(server.url)


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=()), max_size=80), st.sampled_from(["https://", "http://", "HTTPS:", ""])
)
@example("[", "https://")
def test_any_text_for_a_link(text: str, scheme: str) -> None:
    """Whatever a server writes as a link, the error is the package's own."""
    with pytest.raises((OutputRefusedError, DeliveryError)):
        open_link(scheme + text)
