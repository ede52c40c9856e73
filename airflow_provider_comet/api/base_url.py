"""Host names, and the API's base URL, which is assembled from the fields of a connection that say where the API is."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from airflow_provider_comet.api.errors import ConfigurationError

DEFAULT_BASE_URL = "https://api.cometapi.com"
PORTS = {"https": 443, "http": 80}
"""The schemes that are spoken, with the ports that they use if a URL names none."""

_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#\\]*)(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
# Nothing that a server, a proxy and a library may read in different ways: no query, no escapes, no ".." segment.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")
_SUFFIX = re.compile(r"(?:/+v1)*/*\Z")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def clean_base_url(host: str, port: object = None, schema: object = None, *, allow_insecure_http: bool = False) -> str:
    """Return a base URL to which the path of a request can be appended.

    A host without a scheme gets https. Trailing slashes and ``/v1`` are removed: CometAPI's chat routes need ``/v1`` in
    the base URL, the prediction routes don't. What is not understood is refused: the API key is sent to this address.

    :param host: a host name, an address, or a URL.
    :param port: a number, if the host names no other port.
    :param schema: ``http`` or ``https``, if the host names no other scheme.
    :param allow_insecure_http: allow http, not only for this machine.
    :raises ConfigurationError: the parts are no address, contradict each other, or would send the key in the clear.
    """
    text = host.strip()
    shown = text[:100]
    if "@" in text:
        raise ConfigurationError("the host holds a user name or a password; the API key belongs in the password field")
    scheme, authority, path = _URL.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches every text
    scheme = _scheme(scheme, schema)
    path = _SUFFIX.sub("", path)
    try:
        name, own_port = _split_authority(authority, port)
        if not _PATH.fullmatch(path):
            raise ValueError("what follows the host is no plain path")
    except ValueError as error:
        raise ConfigurationError(f"the host {shown!r} is not a base URL such as {DEFAULT_BASE_URL}: {error}") from None
    number = _port(own_port, port)
    if scheme != "https" and not (scheme == "http" and (allow_insecure_http or is_loopback(name))):
        hint = "; allow_insecure_http permits it" if scheme == "http" else ""
        raise ConfigurationError(
            f"the base URL {text!r} must use https; http would send the API key in the clear{hint}"
        )
    return f"{scheme}://{_bracketed(name)}{'' if number is None else f':{number}'}{path}"


def clean_host(text: str) -> str:
    """Return a host name in lower case, or an address in its usual form and without brackets.

    :raises ValueError: the text is neither.
    """
    name = text.lower()
    if name.startswith("[") or ":" in name:
        if "%" in name:  # the zone of a link-local address
            raise ValueError("an address with a zone is no host")
        return str(ipaddress.IPv6Address(name[1:-1] if name[0] + name[-1] == "[]" else name))
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a host name has labels of 1 to 63 letters, digits and '-' (others as xn--...)")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):  # resolvers take 127.1 and 0x7f000001 for addresses, too
        return str(ipaddress.IPv4Address(name))
    return name


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL.

    :raises ValueError: it is no URL.
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def http_origin(host: str | None, port: int | None) -> str:
    """Return the text that stands for a server without https: always with its port."""
    return f"http://{_bracketed(host or '')}:{port}"


def _scheme(own: str | None, schema: object) -> str:
    """Return the scheme on which host and schema agree."""
    wanted = "" if schema is None else str(schema).strip().lower()
    if not wanted:
        return "https" if own is None else own.lower()
    if wanted not in PORTS:
        raise ConfigurationError(f"the schema {schema!r} must be http, https or empty; a path belongs to the host")
    if own is not None and own.lower() != wanted:
        raise ConfigurationError(f"the schema {schema!r} contradicts the host, which begins with '{own}://'")
    return wanted


def _split_authority(authority: str, port: object) -> tuple[str, str | None]:
    """Return the host and the port that a text names, ``None`` if it names none.

    Airflow takes the brackets off the IPv6 address of a connection that is written as a URI.
    """
    if authority.count(":") > 1 and not authority.startswith("["):
        if port in (None, "") and _is_ipv6(authority.rpartition(":")[0]):
            raise ValueError("an IPv6 address stands in [brackets]: its last digits may be the port")
        return clean_host(authority), None
    if not (found := _AUTHORITY.fullmatch(authority)):
        raise ValueError("host and port are not clear")
    return clean_host(found[1]), found[2]


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _port(own: str | None, port: object) -> int | None:
    """Return the port on which host and port field agree."""
    numbers = []
    for value in (own, port):
        if value in (None, ""):
            continue
        text = "" if isinstance(value, bool) else str(value)
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
            raise ConfigurationError(f"the port must be a number from 1 to 65535, not {value!r}")
        numbers.append(int(text))
    if len({*numbers}) > 1:
        raise ConfigurationError(
            f"the host names port {numbers[0]}, the port field {numbers[1]}: leave one of them out"
        )
    return numbers[0] if numbers else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
