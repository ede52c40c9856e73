from __future__ import annotations

import json
import os

import requests

from airflow_provider_comet.emulator import Emulator

pytest_plugins = ["airflow_provider_comet.emulator.pytest_plugin"]


def test_fixture_sets_the_connection(comet_emulator: Emulator) -> None:
    """The fixture runs an emulator and points the default connection at it."""
    connection = json.loads(os.environ["AIRFLOW_CONN_COMETAPI_DEFAULT"])
    assert connection["host"] == comet_emulator.base_url
    headers = {"Authorization": f"Bearer {connection['password']}"}
    assert requests.get(connection["host"] + "/v1/models", headers=headers, timeout=5).ok
    assert len(comet_emulator.ledger()["requests"]) == 1


def test_fixture_is_fresh_each_time(comet_emulator: Emulator) -> None:
    """Each test has an emulator of its own."""
    assert comet_emulator.ledger()["requests"] == []
