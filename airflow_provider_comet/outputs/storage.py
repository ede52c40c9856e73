"""Writing one file to where it is to stay: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
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
GATHERED_BYTES = 256 * 1024
"""Are handed to the thread at once: over https a file comes in pieces of 16 KiB, and handing one over takes longer than
writing it."""

_NO_SUCH_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""What file systems answer that can't sync a folder: shared folders of VirtualBox, Samba, some of FUSE."""


class FileWriter:
    """Writes one file: a thread does, while the caller fetches what comes next.

    :param path: what its errors name.
    :param thread: has no other work.
    """

    _piece_bytes = BLOCK_BYTES

    def __init__(self, path: ObjectStoragePath, file: IO[bytes], thread: Executor) -> None:
        self._path = path
        self._file = file
        self._thread = thread
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._under_way: Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes. They are written soon.

        :raises StorageError: what came before could not be.
        """
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_BYTES:
            self._settle()
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._under_way = self._thread.submit(self._put, gathered)

    def finish(self) -> None:
        """Write what is left.

        :raises StorageError: it can't be, or what came before.
        """
        self._settle()
        with storage_errors(self._path):
            self._put(self._gathered)

    def _settle(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            with storage_errors(self._path):
                under_way.result()

    def _put(self, gathered: list[bytes]) -> None:
        for data in gathered:
            whole = memoryview(data)
            for start in range(0, len(data), self._piece_bytes):
                self._file.write(whole[start : start + self._piece_bytes])


class _LocalWriter(FileWriter):
    _piece_bytes = LOCAL_WRITE_BYTES
    _written = _begun = 0

    def _put(self, gathered: list[bytes]) -> None:
        super()._put(gathered)
        self._written += sum(map(len, gathered))
        if self._written - self._begun >= STRIDE_BYTES:
            # On Linux this begins to write what is in memory, and drops only what is on the disk already. If that goes
            # wrong, fsync says so. macOS has no such call.
            with contextlib.suppress(AttributeError, OSError):
                descriptor, length = self._file.fileno(), self._written - self._begun
                os.posix_fadvise(descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._written


@contextlib.contextmanager
def open_atomic(path: ObjectStoragePath) -> Iterator[FileWriter]:
    """Open a file for writing that appears, under its name, only when the block has ended without an exception.

    What was there before stays until then. Of a process that is killed a hidden ``.<name>.<random>.part`` stays beside
    the file until it is written again, or an unfinished upload in an object store.

    :raises StorageError: it can't be written. What the block raises passes as it is.
    """
    opened = _local_file(path) if _is_local(path) else _object(path)
    passing: list[BaseException] = []
    # The thread ends first, so that nothing is removed or discarded while it is written.
    with storage_errors(path, passing), opened as file, ThreadPoolExecutor(1, "comet-write") as thread:
        writer = (_LocalWriter if _is_local(path) else FileWriter)(path, file, thread)
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
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one that may be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise
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
