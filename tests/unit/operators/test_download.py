"""`DownloadPredictionOutputOperator`: complete files, clear errors, and nothing fetched twice."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.outputs import manifest
from tests.support.file_server import Answer, FileServer
from tests.support.task_runner import Outcome, TaskRunner, dag
from tests.unit.conftest import KEY

PICTURE = b"RIFF....WEBP" * 1000


def store(prediction: Any, output_path: object, **options: Any) -> Any:
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    with dag():
        return DownloadPredictionOutputOperator(
            task_id="store", prediction=prediction, output_path=str(output_path), retries=2, **options
        )


def summary(prediction_id: str) -> dict[str, Any]:
    """What the sensor hands over."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    return CometReplicateHook().get_prediction(prediction_id).summary()


def requests_for(comet: Emulator, path: str) -> int:
    return sum(path in request["path"] for request in comet.ledger()["requests"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manifest_of(folder: Path, prediction_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{prediction_id}.manifest.json").read_text(encoding="utf-8"))
    Draft202012Validator(manifest.SCHEMA).validate(found)
    return found


@pytest.fixture
def server() -> Any:
    with FileServer(PICTURE) as server:
        yield server


def test_a_prediction(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """Its files are where the result says, with the digest and size that it says, and the manifest says the same."""
    prediction_id = create()
    outcome = runner.run(store(summary(prediction_id), tmp_path), try_number=2, map_index=3)
    assert (outcome.state, outcome.error) == ("success", None)
    (served,) = comet.ledger()["served"]
    (file,) = outcome.result["files"]
    content = Path(file["uri"]).read_bytes()
    assert (served["sha256"], served["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert file == {
        "uri": f"{tmp_path}/{prediction_id}-0.webp",
        "sha256": served["sha256"],
        "size": served["bytes"],
        "content_type": "image/webp",
        "name": None,
    }
    assert outcome.result["prediction_id"] == prediction_id
    assert outcome.result["manifest"] == f"{tmp_path}/{prediction_id}.manifest.json"
    assert names(tmp_path) == [f"{prediction_id}-0.webp", f"{prediction_id}.manifest.json"]
    content = manifest_of(tmp_path, prediction_id)
    assert {name: content["files"][0][name] for name in file} == file
    assert (content["model"], content["input"]) == ("black-forest-labs/flux-schnell", {"prompt": "a lighthouse"})
    assert content["stored_by"] == {
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "store",
        "map_index": 3,
        "try_number": 2,
    }
    assert content["completed_at"]


def test_a_repeat_requests_nothing(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """A file that a manifest names is not fetched again, unless it is missing or altered."""
    task = store(summary(create()), tmp_path)
    first = runner.run(task)
    requests_before = len(comet.ledger()["requests"])
    assert runner.run(task).result == first.result
    assert len(comet.ledger()["requests"]) == requests_before
    Path(first.result["files"][0]["uri"]).write_bytes(b"half")
    assert runner.run(task).result == first.result
    assert Path(first.result["files"][0]["uri"]).stat().st_size == first.result["files"][0]["size"]
    assert requests_for(comet, "/delivery/") == 2


def test_an_id(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """The prediction is read; without its input, if that is not wanted."""
    prediction_id = create()
    outcome = runner.run(store(prediction_id, f"file://{tmp_path}", write_input=False))
    assert outcome.state == "success"
    assert "input" not in manifest_of(tmp_path, prediction_id)
    assert outcome.result["manifest"] == f"file://{tmp_path}/{prediction_id}.manifest.json"


def test_a_summary_alone_is_enough(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """Without the input no request to the API is needed; with it, an unreachable API costs the input alone."""
    prediction = summary(create())
    comet.fault(method="GET", path="/predictions/", status=401, count=None)
    requests_before = requests_for(comet, "/predictions/")
    assert runner.run(store(prediction, tmp_path / "a", write_input=False)).state == "success"
    assert requests_for(comet, "/predictions/") == requests_before
    assert runner.run(store(prediction, tmp_path / "b")).state == "success"
    assert manifest_of(tmp_path / "b", prediction["id"])["input"] is None


@pytest.mark.parametrize(
    ("output", "name", "content"),
    [
        ("a poem", "0.txt", b"a poem"),
        (["a ", "poem"], "0.txt", b"a poem"),
        ("word " * 20_000, "0.txt", b"word " * 20_000),
        ({"score": 0.5}, "0.json", b'{\n "score": 0.5\n}'),
        (["data:image/png;base64,iVBORw0="], "0.png", b"\x89PNG\r"),
    ],
    ids=["text", "tokens", "long-text", "object", "data-uri"],
)
def test_outputs_that_are_no_links(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    output: Any,
    name: str,
    content: bytes,
) -> None:
    """Text, objects and data URIs become files, too, also if they are too large for a summary."""
    prediction_id = create(status="succeeded", output=output)
    outcome = runner.run(store(summary(prediction_id), tmp_path))
    assert outcome.state == "success"
    assert (tmp_path / f"{prediction_id}-{name}").read_bytes() == content
    assert outcome.result["files"][0]["size"] == len(content)


def test_several_files(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, server: FileServer
) -> None:
    """They keep their order, although several are fetched at once. If any fails, there is no manifest until a retry
    stores it."""
    prediction_id = create(status="succeeded", output=[f"http://127.0.0.1:{server.port}/{n}.webp" for n in range(9)])
    server.answers = [Answer(), Answer(), Answer(200, {"Content-Type": "text/html"}, body=b"<p>Sign in")]
    task = store(summary(prediction_id), tmp_path)
    outcome = runner.run(task)
    assert outcome.state == "up_for_retry"
    assert "the link promises image/webp, and the server sends text/html" in outcome.message
    assert f"{prediction_id}.manifest.json" not in names(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".part")]
    outcome = runner.run(task)
    assert [file["uri"] for file in outcome.result["files"]] == [
        f"{tmp_path}/{prediction_id}-{n}.webp" for n in range(9)
    ]


def test_a_list(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """Same order and length, null for null, and each prediction once."""
    summaries = [summary(create()) for _ in range(3)]
    outcome = runner.run(store([summaries[0], None, *summaries], tmp_path))
    assert outcome.state == "success"
    assert [item and item["prediction_id"] for item in outcome.result] == [
        summaries[0]["id"],
        None,
        *(item["id"] for item in summaries),
    ]
    assert len(comet.ledger()["served"]) == 3


def test_lists_of_lists(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """Of batches that are mapped: the files of all are stored, and the result is a flat list in the order given."""
    ids = [create() for _ in range(4)]
    summaries = [summary(prediction_id) for prediction_id in ids]
    outcome = runner.run(store([[summaries[0], None], ids[1], (), [summaries[2], [ids[3]]]], tmp_path))
    assert (outcome.state, outcome.error) == ("success", None)
    assert [item and item["prediction_id"] for item in outcome.result] == [ids[0], None, *ids[1:]]


def test_an_item_that_fails_does_not_stop_the_others(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """What could be stored is in XCom `stored`, and the task fails for good with the reasons of the others."""
    good = [summary(create()) for _ in range(2)]
    failed = summary(create(status="failed", error="NSFW content detected"))
    gone = summary(create(status="succeeded", output=[f"{comet.base_url}/delivery/nothing/0.webp"]))
    outcome = runner.run(store([good[0], failed, None, gone, good[1]], tmp_path))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    stored = outcome.xcoms["stored"]
    assert [item and item["prediction_id"] for item in stored] == [good[0]["id"], None, None, None, good[1]["id"]]
    assert "2 of 4" in outcome.message
    assert f"Prediction {failed['id']}: the model refused the input" in outcome.message
    assert f"Prediction {gone['id']}: the links to its files have expired" in outcome.message
    assert "return_value" not in outcome.xcoms


def test_a_list_with_what_is_no_prediction(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """The item is an error like any other; the paid predictions beside it are stored."""
    good = create()
    outcome = runner.run(store([7, good, {"status": "succeeded"}, [[[["abc"]]]]], tmp_path))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert [item and item["prediction_id"] for item in outcome.xcoms["stored"]] == [None, good, None, None]
    assert "3 of 4" in outcome.message
    assert "prediction[0] must be what PredictionSensor has returned, or an id; got a value of type int" in (
        outcome.message
    )
    assert "prediction[3] must be" in outcome.message
    assert "its lists are nested too deeply" in outcome.message
    assert "prediction_id must be the id" in outcome.message


def test_trouble_that_passes_is_retried(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """If any item may be stored later, the task is retried; what was stored is not fetched again."""
    good, other = summary(create()), summary(create())
    blocked = tmp_path / f"{other['id']}-0.webp"
    blocked.mkdir()
    task = store([good, other], tmp_path)
    outcome = runner.run(task)
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionListError")
    assert "can't be written" in outcome.message
    blocked.rmdir()
    outcome = runner.run(task)
    assert [item["prediction_id"] for item in outcome.result] == [good["id"], other["id"]]
    assert requests_for(comet, f"/delivery/{good['id']}") == 1


def test_expired_links_are_requested_once_more(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """A summary that is too old is no loss while the API still has the prediction."""
    prediction_id = create()
    prediction = summary(prediction_id)
    prediction["output"] = [f"{comet.base_url}/delivery/old/0.webp"]
    outcome = runner.run(store(prediction, tmp_path))
    assert outcome.state == "success"
    assert len(outcome.result["files"]) == 1
    assert requests_for(comet, "/delivery/old/") == 1


def test_what_is_gone_for_good(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """No retry brings it back; the message says what to do."""
    prediction_id = create()
    prediction = summary(prediction_id)
    comet.set_prediction(prediction_id, output=None, data_removed=True)
    comet.fault(path="/delivery/", status=404, count=None)
    outcome = runner.run(store(prediction, tmp_path))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "Store files right after the wait" in outcome.message
    assert not tmp_path.exists() or names(tmp_path) == []


def test_no_key_leaves_for_a_delivery_host(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, server: FileServer
) -> None:
    """Not in a header, and not in what is written."""
    prediction_id = create(status="succeeded", output=server.url)
    outcome = runner.run(store(summary(prediction_id), tmp_path))
    assert outcome.state == "success"
    (request,) = server.requests
    assert "authorization" not in request
    assert KEY not in str(server.requests)
    text = (tmp_path / f"{prediction_id}.manifest.json").read_text(encoding="utf-8")
    assert KEY not in text
    assert "X-Amz-Signature" not in text
    assert manifest_of(tmp_path, prediction_id)["files"][0]["source"] == server.url.partition("?")[0]


def test_hosts_of_the_connection(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    connection: Callable[..., None],
    server: FileServer,
) -> None:
    """`output_hosts` says where files may come from; the message names the host and the setting."""
    prediction = summary(create(status="succeeded", output=server.url))
    connection(host=comet.base_url, extra={"output_hosts": "replicate.delivery, *.replicate.delivery"})
    outcome = runner.run(store(prediction, tmp_path))
    assert outcome.state == "failed"
    assert "the host '127.0.0.1' is not among the connection's output_hosts" in outcome.message
    assert not server.requests


def test_a_limit_on_the_size(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """A larger file is refused, and nothing of it stays."""
    outcome = runner.run(store(summary(create()), tmp_path, max_bytes=100))
    assert outcome.state == "failed"
    assert "max_bytes is 100" in outcome.message
    assert not tmp_path.exists() or names(tmp_path) == []


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (None, "holds nothing to store"),
        ([], "holds nothing to store"),
        ([None, None], "holds nothing to store"),
        (7, "a value of type int"),
        ([7, 8.5], "prediction[1] must be what PredictionSensor has returned, or an id; got a value of type float"),
        ({"status": "succeeded"}, "prediction_id must be the id"),
        ("../../etc/passwd", "prediction_id must be the id"),
    ],
    ids=repr,
)
def test_what_is_no_prediction(
    comet: Emulator, runner: TaskRunner, tmp_path: Path, prediction: Any, words: str
) -> None:
    """The error names the type of the value, before anything is sent."""
    outcome = runner.run(store(prediction, tmp_path))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert words in outcome.message
    assert comet.ledger()["requests"] == []


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_wrong_limits(max_bytes: int, tmp_path: Path) -> None:
    """They are refused when the DAG is parsed."""
    with pytest.raises(ValueError, match="max_bytes must be a positive number of bytes"):
        store("abc", tmp_path, max_bytes=max_bytes)


def test_the_output_of_a_mapped_sensor(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is read by a single request, and instances without a result are reported."""
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    summaries = [summary(create()) for _ in range(2)]
    with dag():
        wait = PredictionSensor.partial(task_id="wait").expand(prediction_id=["a", "b", "c"])
        task = DownloadPredictionOutputOperator(task_id="store", prediction=wait.output, output_path=str(tmp_path))
    runner.mapped["wait"], runner.instances["wait"] = summaries, 3
    outcome = runner.run(task)
    assert [item["prediction_id"] for item in outcome.result] == [item["id"] for item in summaries]
    assert sum("/slice" in path for path in runner.asked) == 1
    assert not any("/item/" in path for path in runner.asked)
    # Airflow's first task in a process redirects the log, away from caplog.
    assert "1 of 3 instances of task 'wait' have no output" in caplog.text + capsys.readouterr().out


def events(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outcome.sent.get("outlet_events") or []
    return found


@pytest.mark.parametrize("by_reference", [False, True])
def test_assets(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, by_reference: bool
) -> None:
    """An asset gets one event with the files, also if it is given by name; an alias gets the folder as its asset. Files
    are never assets of their own."""
    from airflow.sdk import Asset, AssetAlias

    pictures = Asset("pictures", "s3://bucket/pictures")
    outlets = [Asset.ref(name="pictures") if by_reference else pictures, AssetAlias("new-pictures")]
    runner.assets["pictures"] = {"name": "pictures", "uri": pictures.uri, "group": "asset", "extra": {}}
    summaries = [summary(create()) for _ in range(2)]
    outcome = runner.run(store(summaries, f"file://{tmp_path}", outlets=outlets))
    asset, alias = events(outcome)
    assert asset["extra"] == alias["extra"]
    assert asset["extra"]["prediction_ids"] == [item["id"] for item in summaries]
    assert asset["extra"]["file_count"] == 2
    assert asset["extra"]["files"] == [
        {"uri": item["files"][0]["uri"], "name": None, "prediction_id": item["prediction_id"]}
        for item in outcome.result
    ]
    assert asset["extra"]["manifests"] == [item["manifest"] for item in outcome.result]
    assert alias["source_alias_name"] == "new-pictures"
    assert alias["dest_asset_key"]["uri"] == f"file://{tmp_path}"


def test_an_event_stays_small(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, server: FileServer
) -> None:
    """At most fifty files are named in it; the count says how many there are."""
    from airflow.sdk import Asset

    prediction = summary(create(status="succeeded", output=[server.url] * 60))
    outcome = runner.run(store(prediction, tmp_path, outlets=[Asset("s3://bucket/pictures")]))
    (event,) = events(outcome)
    assert (len(event["extra"]["files"]), event["extra"]["file_count"]) == (50, 60)


@pytest.fixture
def lineage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Airflow's own collector, as it is where a plugin (OpenLineage's) reads it; returns the URIs that it has."""
    from airflow.sdk import lineage, plugins_manager

    monkeypatch.setattr(plugins_manager, "get_hook_lineage_readers_plugins", lambda: [lineage.HookLineageReader])
    lineage.get_hook_lineage_collector.cache_clear()
    yield lambda: [asset.asset.uri for asset in lineage.get_hook_lineage_collector().collected_assets.outputs]
    lineage.get_hook_lineage_collector.cache_clear()


def test_lineage(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    lineage: Callable[[], list[str]],
) -> None:
    """Airflow's lineage gets the files under their own names, not under those they have while they are written; also
    those of a list that could not be stored whole."""
    failed = summary(create(status="failed"))
    outcome = runner.run(store([summary(create()), failed], f"file://{tmp_path}"))
    (stored, _) = outcome.xcoms["stored"]
    assert outcome.state == "failed"
    assert lineage() == [stored["manifest"], stored["files"][0]["uri"]]


def test_lineage_of_many(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    server: FileServer,
    lineage: Callable[[], list[str]],
) -> None:
    """Airflow keeps a hundred of a task: manifests come first, and they name the files."""
    summaries = [summary(create(status="succeeded", output=[server.url] * 60)) for _ in range(2)]
    outcome = runner.run(store(summaries, f"file://{tmp_path}"))
    manifests = [item["manifest"] for item in outcome.result]
    assert len(lineage()) == 100
    assert lineage()[:2] == manifests


def test_a_killed_task_leaves_nothing_half_written(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, server: FileServer
) -> None:
    """Airflow calls `on_kill` and waits: downloads are aborted then."""
    prediction = summary(create(status="succeeded", output=server.url))
    task = store(prediction, tmp_path)
    original = server._answer

    def kill(request: Any) -> None:
        runner.running.on_kill()
        original(request)

    server._answer = kill  # type: ignore[method-assign]
    outcome = runner.run(task)
    assert outcome.state == "up_for_retry"
    assert "the task was ended" in outcome.message
    assert names(tmp_path) == []


@pytest.mark.parametrize("output_path", ["None", "pictures", "", "./pictures"])
def test_a_folder_on_some_worker(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], output_path: str
) -> None:
    """A relative path, such as a template makes that renders to nothing, is refused before anything is read."""
    outcome = runner.run(store(create(), output_path))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert f"output_path must be a URL such as 's3://bucket/folder' or an absolute path; got {output_path!r}" in (
        outcome.message
    )
    assert requests_for(comet, "/delivery/") == 0


def test_an_input_with_what_is_no_url(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """A prompt may hold anything: the manifest of a paid result is written all the same."""
    import requests

    answer = requests.post(
        f"{comet.base_url}/replicate/v1/models/black-forest-labs/flux-schnell/predictions",
        json={"input": {"prompt": "http://[x"}},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=5,
    )
    prediction_id = answer.json()["id"]
    outcome = runner.run(store(prediction_id, tmp_path))
    assert (outcome.state, outcome.error) == ("success", None)
    assert manifest_of(tmp_path, prediction_id)["input"]["prompt"] == "http://[x"


def test_errors_have_an_end(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """Whoever walks the chain of causes comes to its end."""
    outcome = runner.run(store(create(status="failed"), tmp_path))
    assert [type(error).__name__ for error in outcome.chain] == ["AirflowFailException", "PredictionFailedError"]


@pytest.mark.parametrize("fields", [("id",), ("id", "status", "output")], ids=str)
def test_a_part_of_a_summary(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, fields: tuple[str, ...]
) -> None:
    """What it lacks is read from the API: the id is all that has to be there."""
    prediction = summary(create())
    outcome = runner.run(store({key: prediction[key] for key in fields}, tmp_path))
    assert (outcome.state, outcome.error) == ("success", None)
    assert len(outcome.result["files"]) == 1


def test_text_that_is_too_large(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """The limit holds for what comes with the prediction, too."""
    outcome = runner.run(store(create(status="succeeded", output="word " * 100), tmp_path, max_bytes=499))
    assert outcome.state == "failed"
    assert "its files have 500 bytes so far; max_bytes is 499" in outcome.message


def test_an_id_without_output(comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path) -> None:
    """A sensor may have accepted a success without output; of an id nobody has said that nothing will do."""
    prediction_id = create(status="succeeded", output=[])
    outcome = runner.run(store(prediction_id, tmp_path))
    assert (outcome.state, [*outcome.chain][-1].__class__.__name__) == ("failed", "EmptyOutputError")
    assert runner.run(store(summary(prediction_id), tmp_path)).result["files"] == []


def test_the_audit_log(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each stored file is a line of a fixed form, and so is each prediction, once its manifest is written. A repeat
    that stores nothing logs neither."""
    caplog.set_level("INFO")
    prediction_id = create(status="succeeded", output=["data:text/plain,one", "data:text/plain,three"])
    task = store(summary(prediction_id), tmp_path)
    outcome = runner.run(task)
    found = re.findall(r"comet\.file_stored uri=(\S+) size=(\d+) sha256=(\w+)", caplog.text)
    files = outcome.result["files"]
    assert sorted(found) == [(file["uri"], str(file["size"]), file["sha256"]) for file in files]
    line = f"comet.stored id={prediction_id} files=2 bytes=8 manifest={outcome.result['manifest']}"
    assert caplog.text.count("comet.stored ") == caplog.text.count(line) == 1
    caplog.clear()
    runner.run(task)
    assert "1 of 1 predictions are stored already" in caplog.text
    assert "comet.stored " not in caplog.text


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """The counters that were increased, with their tags."""
    from airflow_provider_comet import metrics

    counted: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(metrics, "count", lambda name, **tags: counted.append((name, tags)))
    return counted


def test_metrics(
    comet: Emulator,
    runner: TaskRunner,
    create: Callable[..., str],
    tmp_path: Path,
    counted: list[tuple[str, dict[str, str]]],
) -> None:
    """Stored files, stored predictions and errors are counted; an error has its type as a tag."""
    good, failed = summary(create()), summary(create(status="failed"))
    runner.run(store(good, tmp_path))
    assert counted == [("comet.file_stored", {}), ("comet.stored", {})]
    counted.clear()
    runner.run(store([good, failed], tmp_path))
    assert counted == [("comet.store_errors", {"error": "PredictionFailedError"})]


def test_keep_puts_null_in_place_of_a_final_error(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `on_item_error="keep"` the task succeeds without the items that no retry can store. The log has their
    errors, and only what was stored is reported to the outlets."""
    from airflow.sdk import Asset

    good, failed = summary(create()), summary(create(status="failed"))
    task = store(
        [7, good, failed, None], f"file://{tmp_path}", on_item_error="keep", outlets=[Asset("s3://bucket/pictures")]
    )
    outcome = runner.run(task)
    assert (outcome.state, outcome.error) == ("success", None)
    assert [item and item["prediction_id"] for item in outcome.result] == [None, good["id"], None, None]
    assert "stored" not in outcome.xcoms
    assert f"Prediction {failed['id']}: it failed" in caplog.text
    assert "prediction[0] must be what PredictionSensor has returned" in caplog.text
    (event,) = events(outcome)
    assert event["extra"]["prediction_ids"] == [good["id"]]


def test_keep_leaves_what_a_retry_may_store_to_a_retry(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """An error that a retry may cure fails the attempt, also beside a final one; the last attempt returns the rest."""
    good, failed, blocked = summary(create()), summary(create(status="failed")), summary(create())
    obstacle = tmp_path / f"{blocked['id']}-0.webp"
    obstacle.mkdir()
    task = store([good, failed, blocked], tmp_path, on_item_error="keep")
    outcome = runner.run(task)
    assert (outcome.state, type(outcome.error).__name__) == ("up_for_retry", "PredictionListError")
    assert [item and item["prediction_id"] for item in outcome.xcoms["stored"]] == [good["id"], None, None]
    obstacle.rmdir()
    outcome = runner.run(task)
    assert outcome.state == "success"
    assert [item and item["prediction_id"] for item in outcome.result] == [good["id"], None, blocked["id"]]


def test_keep_fails_if_nothing_was_stored(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """A list without a single result is an error, for good; so is a single prediction without one."""
    failed = [summary(create(status="failed")) for _ in range(2)]
    outcome = runner.run(store(failed, tmp_path, on_item_error="keep"))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "2 of 2" in outcome.message
    assert outcome.xcoms["stored"] == [None, None]
    outcome = runner.run(store(failed[0], tmp_path, on_item_error="keep"))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")


@pytest.mark.parametrize("value", ["skip", None, True], ids=repr)
def test_a_wrong_on_item_error(value: Any, tmp_path: Path) -> None:
    """It is refused when the DAG is parsed, with the values that are allowed."""
    with pytest.raises(ValueError, match=r"on_item_error must be 'fail' or 'keep', not"):
        store("abc", tmp_path, on_item_error=value)


def test_an_attempt_has_one_folder(
    comet: Emulator, runner: TaskRunner, create: Callable[..., str], tmp_path: Path
) -> None:
    """Airflow renders templates anew when a task resumes: a folder with the time in it stays the attempt's first."""
    from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator

    prediction, names = create(status="processing"), ["second", "first"]
    with dag(user_defined_macros={"folder": names.pop}):
        task = DownloadPredictionOutputOperator(
            task_id="store", prediction=prediction, output_path=f"file://{tmp_path}/{{{{ folder() }}}}", defer_after=0
        )
    deferred = runner.run(task)
    assert deferred.state == "deferred"
    comet.set_prediction(prediction, status="succeeded")
    event = {"count": 1, "errors": 0, "unfinished": 0, "outcomes": {prediction: {}}}
    outcome = runner.run(task, event=event, next_kwargs=deferred.next_kwargs)
    assert (outcome.state, names) == ("success", [])
    assert [folder.name for folder in tmp_path.iterdir()] == ["first"]
    assert outcome.result["files"][0]["uri"].startswith(f"file://{tmp_path}/first/")
