"""``outputs/manifests.py``: the table of what a folder's manifests say, as the writer has left them."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.api.file_errors import StorageError
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.inputs.parameter_grid import parameter_grid
from airflow_provider_comet.outputs import manifests
from airflow_provider_comet.outputs.manifests import read_manifests
from tests.support.task_runner import Clock
from tests.unit.test_docs import ROOT, blocks, loaded

STORED_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
COLUMNS = [
    *("prediction_id", "name", "model", "version", "created_at", "started_at", "completed_at", "stored_at"),
    *("dag_id", "run_id", "task_id", "map_index"),
    *("index", "uri", "content_type", "size", "sha256", "file_name"),
]
GOLDEN = ROOT / "tests" / "unit" / "golden" / "stored"
Store = Callable[..., list[str]]


@pytest.fixture
def store(comet: Emulator, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Create predictions of these inputs, and store them as a task does; returns the ids."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
    from airflow_provider_comet.outputs.download import Downloader
    from airflow_provider_comet.outputs.writer import OutputWriter

    Clock().install(monkeypatch)

    def store(inputs: Sequence[dict[str, Any]], write_input: bool = True, **outcome: Any) -> list[str]:
        hook = CometReplicateHook()
        ids = []
        for input in inputs:
            if outcome:
                comet.next_outcome(**outcome)
            ids.append(hook.create_prediction("black-forest-labs/flux-schnell", input).id)
        options: dict[str, Any] = {"max_bytes": 1 << 20, "write_input": write_input, "stored_by": STORED_BY}
        path = ObjectStoragePath(f"file://{tmp_path}/out")
        with (
            Downloader(hook.config, sleep=lambda seconds: None) as downloader,
            OutputWriter(path, hook.get_prediction, downloader, **options) as writer,
        ):
            for prediction_id in ids:
                writer.store(prediction_id)
        return ids

    return store


def write(folder: Path, prediction_id: str = "abc", **changes: Any) -> dict[str, Any]:
    """Write a manifest by hand."""
    content: dict[str, Any] = {
        "manifest_version": 1,
        "prediction_id": prediction_id,
        "files": [],
        "created_at": "2026-03-12T11:27:20.258Z",
        "stored_at": "2026-03-12T11:28:00+00:00",
        "stored_by": STORED_BY,
        "provider_version": "0.1.0",
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{prediction_id}.manifest.json").write_text(json.dumps(content))
    return content


def file(name: str = "abc-0.webp", **changes: Any) -> dict[str, Any]:
    return {"uri": f"s3://bucket/x/{name}", "sha256": "0" * 64, "size": 12, "content_type": "image/webp", **changes}


def test_a_sweep_is_a_table(store: Store, tmp_path: Path) -> None:
    """Each stored file is a row with the parameters that it was made from, in the order in which they were created."""
    from airflow.sdk import ObjectStoragePath

    inputs = parameter_grid({"prompt": ["a fox", "a hare"], "num_outputs": [2], "seed": [0, 1]})
    ids = store(inputs)
    rows = read_manifests(f"file://{tmp_path}/out")
    assert {(row["prediction_id"], row["index"]) for row in rows} == {(one, n) for one in ids for n in (0, 1)}
    assert [[*row] for row in rows] == 8 * [
        [*COLUMNS, "input.prompt", "input.num_outputs", "input.seed", "metrics.predict_time", "metrics.image_count"]
    ]
    by_id = {row["prediction_id"]: row for row in rows}
    for prediction_id, input in zip(ids, inputs, strict=True):
        assert {key: by_id[prediction_id][f"input.{key}"] for key in input} == input
    for row in rows:
        assert len(ObjectStoragePath(row["uri"]).read_bytes()) == row["size"] > 0
        assert (row["model"], row["dag_id"], row["map_index"]) == ("black-forest-labs/flux-schnell", "d", -1)
        assert (row["name"], row["content_type"]) == (None, "image/webp")
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)


def test_rows_are_csv(store: Store, tmp_path: Path) -> None:
    """Python's ``csv`` writes them and reads the same texts again, whatever a prompt is made of."""
    prompts = ['say "hello",\nthen go', "caf\u00e9 \U0001f98a", "=1+1"]
    store([{"prompt": prompt} for prompt in prompts])
    rows = read_manifests(f"file://{tmp_path}/out")
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, rows[0])
    table.writeheader()
    table.writerows(rows)
    found = [*csv.DictReader(io.StringIO(out.getvalue(), newline=""))]
    assert sorted(row["input.prompt"] for row in found) == sorted(prompts)
    assert [row["uri"] for row in found] == [row["uri"] for row in rows]


