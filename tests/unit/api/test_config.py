"""``api/config.py``: the base URL, where the key may go, timeouts, and that nothing shows the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_comet.api.config import DEFAULT_BASE_URL, Config, clean_base_url, is_loopback
from airflow_provider_comet.api.errors import ConfigurationError

KEY = "sk-Abc123_def-456GHI789"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://api.cometapi.com", "https://api.cometapi.com"),
        ("https://api.cometapi.com/", "https://api.cometapi.com"),
        ("https://api.cometapi.com///", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1/", "https://api.cometapi.com"),
        ("api.cometapi.com/v1/", "https://api.cometapi.com"),
        ("api.cometapi.com", "https://api.cometapi.com"),
        ("  api.cometapi.com\n", "https://api.cometapi.com"),
        ("api.cometapi.com:8443", "https://api.cometapi.com:8443"),
        ("HTTPS://api.cometapi.com", "https://api.cometapi.com"),
        ("https://gateway.example/comet/v1", "https://gateway.example/comet"),
        ("https://gateway.example/v1beta", "https://gateway.example/v1beta"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://127.0.0.2:8765/v1", "http://127.0.0.2:8765"),
        ("http://localhost:8765/", "http://localhost:8765"),
        ("http://LOCALHOST:8765", "http://LOCALHOST:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        ("http://[::1]", "http://[::1]"),
        ("https://[2001:db8::1]:443/v1", "https://[2001:db8::1]:443"),
        ("localhost:8765", "https://localhost:8765"),
    ],
)
def test_a_base_url_is_cleaned(text: str, cleaned: str) -> None:
    """A host without a scheme gets https, and trailing slashes and ``/v1`` are removed; a clean URL does not change."""
    assert clean_base_url(text) == cleaned
    assert clean_base_url(cleaned) == cleaned
    assert Config(KEY, text).base_url == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "https://",
        "https:///v1",
        "https://:443",
        "https://api.cometapi.com:port",
        "https://api.cometapi.com:99999",
        "https://api.cometapi.com?x=1",
        "https://api.cometapi.com/#x",
        "https://[::1",
        "https://[not-an-address]",
        "http:api.cometapi.com",
        "https://api comet.example",
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    """Text that can't be a base URL is a ``ConfigurationError`` that names the text and shows an example."""
    with pytest.raises(ConfigurationError, match=DEFAULT_BASE_URL):
        clean_base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://api.cometapi.com",
        "http://api.cometapi.com:443",
        "http://10.0.0.1",
        "http://192.168.0.1:8080",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://[2001:db8::1]",
        "http://0.0.0.0",
        "ftp://127.0.0.1",
        "ws://localhost",
    ],
)
def test_the_key_never_travels_in_the_clear(text: str) -> None:
    """http is allowed for this machine only, and no other scheme than http and https."""
    with pytest.raises(ConfigurationError, match="must use https"):
        clean_base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:pa55w0rd@api.cometapi.com",
        "me:pa55w0rd@api.cometapi.com",
        "https://pa55w0rd@api.cometapi.com",
        "https://:pa55w0rd@api.cometapi.com",
        "https://me:pa55w0rd@api.cometapi.com:port?x",
        "ftp://me:pa55w0rd@api.cometapi.com",
        "https://me:pa55w0rd/x@api.cometapi.com",
        "https://me:x#pa55w0rd@api.cometapi.com",
        "https://@api.cometapi.com",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(text: str) -> None:
    """User names and passwords are refused in a base URL, and the message does not repeat them."""
    with pytest.raises(ConfigurationError) as caught:
        clean_base_url(text)
    assert "pa55w0rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, own: bool) -> None:
    """Only ``localhost`` and loopback addresses are this machine."""
    assert is_loopback(host) is own


OWN = [
    ("https://api.cometapi.com", "https://api.cometapi.com/replicate/v1/x", True),
    ("https://api.cometapi.com", "https://api.cometapi.com:443/x", True),
    ("https://api.cometapi.com:443", "https://api.cometapi.com/x", True),
    ("https://api.cometapi.com", "HTTPS://API.CometAPI.com/x", True),
    ("https://API.cometapi.com", "https://api.cometapi.com?x", True),
    ("https://gateway.example/comet", "https://gateway.example/elsewhere", True),
    ("http://127.0.0.1:80", "http://127.0.0.1/x", True),
    ("http://[::1]:8765", "http://[::1]:8765/x", True),
    ("https://api.cometapi.com", "http://api.cometapi.com/x", False),
    ("https://api.cometapi.com", "http://api.cometapi.com:443/x", False),
    ("https://api.cometapi.com", "https://api.cometapi.com:8443/x", False),
    ("https://api.cometapi.com:8443", "https://api.cometapi.com/x", False),
    ("https://api.cometapi.com", "https://evil.example/api.cometapi.com", False),
    ("https://api.cometapi.com", "https://api.cometapi.com.evil.example/", False),
    ("https://api.cometapi.com", "https://api.cometapi.com@evil.example/", False),
    ("https://api.cometapi.com", "https://query.cometapi.com/", False),
    ("https://api.cometapi.com", "https://api.cometapi.com:port/", False),
    ("https://api.cometapi.com", "//api.cometapi.com/x", False),
    ("https://api.cometapi.com", "/replicate/v1/x", False),
    ("https://api.cometapi.com", "", False),
    ("https://api.cometapi.com", "https://[::1", False),
    ("http://127.0.0.1:8765", "http://127.0.0.1:8766/", False),
    ("http://127.0.0.1:8765", "http://localhost:8765/", False),
]


