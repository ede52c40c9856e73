"""Read predictions for a task that stores their files: all of its threads wait for an unreachable API only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_comet.api.errors import CometError, PredictionNotFoundError
from airflow_provider_comet.api.file_errors import OutputExpiredError
from airflow_provider_comet.api.files import OutputFile, find_files
from airflow_provider_comet.api.outcome import judge
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.summary import SUMMARY_KEYS, has_marker
from airflow_provider_comet.api.uris import quote_url
from airflow_provider_comet.polling import threads
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS


class PredictionReader:
    """Reads predictions from the API. While the API is unreachable, it waits once and not for each prediction.

    Otherwise the links of the later predictions would expire during the waits for the earlier ones.

    :param get_prediction: returns a prediction by its id; it waits out transient errors.
    :param clock: seconds, monotonic.
    """

    def __init__(self, get_prediction: Callable[[str], Prediction], clock: Callable[[], float]) -> None:
        self._get_prediction = get_prediction
        self._clock = clock
        self._error: CometError | None = None
        self._failed_at = 0.0

    def read(self, prediction_id: str) -> Prediction:
        """Return a prediction, or fail at once if the API was unreachable within the last two minutes.

        It was seen before, so "no such prediction" is no fact about it.

        :raises CometError: the prediction can't be read.
        """
        last = self._error
        if last is not None and self._clock() - self._failed_at < RETRY_BUDGET_SECONDS:
            raise CometError.from_dict({**last.to_dict(), "prediction_id": prediction_id})
        try:
            prediction = self._get_prediction(prediction_id)
        except PredictionNotFoundError as error:
            raise error.of_known() from None
        except CometError as error:
            if error.retryable:
                self._failed_at, self._error = self._clock(), error
            raise
        self._error = None
        return prediction


class FreshLinks:
    """New links of a prediction whose old ones have expired; requested once, however many files need one.

    :param reader: reads the prediction.
    :param prediction_id: whose links.
    :param schema: of the model's output.
    """

    def __init__(self, reader: PredictionReader, prediction_id: str, schema: OutputSchema | None = None) -> None:
        self._reader = reader
        self._schema = schema
        self._prediction_id = prediction_id
        self._lock = threads.Lock()
        self._files: list[OutputFile] | None = None

    def get(self, index: int) -> str:
        """Return the current link of an output.

        :raises OutputExpiredError: the prediction no longer has that output.
        :raises CometError: the prediction can't be read.
        """
        with self._lock:
            if self._files is None:
                output = self._reader.read(self._prediction_id).output
                self._files = find_files(output, self._schema).files
        if index >= len(self._files):
            raise OutputExpiredError("the prediction has no such file any more")
        return quote_url(self._files[index].link)


def from_summary(value: Mapping[str, Any]) -> Prediction | None:
    """Return the prediction that a summary describes; ``None``: parts of it are missing.

    :raises CometError: it describes a prediction without a result.
    """
    if not value.keys() >= set(SUMMARY_KEYS):
        return None
    judge(value, allow_empty=True)
    if has_marker(value["output"]):  # what is large, and what Airflow can't carry, is left out of summaries
        return None
    return Prediction(**{key: value[key] for key in SUMMARY_KEYS if key != "files"})
