"""``outputs/progress.py``: the log of a long download. Through a store: ``test_writer.py``."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_comet.outputs.progress import log_progress
from tests.unit.outputs.conftest import Clock


@pytest.mark.parametrize(("size", "share"), [(4_000_000, " of 4"), (None, "")])
def test_a_line_every_half_minute(clock: Clock, caplog: pytest.LogCaptureFixture, size: int | None, share: str) -> None:
    """It names the file, what was received of how much, and how fast; the chunks pass unchanged."""
    caplog.set_level(logging.INFO)
    clock.step = 20.0
    chunks = [bytes([number]) * 1_000_000 for number in range(4)]
    assert list(log_progress(chunks, "abc-0.webp", size, clock)) == chunks
    assert caplog.messages == [
        f"abc-0.webp: 2{share} MB, 0.1 MB/s",
        f"abc-0.webp: 4{share} MB, 0.1 MB/s",
    ]
