"""Log how much of a long file was received."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 30.0


def log_progress(chunks: Iterable[bytes], name: str, size: int | None, clock: Callable[[], float]) -> Iterator[bytes]:
    """Yield the same chunks, and log every half minute how much of the file was received.

    :param name: of the file, for the log.
    :param size: of the whole file in bytes; ``None``: unknown.
    :param clock: seconds, monotonic.
    """
    started = logged = clock()
    received = 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if (now := clock()) - logged >= PROGRESS_SECONDS:
            logged = now
            share = f" of {size / 1e6:.0f}" if size else ""
            speed = received / 1e6 / (now - started)
            log.info("%s: %.0f%s MB, %.1f MB/s", name, received / 1e6, share, speed)