@pytest.mark.parametrize(("base", "url", "own"), OWN, ids=[f"{base} -> {url}" for base, url, _ in OWN])
def test_the_key_goes_to_its_own_origin_only(base: str, url: str, own: bool) -> None:
    """A URL is the API's own only if scheme, host and port are equal, whatever their case or default."""
    assert Config(KEY, base).is_own(url) is own


@pytest.mark.parametrize("key", [f" {KEY}\n", f"\ufeff{KEY}", f"{KEY}\t"], ids=repr)
def test_a_copied_key_is_cleaned(key: str) -> None:
    """Blanks, line ends and a byte order mark around a key are removed."""
    assert Config(key).api_key == KEY


@pytest.mark.parametrize("key", ["", "  \n", None, 7, "\ufeff"], ids=repr)
def test_a_missing_key_is_refused(key: Any) -> None:
    """A missing key is an error, which says where the key belongs."""
    with pytest.raises(ConfigurationError, match="API key is missing"):
        Config(key)


@pytest.mark.parametrize(
    "key", ["Bearer tok3n", "tok3n\nx: y", "tök3n", "tok3n\x00", "tok3n…", 'tok"k3n', "tok\\k3n"], ids=repr
)
def test_a_broken_key_is_refused_and_not_shown(key: str) -> None:
    """A key with blanks, control or other characters is refused without repeating it."""
    with pytest.raises(ConfigurationError, match="characters that a key can't have") as caught:
        Config(key)
    assert "k3n" not in str(caught.value)


def test_a_configuration_does_not_show_its_key() -> None:
    """Neither ``repr`` nor ``str`` holds the key."""
    config = Config(KEY)
    assert KEY not in f"{config!r} {config}"
    assert "api.cometapi.com" in repr(config)


def test_a_configuration_can_not_be_changed() -> None:
    """Key and host belong together: neither can be replaced later."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(KEY).base_url = "https://evil.example"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
@pytest.mark.parametrize(("value", "seconds"), [(5, 5.0), (0.5, 0.5), ("12", 12.0), (" 1.5 ", 1.5), (86_399, 86_399.0)])
def test_a_timeout_is_a_number_of_seconds(name: str, value: Any, seconds: float) -> None:
    """A timeout may be written as text in a connection's extra, and becomes a number."""
    result = getattr(Config(KEY, **{name: value}), name)
    assert (result, type(result)) == (seconds, float)


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
@pytest.mark.parametrize(
    "value", [0, -1, "0", "soon", "", "nan", "inf", float("nan"), float("inf"), 86_400, None, True, [5]], ids=repr
)
def test_an_invalid_timeout_is_refused(name: str, value: Any) -> None:
    """A timeout must be a positive, finite number; the error names the extra."""
    with pytest.raises(ConfigurationError, match=name):
        Config(KEY, **{name: value})


def test_the_defaults_fit_the_service() -> None:
    """By default requests go to the API itself, with a read timeout above the 45 s that a poll can take."""
    config = Config(KEY)
    assert (config.base_url, config.connect_timeout, config.read_timeout) == ("https://api.cometapi.com", 10.0, 75.0)


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ((), ()),
        ("replicate.delivery", ("replicate.delivery",)),
        (" a.example , *.b.example", ("a.example", "*.b.example")),
        (["a.example", "*.b.example "], ("a.example", "*.b.example")),
    ],
)
def test_output_hosts_are_a_list_of_names(value: Any, hosts: tuple[str, ...]) -> None:
    """Output hosts are text with commas, or a list."""
    assert Config(KEY, output_hosts=value).output_hosts == hosts


@pytest.mark.parametrize(
    "value", ["", "a.example,", "https://a.example", "a.example/x", "*", "*.", "a.*.example", 7, [None]], ids=repr
)
def test_an_invalid_output_host_is_refused(value: Any) -> None:
    """Anything but host names, such as a URL or an empty item, is refused; the error names the extra."""
    with pytest.raises(ConfigurationError, match="'output_hosts' must be host names"):
        Config(KEY, output_hosts=value)


@pytest.mark.parametrize("value", [0, -1, "fast", True], ids=repr)
def test_an_invalid_poll_rate_is_refused(value: Any) -> None:
    """The limit on polls is a positive number; the error names the extra and its unit."""
    with pytest.raises(ConfigurationError, match="'max_polls_per_second' must be a number of polls above 0"):
        Config(KEY, max_polls_per_second=value)
