"""Each example DAG by `airflow dags test` against the emulator: a migrated database is all it needs."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.standalone import Standalone
from tests.support.s3 import S3

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
AIRFLOW = Path(sys.executable).parent / "airflow"

Run = Callable[[str, Emulator], dict[str, list[Any]]]


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a DAG in a private Airflow with a database made once; returns its XComs by task, in map order."""
    home = tmp_path_factory.mktemp("airflow")
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        "COMET_PICTURES": f"file://{home}/pictures",
    }

    def call(*arguments: str, **more: str) -> None:
        done = subprocess.run(
            [str(AIRFLOW), *arguments], env={**env, **more}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]

    def run(dag_id: str, comet: Emulator) -> dict[str, list[Any]]:
        call("dags", "test", dag_id, AIRFLOW_CONN_COMETAPI_DEFAULT=comet.connection_json())
        with closing(sqlite3.connect(home / "airflow.db")) as database:
            states = database.execute("SELECT task_id, state FROM task_instance WHERE dag_id = ?", [dag_id]).fetchall()
            rows = database.execute(
                "SELECT task_id, value FROM xcom WHERE dag_id = ? AND key = 'return_value' ORDER BY task_id, map_index",
                [dag_id],
            ).fetchall()
        assert {state for _, state in states} == {"success"}, states
        xcoms: dict[str, list[Any]] = {}
        for task_id, value in rows:
            xcoms.setdefault(task_id, []).append(json.loads(value))
        return xcoms

    call("db", "migrate")
    return run


def check_stored(comet: Emulator, stored: list[dict[str, Any]]) -> list[str]:
    """Each file is where the task says, as it was served, with a manifest beside it; returns the ids."""
    served = {one["id"]: one["sha256"] for one in comet.ledger()["served"]}
    for one in stored:
        (file,) = one["files"]
        content = Path(urlsplit(file["uri"]).path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"] == served.pop(one["prediction_id"])
        manifest = json.loads(Path(urlsplit(one["manifest"]).path).read_bytes())
        assert (manifest["prediction_id"], manifest["name"]) == (one["prediction_id"], one["name"])
    assert served == {}
    return [one["prediction_id"] for one in stored]


def check_served(comet: Emulator, files: list[str]) -> None:
    """The files are pictures that this emulator serves to somebody without a key."""
    for file in files:
        assert file.startswith(f"{comet.base_url}/delivery/")
        picture = requests.get(file, timeout=10)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
        assert picture.content[:4] + picture.content[8:12] == b"RIFFWEBP"


@pytest.mark.slow
def test_example_prediction(airflow: Run) -> None:
    """One prediction is paid for, and its picture is stored by the task that waits for it."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_prediction", comet)
        (made,) = comet.ledger()["creates"]
        assert xcoms["create"] == [made["id"]]
        assert check_stored(comet, xcoms["store"]) == [made["id"]]


@pytest.mark.slow
def test_example_wait(airflow: Run) -> None:
    """Create, wait and use hand on one prediction, which is paid for once and whose picture is served."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_wait", comet)
        (made,) = comet.ledger()["creates"]
        assert xcoms["create"] == [made["id"]]
        (result,) = xcoms["wait"]
        assert (result["id"], result["status"], len(result)) == (made["id"], "succeeded", 12)
        assert xcoms["use"] == result["files"]
        check_served(comet, result["files"])


@pytest.mark.slow
def test_example_create_and_wait(airflow: Run) -> None:
    """One task creates and waits; the next one gets the whole result from its XCom `prediction`."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_create_and_wait", comet)
        (made,) = comet.ledger()["creates"]
        assert xcoms["generate"] == [made["id"]]
        assert xcoms["use"][0].startswith(f"{comet.base_url}/delivery/{made['id']}/")
        check_served(comet, xcoms["use"])


@pytest.mark.slow
def test_example_prediction_mapped(airflow: Run) -> None:
    """Each prompt is created, waited for and used on its own."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_prediction_mapped", comet)
        by_id = {made["id"]: made["input"]["prompt"] for made in comet.ledger()["creates"]}
        assert len(by_id) == len(set(by_id.values())) == 3
        results = xcoms["picture.wait"]
        assert [result["id"] for result in results] == xcoms["picture.create"]
        assert set(xcoms["picture.create"]) == set(by_id)
        assert [[file] for file in xcoms["picture.use"]] == [result["files"] for result in results]
        check_served(comet, xcoms["picture.use"])


