"""Object storage in a simulated world: shared by all runs; it fails, and takes what it says it has not taken."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from fsspec.spec import AbstractFileSystem

from airflow_provider_comet.outputs import object_upload

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

PROTOCOL = "s3"
SUFFIX = ".manifest.json"
"""Of the name of a manifest; before it is the prediction's id."""
FAILURES = ("refused", "lost", "torn")
"""What may become of an operation: it has no effect; it has, and the answer is lost; half of it has. An object store
never tears an object: whether it is sent at once or in parts, it is there as a whole, or not at all."""
SMALL_BYTES = 20
"""No object is as small as that."""


class Storage:
    """What is stored, by path.

    :ivar uploads: the uploads that were begun and neither committed nor discarded, with their process and path.
    :ivar torn: the paths of which only half was stored, each with the task instance that did so.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[int, Any] = {}
        self.torn: dict[str, str] = {}
        self.failures: list[tuple[float, str]] = []
        kind = world.cast.options["storage"]
        self.is_object_store = kind != "others"
        self.block_bytes = SMALL_BYTES if kind == "parts" else object_upload.BLOCK_BYTES

    def operate(self, kind: str, path: str, apply: Any, tear: Any = None) -> Any:
        """Let an operation happen, or fail.

        :param tear: makes half of it happen.
        """
        number = self.world.count("file")
        failure = self.world.story.failure_of_file(number)
        process = self._process
        if failure is not None:
            failure = "refused" if failure == "torn" and (tear is None or self.is_object_store) else failure
            self.world.met_by(process, f"file {kind} {failure}")
            self.failures.append((self.world.kernel.now, failure))
        if failure == "refused":
            self.world.effect("file", f"{kind} {path}: refused", 0.05)
            raise OSError("503 SlowDown")
        result = self.world.effect("file", f"{kind} {path}", 0.05, tear if failure == "torn" else apply)
        if failure is not None:
            raise OSError("connection reset")
        return result

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Make ``sim://`` this storage."""
        from airflow.sdk.io import fs, store

        names = {"storage": self, "cachable": False, "async_impl": self.is_object_store}
        kind = type("SimulatedFileSystem", (SimulatedFileSystem,), names)
        store._STORE_CACHE.clear()
        known = {PROTOCOL: lambda conn_id, options: kind()}
        with mock.patch.object(fs, "_register_filesystems", return_value=known):
            yield
        store._STORE_CACHE.clear()

    def begins(self, upload: object, path: str) -> None:
        """Note that a process is about to write an object."""
        process = self._process
        others = [other for other, other_path in self.uploads.values() if other_path == path and not other.is_dead]
        if any(other.owner != process.owner for other in others):
            self.world.met_by(process, "two runs store")
        self.uploads[id(upload)] = process, path

    def put(self, kind: str, path: str, content: bytes) -> None:
        """Replace an object, unless that fails."""
        process, stores = self._process, self.world.invariants.stores

        def apply() -> None:
            stores.replaces(process, path)
            self.objects[path] = content
            self.world.left("a file", content.decode("latin-1"))
            self.torn.pop(path, None)
            self.check_manifest(path)
            stores.wrote(process, path)

        def tear() -> None:
            stores.replaces(process, path)
            self.objects[path] = content[: len(content) // 2]
            self.torn[path] = process.owner

        self.operate(kind, path, apply, tear)
        stores.knows(process, path)

    def at_rest(self) -> None:
        """Check that no upload is left open, and that each manifest names what is there."""
        for process, _ in self.uploads.values():
            self.world.invariants.require(process.is_dead, "an upload is left open")
        for path in self.objects:
            self.check_manifest(path)

    def check_manifest(self, path: str) -> None:
        """Check that a manifest names what is there: it is written last, as the mark that all of it is there."""
        if not path.endswith(SUFFIX) or path in self.torn:
            return
        for file in json.loads(self.objects[path])["files"]:
            if path_of(file["uri"]) not in self.torn:  # another try has begun to store it anew
                require = self.world.invariants.require
                require(self.holds(file), f"{path} names {file['uri']}, which is not there, or another one")

    def holds(self, file: Mapping[str, Any]) -> bool:
        """Return whether a file that a manifest names is there, as it should be."""
        content = self.objects.get(path_of(file["uri"]))
        return content is not None and hashlib.sha256(content).hexdigest() == file["sha256"]

    def is_complete(self, path: str) -> bool:
        """Return whether there is a manifest, and all that it names."""
        if path not in self.objects or path in self.torn:
            return False
        return all(map(self.holds, json.loads(self.objects[path])["files"]))

    @property
    def _process(self) -> Process:
        assert self.world.kernel.current is not None
        return self.world.kernel.current.process


class SimulatedFileSystem(AbstractFileSystem):
    """What fsspec knows of the storage: only what the product uses."""

    protocol = PROTOCOL
    storage: Storage

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **_: Any) -> Any:
        if mode == "rb":
            return self.storage.operate("read", path, lambda: io.BytesIO(self._content(path)))
        return _Upload(self.storage, path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        place, upload = path_of(path), object()
        self.storage.begins(upload, place)
        try:
            self.storage.put("put", place, value)
        finally:
            del self.storage.uploads[id(upload)]

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        return bytes(self.storage.operate("read", path, lambda: self._content(path)[start:end]))

    def _content(self, path: str) -> bytes:
        try:
            return self.storage.objects[path_of(path)]
        except KeyError:
            raise FileNotFoundError(path) from None


class _Upload:
    """An upload: nothing is there before it is committed."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path_of(path)
        self._parts: list[bytes] = []
        self.closed = False
        storage.operate("begin", self._path, lambda: None)
        storage.begins(self, self._path)

    def write(self, data: Any) -> int:
        self._storage.operate("write", self._path, lambda: self._parts.append(bytes(data)))
        return len(data)

    def close(self) -> None:
        self.closed = True

    def commit(self) -> None:
        self._storage.put("commit", self._path, b"".join(self._parts))
        self._storage.uploads.pop(id(self), None)

    def discard(self) -> None:
        self._storage.world.effect("file", f"discard {self._path}", 0.05)
        self._storage.uploads.pop(id(self), None)


def path_of(uri: str) -> str:
    """Return where an object is, without protocol and connection."""
    return uri.partition("://")[2].rpartition("@")[2] or uri
