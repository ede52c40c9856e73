"""``outputs/prediction_reader.py``: an unreachable API is waited for once, and new links are requested once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_comet.api.errors import AuthenticationError, CometError, PredictionNotFoundError, ServerError
from airflow_provider_comet.api.file_errors import OutputExpiredError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.outputs.prediction_reader import FreshLinks, PredictionReader
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS


class Api:
    """An API that answers with a prediction or an error, and a clock."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.error: CometError | None = None
        self.now = 1000.0
        self.reader = PredictionReader(self.get_prediction, lambda: self.now)

    def get_prediction(self, prediction_id: str) -> Prediction:
        self.requested.append(prediction_id)
        if self.error is not None:
            raise self.error
        return Prediction(prediction_id, "succeeded", output=["https://a.example/0.webp", "https://a.example/1.webp"])


@pytest.fixture
def api() -> Api:
    return Api()


def test_an_unreachable_api_is_waited_for_once(api: Api) -> None:
    """For two minutes after a transient error each read fails at once, with an error about its own prediction; then
    the API is tried again."""
    api.error = ServerError("busy", status=503)
    for prediction_id in ("abc", "def"):
        with pytest.raises(ServerError) as caught:
            api.reader.read(prediction_id)
        assert caught.value.status == 503
    assert caught.value.prediction_id == "def"
    assert api.requested == ["abc"]
    api.error, api.now = None, api.now + RETRY_BUDGET_SECONDS
    assert api.reader.read("def").id == "def"
    assert api.reader.read("ghi").id == "ghi"


def test_a_final_error_is_about_its_prediction_alone(api: Api) -> None:
    """Other predictions are read all the same."""
    api.error = AuthenticationError()
    with pytest.raises(AuthenticationError):
        api.reader.read("abc")
    api.error = None
    assert api.reader.read("def").id == "def"


def test_a_known_prediction_that_is_not_found_is_read_again_by_a_retry(api: Api) -> None:
    """Whoever has its summary, or its first links, knows that it exists: a stray 404 does not end a store for good."""
    api.error = PredictionNotFoundError(prediction_id="abc")
    with pytest.raises(CometError, match="it was seen before, and is unknown now") as caught:
        api.reader.read("abc")
    assert (type(caught.value), caught.value.prediction_id) == (CometError, "abc")
    with pytest.raises(CometError, match="it was seen before"):
        FreshLinks(api.reader, "abc").get(0)


def test_new_links_are_requested_once(api: Api) -> None:
    """However many files of a prediction need one at the same time."""
    links = FreshLinks(api.reader, "abc")
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(links.get, [0, 1, 0, 1])]
    assert found == ["https://a.example/0.webp", "https://a.example/1.webp"] * 2
    assert api.requested == ["abc"]


def test_an_output_that_is_gone(api: Api) -> None:
    """A prediction with fewer outputs than before has expired in part."""
    with pytest.raises(OutputExpiredError, match="no such file"):
        FreshLinks(api.reader, "abc").get(2)