@pytest.mark.slow
def test_example_many_predictions(airflow: Run) -> None:
    """One task submits all prompts, one sensor waits for all of them, and what they say is used, in their order."""
    with Emulator(duration=1.5) as comet:
        comet.next_outcome(status="failed", error="out of memory")  # one of them
        xcoms = airflow("example_many_predictions", comet)
        asked = {made["id"]: made["input"]["prompt"] for made in comet.ledger()["creates"]}
        ((created,), (results,), (texts,)) = (xcoms[name] for name in ("create", "wait", "use"))
        assert [result["id"] for result in results] == created
        animals = [re.findall("a (fox|hare|badger) in", asked[one])[0] for one in created]
        assert animals == ["fox", "hare", "badger"]
        there = [number for number, result in enumerate(results) if result["status"] == "succeeded"]
        assert len(there) == 2
        assert texts == [f"{animals[number]}: {''.join(results[number]['output'])}" for number in there]


@pytest.mark.slow
def test_example_prediction_to_storage(airflow: Run) -> None:
    """The picture of each prompt is stored by one task, in order. The DAG that new pictures start runs by hand as well,
    without any."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_prediction_to_storage", comet)
        (stored,) = xcoms["store"]
        assert check_stored(comet, stored) == xcoms["create"]
        assert len(stored) == 3
        assert airflow("example_new_pictures", comet) == {"show": [[]]}


@pytest.mark.slow
def test_example_batch(airflow: Run) -> None:
    """One task submits all prompts, and one stores them under their names; both keep the order."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_batch", comet)
        made = {one["id"]: one["input"]["prompt"] for one in comet.ledger()["creates"]}
        ((created,), (stored,)) = (xcoms[name] for name in ("create", "store"))
        assert check_stored(comet, stored) == created
        prompts = {"B-17": "a red bicycle in the rain", "B-18": "a paper boat on a pond", "T-02": "a tent under a fern"}
        assert {one["name"]: made[one["prediction_id"]] for one in stored} == prompts


@pytest.mark.slow
def test_example_many_chunks(airflow: Run) -> None:
    """Each chunk is submitted by one task and stored by another; together they are the whole grid, each input once."""
    with Emulator(duration=1.5) as comet:
        xcoms = airflow("example_many_chunks", comet)
        made = [(one["input"]["prompt"], one["input"]["seed"]) for one in comet.ledger()["creates"]]
        assert sorted(made) == sorted(
            (prompt, seed) for prompt in ("a fox in the rain", "a paper boat on a pond") for seed in range(6)
        )
        created, stored = xcoms["chunk.create"], xcoms["chunk.store"]
        assert len(created) == len(stored) == 3
        check_stored(comet, [one for chunk in stored for one in chunk])
        assert [[one["prediction_id"] for one in chunk] for chunk in stored] == created


@pytest.mark.slow
def test_example_input_schema(airflow: Run) -> None:
    """The rendered input fits its schema: a number stays one, and braces that are no template stay braces."""
    with Emulator(duration=0.5) as comet:
        xcoms = airflow("example_input_schema", comet)
        (made,) = comet.ledger()["creates"]
        assert made["input"] == {"prompt": "a poster that says {{ hello }}", "num_outputs": 2, "output_format": "png"}
        assert xcoms["store"][0]["prediction_id"] == made["id"]


@pytest.mark.slow
def test_example_taskflow(airflow: Run) -> None:
    """A mapped function makes the inputs, and one task stores all results, in order."""
    with Emulator(duration=0.5) as comet:
        xcoms = airflow("example_taskflow", comet)
        made = {one["id"]: one["input"]["prompt"] for one in comet.ledger()["creates"]}
        for one, place in zip(xcoms["picture"], ["a harbour", "a lighthouse"], strict=True):
            assert re.fullmatch(rf"{place} on \d\d [A-Z][a-z]+, watercolour", made[one])
        assert check_stored(comet, xcoms["store"][0]) == xcoms["picture"]


def review(
    airflow: Standalone, dag_id: str, run_id: str, choose: Callable[[dict[str, Any]], list[str]], **params: Any
) -> dict[str, Any]:
    """Answer the question of a run, which then succeeds; returns what was asked.

    :param choose: the options, of those that are offered.
    :param params: what a person puts into the form.
    """
    rest, asked = airflow.rest, {}
    for change in rest.changes(dag_id, run_id):
        if (change.task_id, change.state) == ("review", "awaiting_input"):
            # No person is as quick as this test: Airflow fails a task that continues before its executor has reported
            # the end of what came before.
            told = f"state success for task instance TaskInstanceKey(dag_id='{dag_id}', task_id='review'"
            end = time.monotonic() + 60
            while told not in airflow.log.read_text() and time.monotonic() < end:
                time.sleep(0.1)
            asked = rest.question(dag_id, run_id, "review")
            rest.answer(dag_id, run_id, "review", choose(asked), params=params)
    states = {one["task_id"]: one["state"] for one in rest.task_instances(dag_id, run_id)}
    bad = [task_id for task_id, state in states.items() if state == "failed"]
    assert set(states.values()) == {"success"}, (states, [rest.log(dag_id, run_id, one) for one in bad])
    return asked


