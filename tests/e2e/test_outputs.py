"""Outputs stored by real Airflow processes: another DAG runs for them, and a killed worker leaves no visible half."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.rest import FINISHED
from tests.e2e.restart_run import created
from tests.e2e.standalone import Standalone
from tests.support.s3 import S3, s3_server

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "example_dags"
FILM_BYTES = 40_000_000


@contextlib.contextmanager
def airflow_for(home: Path, dags: Path, emulator: Emulator, **env: str) -> Iterator[Standalone]:
    """An Airflow that stores below its home unless told otherwise."""
    (home / "notes").mkdir(parents=True)
    settings = {
        "AIRFLOW_CONN_COMETAPI_DEFAULT": emulator.connection_json(),
        "OUTPUTS_FOLDER": f"file://{home}/pictures",
        "OUTPUTS_LOCAL": f"file://{home}/local",
        "OUTPUTS_S3": "s3://store@bucket/films",
        "OUTPUTS_NOTES": str(home / "notes"),
        "COMET_PICTURES": f"file://{home}/pictures",
        **env,
    }
    with Standalone(dags_folder=dags, home=home / "airflow", env=settings) as airflow:
        yield airflow


def finish(airflow: Standalone, dag_id: str, run_id: str, timeout: float = 240.0, pause: float = 0.5) -> str:
    until(f"{dag_id} has finished", lambda: airflow.rest.run_state(dag_id, run_id) in FINISHED, timeout, pause)
    return airflow.rest.run_state(dag_id, run_id)


def content(uri: str) -> bytes:
    return Path(urlsplit(uri).path).read_bytes()


def test_new_pictures_start_another_dag(tmp_path: Path) -> None:
    """The second DAG of the example runs because there are new pictures, and reads which from the event."""
    with Emulator(duration=1) as emulator, airflow_for(tmp_path, EXAMPLES, emulator) as airflow:
        rest = airflow.rest
        rest.make_pool("cometapi", 2)
        rest.wait_for_dag("example_new_pictures")
        rest.wait_for_dag("example_prediction_to_storage")
        rest.unpause("example_new_pictures")
        run = rest.trigger("example_prediction_to_storage")
        assert finish(airflow, "example_prediction_to_storage", run) == "success"
        stored = rest.xcom("example_prediction_to_storage", run, "store")
        files = {item["files"][0]["uri"] for item in stored}

        def shown() -> set[str]:
            runs = rest.runs("example_new_pictures")
            succeeded = [run["dag_run_id"] for run in runs if run["state"] == "success"]
            assert all(run["run_type"] == "asset_triggered" for run in runs)
            return {uri for run_id in succeeded for uri in rest.xcom("example_new_pictures", run_id, "show") or []}

        until("the second DAG has seen all pictures", lambda: shown() == files, 180)
        served = {file["id"]: file["sha256"] for file in emulator.ledger()["served"]}
        for item in stored:
            digest = hashlib.sha256(content(item["files"][0]["uri"])).hexdigest()
            assert digest == item["files"][0]["sha256"] == served[item["prediction_id"]]


def test_a_list_in_one_task(tmp_path: Path) -> None:
    """One sensor waits for all, one task stores all. If some have failed, the others are stored and named in XCom
    `stored`, the reasons are listed, and no other DAG runs; if none has, the DAGs that its asset and its alias
    schedule run, and read from the event what was stored."""
    following = ("by_asset", "by_alias")
    with (
        Emulator(duration=0.5) as emulator,
        airflow_for(tmp_path, HERE / "output_dags", emulator) as airflow,
    ):
        rest = airflow.rest
        for dag_id in ("listed", *following):
            rest.wait_for_dag(dag_id)
            rest.unpause(dag_id)
        prompts = [f"{'nsfw' if number in {0, 3} else 'picture'} {number}" for number in range(6)]
        run = rest.trigger("listed", {"prompts": prompts})
        assert finish(airflow, "listed", run) == "failed"
        ids = [rest.xcom("listed", run, "create", map_index=index) for index in range(6)]
        stored = rest.xcom("listed", run, "store", key="stored")
        assert [item and item["prediction_id"] for item in stored] == [None, *ids[1:3], None, *ids[4:]]
        log = rest.log("listed", run, "store")
        assert "Some predictions have no result: 2 of 6." in log
        for number in (0, 3):
            assert f"Prediction {ids[number]}: the model refused the input: NSFW" in log
        assert [rest.runs(dag_id) for dag_id in following] == [[], []]

        run = rest.trigger("listed", {"prompts": prompts[1:3]})
        assert finish(airflow, "listed", run) == "success"
        result = rest.xcom("listed", run, "store")
        extra = {
            "prediction_ids": [item["prediction_id"] for item in result],
            "names": [None, None],
            "manifests": [item["manifest"] for item in result],
            "files": [
                {"uri": item["files"][0]["uri"], "name": None, "prediction_id": item["prediction_id"]}
                for item in result
            ],
            "file_count": 2,
        }
        for dag_id in following:
            until(f"{dag_id} has run", lambda dag_id=dag_id: [run["state"] for run in rest.runs(dag_id)] == ["success"])
            (ran,) = rest.runs(dag_id)
            assert ran["run_type"] == "asset_triggered"
            assert rest.xcom(dag_id, ran["dag_run_id"], "read") == [extra]
        served = {file["id"]: file["sha256"] for file in emulator.ledger()["served"]}
        assert check_stored(tmp_path / "pictures") == served
        assert len(served) == 6


def test_a_killed_worker_leaves_no_visible_half(tmp_path: Path) -> None:
    """The process of the task is killed during a film; no part of it is ever visible, and the next try stores it."""
    with (
        s3_server() as s3,
        Emulator(duration=0, file_bytes=FILM_BYTES) as emulator,
        airflow_for(tmp_path, HERE / "output_dags", emulator, AIRFLOW_CONN_STORE=s3.connection) as airflow,
    ):
        emulator.fault(path="/delivery/", slow=4_000_000, count=2)
        prediction = created(emulator)
        name = f"{prediction}-0.webp"
        airflow.rest.wait_for_dag("killed")
        run = airflow.rest.trigger("killed", {"id": prediction})
        watch = Watch(tmp_path / "local", s3, name)
        for task_id, is_underway in watch.is_underway.items():
            until(f"{task_id} is storing the film", is_underway)
            watch.check()
            os.kill(int((tmp_path / "notes" / f"{task_id}.1.pid").read_text()), signal.SIGKILL)
        until("the run has finished", lambda: watch.check() or airflow.rest.run_state("killed", run) in FINISHED)
        tries = {ti["task_id"]: ti["try_number"] for ti in airflow.rest.task_instances("killed", run)}
        assert (airflow.rest.run_state("killed", run), tries) == ("success", {"local": 2, "s3": 2})
        served = {file["sha256"] for file in emulator.ledger()["served"]}
        assert served == {hashlib.sha256((tmp_path / "local" / name).read_bytes()).hexdigest()}
        assert served == {hashlib.sha256(s3.content(f"films/{name}")).hexdigest()}
        assert watch.sizes == {FILM_BYTES}
        print(f"checked folder and bucket {watch.checks} times: only whole files of {FILM_BYTES} bytes were visible")


class Watch:
    """Checks what is visible in folder and bucket.

    :param folder: of the local files.
    """

    def __init__(self, folder: Path, s3: S3, name: str) -> None:
        self.checks = 0
        self.sizes: set[int] = set()
        self.is_underway: dict[str, Callable[[], bool]] = {
            "local": lambda: any(path.stat().st_size > 4_000_000 for path in folder.glob(f".{name}.*.part")),
            "s3": lambda: bool(s3.unfinished()),
        }
        self._folder = folder
        self._s3 = s3
        self._name = name

    def check(self) -> None:
        """Note the sizes under the film's name."""
        self.checks += 1
        path = self._folder / self._name
        if path.exists():
            self.sizes.add(path.stat().st_size)
        if (size := self._s3.objects().get(f"films/{self._name}")) is not None:
            self.sizes.add(size)


