"""``ObjectUpload``: an object in an object store that appears complete, or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

BLOCK_BYTES = 5 * 1024 * 1024
"""Size of a part of an upload: s3fs and the HTTP library below it hold up to four parts in memory. S3 takes no smaller
part, and 10,000 of them: files up to 52 GB."""


class ObjectUpload:
    """An object that appears complete: sent at once if it is small, else in the parts of an upload.

    Three requests for each small object would be most of what a thousand pictures cost.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path
        # The file systems of object stores. Others, such as SFTP, are atomic only by an upload that is committed.
        self._may_send_at_once = bool(getattr(path.fs, "async_impl", False))
        self._head = bytearray()
        self._upload: Any = None

    def write(self, data: Any) -> int:
        """Accept the next bytes."""
        if self._upload is None:
            self._head += data
            if not self._may_send_at_once or len(self._head) > BLOCK_BYTES:
                self._begin()
        else:
            self._upload.write(data)
        return len(data)

    def commit(self) -> None:
        """Make the object visible."""
        if self._upload is None and self._may_send_at_once:
            self._path.fs.pipe_file(self._path.path, bytes(self._head))
            return
        if self._upload is None:
            self._begin()
        self._upload.close()
        self._upload.commit()
        self._forget()

    def discard(self) -> None:
        """Leave nothing of an upload. Errors of the cleanup are suppressed: what led here is the error to report."""
        if self._upload is None:
            return
        with contextlib.suppress(Exception):
            # First of all, because closing the file, also by the garbage collector, would send what it holds.
            self._upload.closed = True
        with contextlib.suppress(Exception):
            self._upload.discard()
        self._forget()

    def _begin(self) -> None:
        self._upload = self._path.fs.open(self._path.path, "wb", block_size=BLOCK_BYTES, autocommit=False)
        head, self._head = self._head, bytearray()
        if head:
            self._upload.write(bytes(head))

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError, ValueError):  # fsspec keeps it for a transaction
            self._path.fs.transaction.files.remove(self._upload)
