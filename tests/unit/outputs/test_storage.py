"""``outputs/storage.py``: a file appears complete, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

ROOT = Path(__file__).parents[3]


def path_to(target: Path) -> ObjectStoragePath:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(f"file://{target}")


def write(target: Path, *chunks: bytes, error: BaseException | None = None) -> None:
    from airflow_provider_comet.outputs.storage import open_atomic

    with open_atomic(path_to(target)) as file:
        for chunk in chunks:
            file.write(chunk)
        if error is not None:
            raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders(tmp_path: Path) -> None:
    """Folders are made; what was there before is replaced at once."""
    target = tmp_path / "a" / "b" / "picture.webp"
    write(target, b"one")
    write(target, b"two", b" three")
    assert (target.read_bytes(), names(target.parent)) == (b"two three", ["picture.webp"])


def test_blocks_of_all_sizes(tmp_path: Path) -> None:
    """Small blocks do not overtake large blocks, which a thread writes."""
    from airflow_provider_comet.outputs import storage

    sizes = [3, storage.GATHERED_BYTES, 5, 4_000_000, 1, 70_000] * 10
    blocks = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    write(tmp_path / "film.mp4", *blocks)
    assert (tmp_path / "film.mp4").read_bytes() == b"".join(blocks)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit()], ids=repr)
def test_nothing_stays_of_a_failure(tmp_path: Path, error: BaseException) -> None:
    """After any exception the old file is unchanged, and nothing of the new file is left."""
    target = tmp_path / "picture.webp"
    target.write_bytes(b"old")
    with pytest.raises(type(error)):
        write(target, b"new" * 100_000, error=error)
    assert (target.read_bytes(), names(tmp_path)) == (b"old", ["picture.webp"])


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    """Until then only a hidden name exists, in the same folder, because a rename can't cross disks."""
    from airflow_provider_comet.outputs.storage import open_atomic

    with open_atomic(path_to(tmp_path / "picture.webp")) as file:
        file.write(b"half")
        (name,) = names(tmp_path)
        assert name.startswith(".picture.webp.")
        assert name.endswith(".part")
    assert names(tmp_path) == ["picture.webp"]


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """Its hidden file is removed when the file is written again, however young. Files that another process is writing,
    and other files, stay."""
    from airflow_provider_comet.outputs.storage import _unfinished_names, open_atomic

    for name in (".picture.webp.0a.part", ".other.webp.0a.part"):
        (tmp_path / name).write_bytes(b"half")
    with open_atomic(path_to(tmp_path / "picture.webp")) as file:
        (alive,) = {*names(tmp_path)} - {".other.webp.0a.part"}
        assert alive != ".picture.webp.0a.part"
        _unfinished_names.cache_clear()  # as another process
        write(tmp_path / "picture.webp", b"of another attempt")
        assert alive in names(tmp_path)
        file.write(b"whole")
    assert names(tmp_path) == [".other.webp.0a.part", "picture.webp"]
    assert (tmp_path / "picture.webp").read_bytes() == b"whole"


def test_what_is_not_locked_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process took for abandoned, between its making and its lock, is made again."""
    from airflow_provider_comet.outputs import storage

    original, removed = fcntl.flock, []

    def flock(file: Any, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            storage._unfinished_names.cache_clear()  # as another process
            storage._remove_abandoned(tmp_path / "picture.webp")
        original(file, operation)

    monkeypatch.setattr(storage.fcntl, "flock", flock)
    write(tmp_path / "picture.webp", b"whole")
    assert (len(removed), names(tmp_path)) == (1, ["picture.webp"])
    assert (tmp_path / "picture.webp").read_bytes() == b"whole"


@pytest.mark.parametrize(
    "sizes", [[100_000] * 20, [500_000, 1_000_000], [10_000] * 200], ids=["within", "at the end", "small"]
)
def test_a_full_disk(tmp_path: Path, sizes: list[int]) -> None:
    """The error names path and reason, may be retried, and nothing half-written stays, whichever block it is. (A limit
    on the size of files stands for the disk: it fails the same call in the same way.)"""
    from airflow_provider_comet.api.file_errors import StorageError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            write(tmp_path / "film.mp4", *(b"x" * size for size in sizes))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert "film.mp4" in str(caught.value)
    assert caught.value.retryable
    assert names(tmp_path) == []


@pytest.mark.parametrize(("number", "is_stored"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_folder_that_can_not_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_stored: bool
) -> None:
    """Some file systems have no such call, and are written to without it; a disk that fails is an error."""
    from airflow_provider_comet.api.file_errors import StorageError

    original = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with nullcontext() if is_stored else pytest.raises(StorageError):
        write(tmp_path / "film.mp4", b"whole")
    assert (tmp_path / "film.mp4").read_bytes() == b"whole"


def test_a_folder_that_may_be_written_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new name is there; only a sudden loss of power might undo it."""
    original = os.open

    def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "no")
        return original(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_)
    write(tmp_path / "film.mp4", b"whole")
    assert (tmp_path / "film.mp4").read_bytes() == b"whole"


