"""What a store must do: nothing twice, everything in time, and one report at the end, in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.cast import FOLDER, OUTLET, names_of
from tests.simulation.causes import AROUND_SECONDS, of_item
from tests.simulation.storage import SUFFIX, path_of
from tests.simulation.story import STRIKES

if TYPE_CHECKING:
    from tests.simulation.database import TaskInstance
    from tests.simulation.process import Process
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

IN_TIME_SECONDS = 140.0
"""So long after it is due a result may be stored: a poll a minute, the first round of a new trigger (another minute), a
start, and the others that are stored with it."""
COUNTED_SECONDS = 100.0
"""A result that has been there for so long counts for a hand-over: a poll a minute, and a start."""
TOGETHER_SECONDS = 20.0
"""What one process stores, it stores within such a time."""
PEACEFUL = ("post", "prediction", "retry", "resume", "poke", "XComs", "change_inputs", "lower_retries", "two")
"""After these a store has no reason to be late."""


class Stores:
    """Follows what stores write and say; ``docs/outputs.md``.

    :param require: is called with whether a rule holds, and with words for the case that it does not.
    """

    def __init__(self, world: World, require: Callable[[bool, str], None]) -> None:
        self._world = world
        self._require = require
        self._complete: dict[str, list[float]] = {}
        self._known: dict[str, list[tuple[float, Process]]] = {}

    # What is written.

    def replaces(self, process: Process, path: str) -> None:
        """Judge the write of an object: what is stored is not written once more by whoever knows that it is."""
        manifest = _manifest_of(path)
        if not self._world.storage.is_complete(manifest):
            return
        attempt = self._world.scheduler.attempt_of(process)
        is_found = any(time < attempt.began_at for time in self._complete.get(manifest, ()))
        is_known = any(other in (process, *attempt.told_by) for _, other in self._known.get(manifest, ()))
        self._require(not is_found and not is_known, f"{process.owner} stores once more what is stored: {path}")

    def wrote(self, process: Process, path: str) -> None:
        """Note that an object is there, whether its process knows it or not."""
        if path.endswith(SUFFIX):
            self._complete.setdefault(path, []).append(self._world.kernel.now)

    def knows(self, process: Process, path: str) -> None:
        """Note that a process knows that an object is there, and judge when that is."""
        if path.endswith(SUFFIX):
            self._known.setdefault(path, []).append((self._world.kernel.now, process))
            self._check_time(self._world.scheduler.attempt_of(process), path)

    def _check_time(self, attempt: Attempt, path: str) -> None:
        """A result does not wait for others, unless something has happened that explains it."""
        world = self._world
        prediction_id = path.rpartition("/")[2].removesuffix(SUFFIX)
        due = max(attempt.began_at, world.api.predictions[prediction_id].ended_at)
        late = world.kernel.now - due - world.cast.options["hand_over_seconds"]
        words = f"{attempt.row.name} stores {prediction_id} {late:.0f} s too late"
        self._require(late < IN_TIME_SECONDS or not self._is_peaceful(attempt), words)
        waiting = [key for key, _, _ in _items(attempt) if key is not None and self._has_waited(attempt, key)]
        words = f"{len(waiting)} results wait for others, and {attempt.row.name} does not store them: {waiting}"
        is_in_time = len(waiting) < world.cast.options["hand_over_count"]
        self._require(is_in_time or not self._is_peaceful(attempt), words)

    def _has_waited(self, attempt: Attempt, prediction_id: str) -> bool:
        """Return whether a result has been there for so long that it counts for a hand-over, and is stored only now."""
        now, made = self._world.kernel.now, self._world.api.predictions[prediction_id]
        stored = self._known.get(f"{path_of(FOLDER)}/{prediction_id}{SUFFIX}", ())
        is_old = max(attempt.began_at, made.ended_at) < now - COUNTED_SECONDS and not made.is_bad
        return is_old and not any(time < now - TOGETHER_SECONDS for time, _ in stored)

    def _is_peaceful(self, attempt: Attempt) -> bool:
        for time, label in self._world.happened:
            since = attempt.began_at - (0.0 if label in STRIKES else AROUND_SECONDS)
            if time >= since and label not in PEACEFUL:
                return False
        faults = [time for made in self._world.api.predictions.values() for time, _ in made.faults]
        return not any(time >= attempt.began_at - AROUND_SECONDS for time in faults)

    # What is said.

    def left(self, row: TaskInstance, text: str) -> None:
        """Check what a store leaves in Airflow's database: no result, neither in a trigger nor in an event."""
        if row.task_id == "store":
            words = [word for word in ("delivery.example.com", '"summary"', '"output"', "sha256") if word in text]
            self._require(not words, f"{row.name} leaves a result in the database ({words}): {text[:300]}")

    def ended(self, attempt: Attempt, state: str) -> None:
        """Judge how a store has ended: what it reports comes once, at the end."""
        row, event = attempt.row, attempt.outlet_events[_outlet()].extra
        if state == "success":
            self._require(attempt.pushed == ["return_value"], f"{row.name} has left the XComs {attempt.pushed}")
            self._check_result(attempt, event)
            return
        if state == "deferred":
            self._require(
                not attempt.pushed and not event, f"{row.name} reports before its end: {attempt.pushed} {event}"
            )
        if "stored" in attempt.pushed and str(attempt.error) != "execution_timeout":  # else it could not say why
            self._check_others(attempt)

    def _check_result(self, attempt: Attempt, event: dict[str, Any]) -> None:
        """All that can be stored is stored, each item in its place, and the event says the same."""
        items = [*_items(attempt, attempt.row.xcoms.get("return_value"))]
        results: dict[str, Any] = {}
        for prediction_id, name, stored in items:
            if prediction_id is None:
                self._require(stored is None, f"{attempt.row.name}: something is stored of no prediction: {stored}")
            elif stored is None:
                why = of_item(self._world, attempt, prediction_id)
                self._require(bool(why), f"{attempt.row.name} ends without {prediction_id}, and without a reason")
            else:
                self._check_stored(attempt, prediction_id, name, stored)
                results.setdefault(prediction_id, stored)
        files = [
            {"uri": file["uri"], "name": stored["name"], "prediction_id": prediction_id}
            for prediction_id, stored in results.items()
            for file in stored["files"]
        ]
        wanted = {
            "prediction_ids": [*results],
            "names": [stored["name"] for stored in results.values()],
            "manifests": [stored["manifest"] for stored in results.values()],
            "files": files,
            "file_count": len(files),
        }
        self._require({**event} == wanted, f"{attempt.row.name} has sent the event {event}, and not {wanted}")

    def _check_others(self, attempt: Attempt) -> None:
        """A task that fails because of some items has stored the others, and says where."""
        for prediction_id, name, stored in _items(attempt, attempt.row.xcoms.get("stored")):
            if prediction_id is not None and stored is None:
                is_named = prediction_id in str(attempt.error)
                self._require(is_named, f"{attempt.row.name} fails without {prediction_id}, and does not say why")
            elif prediction_id is not None:
                self._check_stored(attempt, prediction_id, name, stored)

    def _check_stored(self, attempt: Attempt, prediction_id: str, name: str | None, stored: dict[str, Any]) -> None:
        """What a result names is there, and is what the prediction has made."""
        storage, require, row = self._world.storage, self._require, attempt.row
        require(stored["prediction_id"] == prediction_id, f"{prediction_id}: stored is {stored['prediction_id']}")
        require(stored["name"] == name, f"{prediction_id}: its name is {stored['name']}, and not {name}")
        paths = [path_of(stored["manifest"]), *[path_of(file["uri"]) for file in stored["files"]]]
        if any(storage.torn.get(path, row.name) != row.name for path in paths):
            return  # by another run, which is not done
        manifest = json.loads(storage.objects[paths[0]])
        require(manifest["prediction_id"] == prediction_id, f"the manifest of {prediction_id} is another one's")
        made = self._world.api.predictions[prediction_id]
        for file in stored["files"]:
            content = storage.objects.get(path_of(file["uri"]), b"")
            require(content == made.content(), f"{file['uri']} does not hold what {prediction_id} has made")
            require(hashlib.sha256(content).hexdigest() == file["sha256"], f"{file['uri']}: another digest")
        is_empty = made.end == "empty"  # which a wait with "keep" hands over
        require(bool(stored["files"]) or is_empty, f"{prediction_id}: no file is stored")


def _items(attempt: Attempt, value: Any = None) -> Iterator[tuple[str | None, str | None, Any]]:
    """Yield for each item that a store was given its id, its name, and what is stored."""
    given = attempt.operator.prediction
    value = [None] * len(given) if value is None and isinstance(given, list) else value
    is_list = isinstance(given, list)
    named = attempt.operator.names is not None
    names = names_of(given) if named else None
    given, value = (given, value) if is_list else ([given], [value])
    names = [None] * len(given) if not named else names if is_list else [names]
    for item, name, stored in zip(given, names, value, strict=True):
        yield item["id"] if isinstance(item, dict) else item, name, stored


def _manifest_of(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return path if name.endswith(SUFFIX) else f"{folder}/{name.rpartition('-')[0]}{SUFFIX}"


def _outlet() -> Any:
    from airflow.sdk import Asset

    return Asset(OUTLET)
