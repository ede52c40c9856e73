"""``CometReplicateHook``: from an Airflow connection to the API."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID, get_config
from airflow_provider_comet.polling.rate_limiter import LOOKS_AT_ONCE
from airflow_provider_comet.polling.schedule import PATIENCE, Wait
from airflow_provider_comet.polling.wait import Waits
from airflow_provider_comet.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    import requests

    from airflow_provider_comet.api.config import Config
    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.client.sync_client import CometClient
    from airflow_provider_comet.submissions.record import Journal

T = TypeVar("T")
R = TypeVar("R")


class CometReplicateHook(BaseHook):
    """Create predictions on CometAPI and read them; usable in any task.

    :param conn_id: an Airflow connection of type ``cometapi``: API key in the password, base URL in the host (default
        ``https://api.cometapi.com``), extras ``connect_timeout`` (seconds, default 10), ``read_timeout`` (seconds
        without a byte, default 75), ``max_polls_per_second`` (looks that one process sends, default 50) and
        ``output_hosts`` (where files of outputs may be fetched from; default: any public host). Only where
        ``cometapi_default`` does not exist, the environment variables ``COMETAPI_KEY`` and ``COMETAPI_BASE_URL`` take
        its place.
    """

    conn_name_attr = "conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type: str = CONNECTION_TYPE["connection-type"]
    hook_name: str = CONNECTION_TYPE["hook-name"]

    def __init__(self, conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.conn_id = conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form for Airflow < 3.2; from 3.2 on Airflow reads ``provider_info`` itself."""
        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @functools.cached_property
    def config(self) -> Config:
        """The connection's settings, checked.

        :raises ConfigurationError: the connection is missing, of another type, or can't be used.
        """
        return get_config(self.conn_id)

    @functools.cached_property
    def client(self) -> CometClient:
        """The client behind this hook."""
        from airflow_provider_comet.client.sync_client import (
            CometClient,  # loads requests and aiohttp: not while DAGs are parsed
        )

        return CometClient(self.config)

    def get_conn(self) -> requests.Session:
        """Return a session that sends the key to the connection's own origin, and to no other host."""
        return self.client.session

    def create_prediction(self, model: str, input: Mapping[str, Any], *, journal: Journal | None = None) -> Prediction:
        """Submit a prediction, which costs money. Repeated only when it certainly was not accepted.

        :param model: ``owner/name``.
        :param input: the model's parameters. What an ``ObjectStoragePath`` in it points to is sent along as a data
            URI, up to 7.5 MB a file.
        :param journal: is told before and after each time it is sent (``CreatePredictionOperator`` keeps its record
            so); without one, nothing is remembered if the process dies.
        :returns: the prediction, usually ``starting``; its ``id`` is what to keep.
        :raises AmbiguousSubmissionError: no clear answer; it may have been accepted.
        :raises CometError: it was not accepted; ``retryable`` tells whether it may be later.
        """
        from airflow_provider_comet.inputs.input_files import embed_files  # not while DAGs are parsed

        return self.client.create_prediction(model, embed_files(input), journal=journal)

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Return a prediction as it is now, whatever its status. Trouble that may pass is waited out for two minutes.

        :raises PredictionNotFoundError: the API does not know the id.
        :raises CometError: it can't be read.
        """
        return self.client.get_prediction(prediction_id)

    def wait_for_prediction(
        self,
        prediction_id: str,
        *,
        timeout: float = 3600,
        poke_interval: float | None = None,
        allow_empty: bool = False,
    ) -> Prediction:
        """Block until a prediction has succeeded. It holds the worker meanwhile: ``PredictionSensor`` does not.

        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between looks; by default they grow with the prediction's age, up to a minute.
        :param allow_empty: whether a success without output is a result.
        :returns: the prediction, with its output.
        :raises PredictionError: it failed, was canceled or aborted, has no output (any more), or the time is up.
        :raises CometError: it can't be read.
        """
        now = steady_clock()
        started_at = now()
        wait = Wait(prediction_id, started_at, started_at + timeout, poke_interval)
        while True:
            ended = self.look(wait, now)
            if isinstance(ended, CometError):
                raise ended
            if not isinstance(ended, float):
                outcome.judge(ended, allow_empty=allow_empty)
                return ended
            time.sleep(ended)

    def look(self, wait: Wait, now: Callable[[], float]) -> Prediction | CometError | float:
        """Look once for a wait: how it ended, or seconds until the next look.

        :param now: the clock, read after the look.
        """
        seen, moment = self._see(wait.prediction_id, now)
        if news := wait.news(seen, moment):
            self.log.log(*news)
        return wait.after(seen, now=moment, chance=random.random())

    def look_at(self, waits: Waits, now: Callable[[], float]) -> float | None:
        """Look at all predictions whose time has come, several at once: seconds until the next look, ``None`` if all
        have ended.

        :param now: as for ``look``.
        """
        due = waits.due(now())
        looks = self._at_once(lambda wait: self._see(wait.prediction_id, now), due)
        for news in waits.take(zip(due, looks, strict=True), chance=random.random):
            self.log.log(*news)
        return waits.delay(now())

    def _see(self, prediction_id: str, now: Callable[[], float]) -> tuple[Prediction | CometError, float]:
        """What one look says, and when it was over."""
        seen: Prediction | CometError
        try:
            seen = self.client.look(prediction_id)
        except CometError as error:
            seen = error.about(prediction_id)
        return seen, now()

    def read(self, prediction_ids: Iterable[str]) -> dict[str, Prediction | CometError]:
        """Return predictions as they are now, by id, or why they can't be read: several at once.

        Trouble that may pass is waited out for two minutes, for all of them together.
        """
        patient_until = time.monotonic() + PATIENCE

        def read(prediction_id: str) -> Prediction | CometError:
            is_patient = time.monotonic() < patient_until
            try:
                return self.get_prediction(prediction_id) if is_patient else self.client.look(prediction_id)
            except CometError as error:
                return error.about(prediction_id)

        ids = [*prediction_ids]
        return dict(zip(ids, self._at_once(read, ids), strict=True))

    def _at_once(self, call: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if len(items) < 2:
            return [call(item) for item in items]
        assert self.client is not None  # made here, before there are threads
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
            try:
                return [*pool.map(call, items)]
            except BaseException:  # the task's timeout, or its end: the pool waits for those who wait for a rate limit
                self.client.halt()
                raise

    def test_connection(self) -> tuple[bool, str]:
        """Check URL and key by listing the models: a free, read-only call."""
        try:
            return True, f"The key works; it can see {self.client.count_models()} models."
        except CometError as error:
            return False, str(error)


def steady_clock() -> Callable[[], float]:
    """Return a clock that tells absolute times, but is immune to the machine's own being set from now on."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset
