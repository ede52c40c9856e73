"""What the tests of downloads share: time that passes in bytes and pauses, and a downloader that never sleeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.outputs.download import Downloader

KEY = "sk-delivery-0123456789"
LOCAL = "http://127.0.0.1:1"
"""An API on this machine, so that its files may be here too."""


class Clock:
    """Time that passes while somebody sleeps, or by ``step`` whenever it is read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def downloader(clock: Clock) -> Iterator[Downloader]:
    """Fetches for an API on this machine, without a real pause."""
    with Downloader(Config(KEY, LOCAL), sleep=clock.sleep, clock=clock) as downloader:
        yield downloader
