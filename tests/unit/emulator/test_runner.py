from __future__ import annotations

import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.emulator.__main__ import main, parser

KEY = {"Authorization": "Bearer sk-emulator"}
COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_comet.emulator"]


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_connection_json() -> None:
    """The connection is what Airflow reads from an environment variable."""
    with Emulator() as emulator:
        assert json.loads(emulator.connection_json()) == {
            "conn_type": "cometapi",
            "host": emulator.base_url,
            "password": "sk-emulator",
        }


def test_stop_leaves_nothing_behind() -> None:
    """After stop there is no thread and nobody listens, even if pictures were drawn and a client stayed connected."""
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
    """A request that would take a minute does not hold up the end."""
    with Emulator() as emulator:
        emulator.fault(delay=60)
        with pytest.raises(requests.ReadTimeout):
            requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=0.1)
        start = time.monotonic()
    assert time.monotonic() - start < 2


def test_stop_twice_and_start_again() -> None:
    """Stopping twice does no harm, the ledger can still be read, and the same emulator can be started again."""
    emulator = Emulator()
    for count in (1, 2):
        with emulator:
            requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=5)
        emulator.stop()
        assert len(emulator.ledger()["requests"]) == count


def test_start_twice_is_refused() -> None:
    """A running emulator cannot be started once more."""
    with Emulator() as emulator, pytest.raises(RuntimeError, match="running"):
        emulator.start()


def test_base_url_before_the_start() -> None:
    """Before the start there is no address to be wrong about."""
    with pytest.raises(RuntimeError, match="not been started"):
        Emulator().base_url  # noqa: B018


def test_taken_port_is_raised_in_the_caller() -> None:
    """A port in use is the caller's error, and the failed attempt leaves no thread."""
    with Emulator() as emulator:
        before = threads()
        with pytest.raises(OSError, match="in use"):
            Emulator(port=int(emulator.base_url.rpartition(":")[2])).start()
        assert threads() == before


def test_unknown_wire_is_refused() -> None:
    """A misspelt wire is not taken for the default."""
    with pytest.raises(ValueError, match="wire"):
        Emulator(wire="Flat")  # type: ignore[arg-type]


def test_other_key_and_host() -> None:
    """The key can be chosen, and an emulator listening everywhere gives an address one can really call."""
    with Emulator(host="0.0.0.0", api_key="sk-other") as emulator:
        assert emulator.base_url.startswith("http://127.0.0.1:")
        for key, status in (("sk-other", 200), ("sk-emulator", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            assert requests.get(emulator.base_url + "/v1/models", headers=headers, timeout=5).status_code == status


def test_https(tmp_path: Path) -> None:
    """With an SSL context it speaks https, and stops cleanly though a TLS client is still connected."""
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
        found = session.get(f"{emulator.base_url}/replicate/v1/predictions/{id}", headers=KEY, timeout=5).json()
        assert found["output"] == [f"{emulator.base_url}/delivery/{id}/0.webp"]
        emulator.fault(drop="after")
        with pytest.raises(requests.ConnectionError):
            session.get(f"{emulator.base_url}/v1/models", headers=KEY, timeout=5)
        assert session.get(f"{emulator.base_url}/v1/models", headers=KEY, timeout=5).ok
        numbers = [entry["connection"] for entry in emulator.ledger()["requests"]]
        assert numbers == [1, 1, 1, 2]
        warnings.simplefilter("always")
        emulator.stop()
        gc.collect()  # a socket left open complains when it is collected
        assert [str(warning.message) for warning in caught] == []


def test_set_prediction() -> None:
    """A test in the same process pins a prediction by its id; an unknown id is an error there."""
    with Emulator(duration=60) as emulator:
        url = f"{emulator.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions"
        id = requests.post(url, json={"input": {"prompt": "x"}}, headers=KEY, timeout=5).json()["id"]
        emulator.set_prediction(id, status="succeeded")
        query = f"{emulator.base_url}/replicate/v1/predictions/{id}"
        found = requests.get(query, headers=KEY, timeout=5).json()
        assert found["status"] == "succeeded"
        assert requests.get(found["output"][0], timeout=5).ok
        with pytest.raises(KeyError):
            emulator.set_prediction("nope", status="failed")
        with pytest.raises(ValueError, match="status"):
            emulator.set_prediction(id, colour="red")


def test_reset() -> None:
    """Reset takes back faults, outcomes, predictions and ledger."""
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
    """A key set while the emulator runs is the only one let in from then on, and the one in the connection."""
    with Emulator() as emulator:
        emulator.api_key = "sk-next"
        new = {"Authorization": "Bearer sk-next"}
        url = emulator.base_url + "/v1/models"
        assert [requests.get(url, headers=key, timeout=5).status_code for key in (KEY, new)] == [401, 200]
        assert json.loads(emulator.connection_json())["password"] == "sk-next"


@pytest.mark.parametrize("option", [{"creates_per_second": 0}, {"file_bytes": -1}, {"wire": "round"}])
def test_senseless_options_are_refused(option: dict[str, Any]) -> None:
    """An option out of range is named in the error."""
    with pytest.raises(ValueError, match=next(iter(option))):
        Emulator(**option)


def test_clear_faults() -> None:
    """Faults that wait for ever can be taken away."""
    with Emulator() as emulator:
        emulator.fault(status=503, count=None)
        emulator.clear_faults()
        assert requests.get(emulator.base_url + "/v1/models", headers=KEY, timeout=5).ok


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line(number: signal.Signals) -> None:
    """The command prints where it is and what to export, answers, and ends cleanly on Ctrl-C or SIGTERM."""
    command = [*COMMAND, "--port", "0", "--api-key", "sk-it's"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            base_url = lines[0].split()[3]
            headers = {"Authorization": "Bearer sk-it's"}
            assert requests.get(base_url + "/v1/models", headers=headers, timeout=5).ok
            shell = f'{lines[2]}\nprintf %s "$AIRFLOW_CONN_COMETAPI_DEFAULT"'
            exported = subprocess.run(["sh", "-c", shell], capture_output=True, check=True, text=True).stdout
            assert json.loads(exported) == {"conn_type": "cometapi", "host": base_url, "password": "sk-it's"}
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out == ""
    assert err.splitlines()[0].endswith("GET /v1/models -> 200")
    assert len(err.splitlines()) == 1


def test_command_line_with_a_taken_port() -> None:
    """A taken port is one line that names the port and the way out, not a traceback."""
    with Emulator() as emulator:
        port = emulator.base_url.rpartition(":")[2]
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, check=False, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"port {port}" in line
    assert "--port" in line


def test_command_line_without_pillow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without Pillow the command says at once what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("signal.signal", lambda *args: None)
    assert main(["--port", "0", "--quiet"]) == 1
    assert "pip install 'airflow-provider-comet[emulator]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--duration", "-1"],
        ["--retention", "nan"],
        ["--wire", "round"],
        ["--creates-per-second", "0"],
        ["--file-bytes", "1.5"],
    ],
)
def test_command_line_refuses(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Options out of range are named in a usage error."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_imports_little() -> None:
    """The emulator loads neither Airflow nor the rest of the provider, and Pillow only when it has to draw."""
    code = "import sys, airflow_provider_comet.emulator.__main__; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment)
    loaded = done.stdout.split()
    assert "airflow_provider_comet.emulator.runner" in loaded
    foreign = {"airflow", "PIL", "requests", "pytest"} & set(loaded)
    ours = {name for name in loaded if name.startswith("airflow_provider_comet.")}
    assert foreign == set()
    assert {name for name in ours if not name.startswith("airflow_provider_comet.emulator")} == set()
