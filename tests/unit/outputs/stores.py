"""Store a prediction as a task does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api.outcome import id_of

if TYPE_CHECKING:
    from airflow_provider_comet.api.prediction import Prediction
    from airflow_provider_comet.outputs.writer import OutputWriter


def store_missing(writer: OutputWriter, prediction: Prediction | Mapping[str, Any]) -> dict[str, Any]:
    """Fetch what is not stored yet of a prediction, and return the task's result for it."""
    prediction_id = id_of(prediction)
    known = writer.manifests.check(prediction_id)
    files = [file for file in known or [] if file is not None]
    if known is not None and len(files) == len(known):
        return writer.manifests.result_of(prediction_id, files)
    return writer.store(prediction, known or ())
