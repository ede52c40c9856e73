"""``api/base_url.py``: whatever the parts are, the address is the configured address, or is refused in words."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api.base_url import DEFAULT_BASE_URL, clean_base_url, clean_host, is_loopback, origin
from airflow_provider_comet.api.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://api.cometapi.com", "https://api.cometapi.com"),
        ("https://api.cometapi.com/", "https://api.cometapi.com"),
        ("https://api.cometapi.com///", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1/", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1/v1", "https://api.cometapi.com"),
        ("api.cometapi.com/v1/", "https://api.cometapi.com"),
        ("api.cometapi.com", "https://api.cometapi.com"),
        ("  api.cometapi.com\n", "https://api.cometapi.com"),
        ("api.cometapi.com:8443", "https://api.cometapi.com:8443"),
        ("HTTPS://API.CometAPI.com", "https://api.cometapi.com"),
        ("https://gateway.example/comet/v1", "https://gateway.example/comet"),
        ("https://gateway.example/v1beta", "https://gateway.example/v1beta"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://127.0.0.2:8765/v1", "http://127.0.0.2:8765"),
        ("http://localhost:8765/", "http://localhost:8765"),
        ("http://LOCALHOST:8765", "http://localhost:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        ("http://[::1]", "http://[::1]"),
        ("http://::1", "http://[::1]"),
        ("2001:DB8::1", "https://[2001:db8::1]"),
        ("https://[2001:db8::1]:443/v1", "https://[2001:db8::1]:443"),
        ("localhost:8765", "https://localhost:8765"),
        ("comet_gateway", "https://comet_gateway"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_base_url_is_cleaned(text: str, cleaned: str) -> None:
    """A host without a scheme gets https, and trailing slashes and ``/v1`` are removed; a clean URL does not change."""
    assert clean_base_url(text) == cleaned
    assert clean_base_url(cleaned) == cleaned


@pytest.mark.parametrize(
    ("fields", "cleaned"),
    [
        (("https://gateway.example/", 8443), "https://gateway.example:8443"),
        (("https://gateway.example/comet/v1", 8443), "https://gateway.example:8443/comet"),
        (("gateway.example", "8443"), "https://gateway.example:8443"),
        (("gateway.example:8443", 8443), "https://gateway.example:8443"),
        (("gateway.example", None, "https"), "https://gateway.example"),
        (("gateway.example", None, " HTTPS "), "https://gateway.example"),
        (("https://gateway.example", "", ""), "https://gateway.example"),
        (("127.0.0.1", 8765, "http"), "http://127.0.0.1:8765"),
        (("http://127.0.0.1", 8765, "http"), "http://127.0.0.1:8765"),
        (("::1", 8765, "http"), "http://[::1]:8765"),
        (("http://::1", 8765), "http://[::1]:8765"),
        (("2001:db8::1:2", 8443), "https://[2001:db8::1:2]:8443"),
        (("[2001:db8::1]", 8443), "https://[2001:db8::1]:8443"),
    ],
)
def test_host_port_and_schema_make_an_address(fields: tuple[Any, ...], cleaned: str) -> None:
    """The port goes to its place whatever the host ends with, and so does the scheme."""
    assert clean_base_url(*fields) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "https://",
        "https:///v1",
        "https://:443",
        "https://gateway.example:",
        "https://gateway.example:/",
        "https://gateway.example:port",
        "https://gateway.example:-1",
        "https://gateway.example:123456",
        "https://gateway.example:٨٠",
        "https://gateway.example?x=1",
        "https://gateway.example/#x",
        "https://gateway.example/a b",
        "https://gateway.example/a%2e%2e",
        "https://gateway.example/../x",
        "https://gateway.example/x/.",
        "https://gateway.example/a//b",
        "https://gateway.example\\x",
        "https:\\\\gateway.example",
        "https://gate\nway.example",
        "https://gate\tway.example",
        "https://gate\x00way.example",
        "https://gate\u200bway.example",
        "https://gate way.example",
        "https://gateway.example.",
        "https://a..b",
        "https://.example",
        "https://-gateway.example",
        "https://bücher.example",
        f"https://{'a' * 64}.example",
        f"https://{'.'.join(['a' * 60] * 5)}",
        "https://127.1",
        "https://0x7f000001",
        "https://2130706433",
        "https://[::1",
        "https://::1]",
        "https://[::1]x",
        "https://[not-an-address]",
        "https://[127.0.0.1]",
        "https://[fe80::1%25eth0]",
        "fe80::1%eth0",
        "http:gateway.example",
        "//gateway.example",
        "https://https://gateway.example",
        "2001:db8::1:443",
        "[",
        "[]",
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    """Text that can't be a base URL is a ``ConfigurationError`` that shows an example, whatever else would fail on it
    later."""
    with pytest.raises(ConfigurationError, match=DEFAULT_BASE_URL):
        clean_base_url(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("https://gateway.example:8443", 9443), "the host names port 8443, the port field 9443"),
        (("gateway.example:443", 8443), "the host names port 443"),
        (("gateway.example", 0), "the port must be a number from 1 to 65535, not 0"),
        (("gateway.example", -1), "the port must be .*, not -1"),
        (("gateway.example", 65536), "the port must be .*, not 65536"),
        (("gateway.example", "443x"), "the port must be .*, not '443x'"),
        (("gateway.example", 8443.0), "the port must be"),
        (("gateway.example", True), "the port must be"),
        (("gateway.example:0",), "the port must be"),
        (("gateway.example:99999",), "the port must be"),
        (("http://127.0.0.1", None, "https"), "the schema 'https' contradicts the host, .* 'http://'"),
        (("https://gateway.example", None, "http"), "the schema 'http' contradicts the host"),
        (("gateway.example", None, "v1"), "the schema 'v1' must be http, https or empty; a path belongs to the host"),
        (("gateway.example", None, ["http"]), "the schema .* must be http, https or empty"),
        (("gateway.example", None, "http"), "must use https"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: tuple[Any, ...], words: str) -> None:
    """No field is ignored: what contradicts another field, or is no value for it, is named."""
    with pytest.raises(ConfigurationError, match=words):
        clean_base_url(*fields)


@pytest.mark.parametrize(
    "text",
    [
        "http://gateway.example",
        "http://gateway.example:443",
        "http://10.0.0.1",
        "http://192.168.0.1:8080",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://[2001:db8::1]",
        "http://0.0.0.0",
    ],
)
def test_the_key_never_travels_in_the_clear(text: str) -> None:
    """http is for this machine only, unless it is allowed in so many words."""
    with pytest.raises(ConfigurationError, match=r"must use https.* allow_insecure_http permits it"):
        clean_base_url(text)
    assert clean_base_url(text, allow_insecure_http=True) == text


@pytest.mark.parametrize("text", ["ftp://127.0.0.1", "ws://localhost", "file://localhost"])
def test_no_other_scheme_is_spoken(text: str) -> None:
    """Neither to this machine nor if http is allowed."""
    with pytest.raises(ConfigurationError, match="must use https"):
        clean_base_url(text, allow_insecure_http=True)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:pa55w0rd@gateway.example",
        "me:pa55w0rd@gateway.example",
        "https://pa55w0rd@gateway.example",
        "https://:pa55w0rd@gateway.example",
        "https://me:pa55w0rd@gateway.example:port?x",
        "ftp://me:pa55w0rd@gateway.example",
        "https://me:pa55w0rd/x@gateway.example",
        "https://me:x#pa55w0rd@gateway.example",
        "https://@gateway.example",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(text: str) -> None:
    """User names and passwords are refused in a base URL, and the message does not repeat them."""
    with pytest.raises(ConfigurationError) as caught:
        clean_base_url(text)
    assert "pa55w0rd" not in str(caught.value)


HOSTS = st.sampled_from(["gateway.example", "GATEWAY.example", "localhost", "127.0.0.1", "[::1]", "::1", "a_b"])
ODD = st.text("ab.:/@?#\\[]%_- \t\n\u200b1é", max_size=4)


@given(
    scheme=st.sampled_from(["", "http://", "https://", "HTTPS://", "ftp://"]),
    host=st.one_of(HOSTS, ODD, st.builds("{}{}".format, HOSTS, ODD)),
    own_port=st.sampled_from(["", ":", ":1", ":443", ":8443", ":0", ":70000"]),
    path=st.sampled_from(["", "/", "//", "/v1", "/v1/", "/comet", "/comet/v1//", "/..", "/:8443", "?x"]),
    port=st.one_of(st.none(), st.sampled_from([0, -1, 1, 443, 8443, 65536, "8443", ""])),
    schema=st.sampled_from([None, "", "http", "https", "HTTPS", "v1"]),
    allow=st.booleans(),
)
def test_what_is_accepted_leads_to_what_was_configured(
    scheme: str, host: str, own_port: str, path: str, port: Any, schema: Any, allow: bool
) -> None:
    """Whatever combination is accepted, scheme, host and port of the URL, as the HTTP libraries read it, are those of
    the fields; it does not change any more, and a path can be appended."""
    text = f"{scheme}{host}{own_port}{path}"
    try:
        url = clean_base_url(text, port, schema, allow_insecure_http=allow)
    except ConfigurationError:
        return
    parts = urlsplit(f"{url}/replicate/v1/predictions/abc")
    assert parts.path.endswith("/replicate/v1/predictions/abc")
    assert (parts.username, parts.query, parts.fragment) == (None, "", "")
    for wanted in filter(None, [scheme[:-3].lower(), (schema or "").lower()]):
        assert parts.scheme == wanted
    assert parts.scheme == "https" or is_loopback(str(parts.hostname)) or allow
    ports = {int(value) for value in (port, own_port[1:]) if value not in (None, "")}
    if host in ("gateway.example", "GATEWAY.example", "localhost", "127.0.0.1", "[::1]", "a_b"):
        assert parts.hostname == host.lower().strip("[]")
        assert parts.port == (ports.pop() if ports else None)
    if port not in (None, ""):
        assert parts.port == int(port)
    assert clean_base_url(url, allow_insecure_http=allow) == url
    from requests import Request
    from yarl import URL

    sent = urlsplit(Request("GET", f"{url}/x").prepare().url or "")
    assert (sent.scheme, sent.hostname, sent.port) == (parts.scheme, parts.hostname, parts.port)
    read = URL(f"{url}/x")
    assert (read.scheme, read.host, read.explicit_port) == (parts.scheme, parts.hostname, parts.port)


@given(st.text(max_size=30))
def test_any_text_is_cleaned_or_refused(text: str) -> None:
    """No other error than ``ConfigurationError`` comes of any text, and what is accepted can be looked up."""
    try:
        url = clean_base_url(text, allow_insecure_http=True)
    except ConfigurationError:
        return
    assert str(origin(url)[1]).encode("idna")


@pytest.mark.parametrize(
    ("text", "host"),
    [("A.Example", "a.example"), ("10.0.0.5", "10.0.0.5"), ("[FD00::0:1]", "fd00::1"), ("fd00::1", "fd00::1")],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    """Names are compared in lower case, and addresses in their usual form."""
    assert clean_host(text) == clean_host(host) == host


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
