"""``outputs/limits.py``: what all files of a prediction may have together, and how slowly a file may arrive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.outputs.limits import GRACE_SECONDS, MIN_BYTES_PER_SECOND, ByteBudget, is_too_slow


def test_all_files_count_together() -> None:
    """Each file counts with its last size only, so that a repeated download is no second file."""
    budget = ByteBudget(100)
    for size in (10, 40, 30, 60):
        budget.claim(0, size)
    budget.claim(1, 40)
    with pytest.raises(OutputRefusedError) as caught:
        budget.claim(2, 1)
    assert "with the 1 bytes of output 2, its files have 101 bytes so far; max_bytes is 100" in str(caught.value)
    assert "max_bytes of the task" in caught.value.next_step


def test_threads_share_a_budget() -> None:
    """Not a byte is lost or counted twice, however many threads count at once."""
    budget = ByteBudget(8 * 20_000)

    def count(index: int) -> None:
        for size in range(1, 20_001):
            budget.claim(index, size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    with pytest.raises(OutputRefusedError):
        budget.claim(8, 1)


@pytest.mark.parametrize(
    ("received", "seconds", "expected"),
    [
        (0, GRACE_SECONDS, False),
        (0, GRACE_SECONDS + 1, True),
        (MIN_BYTES_PER_SECOND * 3600, 3600 + GRACE_SECONDS, False),
        (MIN_BYTES_PER_SECOND * 3600, 3601 + GRACE_SECONDS, True),
        (4 * 1024**3, 6 * 24 * 3600, False),
        (4 * 1024**3, 7 * 24 * 3600, True),
    ],
)
def test_the_slowest_download(received: int, seconds: float, expected: bool) -> None:
    """4 GiB, the default of ``max_bytes``, hold a worker for six days at most."""
    assert is_too_slow(received, seconds) is expected