def test_the_example_of_the_docs(store: Store, tmp_path: Path) -> None:
    """The task in docs/outputs.md writes the table as a CSV file, which has a line for each file."""
    (code,) = [one.values[0] for one in blocks("python") if "read_manifests(" in one.values[0]]
    _, names = loaded(code)
    store(parameter_grid({"prompt": ["a fox", "a hare"], "seed": [0, 1]}))
    assert names["write_table"].function(f"{tmp_path}/out", f"file://{tmp_path}/out.csv") == 4
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as table:
        found = {(row["input.prompt"], row["input.seed"]) for row in csv.DictReader(table)}
    assert found == {("a fox", "0"), ("a fox", "1"), ("a hare", "0"), ("a hare", "1")}


def test_the_keys_of_the_docs(tmp_path: Path) -> None:
    """The table in docs/outputs.md names all keys of a row, in their order."""
    text = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
    table = text[text.index("| key | value |") :].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`([\w.<>]+)`", row.split("|")[1])]
    assert named == [*COLUMNS, "input.<parameter>", "metrics.<name>"]


def test_a_manifest_of_the_first_release() -> None:
    """What is stored stays readable: this file is never changed."""
    (row,) = read_manifests(str(GOLDEN))
    assert row == {
        "prediction_id": "dk3n1xvp95rm40csdz0b7e2a8m",
        "name": None,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "created_at": "2026-03-12T11:27:20.258Z",
        "started_at": "2026-03-12T11:27:20.301Z",
        "completed_at": "2026-03-12T11:27:20.901Z",
        "stored_at": "2026-03-12T11:27:24+00:00",
        "dag_id": "pictures",
        "run_id": "manual__1",
        "task_id": "store",
        "map_index": -1,
        "index": 0,
        "uri": f"{GOLDEN}/dk3n1xvp95rm40csdz0b7e2a8m-0.webp",
        "content_type": "image/webp",
        "size": 183220,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "file_name": None,
        "input.prompt": "a lighthouse on a cliff at dawn",
        "input.seed": 7,
        "metrics.predict_time": 0.6,
    }


def test_without_input(store: Store, tmp_path: Path) -> None:
    """``write_input=False``: there are no columns of the input; the rest is as usual."""
    store([{"prompt": "a fox"}], write_input=False)
    (row,) = read_manifests(f"file://{tmp_path}/out")
    assert [key for key in row if "." in key] == ["metrics.predict_time", "metrics.image_count"]


def test_a_text_is_a_row(store: Store, tmp_path: Path) -> None:
    """The answer of a language model is a file as well."""
    store([{"prompt": "a fox"}], status="succeeded", output=["a ", "poem"])
    (row,) = read_manifests(f"file://{tmp_path}/out")
    assert (row["content_type"], row["size"]) == ("text/plain", 6)


def test_keys_of_all_inputs(tmp_path: Path) -> None:
    """Each row has the parameters of all rows, by first appearance, and ``None`` where it has none."""
    write(tmp_path, "b", created_at="2026-03-12T11:27:21Z", input={"seed": 1, "prompt": "b"}, metrics={"a": 1})
    write(tmp_path, "a", created_at="2026-03-12T11:27:20Z", input={"prompt": "a"}, metrics={"predict_time": 0.5})
    write(tmp_path, "c", created_at="2026-03-12T11:27:22Z", input=None, metrics=None)
    rows = read_manifests(str(tmp_path))
    assert [*rows[0]][len(COLUMNS) :] == ["input.prompt", "input.seed", "metrics.predict_time", "metrics.a"]
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert [[*row.values()][len(COLUMNS) :] for row in rows] == [
        ["a", None, 0.5, None],
        ["b", 1, None, 1],
        [None, None, None, None],
    ]


