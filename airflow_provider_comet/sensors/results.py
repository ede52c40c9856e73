"""What a wait hands over: one result, or a list of results, or the error that says why there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_comet.airflow_errors import is_final
from airflow_provider_comet.api.errors import PredictionListError
from airflow_provider_comet.api.outcome import Outcome, judge, judge_all
from airflow_provider_comet.polling.prediction_ids import distinct

PREDICTIONS_XCOM_KEY = "predictions"
"""Holds the results of a list that has no result of its own because some predictions have none."""

log = logging.getLogger(__name__)


def hand_over(
    ti: Any, ids: str | Sequence[str | None], outcomes: Mapping[str, Outcome], *, allow_empty: bool, keep: bool
) -> Any:
    """Return the result of each prediction, in the order of ``ids``; for a single id its result alone.

    :param ti: the task instance.
    :param outcomes: how the waits have ended, by prediction id.
    :param allow_empty: whether a success without output is a result.
    :param keep: whether a list is a result although some of its predictions have none.
    :raises CometError: there is no result. If it is a list's, the results that are known are in XCom ``predictions``.
    """
    from airflow_provider_comet import metrics  # loads Airflow's metrics: not while DAGs are parsed

    ended = {prediction_id: outcomes[prediction_id] for prediction_id in distinct(ids)}
    metrics.finished(ended.values())
    if isinstance(ids, str):
        return judge(ended[ids], allow_empty=allow_empty)
    summaries, errors = judge_all(ended, allow_empty=allow_empty)
    results = [None if prediction_id is None else summaries[prediction_id] for prediction_id in ids]
    for error in errors:
        log.warning("%s", error)
    # An API that could not be read never makes a result: a retry, which costs nothing, may have it.
    is_kept = keep and all(map(is_final, errors))
    if errors and (not is_kept or len(errors) == len(summaries)):
        ti.xcom_push(key=PREDICTIONS_XCOM_KEY, value=results)
        raise PredictionListError.of(errors, len(summaries))
    return results
