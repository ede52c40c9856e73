"""What both clients share: their headers, when they use no proxy, and how they name the reason of a failure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from airflow_provider_comet import __version__
from airflow_provider_comet.api.base_url import is_loopback
from airflow_provider_comet.api.config import Config

# gzip and nothing else: the libraries would offer whatever they find installed, and unpack it without a limit.
HEADERS: Final = {
    "User-Agent": f"airflow-provider-comet/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}


def uses_no_proxy(url: str) -> bool:
    """Return whether a URL is plain http on this machine: a proxy would get the key in the clear, and can't help."""
    parts = urlsplit(url)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def timeout_words(config: Config) -> str:
    """Return the reason of an exchange that took too long."""
    return f"timed out: no answer within {config.read_timeout:g} s"


def root_cause(error: BaseException, config: Config, outside: BaseException | None) -> str:
    """Return the base URL and the innermost reason of a failure, without the key.

    :param outside: the exception that was being handled when the call began; it has nothing to do with the failure.
    """
    return f"{config.base_url}: {innermost(error, outside)}".replace(config.api_key, "***")


def innermost(error: BaseException, outside: BaseException | None) -> str:
    """Return the innermost exception that has words: the outer ones of both libraries repeat URLs and addresses.

    :param outside: as for ``root_cause``.
    """
    reason = error
    inner: BaseException | None = error
    while inner is not None and inner is not outside:
        reason = inner if str(inner) else reason
        inner = inner.__cause__ or inner.__context__
    return f"{type(reason).__name__}: {reason}"
