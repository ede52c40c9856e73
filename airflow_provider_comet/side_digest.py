"""SHA-256 beside the work: it takes as long as writing a file does, and both can go on at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor, Future

WORTH_A_THREAD_BYTES = 64 * 1024
"""Below that, handing a block over takes longer than its digest."""


class SideDigest:
    """The digest of blocks that come one after the other, each taken in while its owner goes on.

    :param pool: whose threads do it.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._digest = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, block: bytes) -> None:
        """Begin with a block, once the one before it is done: no more than one is kept."""
        self._finish()
        if len(block) < WORTH_A_THREAD_BYTES:
            self._digest.update(block)
        else:
            self._last = self._pool.submit(self._digest.update, block)

    def digest(self) -> bytes:
        """Of all blocks."""
        self._finish()
        return self._digest.digest()

    def hexdigest(self) -> str:
        """The same, in hexadecimal digits."""
        return self.digest().hex()

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()
