"""``Config``: the API's address, the key and the limits of a connection, checked once."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from airflow_provider_comet.api.base_url import (
    DEFAULT_BASE_URL,
    clean_base_url,
    clean_host,
    http_origin,
    is_loopback,
    origin,
)
from airflow_provider_comet.api.errors import ConfigurationError

DEFAULT_CONNECT_TIMEOUT = 10.0
DEFAULT_READ_TIMEOUT = 75.0
"""Seconds. A poll can take more than 45 s (the documentation page of that route, March 2026)."""

DEFAULT_MAX_POLLS_PER_SECOND = 50.0
"""CometAPI publishes no limit; so many polls serve some 3,000 waits of a minute and longer."""

NUMERIC_EXTRAS = {"connect_timeout": "seconds", "read_timeout": "seconds", "max_polls_per_second": "polls"}
"""The extras of a connection that are numbers, with their units."""
EXTRAS = (*NUMERIC_EXTRAS, "output_hosts", "allow_insecure_http")
"""All extras of a connection."""

_INVISIBLE_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Characters that look like a blank, but count as letters or symbols."""
_QUOTES = ('""', "''", "\u201c\u201d", "\u2018\u2019", "``")


@dataclass(frozen=True)
class Config:
    """The settings of a connection to the API.

    :param api_key: sent as a Bearer token, to the origin of ``base_url`` only.
    :param base_url: the API's address; see ``clean_base_url``.
    :param connect_timeout: seconds to connect.
    :param read_timeout: seconds for a whole request once it is connected: until the last byte of its answer was read.
    :param max_polls_per_second: limit on the polls that a process sends over this connection.
    :param output_hosts: the hosts from which files of outputs may be downloaded: names or addresses,
        ``*.example.com`` for all hosts below a domain, ``http://minio:9000`` for a host that has no https; a text with
        commas, or a list. Empty: any public host.
    :param allow_insecure_http: whether the base URL may be http, over which everybody on the way can read the key.
    :param is_from_environment: whether key and URL come from environment variables instead of an Airflow connection.
    :raises ConfigurationError: a value can't be used.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    max_polls_per_second: float = DEFAULT_MAX_POLLS_PER_SECOND
    output_hosts: tuple[str, ...] = ()
    allow_insecure_http: bool = False
    is_from_environment: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_key", _clean_key(self.api_key))
        allowed = _clean_flag("allow_insecure_http", self.allow_insecure_http)
        object.__setattr__(self, "allow_insecure_http", allowed)
        object.__setattr__(self, "base_url", clean_base_url(self.base_url, allow_insecure_http=allowed))
        for name, unit in NUMERIC_EXTRAS.items():
            object.__setattr__(self, name, _clean_number(name, getattr(self, name), unit))
        object.__setattr__(self, "output_hosts", _clean_hosts(self.output_hosts))

    @property
    def is_local(self) -> bool:
        """Whether the API runs on this machine (the emulator), so that the files of its outputs may be here too."""
        return is_loopback(self._origin[1] or "")

    @property
    def is_insecure(self) -> bool:
        """Whether the key travels in the clear, over a network."""
        return self._origin[0] == "http" and not self.is_local

    @property
    def trusted_hosts(self) -> tuple[str, ...]:
        """The ``output_hosts`` that somebody named one by one, and an API over http: they may be private."""
        _, host, port = self._origin
        own = (http_origin(host, port),) if self.is_insecure else ()
        return own + tuple(host for host in self.output_hosts if not host.startswith("*."))

    @property
    def key_from(self) -> str:
        """Where the key comes from, and so which account pays."""
        return "environment" if self.is_from_environment else "connection"

    def is_own(self, url: str) -> bool:
        """Whether the key may go to this URL: scheme, host and port are those of the base URL."""
        try:
            return origin(url) == self._origin
        except ValueError:
            return False

    @property
    def _origin(self) -> tuple[str, str | None, int | None]:
        return origin(self.base_url)


def _clean_key(key: object) -> str:
    """Return a key without what copying adds to it: blanks, quotes and ``Bearer``."""
    text, before = key if isinstance(key, str) else "", None
    while text != before:
        before, text = text, text.strip("".join(filter(_is_blank, text)))
        if text[:1] + text[1:][-1:] in _QUOTES:
            text = text[1:-1]
        head, *rest = text.split(maxsplit=1) or [""]
        if head.lower() == "bearer":
            text = "".join(rest)
    if not text:
        raise ConfigurationError("the API key is missing: put it into the password of the Airflow connection")
    # JSON escapes quote and backslash, so an echoed key that has them would not be found and removed.
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' "\\'):
        raise ConfigurationError("the API key holds characters that a key can't have; copy it again")
    return text


def _is_blank(character: str) -> bool:
    # "Cf": without width, such as a byte order mark.
    return character.isspace() or character in _INVISIBLE_LETTERS or unicodedata.category(character) == "Cf"


def _clean_hosts(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(_clean_output_host(item) for item in (items if isinstance(items, (list, tuple)) else [items]))


def _clean_output_host(item: object) -> str:
    text = item.strip().lower() if isinstance(item, str) else ""
    try:
        if text.startswith("*."):
            return f"*.{clean_host(text[2:])}"
        if not text.startswith("http://"):
            return clean_host(text)
        if "/" not in text.removeprefix("http://").rstrip("/"):
            _, host, port = origin(clean_base_url(text, allow_insecure_http=True))
            return http_origin(host, port)
    except (ConfigurationError, ValueError):
        pass
    raise ConfigurationError(
        "the connection's extra 'output_hosts' must be host names with commas between them, such as "
        f"'replicate.delivery, *.replicate.delivery, http://minio:9000'; {text.rpartition('@')[2]!r} is no host name"
    )


def _clean_flag(name: str, value: object) -> bool:
    text = str(value).strip().lower() if isinstance(value, (bool, str)) else ""
    if text not in ("true", "false"):
        raise ConfigurationError(f"the connection's extra {name!r} must be true or false")
    return text == "true"


def _clean_number(name: str, value: object, unit: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 86_400:
        raise ConfigurationError(f"the connection's extra {name!r} must be a number of {unit} above 0")
    return float(value)
