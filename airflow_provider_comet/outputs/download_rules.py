"""Rules for downloads: where a link may lead, and what a delivery host's response means.

Links come from the API's responses, so they are not trusted: a link must not make a worker talk to machines that only
the worker can reach (SSRF).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_provider_comet.api.base_url import clean_host, http_origin, is_loopback
from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.api.response import seconds_to_wait
from airflow_provider_comet.outputs.content_encoding import is_packed
from airflow_provider_comet.outputs.output import clean_url

MAX_REDIRECTS = 5
MIN_PROGRESS_BYTES = 64 * 1024
"""A download that grows by less within ``RETRY_BUDGET_SECONDS``, retries included, is given up. Otherwise a server that
sends a byte a minute would hold a worker forever."""

_EXPIRED_STATUSES = frozenset({400, 401, 403, 404, 410})
"""Object stores answer 403 (Google's 400, others 401) for an expired signature and for a deleted object."""
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
NO_RESUME_STATUSES = frozenset({206, 416})
"""An error with such a status means that the host can't resume: the whole file has to be requested again."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""The last four bytes are an IPv4 address that is reached through a gateway."""
_NOT_HOSTS = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; in Oracle's cloud 192.0.0.192 serves metadata
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("3fff::/20"),  # documentation
)
"""``is_global`` is true for these in some releases of Python, but none of them is a public host."""
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""These bytes before the last four of an IPv6 address mark the last four as an IPv4 address within the site."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All IPv6 addresses that are assigned to hosts. ``is_global`` is also true for others, such as ``::127.0.0.1``."""
_AZURE_HOST = ipaddress.ip_network("168.63.129.16/32")
"""Registered as public, but a machine in Azure reaches services of its own host by it."""
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)
"""Where a host may be whose name somebody has written into the connection."""
_METADATA = (
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba
    ipaddress.ip_network("fd00:ec2::/32"),  # AWS
    ipaddress.ip_network("fd20:ce::/32"),  # Google
)
"""A cloud's metadata services among the private addresses: whoever reaches them gets the machine's own credentials. The
other ones are link-local, which is never allowed."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")


def check_link(url: str, config: Config) -> None:
    """Refuse a link or a redirect that leads where a worker must not connect, before anything is sent.

    :param url: as the HTTP library will send it. Parsers disagree about some URLs, such as those with a backslash
        before an ``@``; what the library connects to decides.
    :param config: its ``output_hosts`` are the allowed hosts; none: every public host. Over http goes only what is
        named so there, and what the API itself delivers over http.
    :raises OutputRefusedError: the link is not allowed.
    """
    try:
        parts = urlsplit(url)
        shown, host, port = clean_url(url), clean_host((parts.hostname or "").removesuffix(".")), parts.port
        origin = http_origin(host, port or 80) if parts.scheme == "http" else None
    except ValueError:
        raise OutputRefusedError("a link is no URL") from None
    is_local = config.is_local and is_loopback(host)
    if parts.scheme != "https" and not (origin and (is_local or origin in config.trusted_hosts)):
        raise OutputRefusedError(f"{shown} is not https")
    if config.output_hosts and not any(pattern == origin or _matches(host, pattern) for pattern in config.output_hosts):
        raise OutputRefusedError(f"{shown}: the host {host!r} is not among the connection's output_hosts")
    try:
        check_address(host, host, config)
    except ValueError:
        return  # a host name: its address is checked after connecting


def check_address(address: str, host: str, config: Config) -> None:
    """Refuse an address that is not public: loopback, private, link-local, or a cloud's metadata service.

    A host that the connection names may be private: somebody has decided that. A metadata service is always refused.

    :param host: the host of the link that led to the address.
    :raises OutputRefusedError: the address is not allowed.
    :raises ValueError: the text is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    if config.is_local and parsed.is_loopback:
        return
    reached = _embedded_ipv4(parsed) or parsed
    is_allowed = _is_public(reached) or (_is_private(reached) and _is_trusted(host, config))
    if _is_isatap(parsed) or not is_allowed:
        raise OutputRefusedError(f"{address} is not a public address")


