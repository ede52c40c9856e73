"""Read files, and write them completely or not at all: locally by a rename, in an object store by a commit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from airflow_provider_comet.api.file_errors import StorageError
from airflow_provider_comet.outputs.object_upload import BLOCK_BYTES, ObjectUpload
from airflow_provider_comet.polling import threads

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

LOCAL_WRITE_BYTES = 16 * 1024
"""Size of one write to a local file, as in curl. For a larger write Linux allocates large pieces of memory (ext4's
large folios), which it first has to find: 1 GB in writes of 1 MiB took 2.4 s of CPU, in writes of 16 KiB 0.6 s (Linux
6.18)."""
READ_BYTES = 1024 * 1024
GATHERED_BYTES = 256 * 1024
"""How much is handed to the writing thread at once. Over https a file arrives in pieces of 16 KiB: handing over each of
them took a fifth more CPU."""

_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""Errors of file systems that can't sync a folder: shared folders of VirtualBox, Samba, some kinds of FUSE."""


class FileWriter:
    """Writes one file in a thread, while the caller fetches the next bytes.

    Fetching and hashing take as much CPU as writing: in a single thread 1 GB over http took 1.6 times as long.

    :param path: named by errors.
    :param file: where the bytes go.
    :param thread: has no other work.
    :param write_bytes: size of one write.
    """

    def __init__(
        self, path: ObjectStoragePath, file: IO[bytes] | ObjectUpload, thread: Executor, write_bytes: int
    ) -> None:
        self._path = path
        self._write_bytes = write_bytes
        self._file = file
        self._thread = thread
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._pending: Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Accept the next bytes, which are written soon.

        :raises StorageError: earlier bytes could not be written.
        """
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= GATHERED_BYTES:
            self._wait()
            self._pending = self._thread.submit(self._write_all, self._gathered)
            self._gathered, self._gathered_bytes = [], 0

    def finish(self) -> None:
        """Write everything that is left.

        :raises StorageError: the file could not be written.
        """
        self._wait()
        with storage_errors(self._path):
            self._write_all(self._gathered)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            with storage_errors(self._path):
                pending.result()

    def _write_all(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            view = memoryview(chunk)  # slices of it copy nothing
            for start in range(0, len(chunk), self._write_bytes):
                self._file.write(view[start : start + self._write_bytes])


@contextlib.contextmanager
def open_atomic(path: ObjectStoragePath) -> Iterator[FileWriter]:
    """Open a file for writing that appears under its name only when the block ends without an exception.

    Until then the file that was there before stays. A process that is killed leaves a hidden ``.<name>.<random>.part``
    beside the file until the file is written again, or an unfinished upload in an object store.

    :raises StorageError: the file can't be written. What the block raises passes unchanged.
    """
    is_local = path.protocol in {"", "file", "local"}
    opened: AbstractContextManager[IO[bytes] | ObjectUpload] = _local_file(path) if is_local else _object(path)
    block_errors: list[BaseException] = []
    # The thread ends first, so that no file is removed or discarded while it is written.
    with storage_errors(path, block_errors), opened as file, threads.Pool(1, "comet-write") as thread:
        writer = FileWriter(path, file, thread, LOCAL_WRITE_BYTES if is_local else BLOCK_BYTES)
        try:
            yield writer
        except BaseException as error:
            block_errors.append(error)
            raise
        writer.finish()


@contextlib.contextmanager
def storage_errors(path: ObjectStoragePath, passing: Sequence[BaseException] = ()) -> Iterator[None]:
    """Raise ``StorageError``, with the path, for every exception of the block.

    Not all storages raise ``OSError``: s3fs passes errors of botocore on, adlfs those of Azure, or ``RuntimeError``.

    :param passing: exceptions that have nothing to do with the path; they pass unchanged.
    :raises StorageError: the path can't be used.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError) or any(error is known for known in passing):
            raise
        raise StorageError(f"{path}: {type(error).__name__}: {error}") from error


def read_if_exists(path: ObjectStoragePath, max_bytes: int) -> bytes | None:
    """Return a file's content, or its first ``max_bytes``; ``None``: there is no such file.

    It is a single request to an object store. To ask first whether the file exists would be one or two more.

    :raises StorageError: the file can't be read.
    """
    with storage_errors(path):
        try:
            return bytes(path.fs.cat_file(path.path, start=0, end=max_bytes))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:  # S3 has no range of an empty object
                raise
            return b""


def read_blocks(path: ObjectStoragePath) -> Iterator[bytes]:
    """Yield a file's content, piece by piece.

    :raises FileNotFoundError: there is no such file.
    :raises StorageError: the file can't be read. What the caller raises between two pieces passes unchanged.
    """
    missing: list[FileNotFoundError] = []
    with storage_errors(path, missing):
        try:
            opened = path.open("rb")  # type: ignore[no-untyped-call]
        except FileNotFoundError as error:
            missing.append(error)
            raise
        with opened as file:
            while block := file.read(READ_BYTES):
                yield block


@contextlib.contextmanager
def _local_file(path: ObjectStoragePath) -> Iterator[IO[bytes]]:
    """Open a hidden file in the target's folder, and rename it at the end.

    fsspec would make the temporary file in another folder, and copy it if that is on another disk.
    """
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    unfinished, file = _create_unfinished(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(target)  # still locked, so that no other process takes it for abandoned
        _sync_folder(target.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _create_unfinished(target: Path) -> tuple[Path, IO[bytes]]:
    """Create a hidden file beside the target, locked for as long as this process lives."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file = path.open("xb")
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # otherwise another process took it for abandoned before it was locked
            return path, file
        file.close()


def _remove_abandoned(target: Path) -> None:
    """Remove the hidden files of killed processes: a lock ends with the process that holds it."""
    for name in _unfinished_names(target.parent):
        if not name.startswith(f".{target.name}."):
            continue
        # A lock that another process holds is an OSError, too. NFS locks only files that are open for writing.
        path = target.with_name(name)
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@functools.lru_cache(maxsize=16)
def _unfinished_names(folder: Path) -> list[str]:
    """Return the hidden files that were in a folder at first. To list thousands takes longer than to write a file."""
    return [name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part")]


def _sync_folder(folder: Path) -> None:
    """Make the new name durable: after a loss of power a manifest must not exist without the files it names."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _object(path: ObjectStoragePath) -> Iterator[ObjectUpload]:
    """Open an object that appears at the end, and not at all after an exception.

    A plain ``with open(...)`` would commit a truncated object when an exception passes.
    """
    file = ObjectUpload(path)
    try:
        yield file
        file.commit()
    except BaseException:
        file.discard()
        raise
