"""Writing one file to where it is to stay: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_comet.api.file_errors import StorageError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

BLOCK_BYTES = 5 * 1024 * 1024
"""Of a part of an upload: s3fs, and what is below it, hold up to four in memory. S3 takes none that is smaller, and
10,000 of them: files up to 52 GB."""
LOCAL_WRITE_BYTES = 16 * 1024
"""Of one write to a local file, as curl has it. Of a larger one Linux makes one large piece of memory (ext4's large
folios), which it first has to find: 1 GB in writes of 1 MiB took 2.4 s of CPU, in these 0.6 s (Linux 6.18)."""
STRIDE_BYTES = 16 * 1024 * 1024
"""Of a local file, until the disk is asked to begin with them. Left to itself it begins when ``fsync`` waits for all of
it: 0.4 s more for 1 GB."""
WORTH_A_THREAD_BYTES = 64 * 1024
"""Below that, handing a block over takes longer than writing it."""


class Writer:
    """What a file is written by: a block is, while its owner fetches the next one.

    :param path: what its errors name.
    :param thread: writes.
    """

    _piece_bytes = BLOCK_BYTES

    def __init__(self, path: ObjectStoragePath, file: IO[bytes], thread: Executor) -> None:
        self._path = path
        self._file = file
        self._thread = thread
        self._last: Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Begin with a block, once the one before it is written: no more than one is kept.

        :raises StorageError: the one before, or this one, can't be written.
        """
        self.finish()
        if len(data) < WORTH_A_THREAD_BYTES:
            with storage_errors(self._path):
                self._put(data)
        else:
            self._last = self._thread.submit(self._put, data)

    def finish(self) -> None:
        """Wait until all is written.

        :raises StorageError: it can't be.
        """
        last, self._last = self._last, None
        if last is not None:
            with storage_errors(self._path):
                last.result()

    def _put(self, data: bytes) -> None:
        whole = memoryview(data)
        for start in range(0, len(data), self._piece_bytes):
            self._file.write(whole[start : start + self._piece_bytes])


class _LocalWriter(Writer):
    _piece_bytes = LOCAL_WRITE_BYTES
    _written = _begun = 0

    def _put(self, data: bytes) -> None:
        super()._put(data)
        self._written += len(data)
        if self._written - self._begun >= STRIDE_BYTES:
            # On Linux this begins to write what is in memory, and drops only what is on the disk already. If that goes
            # wrong, fsync says so. macOS has no such call.
            with contextlib.suppress(AttributeError, OSError):
                descriptor, length = self._file.fileno(), self._written - self._begun
                os.posix_fadvise(descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._written


@contextlib.contextmanager
def whole_file(path: ObjectStoragePath) -> Iterator[Writer]:
    """Open a file for writing that appears, under its name, only when the block has ended without an exception.

    What was there before stays until then. Of a process that is killed a hidden ``.<name>.<random>.part`` stays beside
    the file until it is written again, or an unfinished upload in an object store.

    :raises StorageError: it can't be written. What the block raises passes as it is.
    """
    passing: list[BaseException] = []
    open_file, writer_of = (_local_file, _LocalWriter) if _is_local(path) else (_object, Writer)
    # The thread ends first: nothing is removed, discarded or closed while it is written.
    with storage_errors(path, passing), open_file(path) as file, ThreadPoolExecutor(1, "comet-write") as thread:
        writer = writer_of(path, file, thread)
        try:
            yield writer
        except BaseException as error:
            passing.append(error)
            raise
        writer.finish()


@contextlib.contextmanager
def storage_errors(path: ObjectStoragePath, passing: Sequence[BaseException] = ()) -> Iterator[None]:
    """Say which path could not be used. Not all raise ``OSError``: s3fs passes errors of botocore on, adlfs those of
    Azure, or ``RuntimeError``.

    :param passing: errors that have nothing to do with the path.
    :raises StorageError: it could not.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError) or any(error is one for one in passing):
            raise
        raise StorageError(f"{path}: {type(error).__name__}: {error}") from error


def _is_local(path: ObjectStoragePath) -> bool:
    return path.protocol in {"", "file", "local"}


@contextlib.contextmanager
def _local_file(path: ObjectStoragePath) -> Iterator[IO[bytes]]:
    """fsspec would make the temporary file in another folder, and copy it if that is on another disk."""
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    unfinished, file = _unfinished(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(target)  # still locked: nobody takes it for abandoned
        _sync_folder(target.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _unfinished(target: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside it, locked for as long as this process lives."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file = path.open("xb")
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # else somebody took it for abandoned before it was locked
            return path, file
        file.close()


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes have left: a lock ends with the process that holds it."""
    for found in target.parent.glob(f".{target.name}.*.part"):
        # A lock that is held is an OSError, too. NFS locks only what is open for writing.
        with contextlib.suppress(OSError), found.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name last: else a machine that loses power may know a manifest, and not the file it names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _object(path: ObjectStoragePath) -> Iterator[IO[bytes]]:
    """A plain ``with open(...)`` commits what is there when an exception passes: a truncated object."""
    file: Any = path.fs.open(path.path, "wb", block_size=BLOCK_BYTES, autocommit=False)
    try:
        yield file
        file.close()
        file.commit()
    except BaseException:
        # What went wrong before is what has to be said.
        with contextlib.suppress(Exception):
            # First of all: closing it, also when it is collected as garbage, would send what it holds.
            file.closed = True
        with contextlib.suppress(Exception):
            file.discard()
        raise
    finally:
        with contextlib.suppress(AttributeError, ValueError):  # fsspec keeps it there for a transaction of its own
            path.fs.transaction.files.remove(file)
