from __future__ import annotations

from airflow_provider_comet.emulator.catalog import CATALOG


def test_durations() -> None:
    """Each model takes long enough to be polled while it runs, and at most eight seconds."""
    assert all(1.5 <= model.seconds <= 8 for model in CATALOG.values())
