from __future__ import annotations

import gc
import json
import socket
import ssl
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from airflow_provider_comet.emulator import Emulator

KEY = {"Authorization": "Bearer sk-emulator"}


def threads() -> set[threading.Thread]:
    """Return the threads of this process."""
    return set(threading.enumerate())


def test_connection_json() -> None:
    """The connection is what Airflow reads from an environment variable."""
    with Emulator() as emulator:
        assert json.loads(emulator.connection_json()) == {
            "conn_type": "cometapi",
            "host": emulator.base_url,
            "password": "sk-emulator",
        }


def test_stop_closes_thread_and_sockets() -> None:
    """After stop there is no thread and no open port, although pictures were drawn and a client is connected."""
    before = threads()
    with Emulator(duration=0) as emulator, requests.Session() as session:
        base = emulator.base_url
        url = f"{base}/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
        id = session.post(url, json={"input": {"prompt": "x"}}, headers=KEY, timeout=5).json()["id"]
        assert session.get(f"{base}/delivery/{id}/0.webp", timeout=5).ok
        emulator.stop()
        assert threads() == before
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))),
        ):
            pass


def test_stop_does_not_wait_for_slow_requests() -> None:
    """Stop does not wait for a request that would take a minute."""
    with Emulator() as emulator:
        emulator.fault(delay=60)
        with pytest.raises(requests.ReadTimeout):
            requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 2


def test_stop_twice_and_start_again() -> None:
    """Stop can be called twice, the ledger stays readable, and the emulator can be started again."""
    emulator = Emulator()
    for count in (1, 2):
        with emulator:
            requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=5)
        emulator.stop()
        assert len(emulator.ledger()["requests"]) == count


def test_start_twice_is_refused() -> None:
    """Starting a running emulator is an error."""
    with Emulator() as emulator, pytest.raises(RuntimeError, match="running"):
        emulator.start()


def test_base_url_before_the_start() -> None:
    """Before the start, base_url raises an error."""
    with pytest.raises(RuntimeError, match="not been started"):
        Emulator().base_url  # noqa: B018


def test_port_in_use() -> None:
    """A port in use raises an error in the caller, and the failed start leaves no thread."""
    with Emulator() as emulator:
        before = threads()
        with pytest.raises(OSError, match="in use"):
            Emulator(port=int(emulator.base_url.rpartition(":")[2])).start()
        assert threads() == before


def test_unknown_wire_is_refused() -> None:
    """A misspelt wire is refused."""
    with pytest.raises(ValueError, match="wire"):
        Emulator(wire="Flat")  # type: ignore[arg-type]


def test_other_key_and_host() -> None:
    """The key can be chosen, and an emulator that listens on every address has a base_url that can be called."""
    with Emulator(host="0.0.0.0", api_key="sk-other") as emulator:
        assert emulator.base_url.startswith("http://127.0.0.1:")
        for key, status in (("sk-other", 200), ("sk-emulator", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            assert requests.get(emulator.base_url + "/v1/models", headers=headers, timeout=5).status_code == status


def test_https(tmp_path: Path) -> None:
    """With an SSL context it serves https, and stops cleanly although a TLS client is connected."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        warnings.catch_warnings(record=True) as caught,
        requests.Session() as session,
        Emulator(duration=0, ssl_context=context) as emulator,
    ):
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win
        session.verify = str(tmp_path / "ca.pem")
        assert emulator.base_url.startswith("https://127.0.0.1:")
        url = f"{emulator.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
        id = session.post(url, json={"input": {"prompt": "x"}}, headers=KEY, timeout=5).json()["id"]
        answer = session.get(f"{emulator.base_url}/replicate/v1/predictions/{id}", headers=KEY, timeout=5).json()
        assert answer["output"] == [f"{emulator.base_url}/delivery/{id}/0.webp"]
        emulator.fault(drop="after")
        with pytest.raises(requests.ConnectionError):
            session.get(f"{emulator.base_url}/v1/models", headers=KEY, timeout=5)
        assert session.get(f"{emulator.base_url}/v1/models", headers=KEY, timeout=5).ok
        numbers = [entry["connection"] for entry in emulator.ledger()["requests"]]
        assert numbers == [1, 1, 1, 2]
        warnings.simplefilter("always")
        emulator.stop()
        gc.collect()  # a socket that is open warns when it is collected
        assert [str(warning.message) for warning in caught] == []


def test_set_prediction() -> None:
    """set_prediction pins fields of a prediction; an unknown id or field is an error."""
    with Emulator(duration=60) as emulator:
        url = f"{emulator.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
        id = requests.post(url, json={"input": {"prompt": "x"}}, headers=KEY, timeout=5).json()["id"]
        emulator.set_prediction(id, status="succeeded")
        query = f"{emulator.base_url}/replicate/v1/predictions/{id}"
        answer = requests.get(query, headers=KEY, timeout=5).json()
        assert answer["status"] == "succeeded"
        assert requests.get(answer["output"][0], timeout=5).ok
        with pytest.raises(KeyError):
            emulator.set_prediction("nope", status="failed")
        with pytest.raises(ValueError, match="status"):
            emulator.set_prediction(id, colour="red")


def test_reset() -> None:
    """Reset removes faults, outcomes, predictions and the ledger."""
    with Emulator(duration=0) as emulator:
        emulator.fault(status=503, count=None)
        emulator.next_outcome(status="failed", count=3)
        requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=5)
        emulator.reset()
        assert emulator.ledger() == {"accepted": 0, "creates": [], "requests": [], "served": []}
        url = f"{emulator.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
        id = requests.post(url, json={"input": {"prompt": "x"}}, headers=KEY, timeout=5).json()["id"]
        query = f"{emulator.base_url}/replicate/v1/predictions/{id}"
        assert requests.get(query, headers=KEY, timeout=5).json()["status"] == "succeeded"


def test_replaced_key() -> None:
    """A key that is replaced while the emulator runs is the only valid key from then on, and is in the connection."""
    with Emulator() as emulator:
        emulator.api_key = "sk-next"
        new = {"Authorization": "Bearer sk-next"}
        url = emulator.base_url + "/v1/models"
        assert [requests.get(url, headers=key, timeout=5).status_code for key in (KEY, new)] == [401, 200]
        assert json.loads(emulator.connection_json())["password"] == "sk-next"


@pytest.mark.parametrize("option", [{"creates_per_second": 0}, {"file_bytes": -1}, {"wire": "round"}])
def test_invalid_options_are_refused(option: dict[str, Any]) -> None:
    """An option out of range is named in the error."""
    with pytest.raises(ValueError, match=next(iter(option))):
        Emulator(**option)


def test_clear_faults() -> None:
    """Faults without a count can be removed."""
    with Emulator() as emulator:
        emulator.fault(status=503, count=None)
        emulator.clear_faults()
        assert requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=5).ok
