"""Numbers for Airflow's metrics backend (StatsD, OpenTelemetry). Names: docs/waiting.md, docs/spending.md."""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.common.compat.sdk import Stats

log = logging.getLogger(__name__)


def count(name: str, **tags: str) -> None:
    """Add one to a counter."""
    _send("incr", name, tags=tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set a value that goes up and down."""
    _send("gauge", name, value, tags=tags)


def timing(name: str, seconds: float, **tags: str) -> None:
    """Add one measured time; Airflow's timings are milliseconds."""
    _send("timing", name, seconds * 1000, tags=tags)


def _send(method: str, name: str, *args: float, **options: Any) -> None:
    try:
        getattr(Stats, method)(name, *args, **options)
    except Exception:  # a metrics backend must not come between a paid id and its task
        log.warning("%s could not be sent", name, exc_info=True)