def _is_trusted(host: str, config: Config) -> bool:
    return any(host == (urlsplit(name).hostname or name) for name in config.trusted_hosts)


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in _PRIVATE) and not any(address in network for network in _METADATA)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if any(address in network for network in _NOT_HOSTS):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and address in _GLOBAL_UNICAST
    return address.is_global and not address.is_multicast and address not in _AZURE_HOST


def _is_isatap(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == 6 and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP


def _embedded_ipv4(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) and len(host) >= len(pattern) if pattern.startswith("*.") else host == pattern


@dataclass(frozen=True)
class FileInfo:
    """What a response says about a file before its body.

    :param start: offset of the first byte that the response sends.
    :param size: of the whole file in bytes; ``None``: the response does not say.
    :param media_type: the ``Content-Type``; ``None``: the response does not say.
    :param etag: names this version of the file, so that a resume gets the same version.
    :param is_packed: whether the body is packed, as ``content_encoding`` unpacks it.
    """

    start: int
    size: int | None
    media_type: str | None
    etag: str | None
    is_packed: bool = False


def resume_headers(received: int, etag: str | None) -> dict[str, str]:
    """Return the headers that request the rest of a file; without an ETag none, which requests the whole file."""
    return {"Range": f"bytes={received}-", "If-Range": etag} if received and etag else {}


def read_file_info(
    status: int, headers: Mapping[str, str], *, range_start: int, first: FileInfo | None = None
) -> FileInfo:
    """Judge a response by its status and headers, and return what it says about the file.

    :param headers: names in any case.
    :param range_start: the offset that ``resume_headers`` requested; 0: the whole file was requested.
    :param first: what the response said that sent the bytes received so far.
    :raises OutputExpiredError: the link has expired.
    :raises DeliveryError: no file now; another attempt may get it.
    :raises OutputRefusedError: no attempt will get a file.
    """
    found = {name.lower(): value for name, value in headers.items()}
    if status in _EXPIRED_STATUSES:
        raise OutputExpiredError(f"the delivery host answers {status}", status=status)
    if status >= 500 or status in _TRANSIENT_STATUSES:
        retry_after = seconds_to_wait(found.get("retry-after"), found.get("date"))
        raise DeliveryError(f"the delivery host answers {status}", status=status, retry_after=retry_after)
    if status == 416 and range_start:  # the whole file was received, only the mark of its end was lost
        raise DeliveryError("the delivery host has no bytes after those that came", status=status)
    if status not in {200, 206}:
        raise OutputRefusedError(f"the delivery host answers {status}", status=status)
    packed = is_packed(found)
    if status == 206 and packed:
        raise DeliveryError("the delivery host sends a part of the packed file", status=status)
    start, size = 0, _integer(found.get("content-length"))
    # http.client takes headers that broke off for complete, so a lost connection may also be the reason.
    if status == 200 and size is None and "chunked" not in found.get("transfer-encoding", "").lower():
        raise DeliveryError("the delivery host does not say how long the file is: a part of it would count as whole")
    if status == 206:
        content_range = _CONTENT_RANGE.match(found.get("content-range", ""))
        first_byte, last_byte, size = map(int, content_range.groups()) if content_range else (-1, -1, -1)
        if first_byte != range_start or last_byte + 1 != size:
            raise DeliveryError("the delivery host sends another part of the file than it was asked for", status=status)
        # Some hosts send a part although "If-Range" names another version.
        if first and (found.get("etag", first.etag) != first.etag or first.size not in {None, size}):
            raise DeliveryError("the delivery host sends a part of another version of the file", status=status)
        start = range_start
    if packed:  # length and version are those of the packed file, which can't be resumed within
        return FileInfo(0, None, found.get("content-type"), None, is_packed=True)
    etag = found.get("etag")
    is_strong = etag is not None and not etag.startswith("W/")
    return FileInfo(start, size, found.get("content-type"), etag if is_strong else None)


def _integer(text: str | None) -> int | None:
    # 18 digits are more than any file has bytes; `int` raises an error for thousands.
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None
