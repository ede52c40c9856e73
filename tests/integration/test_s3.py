"""What s3fs does with a file that is to be visible whole or not at all: the rules that our storing code rests on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.s3 import S3, s3_server

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

BLOCK = 8 * 2**20
CHUNK = 2**20
SMALL = os.urandom(1000)
LARGE = os.urandom(20 * 2**20)  # two parts and a half


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    """One server for the tests of this file."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket, and the connection `s3_here` that leads to it."""
    server.clear()
    monkeypatch.setenv("AIRFLOW_CONN_S3_HERE", server.connection_json())
    yield server
    server.clear()


@pytest.fixture
def path(s3: S3) -> ObjectStoragePath:
    """A path in the bucket where there is nothing yet."""
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(f"s3://s3_here@{s3.bucket}/folder/x.webp")


def written(path: ObjectStoragePath, content: bytes) -> Any:
    """An open file with the content written to it as it comes from a socket, in chunks."""
    file = path.fs.open(path.path, "wb", autocommit=False, block_size=BLOCK)
    for start in range(0, len(content), CHUNK):
        file.write(content[start : start + CHUNK])
    return file


def abandon(file: Any) -> None:
    """Closed first, and by hand: a close() after discard(), also the one of the garbage collector, uploads again."""
    file.closed = True
    file.discard()


@pytest.mark.parametrize(
    "content", [LARGE, LARGE[: 2 * BLOCK], SMALL, b""], ids=["large", "two parts", "small", "empty"]
)
def test_nothing_is_visible_before_commit(s3: S3, path: ObjectStoragePath, content: bytes) -> None:
    """Neither writing nor closing shows anything; close, then commit, shows the whole file and leaves no upload."""
    file = written(path, content)
    assert s3.objects() == {}
    file.close()
    assert s3.objects() == {}
    assert [*s3.unfinished_uploads().values()] == ["folder/x.webp"]
    file.commit()
    assert s3.objects() == {"folder/x.webp": len(content)}
    assert s3.read("folder/x.webp") == content
    assert s3.unfinished_uploads() == {}


def test_commit_before_close_would_lose_the_end(s3: S3, path: ObjectStoragePath) -> None:
    """The wrong order: commit shows the parts sent so far as if they were the file. Only close sends the last one."""
    file = written(path, LARGE)
    file.commit()
    file.closed = True
    assert s3.objects() == {"folder/x.webp": 2 * BLOCK}


@pytest.mark.parametrize("content", [LARGE, SMALL, b""], ids=["large", "small", "empty"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_abandoned_file_leaves_nothing(s3: S3, path: ObjectStoragePath, content: bytes, closed: bool) -> None:
    """A discarded file leaves neither an object nor an unfinished upload, wherever its writing stopped."""
    file = written(path, content)
    if closed:
        file.close()
    abandon(file)
    file.close()
    assert s3.objects() == s3.unfinished_uploads() == {}


def test_close_after_discard_would_begin_a_new_upload(s3: S3, path: ObjectStoragePath) -> None:
    """Why `closed` is set by hand: for a small file s3fs begins its upload only when it is closed."""
    file = written(path, SMALL)
    file.discard()
    with pytest.raises(AttributeError):
        file.close()
    assert [*s3.unfinished_uploads().values()] == ["folder/x.webp"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
def test_exception_never_commits(s3: S3, path: ObjectStoragePath, content: bytes, error: type[BaseException]) -> None:
    """With commit as the last statement of the block, no exception on the way can show half a file."""
    with pytest.raises(error):
        _store(path, content, check=_raise(error))
    assert s3.objects() == s3.unfinished_uploads() == {}


def test_earlier_object_survives_an_exception(s3: S3, path: ObjectStoragePath) -> None:
    """What was stored under the name before stays readable until the commit, and for good if there is none."""
    _store(path, SMALL, check=lambda: None)
    with pytest.raises(RuntimeError):
        _store(path, LARGE, check=_raise(RuntimeError))
    assert s3.read("folder/x.webp") == SMALL


def test_with_alone_is_not_enough(s3: S3, path: ObjectStoragePath) -> None:
    """`with` closes: by default that commits half a file although an exception passes, else it leaves the upload."""
    for autocommit in (True, False):
        s3.clear()
        with pytest.raises(RuntimeError):
            _write_and_fail(path, autocommit=autocommit)
        assert bool(s3.objects()) is autocommit
        assert bool(s3.unfinished_uploads()) is not autocommit


def test_discard_after_commit_is_an_error_and_deletes_nothing(s3: S3, path: ObjectStoragePath) -> None:
    """An exception that arrives after the commit meets an upload that is gone: the file stays."""
    file = written(path, LARGE)
    file.close()
    file.commit()
    with pytest.raises(FileNotFoundError):
        abandon(file)
    assert s3.read("folder/x.webp") == LARGE


def test_file_is_kept_by_the_file_system_until_taken_from_it(s3: S3, path: ObjectStoragePath) -> None:
    """fsspec queues each such file for a transaction nobody ends: a process that stores many takes them out itself."""
    queue = path.fs.transaction.files
    file = written(path, SMALL)
    assert any(queued is file for queued in queue)
    file.close()
    file.commit()
    assert any(queued is file for queued in queue)
    queue.remove(file)
    assert not any(queued is file for queued in queue)


def _store(path: ObjectStoragePath, content: bytes, *, check: Callable[[], None]) -> None:
    """The order of calls that is right."""
    file = path.fs.open(path.path, "wb", autocommit=False, block_size=BLOCK)
    try:
        for start in range(0, len(content), CHUNK):
            file.write(content[start : start + CHUNK])
        check()
        file.close()
        file.commit()
    except BaseException:
        abandon(file)
        raise
    finally:
        path.fs.transaction.files.remove(file)


def _write_and_fail(path: ObjectStoragePath, *, autocommit: bool) -> None:
    with path.fs.open(path.path, "wb", autocommit=autocommit, block_size=BLOCK) as file:
        file.write(SMALL)
        raise RuntimeError


def _raise(error: type[BaseException]) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check