# The batch.

# 500 take Airflow half an hour on two cores: OUTPUTS_PROMPTS=500 OUTPUTS_CREATES_PER_SECOND=5 make e2e
PROMPTS = int(os.environ.get("OUTPUTS_PROMPTS", "60"))
REJECTED, REFUSED = 5, 5
# Tasks are processes that have to start: four at once never come to five creates a second. But two that start together
# meet a limit of one.
CREATES_PER_SECOND = float(os.environ.get("OUTPUTS_CREATES_PER_SECOND", "1"))
CREATES_AT_ONCE = 2
RETENTION_SECONDS = 0.6 * PROMPTS / CREATES_PER_SECOND  # less than all creates take, whatever the machine
REJECTION = {"error": {"message": "this prompt is refused", "type": "comet_api_error", "code": "invalid_request"}}


def failed(airflow: Standalone, run: str, task_id: str) -> list[int]:
    """The map indexes that failed."""
    path = f"/api/v2/dags/batch/dagRuns/{run}/taskInstances?task_id=picture.{task_id}&state=failed&limit=100"
    return [ti["map_index"] for ti in airflow.rest.send("GET", path)["task_instances"]]


def test_a_batch_that_outlives_its_links(tmp_path: Path) -> None:
    """Of many prompts 5 are rejected and 5 refused by the model: all other pictures are stored, 10 reasons are logged,
    and all creates but 5 were accepted, once. Creates are limited, to one a second some come too soon; the first links
    expire before the last prompt is created."""
    # The last ones are refused by the model: the first creates are those that are rejected.
    prompts = [f"{'picture' if number < PROMPTS - REFUSED else 'nsfw'} {number}" for number in range(PROMPTS)]
    with (
        Emulator(duration=0.5, retention=RETENTION_SECONDS, creates_per_second=CREATES_PER_SECOND) as emulator,
        airflow_for(tmp_path, HERE / "output_dags", emulator) as airflow,
    ):
        emulator.fault(method="POST", path="/predictions", status=400, body=json.dumps(REJECTION), count=REJECTED)
        airflow.rest.make_pool("cometapi", CREATES_AT_ONCE)
        airflow.rest.wait_for_dag("batch")
        run = airflow.rest.trigger("batch", {"prompts": prompts})
        # Rarely: to answer, Airflow reads all task instances of the run, and that took more CPU than the tasks.
        assert finish(airflow, "batch", run, timeout=3600, pause=10) == "failed"
        ledger = emulator.ledger()
        reasons = [
            logged_reason(airflow, run, task_id, index)
            for task_id in ("create", "wait", "store")
            for index in failed(airflow, run, task_id)
        ]
    print("", *reasons, sep="\n")
    made = {create["id"]: create["at"] for create in ledger["creates"]}
    lasted = max(made.values()) - min(made.values())
    limited = sum(request["status"] == 429 for request in ledger["requests"])
    print(f"{len(made)} creates in {lasted:.0f} s, {limited} times 429, {len(ledger['served'])} files")
    assert limited or CREATES_PER_SECOND > 1
    assert len(made) == PROMPTS - REJECTED
    assert lasted > RETENTION_SECONDS
    assert len(reasons) == REJECTED + REFUSED
    assert sum("this prompt is refused" in reason for reason in reasons) == REJECTED
    assert sum("the model refused the input" in reason for reason in reasons) == REFUSED
    served = {file["id"]: file["sha256"] for file in ledger["served"]}
    stored = check_stored(tmp_path / "pictures")
    assert stored == served
    assert len(stored) == PROMPTS - REJECTED - REFUSED
    assert not any(request["authorization"] for request in ledger["requests"] if "/delivery/" in request["path"])


def logged_reason(airflow: Standalone, run: str, task_id: str, index: int) -> str:
    """The reason in the log of a failed instance's last try."""
    path = f"/api/v2/dags/batch/dagRuns/{run}/taskInstances/picture.{task_id}/{index}"
    try_number = airflow.rest.send("GET", path)["try_number"]
    text = airflow.rest.log("batch", run, f"picture.{task_id}", try_number=try_number, map_index=index)
    lines = [line for line in text.splitlines() if "AirflowFailException" in line]
    return f"{task_id} {index}: {lines[-1] if lines else text[-500:]}"


def check_stored(folder: Path) -> dict[str, str]:
    """Digests by prediction, as the manifests say and as the files are; nothing else lies there."""
    found: dict[str, str] = {}
    names = {path.name for path in folder.iterdir()}
    for path in folder.glob("*.manifest.json"):
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        (file,) = manifest["files"]
        digest = hashlib.sha256(content(file["uri"])).hexdigest()
        assert digest == file["sha256"]
        found[manifest["prediction_id"]] = digest
        names -= {path.name, Path(file["uri"]).name}
    assert names == set()
    return found