def test_a_prediction_without_files(tmp_path: Path) -> None:
    """It has a row of its own, without a file in it."""
    write(tmp_path, name="sku-1")
    (row,) = read_manifests(str(tmp_path))
    assert (row["prediction_id"], row["name"]) == ("abc", "sku-1")
    assert [row[key] for key in COLUMNS[-6:]] == 6 * [None]


def test_values(tmp_path: Path) -> None:
    """Scalars stay what they are. Anything else is a cell, too, which a file in UTF-8 and Airflow's database take."""
    write(
        tmp_path,
        input={
            "b": True,
            "f": 0.5,
            "i": 7,
            "n": None,
            "l": ["caf\u00e9", {"a": 1}],
            "d": {"a": [1]},
            "big": 10**30,
            "nan": float("nan"),
            "half": "a\ud83d\0b",
            "half\ud83d": ["\ud83d"],
        },
        metrics={"time": 1, "words": "many", "nested": {"a": 1}, "yes": True},
    )
    (row,) = read_manifests(str(tmp_path))
    assert {key: value for key, value in row.items() if "." in key} == {
        "input.b": True,
        "input.f": 0.5,
        "input.i": 7,
        "input.n": None,
        "input.l": '["caf\u00e9", {"a": 1}]',
        "input.d": '{"a": [1]}',
        "input.big": str(10**30),
        "input.nan": "NaN",
        "input.half": "a\ufffd\ufffdb",
        "input.half\ufffd": '["\ufffd"]',
        "metrics.time": 1,
    }
    json.dumps(row, allow_nan=False).encode()


def test_order(tmp_path: Path) -> None:
    """By time and not by its spelling, then by id, then by the file's index; without a time last."""
    times = {
        "e": "2026-03-12T12:27:20.5+01:00",
        "d": "2026-03-12T11:27:20Z",
        "c": "2026-03-12T11:27:20.258Z",
        "b": None,
        "a": "yesterday",
        "z": "2026-03-12T11:27:20.000",
    }
    for prediction_id, created_at in times.items():
        files = [file(f"{prediction_id}-{index}.webp") for index in range(11)]
        write(tmp_path, prediction_id, created_at=created_at, files=files)
    rows = read_manifests(str(tmp_path))
    assert [row["prediction_id"] for row in rows[::11]] == ["d", "z", "c", "e", "a", "b"]
    assert [row["index"] for row in rows] == 6 * [*range(11)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"manifest_version": 2}',
        {"prediction_id": "another"},
        {"files": [{"uri": "x"}]},
        {"files": [file("other-0.webp")]},
        {"files": [file("abc-1.webp")]},
        {"files": [file("..")]},
        {"files": [file("abc-0.webp/../../secrets")]},
        {"files": [file("abc-0.webp?versionId=1")]},
    ],
    ids=lambda content: str(content)[:40],
)
def test_what_is_no_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any) -> None:
    """It is left out, the others are there, and one warning says how many and which. It can't name a foreign file."""
    write(tmp_path, "good", files=[file("good-0.webp")])
    if isinstance(content, bytes):
        (tmp_path / "abc.manifest.json").write_bytes(content)
    else:
        whole = {**write(tmp_path), **content}
        (tmp_path / "abc.manifest.json").write_text(json.dumps(whole))
    with caplog.at_level(logging.WARNING):
        (row,) = read_manifests(str(tmp_path))
    assert row["uri"] == f"{tmp_path}/good-0.webp"
    (said,) = [one.getMessage() for one in caplog.records if one.name == manifests.__name__]
    assert said.endswith("1 of 2 manifests are left out, because this release can't read them: abc.manifest.json")


