"""``Config``: the API's address, the key and the limits of a connection, checked once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_comet.api.errors import ConfigurationError

DEFAULT_BASE_URL = "https://api.cometapi.com"
DEFAULT_CONNECT_TIMEOUT = 10.0
DEFAULT_READ_TIMEOUT = 75.0
"""Seconds. A poll can take more than 45 s (the documentation page of that route, March 2026)."""

DEFAULT_MAX_POLLS_PER_SECOND = 50.0
"""CometAPI publishes no limit; so many polls serve some 3,000 waits of a minute and longer."""

NUMERIC_EXTRAS = {"connect_timeout": "seconds", "read_timeout": "seconds", "max_polls_per_second": "polls"}
"""The extras of a connection that are numbers, with their units."""
EXTRAS = (*NUMERIC_EXTRAS, "output_hosts")
"""All extras of a connection."""

_HOST = re.compile(r"[\w.:-]+")
_OUTPUT_HOST = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True)
class Config:
    """The settings of a connection to the API.

    :param api_key: sent as a Bearer token, to the origin of ``base_url`` only.
    :param base_url: the API's address; see ``clean_base_url``.
    :param connect_timeout: seconds to connect.
    :param read_timeout: seconds for a whole request once it is connected: until the last byte of its answer was read.
    :param max_polls_per_second: limit on the polls that a process sends over this connection.
    :param output_hosts: the hosts from which files of outputs may be downloaded: names, or ``*.example.com`` for all
        hosts below a domain; a text with commas, or a list. Empty: any public host.
    :param is_from_environment: whether key and URL come from environment variables instead of an Airflow connection.
    :raises ConfigurationError: a value can't be used.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    max_polls_per_second: float = DEFAULT_MAX_POLLS_PER_SECOND
    output_hosts: tuple[str, ...] = ()
    is_from_environment: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", _clean_key(self.api_key))
        object.__setattr__(self, "base_url", clean_base_url(self.base_url))
        for name, unit in NUMERIC_EXTRAS.items():
            object.__setattr__(self, name, _clean_number(name, getattr(self, name), unit))
        object.__setattr__(self, "output_hosts", _clean_hosts(self.output_hosts))

    @property
    def is_local(self) -> bool:
        """Whether the API runs on this machine (the emulator), so that the files of its outputs may be here too."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def is_own(self, url: str) -> bool:
        """Whether the key may go to this URL: scheme, host and port are those of the base URL."""
        try:
            return _origin(url) == _origin(self.base_url)
        except ValueError:
            return False


def clean_base_url(text: str) -> str:
    """Return a base URL to which the path of a request can be appended.

    A host without a scheme gets https. Trailing slashes and ``/v1`` are removed: CometAPI's chat routes need ``/v1`` in
    the base URL, the prediction routes don't.

    :raises ConfigurationError: the URL is not https (http is allowed for this machine only), contains a user name or a
        password, or has no host.
    """
    text = text.strip()
    if "@" in text:
        raise ConfigurationError("the host holds a user name or a password; the API key belongs in the password field")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"the host {text!r} is not a base URL such as {DEFAULT_BASE_URL}") from None
    if not host or not _HOST.fullmatch(host) or parts.query or parts.fragment:
        raise ConfigurationError(f"the host {text!r} is not a base URL such as {DEFAULT_BASE_URL}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError(f"the base URL {text!r} must use https; http would send the API key in the clear")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _clean_key(key: object) -> str:
    text = key.strip().lstrip("\ufeff") if isinstance(key, str) else ""
    if not text:
        raise ConfigurationError("the API key is missing: put it into the password of the Airflow connection")
    # JSON escapes quote and backslash, so an echoed key that has them would not be found and removed.
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' "\\'):
        raise ConfigurationError("the API key holds characters that a key can't have; copy it again")
    return text


def _clean_hosts(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    hosts = []
    for item in items if isinstance(items, (list, tuple)) else [items]:
        host = item.strip() if isinstance(item, str) else ""
        if not _OUTPUT_HOST.fullmatch(host):
            raise ConfigurationError(
                "the connection's extra 'output_hosts' must be host names with commas between them, such as "
                f"'replicate.delivery, *.replicate.delivery'; {item!r} is no host name"
            )
        hosts.append(host)
    return tuple(hosts)


def _clean_number(name: str, value: object, unit: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 86_400:
        raise ConfigurationError(f"the connection's extra {name!r} must be a number of {unit} above 0")
    return float(value)
