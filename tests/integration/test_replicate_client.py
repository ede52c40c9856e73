"""Replicate's own client as a witness: what it cannot parse, the emulator got wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_comet.emulator import Emulator

if TYPE_CHECKING:
    import replicate

SCHNELL = "black-forest-labs/flux-schnell"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(duration=0.1) as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[replicate.Client]:
    """The official client, told by its usual environment variables where to go."""
    import replicate

    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.base_url + "/replicate")
    monkeypatch.setenv("REPLICATE_API_TOKEN", emulator.api_key)
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.02")
    client = replicate.Client()
    yield client
    client._client.close()


def create(client: replicate.Client, model: str = SCHNELL, **input: Any) -> replicate.prediction.Prediction:
    return client.models.predictions.create(model, {"prompt": "a lighthouse", **input})


def test_create_wait_and_read(client: replicate.Client, emulator: Emulator) -> None:
    """The official client creates a prediction, waits for it and finds a file behind its URL."""
    prediction = create(client, seed=7)
    assert prediction.status == "starting"
    prediction.wait()
    assert (prediction.status, prediction.error) == ("succeeded", None)
    assert prediction.metrics is not None
    assert prediction.metrics["image_count"] == 1
    assert prediction.started_at is not None
    assert prediction.completed_at is not None
    file = requests.get(prediction.output[0], timeout=5)
    assert file.headers["content-type"] == "image/webp"
    ledger = emulator.ledger()
    assert ledger["accepted"] == 1
    assert ledger["served"][0]["bytes"] == len(file.content)
    assert all(entry["authorization"] == ("/delivery/" not in entry["path"]) for entry in ledger["requests"])


def test_run(client: replicate.Client) -> None:
    """The client's one-call form returns the single URL of a model that makes one picture."""
    output = client.run("black-forest-labs/flux-kontext-pro", input={"prompt": "a lighthouse"}, use_file_output=False)
    assert output.endswith("/0.webp")


def test_text(client: replicate.Client) -> None:
    """A language model's tokens add up to a text."""
    prediction = create(client, "meta/meta-llama-3-8b-instruct")
    prediction.wait()
    assert "".join(prediction.output) == "\n\nYou said: a lighthouse"


def test_failure(client: replicate.Client) -> None:
    """A filtered prompt arrives as a failed prediction with its reason."""
    prediction = create(client, prompt="nsfw")
    prediction.wait()
    assert prediction.status == "failed"
    assert "NSFW" in prediction.error


def test_fetch_by_id(client: replicate.Client) -> None:
    """A prediction can be found again by its id alone."""
    prediction = create(client)
    assert client.predictions.get(prediction.id).input == {"prompt": "a lighthouse"}


def test_error(client: replicate.Client) -> None:
    """An error answer is an error to the client too."""
    from replicate.exceptions import ReplicateError

    with pytest.raises(ReplicateError) as caught:
        create(client, "some/thing")
    assert caught.value.status == 503