@pytest.mark.slow
def test_example_review(tmp_path: Path) -> None:
    """A person sees each picture below its prompt; what they choose is stored, and nothing else. `dags test` has nobody
    to ask, so it is a whole Airflow here, and its REST API gets the answer that its user interface sends."""
    dag_id, pictures = "example_review", tmp_path / "pictures"
    with Emulator(duration=0.5) as comet:
        comet.next_outcome(status="failed", error="out of memory")  # one of them
        env = {"AIRFLOW_CONN_COMETAPI_DEFAULT": comet.connection_json(), "COMET_PICTURES": pictures.as_uri()}
        with Standalone(dags_folder=EXAMPLES, env=env) as airflow:
            rest = airflow.rest
            rest.make_pool("cometapi", 2)
            rest.wait_for_dag(dag_id)
            run_id = rest.trigger(dag_id)
            asked = review(airflow, dag_id, run_id, lambda asked: asked["options"][:2])
            results, stored = (rest.xcom(dag_id, run_id, task_id) for task_id in ("wait", "store"))
        prompts = {one["id"]: one["input"]["prompt"] for one in comet.ledger()["creates"]}
    sheet = []
    for one in results:
        sheet.append(f"## `{prompts[one['id']]}`")
        sheet.append(f"![]({one['files'][0]})" if one["files"] else "There is no picture.")
    assert asked["body"].split("\n\n") == sheet
    assert asked["options"] == [*(prompts[one["id"]] for one in results), "none of them"]
    assert sheet.count("There is no picture.") == 1
    there = [one["id"] for one in results[:2] if one["files"]]
    assert [one["prediction_id"] for one in stored] == there
    assert len([*pictures.rglob("*.webp")]) == len(there)


PRODUCTS = """\
sku,prompt
B-17,a red bicycle in the rain
B-18,"a paper boat, on a pond"
T-02,a tent under a fern
"""


@pytest.mark.slow
def test_example_content_pipeline(s3: S3) -> None:
    """A person sees each picture beside its SKU, by a link that needs no login; what they reject is stored, but never
    published, and the DAG that publishes knows the SKU of each file."""
    bucket, dag_id = "my-bucket", "example_content_pipeline"
    s3.client.create_bucket(Bucket=bucket)
    s3.client.put_object(Bucket=bucket, Key="pictures/products.csv", Body=PRODUCTS)
    with Emulator(duration=5) as comet:
        env = {"AIRFLOW_CONN_COMETAPI_DEFAULT": comet.connection_json(), "AIRFLOW_CONN_AWS_DEFAULT": s3.connection}
        with Standalone(dags_folder=EXAMPLES, env=env) as airflow:
            rest = airflow.rest
            for one in (dag_id, "example_publish"):
                rest.wait_for_dag(one)
                rest.unpause(one)
            run_id = rest.trigger(dag_id)
            asked = review(airflow, dag_id, run_id, lambda asked: ["Approve"], rejected=["T-02"])
            stored = rest.xcom(dag_id, run_id, "store")
            until("the approved pictures are published", lambda: published(airflow) == ["success"])
            (run,) = rest.runs("example_publish")
            log = rest.log("example_publish", run["dag_run_id"], "publish")
        made = {one["id"]: one["input"]["prompt"] for one in comet.ledger()["creates"]}
        served = {one["id"]: one["sha256"] for one in comet.ledger()["served"]}
    assert {one["name"]: made[one["prediction_id"]] for one in stored} == {
        "B-17": "a red bicycle in the rain",
        "B-18": "a paper boat, on a pond",
        "T-02": "a tent under a fern",
    }
    shown = re.findall(r"^`([^`]+)` !\[\]\((.+)\)$", asked["body"], re.MULTILINE)
    assert [sku for sku, _ in shown] == ["B-17", "B-18", "T-02"]
    for one, (_, link) in zip(stored, shown, strict=True):
        assert "Signature=" in link
        picture = requests.get(html.unescape(link), timeout=10)
        assert hashlib.sha256(picture.content).hexdigest() == served[one["prediction_id"]]
    for one in stored:
        line = f"{one['name']} {[one['files'][0]['uri']]}"
        assert (line in log) == (one["name"] != "T-02")


def published(airflow: Standalone) -> list[str]:
    """The states of all runs of the DAG that publishes."""
    return [run["state"] for run in airflow.rest.runs("example_publish")]


def test_every_example_has_a_test() -> None:
    """An example that nobody runs is soon one that does not work."""
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_example")}
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}
