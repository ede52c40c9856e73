"""How many bytes of a prediction are stored at most, and how slowly a file may arrive.

A server decides how many files it names, how long they are, and how fast it sends them. Each limit bounds how long it
can hold a worker, or how much of a disk it can fill.
"""

from __future__ import annotations

from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.polling import threads
from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS

MIN_BYTES_PER_SECOND = 8 * 1024
"""The slowest average of a download. 64 downloads at once, which is 16 tasks on a worker, have more of a line of 10
Mbit/s; and 4 GiB take six days at most."""
GRACE_SECONDS = 2 * RETRY_BUDGET_SECONDS
"""What each file may take besides: for a server that is slow to begin, and for connections that break."""


class ByteBudget:
    """Counts the bytes of a prediction's files against one limit; safe to use from several threads.

    :param max_bytes: of all files together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._lock = threads.Lock()

    def claim(self, index: int, size: int) -> None:
        """Set the size of a file, as it was announced or received so far, in place of what was set for it before.

        :raises OutputRefusedError: with that, all files together are larger than the limit.
        """
        with self._lock:
            self._total += size - self._sizes.get(index, 0)
            self._sizes[index] = size
            total = self._total
        if total > self._max_bytes:
            raise OutputRefusedError(
                f"with the {size} bytes of output {index}, its files have {total} bytes so far; max_bytes is "
                f"{self._max_bytes}, for all files of a prediction together"
            )


def is_too_slow(received: int, seconds: float) -> bool:
    """Return whether a download that has taken so long should be given up.

    :param received: bytes, each counted once, however often a server repeats it.
    :param seconds: what the server has taken, pauses between attempts included; not what storing has taken.
    """
    return seconds > GRACE_SECONDS + received / MIN_BYTES_PER_SECOND
