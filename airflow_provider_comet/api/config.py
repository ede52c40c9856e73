"""``Config``: where the API is and how to talk to it, checked once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_comet.api.errors import ConfigurationError

DEFAULT_BASE_URL = "https://api.cometapi.com"
DEFAULT_CONNECT_TIMEOUT = 10.0
DEFAULT_READ_TIMEOUT = 75.0
"""Seconds. The query route was seen to need more than 45 s (its documentation page, March 2026)."""

DEFAULT_MAX_POLLS_PER_SECOND = 50.0
"""CometAPI publishes no limit; this many looks serve some 3,000 waits of a minute and more."""

NUMBERS = {"connect_timeout": "seconds", "read_timeout": "seconds", "max_polls_per_second": "looks"}
"""What a connection's extras may set, and in which unit."""
EXTRAS = (*NUMBERS, "output_hosts")

_HOST = re.compile(r"[\w.:-]+")
_OUTPUT_HOST = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*")


@dataclass(frozen=True)
class Config:
    """How to reach the API.

    :param api_key: sent as a Bearer token, to the origin of ``base_url`` alone.
    :param base_url: the API's address; see ``clean_base_url``.
    :param connect_timeout: seconds for a connection to be made.
    :param read_timeout: seconds without a byte of the answer; in a triggerer for all of it.
    :param max_polls_per_second: looks that one process sends over this connection, at most.
    :param output_hosts: where files of outputs may be fetched from, besides redirects among these: host names, or
        ``*.example.com`` for all below; text with commas, or a list. Empty: from any public host.
    :param is_from_environment: key and URL are those of the process's environment, not of an Airflow connection.
    :raises ConfigurationError: for a value that can't be used.
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
        for name, unit in NUMBERS.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), unit))
        object.__setattr__(self, "output_hosts", _hosts(self.output_hosts))

    @property
    def is_local(self) -> bool:
        """Whether the API is on this machine (the emulator): then the files of its outputs may be, too."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def is_own(self, url: str) -> bool:
        """Whether the key may go to this URL: scheme, host and port are those of the base URL."""
        try:
            return _origin(url) == _origin(self.base_url)
        except ValueError:
            return False


def clean_base_url(text: str) -> str:
    """Return the base URL as requests are built on it.

    A host without scheme means https. A trailing ``/v1`` (CometAPI's chat needs it, this route doesn't) and slashes go.

    :raises ConfigurationError: not https (http is for this machine only), a user name or password in it, or no host.
    """
    text = text.strip()
    if "@" in text:
        raise ConfigurationError(
            "the host holds a user name or a password; the API key belongs into the password field"
        )
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
    """Whether a host name or address is this machine's own."""
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
    # Quote and backslash would be spelled differently in JSON, where an echoed key is looked for and removed.
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' "\\'):
        raise ConfigurationError("the API key holds characters that a key can't have; copy it again")
    return text


def _hosts(value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    hosts = []
    for item in given if isinstance(given, (list, tuple)) else [given]:
        host = item.strip() if isinstance(item, str) else ""
        if not _OUTPUT_HOST.fullmatch(host):
            raise ConfigurationError(
                "the connection's extra 'output_hosts' must be host names with commas between them, such as "
                f"'replicate.delivery, *.replicate.delivery'; {item!r} is none"
            )
        hosts.append(host)
    return tuple(hosts)


def _number(name: str, value: object, unit: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 86_400:
        raise ConfigurationError(f"the connection's extra {name!r} must be a number of {unit} above 0")
    return float(value)
