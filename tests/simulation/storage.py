"""Object storage in a simulated world: shared by all runs; it fails, and takes what it says it has not taken."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from fsspec.spec import AbstractFileSystem

if TYPE_CHECKING:
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

PROTOCOL = "s3"
FAILURES = ("refused", "lost", "torn")
"""What may become of an operation: it has no effect; it has, and the answer is lost; half of it has."""


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

    def operate(self, kind: str, path: str, apply: Any, tear: Any = None) -> Any:
        """Let an operation happen, or fail.

        :param tear: makes half of it happen.
        """
        number = self.world.count("file")
        failure = self.world.story.failure_of_file(number)
        process = self.world.kernel.current.process  # type: ignore[union-attr]
        if failure is not None:
            failure = "refused" if failure == "torn" and tear is None else failure
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

        kind = type("SimulatedFileSystem", (SimulatedFileSystem,), {"storage": self, "cachable": False})
        store._STORE_CACHE.clear()
        known = {PROTOCOL: lambda conn_id, options: kind()}
        with mock.patch.object(fs, "_register_filesystems", return_value=known):
            yield
        store._STORE_CACHE.clear()

    def check_stored(self, attempt: Attempt) -> None:
        """Check that a task that has stored predictions has stored each of them, and in its place."""
        world, require = self.world, self.world.invariants.require
        given, value = attempt.operator.prediction, attempt.row.xcoms.get("return_value")
        pairs = zip(given, value, strict=True) if isinstance(given, list) else [(given, value)]
        for prediction, stored in pairs:
            if stored is None:
                continue
            prediction_id = prediction["id"] if isinstance(prediction, dict) else prediction
            require(stored["prediction_id"] == prediction_id, f"{prediction_id}: stored is {stored['prediction_id']}")
            paths = [_path(stored["manifest"]), *[_path(file["uri"]) for file in stored["files"]]]
            if any(self.torn.get(path, attempt.row.name) != attempt.row.name for path in paths):
                continue  # by another run, which is not done
            manifest = json.loads(self.objects[paths[0]])
            require(manifest["prediction_id"] == prediction_id, f"the manifest of {prediction_id} is another one's")
            for file in stored["files"]:
                content = self.objects.get(_path(file["uri"]), b"")
                made = world.api.predictions[prediction_id].content()
                require(content == made, f"{file['uri']} does not hold what {prediction_id} has made")
                require(hashlib.sha256(content).hexdigest() == file["sha256"], f"{file['uri']}: another digest")
            is_empty = world.api.predictions[prediction_id].end == "empty"  # which a wait with "keep" hands over
            require(bool(stored["files"]) or is_empty, f"{prediction_id}: no file is stored")

    def at_rest(self) -> None:
        """Check that no upload is left open, and that each manifest names what is there."""
        for process, _ in self.uploads.values():
            self.world.invariants.require(process.is_dead, "an upload is left open")
        for path in self.objects:
            self.check_manifest(path)

    def check_manifest(self, path: str) -> None:
        """Check that a manifest names what is there: it is written last, as the mark that all of it is there."""
        if not path.endswith(".manifest.json") or path in self.torn:
            return
        for file in json.loads(self.objects[path])["files"]:
            if _path(file["uri"]) in self.torn:  # another try has begun to store it anew
                continue
            stored = self.objects.get(_path(file["uri"]))
            digest = None if stored is None else hashlib.sha256(stored).hexdigest()
            require = self.world.invariants.require
            require(digest == file["sha256"], f"{path} names {file['uri']}, which is not there, or another one")


class SimulatedFileSystem(AbstractFileSystem):
    """What fsspec knows of the storage: only what the product uses."""

    protocol = PROTOCOL
    storage: Storage

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, **_: Any) -> Any:
        if mode == "rb":
            return self.storage.operate("read", path, lambda: io.BytesIO(self._content(path)))
        return _Upload(self.storage, path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        def apply() -> dict[str, Any]:
            return {"name": path, "size": len(self._content(path)), "type": "file"}

        result: dict[str, Any] = self.storage.operate("info", path, apply)
        return result

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        return bytes(self.storage.operate("read", path, lambda: self._content(path)))

    def _content(self, path: str) -> bytes:
        try:
            return self.storage.objects[_path(path)]
        except KeyError:
            raise FileNotFoundError(path) from None


class _Upload:
    """An upload: nothing is there before it is committed."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = _path(path)
        self._parts: list[bytes] = []
        self.closed = False
        storage.operate("begin", self._path, lambda: None)
        process = storage.world.kernel.current.process  # type: ignore[union-attr]
        others = [other for other, path in storage.uploads.values() if path == self._path and not other.is_dead]
        if any(other.owner != process.owner for other in others):
            storage.world.met_by(process, "two runs store")
        storage.uploads[id(self)] = process, self._path

    def write(self, data: Any) -> int:
        self._storage.operate("write", self._path, lambda: self._parts.append(bytes(data)))
        return len(data)

    def close(self) -> None:
        self.closed = True

    def commit(self) -> None:
        def apply() -> None:
            self._storage.objects[self._path] = content = b"".join(self._parts)
            self._storage.world.left("a file", content.decode("latin-1"))
            self._storage.torn.pop(self._path, None)
            self._storage.uploads.pop(id(self), None)
            self._storage.check_manifest(self._path)

        def tear() -> None:
            content = b"".join(self._parts)
            self._storage.objects[self._path] = content[: len(content) // 2]
            self._storage.torn[self._path] = self._storage.world.kernel.current.process.owner  # type: ignore[union-attr]

        self._storage.operate("commit", self._path, apply, tear)

    def discard(self) -> None:
        self._storage.world.effect("file", f"discard {self._path}", 0.05)
        self._storage.uploads.pop(id(self), None)


def _path(uri: str) -> str:
    return uri.partition("://")[2].rpartition("@")[2] or uri
