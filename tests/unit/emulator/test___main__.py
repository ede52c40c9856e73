from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import requests

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.emulator.__main__ import main, parser

COMMAND = [sys.executable, "-W", "error", "-m", "airflow_provider_comet.emulator"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_command_line(signal_number: signal.Signals) -> None:
    """The command prints its URL and the connection to export, serves, and ends cleanly on Ctrl-C or SIGTERM."""
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
            process.send_signal(signal_number)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out == ""
    assert err.splitlines()[0].endswith("GET /v1/models -> 200")
    assert len(err.splitlines()) == 1


def test_command_line_with_a_taken_port() -> None:
    """If the port is in use, the command prints one line that names the port and --port, and no traceback."""
    with Emulator() as emulator:
        port = emulator.base_url.rpartition(":")[2]
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, check=False, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"port {port}" in line
    assert "--port" in line


def test_command_line_without_pillow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without Pillow the command does not start and says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("signal.signal", lambda *args: None)
    assert main(["--port", "0", "--quiet"]) == 1
    assert "pip install 'airflow-provider-comet[emulator]'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "duration"), [("3", 3.0), ("0.5", 0.5), ("5-240", (5.0, 240.0)), ("2-2", (2.0, 2.0))])
def test_duration(text: str, duration: object) -> None:
    """A duration is a number of seconds, or the shortest and the longest."""
    assert parser().parse_args(["--duration", text]).duration == duration


@pytest.mark.parametrize(
    "option",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--duration", "-1"],
        ["--duration", "5-"],
        ["--duration", "240-5"],
        ["--link-seconds", "-1"],
        ["--retention", "nan"],
        ["--wire", "round"],
        ["--creates-per-second", "0"],
        ["--file-bytes", "1.5"],
    ],
)
def test_command_line_refuses(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An option out of range is a usage error that names it."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_imports_little() -> None:
    """The emulator imports neither Airflow nor the rest of the provider, and Pillow only when it draws."""
    code = "import sys, airflow_provider_comet.emulator.__main__; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment)
    loaded = done.stdout.split()
    assert "airflow_provider_comet.emulator.runner" in loaded
    foreign = {"airflow", "PIL", "requests", "pytest"} & set(loaded)
    ours = {name for name in loaded if name.startswith("airflow_provider_comet.")}
    assert foreign == set()
    assert {name for name in ours if not name.startswith("airflow_provider_comet.emulator")} == set()
