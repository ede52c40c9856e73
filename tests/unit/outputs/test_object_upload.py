"""``outputs/object_upload.py``: an object appears complete, or not at all. ``test_s3.py`` has a real object store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_comet.outputs.object_upload import BLOCK_BYTES, ObjectUpload


class Upload:
    """An upload in parts, as fsspec offers it: to close it sends the last part."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self.store, self.path, self.closed = store, path, False
        self.held, self.parts = b"", b""

    def write(self, data: bytes) -> None:
        self.held += data

    def close(self) -> None:
        self.closed, self.parts = True, self.held

    def commit(self) -> None:
        self.store.objects[self.path] = self.parts

    def discard(self) -> None:
        self.store.discarded.append(self.path)
        raise OSError("the connection is gone")


class ObjectStore:
    """What fsspec says of a storage.

    :param async_impl: as it is of the file systems of object stores.
    """

    def __init__(self, async_impl: bool) -> None:
        self.async_impl = async_impl
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.discarded: list[str] = []
        self.transaction = SimpleNamespace(files=[])

    def pipe_file(self, path: str, content: bytes) -> None:
        self.calls.append("pipe_file")
        self.objects[path] = content

    def open(self, path: str, mode: str, *, block_size: int, autocommit: bool) -> Upload:
        assert (mode, block_size, autocommit) == ("wb", BLOCK_BYTES, False)
        self.calls.append("open")
        upload = Upload(self, path)
        self.transaction.files.append(upload)
        return upload


def upload_to(store: ObjectStore) -> ObjectUpload:
    path: Any = SimpleNamespace(fs=store, path="a/picture.webp")
    return ObjectUpload(path)


@pytest.mark.parametrize(
    ("sizes", "is_object_store", "calls"),
    [
        ([], True, ["pipe_file"]),
        ([10, 20], True, ["pipe_file"]),
        ([BLOCK_BYTES], True, ["pipe_file"]),
        ([BLOCK_BYTES, 1], True, ["open"]),
        ([BLOCK_BYTES * 2, 7, 9], True, ["open"]),
        ([], False, ["open"]),
        ([10, 20], False, ["open"]),
    ],
)
def test_a_small_object_takes_one_request(sizes: list[int], is_object_store: bool, calls: list[str]) -> None:
    """A large one is sent in parts, and so is all that goes to another kind of storage. It appears at the end."""
    store = ObjectStore(is_object_store)
    upload = upload_to(store)
    chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
    for chunk in chunks:
        upload.write(memoryview(chunk))
        assert store.objects == {}
    upload.commit()
    assert store.objects == {"a/picture.webp": b"".join(chunks)}
    assert (store.calls, store.transaction.files) == (calls, [])


@pytest.mark.parametrize("size", [10, BLOCK_BYTES + 1])
def test_nothing_stays_of_a_failure(size: int) -> None:
    """An upload that was begun is discarded, and closed first: the garbage collector would send what it holds. An error
    of the cleanup does not hide what led to it."""
    store = ObjectStore(async_impl=True)
    upload = upload_to(store)
    upload.write(b"x" * size)
    begun = [*store.transaction.files]
    upload.discard()
    assert (store.objects, store.transaction.files) == ({}, [])
    assert store.discarded == (["a/picture.webp"] if size > BLOCK_BYTES else [])
    assert all(one.closed for one in begun)


def test_a_storage_without_transactions() -> None:
    """A storage that keeps no list of open files has none to be forgotten: the upload is complete all the same."""
    store = ObjectStore(async_impl=False)
    upload = upload_to(store)
    upload.write(b"picture")
    del store.transaction
    upload.commit()
    assert store.objects == {"a/picture.webp": b"picture"}


def test_a_commit_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is the one to report, and the parts that were sent are discarded afterwards."""

    def fail(upload: Upload) -> None:
        raise OSError("no such bucket")

    monkeypatch.setattr(Upload, "commit", fail)
    store = ObjectStore(async_impl=False)
    upload = upload_to(store)
    upload.write(b"picture")
    with pytest.raises(OSError, match="no such bucket"):
        upload.commit()
    upload.discard()
    assert (store.objects, store.discarded, store.transaction.files) == ({}, ["a/picture.webp"], [])


@pytest.mark.parametrize("size", [10, BLOCK_BYTES + 1])
def test_an_object_stays_until_it_is_replaced(size: int) -> None:
    """A repeat that fails leaves the object that was there before; one that succeeds replaces it."""
    store = ObjectStore(async_impl=True)
    store.objects["a/picture.webp"] = b"before"
    failed = upload_to(store)
    failed.write(b"x" * size)
    failed.discard()
    assert store.objects == {"a/picture.webp": b"before"}
    upload = upload_to(store)
    upload.write(b"x" * size)
    upload.commit()
    assert store.objects == {"a/picture.webp": b"x" * size}
