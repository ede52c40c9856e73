"""``api/config.py``: where the key may go, timeouts, and that nothing shows the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.api.errors import ConfigurationError

KEY = "sk-Abc123_def-456GHI789"


def test_the_base_url_is_cleaned() -> None:
    """It follows the rules of ``clean_base_url``, and http needs to be allowed."""
    assert Config(KEY, "gateway.example/v1/").base_url == "https://gateway.example"
    with pytest.raises(ConfigurationError, match="must use https"):
        Config(KEY, "http://comet-emulator:8765")
    config = Config(KEY, "http://comet-emulator:8765", allow_insecure_http=True)
    assert (config.base_url, config.is_insecure, config.is_local) == ("http://comet-emulator:8765", True, False)
    assert not Config(KEY, "http://127.0.0.1:8765", allow_insecure_http=True).is_insecure
    assert not Config(KEY, allow_insecure_http=True).is_insecure


@pytest.mark.parametrize(
    ("value", "is_allowed"), [(True, True), (False, False), ("true", True), (" True\n", True), ("false", False)]
)
def test_a_flag_is_true_or_false(value: Any, is_allowed: bool) -> None:
    """Also as a text: a connection that is written as a URI has only texts."""
    assert Config(KEY, allow_insecure_http=value).allow_insecure_http is is_allowed


@pytest.mark.parametrize("value", ["", "yes", 1, 0, 1.0, None, [], {}, "truee"], ids=repr)
def test_another_flag_is_refused(value: Any) -> None:
    """A typing error does not send the key in the clear; the error names the extra."""
    with pytest.raises(ConfigurationError, match="'allow_insecure_http' must be true or false"):
        Config(KEY, allow_insecure_http=value)


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


COPIED = [
    f" {KEY}\n",
    f"{KEY}\r\n",
    f"\ufeff{KEY}",
    f"\n\ufeff {KEY}",
    f"{KEY}\t",
    f"\u200b{KEY}\u200d\u2060",
    f"\u00a0{KEY}\u3000",
    f"\u2028{KEY}\u2800",
    f"\u00ad{KEY}\u202c",
    f'"{KEY}"',
    f"'{KEY}' ",
    f"\u201c{KEY}\u201d",
    f"Bearer {KEY}",
    f"bearer\u00a0 {KEY}",
    f' "Bearer {KEY}\u200b"\n',
    f"Bearer '{KEY}'",
]
"""How a key may arrive that was copied from a page, a file or a ``curl`` command."""


@pytest.mark.parametrize("key", COPIED, ids=ascii)
def test_a_copied_key_is_cleaned(key: str) -> None:
    """Blanks of all kinds, a byte order mark, quotes and ``Bearer`` around a key are removed."""
    assert Config(key).api_key == KEY


@pytest.mark.parametrize(
    "key", ["", "  \n", None, 7, "\ufeff", "\u200b \u2800", '""', "''", "Bearer", ' "Bearer " '], ids=ascii
)
def test_a_missing_key_is_refused(key: Any) -> None:
    """A missing key is an error, which says where the key belongs."""
    with pytest.raises(ConfigurationError, match="API key is missing"):
        Config(key)


@pytest.mark.parametrize(
    "key",
    [
        "x tok3n",
        "tok3n\nx: y",
        "tök3n",
        "tok3n\x00",
        "tok3n…",
        'tok"k3n',
        "tok\\k3n",
        "to\u200bk3n",
        '"tok3n',
        "to\ufeffk3n",
    ],
    ids=ascii,
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
        ("A.Example,*.B.example", ("a.example", "*.b.example")),
        ("10.0.0.5, [FD00::0:5], fd00::6", ("10.0.0.5", "fd00::5", "fd00::6")),
        ("http://minio:9000, HTTP://Minio/", ("http://minio:9000", "http://minio:80")),
        ("http://10.0.0.5, http://[fd00::5]:9000", ("http://10.0.0.5:80", "http://[fd00::5]:9000")),
    ],
)
def test_output_hosts_are_a_list_of_names(value: Any, hosts: tuple[str, ...]) -> None:
    """Output hosts are text with commas, or a list."""
    assert Config(KEY, output_hosts=value).output_hosts == hosts


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a.example,",
        "https://a.example",
        "a.example/x",
        "a.example:9000",
        "*",
        "*.",
        "*.http://a.example",
        "a.*.example",
        "a..b",
        "127.1",
        "fd00::1%eth0",
        "http://",
        "http://minio:9000/bucket",
        "http://minio/v1",
        "http://minio:0",
        "http://*.example",
        "http://minio?x",
        7,
        [None],
    ],
    ids=repr,
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


def test_a_password_in_output_hosts_is_not_shown() -> None:
    """The message names the host alone."""
    with pytest.raises(ConfigurationError, match="'minio:9000'") as caught:
        Config(KEY, output_hosts="http://me:pa55w0rd@minio:9000")
    assert "pa55w0rd" not in str(caught.value)


def test_hosts_that_were_named_are_trusted() -> None:
    """Hosts that somebody named one by one, and an API over http; neither a wildcard nor anything by default."""
    assert Config(KEY).trusted_hosts == ()
    named = Config(KEY, output_hosts="replicate.delivery, *.replicate.delivery, http://minio:9000")
    assert named.trusted_hosts == ("replicate.delivery", "http://minio:9000")
    own = Config(KEY, "http://comet-emulator", allow_insecure_http=True)
    assert own.trusted_hosts == ("http://comet-emulator:80",)
    assert Config(KEY, "https://gateway.example:8443").trusted_hosts == ()
    assert Config(KEY, "http://127.0.0.1:8765").trusted_hosts == ()
