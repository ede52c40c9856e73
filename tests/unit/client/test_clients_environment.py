"""Proxies, CA bundles and netrc files of the environment: both clients treat them alike."""

from __future__ import annotations

import base64

import pytest
import requests

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.client.sync_client import CometClient
from airflow_provider_comet.emulator import Emulator
from tests.support.forward_proxy import forward_proxy
from tests.support.private_ca import PrivateCA
from tests.support.sockets import raw_server
from tests.unit.client.conftest import Poll, config_of, create, create_prediction


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""], ids=["url", "host and port"])
def test_the_proxy_of_the_environment_is_used(
    poll: Poll, trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    """Both clients go through a tunnel of the proxy that the environment names, with and without a scheme in its
    address. The proxy never sees the key."""
    prediction_id = create(trusted_tls)
    with forward_proxy() as proxy:
        monkeypatch.setenv(variable, scheme + proxy.url.removeprefix("http://"))
        assert poll(config_of(trusted_tls), prediction_id).succeeded
    assert proxy.lines == [f"CONNECT {trusted_tls.base_url.removeprefix('https://')}"]
    assert "Authorization" not in proxy.asked[0][1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_plain_http_on_this_machine_uses_no_proxy(
    poll: Poll, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    """Polls and creates over plain http go to this machine directly: a proxy would get the key in the clear."""
    url = emulator.base_url.replace("127.0.0.1", host)
    with forward_proxy() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        client = CometClient(config_of(url))
        prediction_id = create_prediction(client).id
        assert client.session.send(requests.Request("GET", f"{url}/v1/models").prepare()).status_code == 401
        client.close()
        assert poll(config_of(url), prediction_id).succeeded
    assert proxy.asked == []


@pytest.mark.parametrize("password", ["s3cret", "p%40ss"], ids=["plain", "escaped"])
def test_the_proxys_password_is_used(
    poll: Poll, trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """User name and password in the proxy's address go to the proxy, unescaped."""
    prediction_id = create(trusted_tls)
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", f"://me:{password}@"))
        assert poll(config_of(trusted_tls), prediction_id).succeeded
    expected = base64.b64encode(f"me:{password.replace('%40', '@')}".encode()).decode()
    assert proxy.asked[0][1]["Proxy-Authorization"] == f"Basic {expected}"


@pytest.mark.parametrize("value", ["127.0.0.1", "127.0.0.0/8", "example.org,127.0.0.1", "*"])
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_is_respected(
    poll: Poll, trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Both clients send directly to a host in ``NO_PROXY``, by the same rules."""
    prediction_id = create(trusted_tls)
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv(variable, value)
        assert poll(config_of(trusted_tls), prediction_id).succeeded
    assert proxy.lines == []


def test_a_proxy_that_refuses_is_a_transport_error(poll: Poll, tls: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel that the proxy refuses is a retryable error that names the proxy's status."""
    with forward_proxy(refuse=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", "://me:s3cret@"))
        with pytest.raises(e.TransportError, match="407") as caught:
            poll(config_of(tls), "abc")
    assert "s3cret" not in str(caught.value)


def test_a_proxy_that_says_nothing_is_a_transport_error(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that accepts the connection and never answers does not hold a poll for ever."""
    with raw_server(lambda connection: None) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(e.TransportError):
            poll(config_of("https://127.0.0.1:9", connect_timeout=0.2, read_timeout=0.2), "abc")


def test_a_kind_of_proxy_that_is_not_supported_is_an_error_of_ours(
    poll: Poll, trusted_tls: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of a kind that the HTTP library does not support is a ``CometError`` that says so."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:s3cret@127.0.0.1:9")
    with pytest.raises(e.CometError, match=r"(?i)socks|proxy|proxies") as caught:
        poll(config_of(trusted_tls), "abc")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_authority_is_trusted_through_the_environment(
    poll: Poll, tls: Emulator, authority: PrivateCA, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Both clients trust the CA bundle that the environment names."""
    monkeypatch.setenv(variable, str(authority.bundle))
    prediction_id = create(tls)
    assert poll(config_of(tls), prediction_id).succeeded


def test_an_authority_that_is_not_trusted_is_a_transport_error(poll: Poll, tls: Emulator) -> None:
    """A certificate that can't be verified ends the call before anything is sent, and the message says why."""
    with pytest.raises(e.TransportError, match=r"(?i)certificate"):
        poll(config_of(tls), "abc")
    assert tls.ledger()["requests"] == []


def test_a_missing_ca_bundle_is_an_error_that_names_it(
    poll: Poll, tls: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA bundle that does not exist is a ``CometError`` with its path, from both clients."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(e.CometError, match=r"/nowhere/ca\.pem"):
        poll(config_of(tls), "abc")


def test_a_ca_bundle_does_not_matter_to_http(poll: Poll, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS a bad CA bundle does not matter to either client."""
    prediction_id = create(emulator)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    assert poll(config_of(emulator), prediction_id).succeeded


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("variable", ["NETRC", None], ids=["NETRC", "HOME"])
def test_a_netrc_entry_does_not_replace_the_key(
    poll: Poll, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    """The API gets the connection's key, whatever a netrc says about its host; creates included."""
    if variable is None:
        monkeypatch.delenv("NETRC")
    assert poll(config_of(emulator), create(emulator)).succeeded
    assert [entry["status"] for entry in emulator.ledger()["requests"]] == [201, 200]