def test_many_that_are_no_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The warning counts all of them and names a few."""
    for number in range(20):
        (tmp_path / f"{number:02}.manifest.json").write_text("{}")
    assert read_manifests(str(tmp_path)) == []
    assert "20 of 20 manifests" in caplog.text
    assert caplog.text.count(".manifest.json") == manifests.SHOWN_NAMES


def test_other_files_do_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pictures, unfinished files and folders are no manifests, and nobody is warned of them."""
    write(tmp_path)
    for name in ("abc-0.webp", ".abc.manifest.json.0123.part", "notes.json", "manifest.json"):
        (tmp_path / name).write_text("x")
    write(tmp_path / "deeper", "other")
    (tmp_path / "x.manifest.json").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(read_manifests(str(tmp_path))) == 1
    assert [one for one in caplog.records if one.name == manifests.__name__] == []


@pytest.mark.parametrize("name", ["out[1]*", "with blank", "caf\u00e9"])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    """A folder's name is no pattern; a folder may be given as a path, as a URL, with a slash at its end."""
    from airflow.sdk import ObjectStoragePath

    folder = tmp_path / name
    write(folder, files=[file()])
    for given in (str(folder), f"file://{folder}", f"{folder}/", ObjectStoragePath(f"file://{folder}")):
        (row,) = read_manifests(given)
        assert ObjectStoragePath(row["uri"]).name == "abc-0.webp"
        assert ObjectStoragePath(row["uri"]).path == f"{folder}/abc-0.webp"


def test_no_manifests(tmp_path: Path) -> None:
    """A folder that is empty or does not exist has no rows."""
    assert read_manifests(str(tmp_path)) == []
    assert read_manifests(f"file://{tmp_path}/none") == []


def test_storage_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, or a manifest in it, that can't be read is an error of the storage, and never an incomplete table."""
    from fsspec.implementations.local import LocalFileSystem

    write(tmp_path)
    with pytest.raises(StorageError, match=r"abc\.manifest\.json: NotADirectoryError"):
        read_manifests(f"{tmp_path}/abc.manifest.json")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("not yours")

    for method in ("cat_file", "ls"):
        with monkeypatch.context() as patch:
            patch.setattr(LocalFileSystem, method, fail)
            with pytest.raises(StorageError, match="PermissionError: not yours"):
                read_manifests(str(tmp_path))


def test_a_manifest_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no row; whoever cleans up a folder is no trouble of the storage."""
    from fsspec.implementations.local import LocalFileSystem

    original = LocalFileSystem.ls

    def ls(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        (tmp_path / "gone.manifest.json").unlink()
        return found

    write(tmp_path, "gone")
    write(tmp_path, "here")
    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    assert [row["prediction_id"] for row in read_manifests(str(tmp_path))] == ["here"]


def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the manifests themselves only a few are held at the same time: what is not in the table is forgotten."""
    for number in range(40):
        write(tmp_path, f"p{number}", metrics={"log": "x" * 500_000})
    monkeypatch.setattr(manifests, "BYTES_AT_ONCE", 2_000_000)
    tracemalloc.start()
    try:
        assert len(read_manifests(str(tmp_path))) == 40
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_a_file_that_is_too_large(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read, and counted among those that are left out."""
    write(tmp_path, "large", metrics={"log": "x" * 5000})
    write(tmp_path, "small")
    monkeypatch.setattr(manifests, "BYTES_AT_ONCE", 5000)
    assert [row["prediction_id"] for row in read_manifests(str(tmp_path))] == ["small"]
    assert "1 of 2 manifests are left out, because this release can't read them: large.manifest.json" in caplog.text


def test_groups() -> None:
    """Groups are bounded by number and by size, keep the order and lose nothing."""
    sizes = {f"{number}": 1 for number in range(130)} | {"large": manifests.BYTES_AT_ONCE, "last": 1}
    groups = [*manifests._groups(sizes)]
    assert [len(group) for group in groups] == [64, 64, 2, 1, 1]
    assert [path for group in groups for path in group] == [*sizes]
    assert [*manifests._groups({})] == []
