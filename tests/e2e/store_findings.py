"""What became of a run that stores many predictions, by three witnesses: the folder, the emulator and Airflow."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import threading
import urllib.parse
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.e2e.rest import RestError

if TYPE_CHECKING:
    from tests.e2e.store_run import Run

FILES_AT_ONCE = 4
"""Downloads of one task at the same time: as in ``outputs/writer.py``, whose import would configure Airflow here."""
QUERY = "/replicate/v1/predictions/"
DELIVERY = "/delivery/"
SUFFIX = ".manifest.json"
CHECK_EVERY_SECONDS = 0.25


class Folder:
    """Watches a folder within a ``with`` block: a name whose file is another one later was written twice.

    :ivar versions: of each visible name, the files that stood under it: inode and time of the last change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.versions: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Folder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._check()

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_EVERY_SECONDS):
            self._check()

    def _check(self) -> None:
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:  # nothing is stored yet
            for entry in entries:
                if not entry.name.startswith("."):
                    stat = entry.stat()
                    self.versions[entry.name].add((stat.st_ino, stat.st_mtime_ns))

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Return the manifests by prediction id."""
        paths = self.path.glob(f"*{SUFFIX}")
        return {path.name.removesuffix(SUFFIX): json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def written_at(self, prediction_id: str) -> float:
        """Return when a manifest was written, in seconds since 1970."""
        return (self.path / f"{prediction_id}{SUFFIX}").stat().st_mtime


@dataclass
class Findings:
    """Figures of a run, and everything that is not as it must be.

    :param logs: of each try of the task that stores, as Airflow shows it.
    """

    name: str
    figures: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        return f"{self.name}: {figures}\n   {'; '.join(self.wrong) or 'ok'}"

    def expect(self, what: str, expected: object, found: object) -> None:
        """Note a difference."""
        if found != expected:
            shown = f"{found!r} instead of {expected!r}"
            self.wrong.append(f"{what}: {shown[:300]}")

    @classmethod
    def of(cls, run: Run, folder: Folder, seconds: float) -> Findings:
        """Compare the witnesses, when the run has ended."""
        found = cls(run.variant.name)
        rest, count = run.airflow.rest, run.plan.count
        tries = {ti["task_id"]: ti["try_number"] for ti in rest.task_instances("store", run.run_id)}
        found.logs = [
            rest.log("store", run.run_id, "store", try_number=number) for number in range(1, tries["store"] + 1)
        ]
        ledger = run.emulator.ledger()
        ids = [create["id"] for create in ledger["creates"]]
        found.expect("state of the run", "success", rest.run_state("store", run.run_id))
        found.expect("accepted creates", count, len({*ids}))
        manifests = folder.manifests()
        found.expect("not stored", [], sorted({*ids} - {*manifests}))
        found.expect("manifests of others", [], sorted({*manifests} - {*ids}))
        found._check_files(folder, manifests, ledger)
        found._check_airflow(run, folder, manifests)
        found._check_downloads(run, folder, manifests, ledger)
        found._count(run, manifests, ledger, tries["store"], seconds)
        return found

    def _check_files(self, folder: Folder, manifests: dict[str, Any], ledger: dict[str, Any]) -> None:
        """The files are those that were delivered, and nothing was written twice but what had no manifest yet."""
        delivered = {entry["id"]: entry["sha256"] for entry in ledger["served"]}
        files: dict[str, str] = {}
        for prediction_id, manifest in manifests.items():
            (file,) = manifest["files"]
            path = folder.path / Path(file["uri"]).name
            files[path.name] = prediction_id
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self.expect(f"content of {path.name}", [delivered.get(prediction_id)] * 2, [digest, file["sha256"]])
        visible = {path.name for path in folder.path.glob("[!.]*")}
        self.expect("other files", set(), visible - {*files} - {f"{key}{SUFFIX}" for key in manifests})
        self.expect("parts of files", [], [path.name for path in folder.path.glob(".*")])
        twice = {name for name, versions in folder.versions.items() if len(versions) > 1}
        self.expect("manifests written twice", set(), {name for name in twice if name.endswith(SUFFIX)})
        self.figures["files written twice"] = len(twice)

    def _check_airflow(self, run: Run, folder: Folder, manifests: dict[str, Any]) -> None:
        """Result and event have all predictions in their order, with their names, and the event came once."""
        rest = run.airflow.rest
        created = rest.xcom("store", run.run_id, "create")
        try:
            result = rest.xcom("store", run.run_id, "store")
        except RestError as error:
            self.wrong.append(f"no result: {error}")
            return
        names = [f"SKU-{number}" for number in range(len(created))]
        self.expect("result", [*zip(created, names, strict=True)], [(r["prediction_id"], r["name"]) for r in result])
        self.expect("names in manifests", names, [manifests[key]["name"] for key in created])
        self.expect(
            "manifests of the result",
            [str(folder.path / f"{key}{SUFFIX}") for key in created],
            [urllib.parse.urlsplit(r["manifest"]).path for r in result],
        )
        found = rest.send("GET", f"/api/v2/assets/events?source_run_id={urllib.parse.quote(run.run_id, safe='')}")
        extras = [event["extra"] for event in found["asset_events"]]
        self.expect("asset events", [len(created)], [extra["file_count"] for extra in extras])
        for extra in extras:
            self.expect("predictions of the event", [created, names], [extra["prediction_ids"], extra["names"]])

    def _check_downloads(self, run: Run, folder: Folder, manifests: dict[str, Any], ledger: dict[str, Any]) -> None:
        """A file is fetched once, and again only if a kill came between; what has a manifest is not fetched again."""
        kills = [at for kind, at in run.kills if kind != "triggerer"]
        fetched: dict[str, list[float]] = defaultdict(list)
        for request in ledger["requests"]:
            if request["path"].startswith(DELIVERY) and request["status"] == 200:
                fetched[request["path"].split("/")[2]].append(request["at"])
        without_kill = [
            key
            for key, times in fetched.items()
            for first, second in itertools.pairwise(times)
            if not any(first <= kill <= second for kill in kills)
        ]
        self.expect("fetched again without a kill", [], without_kill)
        stored = {key: folder.written_at(key) for key in manifests}
        after = [key for key, times in fetched.items() if key in stored and times[-1] > stored[key]]
        self.expect("fetched again although stored", [], after)
        logged = re.findall(r"comet\.stored id=(\w+)", "\n".join(self.logs))
        self.expect("logged as stored twice", [], sorted({key for key in logged if logged.count(key) > 1}))
        again = sum(len(times) - 1 for times in fetched.values())
        if again > FILES_AT_ONCE * len(kills):
            self.wrong.append(f"{again} files were fetched again after {len(kills)} kills")
        whole = sum(entry["sent"] == entry["bytes"] for entry in ledger["served"])
        statuses = [request["status"] for request in ledger["requests"] if request["path"].startswith(DELIVERY)]
        expired = sum(status in (403, 404) for status in statuses)
        if not run.variant.are_refreshed:
            self.expect("expired links", 0, expired)
        ages = sorted(times[0] - _seconds(manifests[key]["completed_at"]) for key, times in fetched.items() if times)
        self.figures |= {
            "downloads": len(ledger["served"]),
            "of them whole": whole,
            "files fetched again": again,
            "expired": expired,
            "first fetched after its end (median, most)": f"{ages[len(ages) // 2]:.1f}, {ages[-1]:.1f} s",
        }

    def _count(self, run: Run, manifests: dict[str, Any], ledger: dict[str, Any], tries: int, seconds: float) -> None:
        log = "\n".join(self.logs)
        polls = [(r["path"].removeprefix(QUERY), r["at"]) for r in ledger["requests"] if r["path"].startswith(QUERY)]
        ends = {key: _seconds(manifest["completed_at"]) for key, manifest in manifests.items()}
        after_end = sum(at >= ends[key] for key, at in polls if key in ends)
        # From the workers' lines: at each deferral, Airflow begins the triggerer's part of an attempt's log anew.
        counts = [int(stored) for stored in re.findall(r"(\d+) of \d+ predictions are stored\b(?! already)", log)]
        kinds = [kind for kind, _ in run.kills]
        self.figures = {
            "hand-overs": len(counts),
            "kills": ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "none",
            "tries": tries,
            "starts of the task": len(run.processes()),
            **self.figures,
            "links asked for again": log.count("requesting a new one"),
            "polls": len(polls),
            "polls after the end": after_end,
            "seconds": round(seconds),
        }
        self.expect("kills", list(run.variant.kills), kinds)
        if len(counts) < 3:
            self.wrong.append(f"only {len(counts)} hand-overs")
        self.expect("counts in the log", sorted(counts), counts)
        self.expect("the last count", run.plan.count, counts[-1] if counts else None)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
