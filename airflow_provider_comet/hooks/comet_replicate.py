"""``CometReplicateHook``: the door from Airflow to the API, for workers."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.outcome import judge
from airflow_provider_comet.api.validation import check_prediction_id
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID, get_config, remember_read
from airflow_provider_comet.polling import clock, threads
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS
from airflow_provider_comet.polling.rate_limiter import CONCURRENT_POLLS
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits
from airflow_provider_comet.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    import requests

    from airflow_provider_comet.api.config import Config
    from airflow_provider_comet.api.journal import Journal
    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.client.sync_client import CometClient
    from airflow_provider_comet.inputs.schemas import InputSchema
    from airflow_provider_comet.submissions.record import Record

T = TypeVar("T")
R = TypeVar("R")


class CometReplicateHook(BaseHook):
    """Create predictions on CometAPI and read them; usable in any task.

    :param conn_id: an Airflow connection of type ``cometapi``: API key in the password, base URL in the host (default
        ``https://api.cometapi.com``), extras ``connect_timeout`` (seconds, default 10), ``read_timeout`` (seconds
        for a whole answer, default 75), ``max_polls_per_second`` (polls of one process, default 50), ``output_hosts``
        (where files may be fetched from; default: any public host) and ``allow_insecure_http`` (default false).
        Only where ``cometapi_default`` does not exist, the environment variables ``COMETAPI_KEY`` and
        ``COMETAPI_BASE_URL`` take its place.
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
        # Loads requests: not while DAGs are parsed.
        from airflow_provider_comet.client.sync_client import CometClient

        return CometClient(self.config)

    def get_conn(self) -> requests.Session:
        """Return a session that sends the key to the connection's own origin, and to no other host."""
        return self.client.session

    def stay_with(self, records: Iterable[Record | None]) -> None:
        """Use no key of the environment if the connection's key has paid for an earlier create of the task.

        :param records: what is on record of those creates.
        """
        if any(record is not None and record.key_from == "connection" for record in records):
            remember_read(self.conn_id)

    def create_prediction(
        self,
        model: str,
        input: Mapping[str, Any],
        *,
        schema: InputSchema | None = None,
        strict: bool = False,
        journal: Journal | None = None,
    ) -> Prediction:
        """Submit a prediction, which costs money. Repeated only when it certainly was not accepted.

        :param model: ``owner/name``.
        :param input: the model's parameters. What an ``ObjectStoragePath`` in it points to is sent along as a data
            URI, up to 7.5 MB a file.
        :param schema: what the model takes (``inputs.schema_files.find_schema``): an input that does not fit is
            refused. ``None``: only the rules that hold for every model are checked.
        :param strict: refuse keys that the schema does not know; by default they are logged.
        :param journal: is told before and after each time the create is sent (``CreatePredictionOperator`` keeps its
            record so), and no signal interrupts a create before it knows the id. Without a journal, nothing is
            remembered if the process dies.
        :returns: the prediction, usually ``starting``; its ``id`` is what to keep.
        :raises AmbiguousSubmissionError: no clear answer; it may have been accepted.
        :raises CometError: it was not accepted; ``retryable`` tells whether it may be later.
        """
        from airflow_provider_comet.api import protocol  # not while DAGs are parsed
        from airflow_provider_comet.inputs.prepare import prepare_request

        request, warnings = prepare_request(model, input, schema, strict=strict)
        for warning in warnings:
            self.log.warning("%s", warning)
        return self.client.retry(
            request, lambda: protocol.read_prediction(request, self.client.send(request, journal=journal))
        )

    def get_prediction(self, prediction_id: str) -> Prediction:
        """Return a prediction as it is now, whatever its status. Trouble that may pass is waited out for two minutes.

        :raises PredictionNotFoundError: the API does not know the id.
        :raises CometError: the prediction can't be read.
        """
        from airflow_provider_comet.api import protocol

        request = protocol.get_prediction(prediction_id)
        return self.client.retry(request, lambda: protocol.read_prediction(request, self.client.send(request)))

    def get_predictions(
        self, prediction_ids: Iterable[str], *, patience: float = RETRY_BUDGET_SECONDS
    ) -> dict[str, Prediction | CometError]:
        """Return predictions as they are now, by id, or an error for each that can't be read. Several at a time.

        :param patience: seconds for which trouble that may pass is waited out, for all of them together.
        """
        patient_until = clock.monotonic() + patience

        def get(prediction_id: str) -> Prediction | CometError:
            is_patient = clock.monotonic() < patient_until
            try:
                return self.get_prediction(prediction_id) if is_patient else self._get_once(prediction_id)
            except CometError as error:
                return error.about(prediction_id)

        ids = [*prediction_ids]
        return dict(zip(ids, self._map_concurrently(get, ids), strict=True))

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
        :param poke_interval: seconds between polls; by default they grow with the prediction's age, up to a minute.
        :param allow_empty: whether a success without output is a result.
        :returns: the prediction, with its output.
        :raises PredictionError: it failed, was canceled or aborted, has no output (any more), or the time is up.
        :raises CometError: the prediction can't be read.
        """
        now = steady_clock()
        started_at = now()
        waits = Waits([Wait(check_prediction_id(prediction_id), started_at, started_at + timeout, poke_interval)])
        while (delay := self.poll(waits, now)) is not None:
            clock.sleep(delay)
        result = waits.outcomes[prediction_id]
        if isinstance(result, CometError):
            raise result
        judge(result, allow_empty=allow_empty)
        return result

    def poll(self, waits: Waits, now: Callable[[], float]) -> float | None:
        """Poll all predictions that are due, several at a time, and log what has changed.

        :param now: the clock, read after each poll.
        :returns: seconds until the next poll; ``None``: all waits have ended.
        """
        results: list[tuple[Wait, tuple[Prediction | CometError, float, float]]] = []
        try:
            self._map_concurrently(
                lambda wait: results.append((wait, self._poll_once(wait.prediction_id, now))), waits.due(now())
            )
        finally:  # if the task's timeout interrupts the round, what has come counts
            for level, text in waits.on_results(results, chance=random.random):
                self.log.log(level, "%s", text)
        return waits.delay(now())

    def halt(self) -> None:
        """End every pause and every poll, because the task ends. For a signal handler: Airflow is not called."""
        client: CometClient | None = vars(self).get("client")  # the property would read Airflow's connection
        if client is not None:
            client.halt()

    def test_connection(self) -> tuple[bool, str]:
        """Check URL and key by listing the models: a free, read-only call."""
        from airflow_provider_comet.api import protocol

        request = protocol.list_models()
        try:
            count = protocol.read_models(request, self.client.send(request))
        except CometError as error:
            return False, str(error)
        return True, f"The key works; it can see {count} models."

    def _get_once(self, prediction_id: object) -> Prediction:
        from airflow_provider_comet.api import protocol

        request = protocol.get_prediction(prediction_id)
        return protocol.read_prediction(request, self.client.send(request))

    def _poll_once(self, prediction_id: str, now: Callable[[], float]) -> tuple[Prediction | CometError, float, float]:
        """Return the result of one poll, and when it was sent and answered."""
        result: Prediction | CometError
        sent_at = now()
        try:
            result = self._get_once(prediction_id)
        except CometError as error:
            result = error.about(prediction_id)
        return result, sent_at, now()

    def _map_concurrently(self, call: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if len(items) < 2:
            return [call(item) for item in items]
        client = self.client  # reads Airflow's connection, which threads can't
        with threads.Pool(CONCURRENT_POLLS) as pool:
            try:
                return [*pool.map(call, items)]
            except BaseException:  # the task's timeout, or its end: the pool waits for those who wait for a rate limit
                client.halt()
                raise


def steady_clock() -> Callable[[], float]:
    """Return a clock of absolute times that does not jump if the machine's own clock is set from now on."""
    offset = clock.now() - clock.monotonic()
    return lambda: clock.monotonic() + offset
