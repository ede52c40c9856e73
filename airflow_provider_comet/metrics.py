"""Numbers for Airflow's metrics backend (StatsD, OpenTelemetry), and audit lines: docs/waiting.md, docs/spending.md."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.outcome import Outcome
from airflow_provider_comet.api.redaction import WORD_CHARACTERS, excerpt, log_value
from airflow_provider_comet.api.statuses import is_terminal

log = logging.getLogger(__name__)


def count(name: str, **tags: str) -> None:
    """Add 1 to a counter."""
    _send("incr", name, tags=tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set a value that rises and falls."""
    _send("gauge", name, value, tags=tags)


def timing(name: str, seconds: float, **tags: str) -> None:
    """Add a measured time; Airflow's timings are milliseconds."""
    _send("timing", name, seconds * 1000, tags=tags)


def audit(event: str, values: Mapping[str, object]) -> None:
    """Log an event as ``event key=value key=value``: a single line, and a single word for each value."""
    log.info(" ".join([event, *(f"{key}={log_value(value)}" for key, value in values.items())]))


def created(prediction_id: str, model: str, reason: str, ti: Any) -> None:
    """Log a create that was accepted, for which CometAPI bills: ``comet.created id=... model=... reason=...``.

    It holds no key and no prompt.

    :param ti: the task instance that has sent it.
    """
    task = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, "map": ti.map_index, "try": ti.try_number}
    audit("comet.created", {"id": prediction_id, "model": model, **task, "reason": reason})


def finished(outcomes: Iterable[Outcome]) -> None:
    """Log and count the predictions that have ended, well or badly.

    One line for each, always of this form: ``comet.finished id=... model=... status=...``.
    """
    for outcome in outcomes:
        if isinstance(outcome, CometError):
            continue
        result: Any = outcome if isinstance(outcome, Mapping) else vars(outcome)
        if not is_terminal(result["status"]):
            continue
        model = excerpt(str(result["model"]), WORD_CHARACTERS)
        audit("comet.finished", {"id": result["id"], "model": model, "status": result["status"]})
        count("comet.finished", status=str(result["status"]))


def _send(method: str, name: str, *args: float, **options: Any) -> None:
    try:
        getattr(Stats, method)(name, *args, **options)
    except Exception:  # a metrics backend must not come between a paid id and its task
        log.warning("%s could not be sent", name, exc_info=True)