def test_a_killed_process_leaves_no_visible_half(tmp_path: Path) -> None:
    """SIGKILL within a file: its name does not exist, and a second process writes it completely."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from airflow.sdk import ObjectStoragePath
from airflow_provider_comet.outputs.storage import open_atomic
with open_atomic(ObjectStoragePath("file://{tmp_path}/film.mp4")) as file:
    file.write(b"x" * 3_000_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = names(tmp_path)
    assert left.startswith(".film.mp4.")
    write(tmp_path / "film.mp4", b"whole")
    assert (tmp_path / "film.mp4").read_bytes() == b"whole"
    assert names(tmp_path) == ["film.mp4"]


class Upload:
    """What fsspec's object stores give for ``autocommit=False``, as far as it matters here.

    :param failing: the step that fails, with an error that is no ``OSError``: adlfs raises ``RuntimeError``.
    """

    def __init__(self, failing: str = "") -> None:
        self.done: list[str] = []
        self.closed = False
        self._failing = failing
        self._step("open")

    def _step(self, name: str) -> None:
        if name == self._failing:
            raise RuntimeError(f"no {name}")
        self.done.append(name)

    def write(self, data: bytes) -> int:
        self._step("write")
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._step("close")

    def commit(self) -> None:
        self._step("commit")

    def discard(self) -> None:
        self._step("discard")


class SlowUpload(Upload):
    """An upload that writes only when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()

    def write(self, data: bytes) -> int:
        assert self.may_write.wait(60)
        return super().write(data)


class ReadOnlyUpload(Upload):
    """One whose ``closed`` can't be set."""

    @property
    def closed(self) -> bool:
        return False

    @closed.setter
    def closed(self, value: bool) -> None:
        if value:
            raise AttributeError("closed can't be set")


def object_at(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Upload]) -> ObjectStoragePath:
    """A path in an object store whose uploads ``make`` makes."""
    from airflow.sdk import ObjectStoragePath

    class FileSystem:
        def open(self, path: str, mode: str, *, block_size: int, autocommit: bool) -> Upload:
            assert (path, mode, autocommit) == ("bucket/film.mp4", "wb", False)
            return make()

    monkeypatch.setattr(ObjectStoragePath, "fs", property(lambda self: FileSystem()))
    monkeypatch.setattr(ObjectStoragePath, "path", property(lambda self: "bucket/film.mp4"))
    return ObjectStoragePath("memory://bucket/film.mp4")


def test_object_stores_commit_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is sent and then committed; after an exception nothing more is sent, not even by closing, and what was
    sent is discarded. (tests/integration/test_s3.py shows the same on a real server.)"""
    from airflow_provider_comet.outputs.storage import GATHERED_BYTES, open_atomic

    uploads = [Upload(), Upload()]
    left = iter(uploads)
    path = object_at(monkeypatch, lambda: next(left))
    with open_atomic(path) as file:
        file.write(b"x")

    def fail() -> None:
        with open_atomic(path) as file:
            file.write(bytes(GATHERED_BYTES))
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fail()
    uploads[1].close()  # as the garbage collector would
    assert [upload.done for upload in uploads] == [["open", "write", "close", "commit"], ["open", "write", "discard"]]


def test_the_next_block_is_fetched_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller continues before its bytes are written, also over https, where they arrive in small pieces. Nothing is
    committed or discarded before they are written."""
    from airflow_provider_comet.outputs.storage import GATHERED_BYTES, open_atomic

    uploads = [SlowUpload(), SlowUpload()]
    left = iter(uploads)
    path = object_at(monkeypatch, lambda: next(left))
    pieces = [bytes(16 * 1024)] * (GATHERED_BYTES // (16 * 1024))
    with open_atomic(path) as file:
        for piece in pieces:
            file.write(piece)
        assert uploads[0].done == ["open"]
        uploads[0].may_write.set()

    def fail() -> None:
        with open_atomic(path) as file:
            for piece in pieces:
                file.write(piece)
            threading.Timer(0.1, uploads[1].may_write.set).start()
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fail()
    written = ["write"] * len(pieces)
    assert [upload.done for upload in uploads] == [["open", *written, "close", "commit"], ["open", *written, "discard"]]


@pytest.mark.parametrize("kind", [Upload, ReadOnlyUpload])
@pytest.mark.parametrize("step", ["open", "write", "close", "commit"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_errors_of_other_stores(monkeypatch: pytest.MonkeyPatch, step: str, kind: type[Upload], size: int) -> None:
    """Whatever they raise is an error of the storage, and what was flushed is discarded."""
    from airflow_provider_comet.api.file_errors import StorageError
    from airflow_provider_comet.outputs.storage import open_atomic

    uploads: list[Upload] = []

    def make() -> Upload:
        uploads.append(kind(step))
        return uploads[-1]

    path = object_at(monkeypatch, make)
    with pytest.raises(StorageError, match=rf"film\.mp4: RuntimeError: no {step}"), open_atomic(path) as file:
        file.write(bytes(size))
    assert [upload.done[-1] for upload in uploads] == ["discard"] * (step != "open")


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    """What can't be read is a ``StorageError``, except a file that is not there. What the reader raises between two
    pieces passes unchanged."""
    from airflow_provider_comet.api.file_errors import DeliveryError, StorageError
    from airflow_provider_comet.outputs.storage import read_blocks

    content = bytes(range(256)) * 10_000
    (tmp_path / "a.bin").write_bytes(content)
    path = path_to(tmp_path / "a.bin")
    blocks = [*read_blocks(path)]
    assert len(blocks) > 1
    assert b"".join(blocks) == content
    with pytest.raises(FileNotFoundError, match=r"missing\.bin"):
        next(read_blocks(path_to(tmp_path / "missing.bin")))
    with pytest.raises(StorageError, match="Is a directory"):
        next(read_blocks(path_to(tmp_path)))

    def read_until_the_end_of_the_task() -> None:
        for _ in read_blocks(path):
            raise DeliveryError("the task was ended")

    with pytest.raises(DeliveryError):
        read_until_the_end_of_the_task()
