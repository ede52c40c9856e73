"""Read predictions for a task that stores their files: all of its threads wait for an unreachable API only once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.file_errors import OutputExpiredError
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.uris import quote_url
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

        :raises CometError: the prediction can't be read.
        """
        last = self._error
        if last is not None and self._clock() - self._failed_at < RETRY_BUDGET_SECONDS:
            raise CometError.from_dict({**last.to_dict(), "prediction_id": prediction_id})
        try:
            prediction = self._get_prediction(prediction_id)
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
    """

    def __init__(self, reader: PredictionReader, prediction_id: str) -> None:
        self._reader = reader
        self._prediction_id = prediction_id
        self._lock = threading.Lock()
        self._links: list[str] | None = None

    def get(self, index: int) -> str:
        """Return the current link of an output.

        :raises OutputExpiredError: the prediction no longer has that output.
        :raises CometError: the prediction can't be read.
        """
        with self._lock:
            if self._links is None:
                self._links = self._reader.read(self._prediction_id).files
        if index >= len(self._links):
            raise OutputExpiredError("the prediction has no such file any more")
        return quote_url(self._links[index])
