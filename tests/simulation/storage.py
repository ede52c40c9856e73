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
FAILURES = ("refused", "lost")
"""What may become of an operation: it has no effect, or it has, and the answer is lost."""


class Storage:
    """What is stored, by path.

    :ivar uploads: the uploads that were begun and neither committed nor discarded, with their process.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[int, Any] = {}

    def operate(self, kind: str, path: str, apply: Any) -> Any:
        """Let an operation happen, or fail."""
        number = self.world.count("file")
        failure = self.world.story.failure_of_file(number)
        process = self.world.kernel.current.process  # type: ignore[union-attr]
        if failure is not None:
            self.world.met(f"file {failure}", process.owner)
        if failure == "refused":
            self.world.effect("file", f"{kind} {path}: refused", 0.05)
            raise OSError("503 SlowDown")
        result = self.world.effect("file", f"{kind} {path}", 0.05, apply)
        if failure == "lost":
            raise OSError("connection reset")
        return result

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Make ``sim://`` this storage."""
        from airflow.sdk.io import fs, store

        kind = type("SimulatedFileSystem", (SimulatedFileSystem,), {"storage": self, "cachable": False})
        store._STORE_CACHE.clear()
        with mock.patch.object(fs, "_register_filesystems", lambda: {PROTOCOL: lambda conn_id, options: kind()}):
            yield
        store._STORE_CACHE.clear()

    def check_stored(self, attempt: Attempt) -> None:
        """Check that a task that has stored predictions has stored each of them, and in its place."""
        world, require = self.world, self.world.invariants._require
        given, value = attempt.operator.prediction, attempt.row.xcoms.get("return_value")
        pairs = zip(given, value, strict=True) if isinstance(given, list) else [(given, value)]
        for prediction, stored in pairs:
            if stored is None:
                continue
            prediction_id = prediction["id"] if isinstance(prediction, dict) else prediction
            require(stored["prediction_id"] == prediction_id, f"{prediction_id}: stored is {stored['prediction_id']}")
            manifest = json.loads(self.objects[_path(stored["manifest"])])
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
        for process in self.uploads.values():
            self.world.invariants._require(process.is_dead, "an upload is left open")
        for path in self.objects:
            self.check_manifest(path)

    def check_manifest(self, path: str) -> None:
        """Check that a manifest names what is there: it is written last, as the mark that all of it is there."""
        if path.endswith(".manifest.json"):
            for file in json.loads(self.objects[path])["files"]:
                stored = self.objects.get(_path(file["uri"]))
                digest = None if stored is None else hashlib.sha256(stored).hexdigest()
                require = self.world.invariants._require
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
        storage.uploads[id(self)] = storage.world.kernel.current.process  # type: ignore[union-attr]

    def write(self, data: Any) -> int:
        self._storage.operate("write", self._path, lambda: self._parts.append(bytes(data)))
        return len(data)

    def close(self) -> None:
        self.closed = True

    def commit(self) -> None:
        def apply() -> None:
            self._storage.objects[self._path] = b"".join(self._parts)
            self._storage.uploads.pop(id(self), None)
            self._storage.check_manifest(self._path)

        self._storage.operate("commit", self._path, apply)

    def discard(self) -> None:
        self._storage.world.effect("file", f"discard {self._path}", 0.05)
        self._storage.uploads.pop(id(self), None)


def _path(uri: str) -> str:
    return uri.partition("://")[2].rpartition("@")[2] or uri
