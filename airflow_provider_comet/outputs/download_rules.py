"""Fetching a file from a delivery host: where one may go, and what its answers mean.

Links come from the API's answers, so they are not trusted: a link must not make a worker talk to machines that only it
can reach.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_provider_comet.api.config import is_loopback
from airflow_provider_comet.api.file_errors import DeliveryError, OutputExpiredError, OutputRefusedError
from airflow_provider_comet.api.response import seconds_to_wait
from airflow_provider_comet.outputs.output import clean_url

MOST_HOPS = 5
"""Redirects that are followed."""
STRIDE = 64 * 1024
"""Bytes by which a file has to grow within ``polling.PATIENCE``, all retries included: a server that sends a byte a
minute would hold a worker for ever otherwise."""

_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""Object stores say 403 (Google's 400, others 401) for a signature that is too old, and for an object that is gone."""
_PASSES = frozenset({408, 425, 429})
NO_RESUME = frozenset({206, 416})
"""Of an error: the host can't go on where it was, and has to be asked for all of the file."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""The last four bytes are an IPv4 address that is reached through it."""
_NOT_HOSTS = (
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols; at Oracle's cloud 192.0.0.192 is the metadata service
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.ip_network("3fff::/20"),  # documentation
)
"""Of these, too, ``is_global`` is true, at least in some releases of Python."""
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Before the last four bytes of an IPv6 address: these are an IPv4 address within the site."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given to anybody. ``is_global`` is true of much of the rest, such as ``::127.0.0.1``."""
_PLATFORM = ipaddress.ip_address("168.63.129.16")
"""Public by its registration, but a machine at Azure reaches services of its own host by it."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


def check_link(url: str, hosts: Sequence[str], *, is_local: bool) -> None:
    """Refuse a link, or a redirect, before anything is sent.

    :param hosts: host names that are allowed, ``*.example.com`` for all below; empty: any that is public.
    :param is_local: the API is on this machine (the emulator), and so may its files be, over http.
    :param url: as it is sent. Readers of URLs differ about ``https://one\\@two/``: that of the HTTP library decides.
    :raises OutputRefusedError: it leads where it must not.
    """
    try:
        parts = urlsplit(url)
        shown, host, _ = clean_url(url), (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise OutputRefusedError("a link is no URL") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local and is_loopback(host)):
        raise OutputRefusedError(f"{shown} is not https")
    if hosts and not any(_is_below(host, allowed) for allowed in hosts):
        raise OutputRefusedError(f"{shown}: the host {host!r} is not among the connection's output_hosts")
    try:
        check_address(host, is_local=is_local)
    except ValueError:
        return  # a name: the address is checked when it is known


def check_address(address: str, *, is_local: bool) -> None:
    """Refuse an address that is not public: of this machine, a private network, a link, a cloud's metadata.

    :param is_local: this machine's own are allowed.
    :raises OutputRefusedError: it is none of the public ones.
    :raises ValueError: it is no address.
    """
    given = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    if is_local and given.is_loopback:
        return
    if _is_isatap(given) or not _is_public(_inside(given) or given):
        raise OutputRefusedError(f"{address} is not a public address")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if any(address in network for network in _NOT_HOSTS):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.is_global and address in _GLOBAL_UNICAST
    return address.is_global and not address.is_multicast and address != _PLATFORM


def _is_isatap(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == 6 and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP


def _inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_below(host: str, allowed: str) -> bool:
    host, allowed = host.lower(), allowed.lower()
    return host.endswith(allowed[1:]) and len(host) > len(allowed) - 1 if allowed.startswith("*.") else host == allowed


@dataclass(frozen=True)
class Head:
    """What an answer says before its body.

    :param start: the first byte of the file that it sends.
    :param size: of the whole file in bytes, if it says so.
    :param tag: names this version of the file; a resume asks for the same one.
    """

    start: int
    size: int | None
    media_type: str | None
    tag: str | None


def resume_headers(received: int, tag: str | None) -> dict[str, str]:
    """Ask for the rest of a file; without a name of its version, for all of it again."""
    return {"Range": f"bytes={received}-", "If-Range": tag} if received and tag else {}


def read_head(status: int, headers: Mapping[str, str], *, asked_from: int, first: Head | None = None) -> Head:
    """Say what an answer brings.

    :param headers: names in any case.
    :param asked_from: the byte that ``resume_headers`` asked for.
    :param first: what the answer said that the bytes before it came from.
    :raises OutputExpiredError: the link is no longer good.
    :raises DeliveryError: no file now.
    :raises OutputRefusedError: no file ever.
    """
    seen = {name.lower(): value for name, value in headers.items()}
    if status in _EXPIRED:
        raise OutputExpiredError(f"the delivery host answers {status}", status=status)
    if status >= 500 or status in _PASSES:
        hint = seconds_to_wait(seen.get("retry-after"), seen.get("date"))
        raise DeliveryError(f"the delivery host answers {status}", status=status, retry_after=hint)
    if status == 416 and asked_from:  # all of it had come, only the mark of its end was lost
        raise DeliveryError("the delivery host has no bytes after those that came", status=status)
    if status not in {200, 206}:
        raise OutputRefusedError(f"the delivery host answers {status}", status=status)
    if seen.get("content-encoding", "identity").lower() != "identity":
        raise OutputRefusedError("the delivery host packs the file although it was asked not to")
    start, size = 0, _whole(seen.get("content-length"))
    # Also of a connection that was lost amid the headers: http.client takes those that came for all there are.
    if status == 200 and size is None and "chunked" not in seen.get("transfer-encoding", "").lower():
        raise DeliveryError("the delivery host does not say how long the file is: a part of it would look whole")
    if status == 206:
        found = _CONTENT_RANGE.match(seen.get("content-range", ""))
        if found is None or int(found[1]) != asked_from or int(found[2]) + 1 != int(found[3]):
            raise DeliveryError("the delivery host sends another part of the file than it was asked for", status=status)
        start, size = asked_from, int(found[3])
        # Some answer so although "If-Range" names another version.
        if first and (seen.get("etag", first.tag) != first.tag or first.size not in {None, size}):
            raise DeliveryError("the delivery host sends a part of another version of the file", status=status)
    tag = seen.get("etag")
    return Head(start, size, seen.get("content-type"), None if tag is None or tag.startswith("W/") else tag)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
