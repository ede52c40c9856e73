"""What the documents show: each block of code runs, each link leads somewhere, each page can be found."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from airflow_provider_comet.api import errors, file_errors
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.record import Record
from tests.e2e import rest
from tests.support.task_runner import Clock, TaskRunner, dag

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MODEL = "black-forest-labs/flux-schnell"
EMULATOR_URL = "http://127.0.0.1:8765"
PACKAGE = "airflow_provider_comet"
# What pages use without saying where it comes from: their first lines, or the README's tables, do.
IMPORTS = f"""
from airflow.sdk import DAG, Asset, ObjectStoragePath, dag, task, task_group
from {PACKAGE}.hooks.comet_replicate import CometReplicateHook
from {PACKAGE}.operators.batch import CreatePredictionBatchOperator
from {PACKAGE}.operators.download import DownloadPredictionOutputOperator
from {PACKAGE}.operators.prediction import CreatePredictionOperator
from {PACKAGE}.sensors.prediction import PredictionSensor
"""


def blocks(*languages: str) -> list[Any]:
    """All blocks in these languages, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            if block[2] in languages:
                line = text[: block.start()].count("\n") + 1
                found.append(pytest.param(textwrap.dedent(block[3]), id=f"{page.relative_to(ROOT)}:{line}"))
    return found


# With what the functions of tasks that pages show are called; each must return something.
CALLS: dict[str, tuple[Any, ...]] = {
    "tonight": ("a harbour", types.SimpleNamespace(run_after=datetime(2026, 1, 1, tzinfo=UTC))),
    "describe": ("https://example.com/a.png",),
    "write_table": (str(ROOT / "tests" / "unit" / "golden" / "stored"), "table.csv"),
    "contact_sheet": ([{"name": "B-17", "files": [{"uri": "file:///pictures/a.png"}]}],),
}


def test_every_fence_is_tested() -> None:
    """Each block says its language, and it is one that a test here reads."""
    found = {block[2] for page in PAGES for block in FENCE.finditer(page.read_text(encoding="utf-8"))}
    assert found == {"python", "json", "bash", "ini", "text", "yaml"}
    assert len(blocks("text")) == 2  # the result's keys, and the line of a create
    for page in PAGES:
        assert len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) % 2 == 0, page


def loaded(code: str) -> tuple[Any, dict[str, Any]]:
    """The DAG that Python of a page makes or is a part of, and its names."""
    names: dict[str, Any] = {"__name__": "docs"}
    exec(IMPORTS, names)
    from airflow.sdk import DAG

    if "@dag" in code:
        exec(compile(code, "docs", "exec"), names)
        return names[re.findall(r"@dag.*\ndef (\w+)", code)[0]](), names
    with DAG("docs", schedule=None) as made:
        names["create"] = names["CreatePredictionOperator"](task_id="a_create", model="a/b", input={"prompt": "x"})
        names["store"] = names["DownloadPredictionOutputOperator"](
            task_id="a_store", prediction=names["create"].output, output_path="file:///pictures"
        )
        exec(compile(code, "docs", "exec"), names)
    return made, names


@pytest.mark.parametrize("code", [one for one in blocks("python") if "def test_" not in one.values[0]])
def test_python(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comet: Emulator, clock: Clock) -> None:
    """Python is part of a DAG that Airflow can load and store: operators take these parameters, names exist. Functions
    of tasks do what they are shown for."""
    from airflow.sdk.bases.decorator import _TaskDecorator
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.chdir(tmp_path)
    made, names = loaded(code)
    monkeypatch.setattr(
        names["ObjectStoragePath"], "sign", lambda path, expiration: f"https://x/{path.name}?Signature=1"
    )
    json.dumps(DagSerialization.to_dict(made))
    for name, value in names.items():
        if isinstance(value, _TaskDecorator):
            assert value.function(*CALLS[name])


def test_the_keys_of_a_result() -> None:
    """The README names all keys of what a wait returns, in their order."""
    from airflow_provider_comet.api.summary import SUMMARY_KEYS

    (block,) = [one.values[0] for one in blocks("text") if one.values[0].startswith("{")]
    assert re.findall(r'"(\w+)"', block) == [*SUMMARY_KEYS]


def test_the_line_of_a_create(
    comet: Emulator, clock: Clock, runner: TaskRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """What the log has of a create is what the page about spending says, by which people count."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        create = CreatePredictionOperator(task_id="create", model=MODEL, input={"prompt": "x"})
    made = runner.run(create).result
    (line,) = [one for one in caplog.messages if one.startswith("comet.created")]
    (shown,) = [one.values[0].strip() for one in blocks("text") if one.values[0].startswith("comet.created")]
    values = {"id": made, "owner/name": MODEL, "dag": "dag", "run": "run", "task": "create", "index": "-1", "n": "1"}
    values["reason"] = "first"
    assert line == re.sub(r"<([\w/]+)>", lambda found: values[found[1]], shown)


@pytest.mark.parametrize("code", blocks("ini"))
def test_settings(code: str) -> None:
    """Settings that are shown are settings that we have."""
    from airflow_provider_comet.provider_info import get_provider_info

    read = configparser.ConfigParser()
    read.read_string(code)
    known = {section: {*described["options"]} for section, described in get_provider_info()["config"].items()}
    assert {section: {*read[section]} for section in read.sections()} == known


@pytest.mark.parametrize("code", [one for one in blocks("python") if "def test_" in one.values[0]])
def test_tests(code: str, tmp_path: Path) -> None:
    """A test that is shown is one that passes."""
    (tmp_path / "test_shown.py").write_text(code)
    dags = str(ROOT / "example_dags")
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__DAGS_FOLDER": dags}
    env["COMET_PICTURES"] = (tmp_path / "pictures").as_uri()
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [dags, env.get("PYTHONPATH")]))
    airflow = [sys.executable, "-m", "airflow", "db", "migrate"]
    commands = [airflow] if ".test()" in code else []
    commands.append([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", *2 * [str(tmp_path)]])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.parametrize("code", blocks("json"))
def test_json(code: str) -> None:
    """JSON can be read; three dots stand for what is left out."""
    json.loads(re.sub(r",?\s*\.\.\.(?=\s*[}\]])", "", code))


def test_manifest() -> None:
    """The manifest that docs/outputs.md shows follows the schema, and its table explains each field."""
    from airflow_provider_comet.outputs import manifest

    text = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
    (shown,) = [json.loads(block[3]) for block in FENCE.finditer(text) if '"manifest_version"' in block[3]]
    Draft202012Validator(manifest.SCHEMA).validate(shown)
    assert shown.keys() == manifest.SCHEMA["properties"].keys()
    table = text[text.index("| field | meaning |") :].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert named == [*manifest.SCHEMA["properties"]]


@pytest.mark.parametrize("code", [one for one in blocks("bash") if f"{EMULATOR_URL}/_emulator" in one.values[0]])
def test_what_is_asked_of_the_emulator(code: str) -> None:
    """Each ``curl`` is a request that the emulator takes."""
    with Emulator() as emulator:
        command = code.replace(EMULATOR_URL, emulator.base_url).replace("curl ", "curl --silent --show-error --fail ")
        done = subprocess.run(["bash", "-e", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [one for one in blocks("bash") if "$AIRFLOW_URL" in one.values[0]])
def test_what_is_asked_of_airflow(code: str) -> None:
    """Each ``curl`` is a request that our tests with a real Airflow send."""
    words = shlex.split(code.replace("\\\n", " "))
    method, body = words[words.index("-X") + 1], json.loads(words[words.index("-d") + 1])
    (url,) = [one.partition("$AIRFLOW_URL")[2] for one in words if one.startswith("$AIRFLOW_URL")]
    path = re.sub(r"\$(\w+)_ID", lambda found: found[1], url)
    known = {
        ("PUT", rest._record("DAG", "RUN", "TASK", -1)): lambda: Record.from_json({**body["value"], "id": "abc"}).id,
        ("PATCH", rest._question("DAG", "RUN", "review", -1)): lambda: body["chosen_options"],
    }
    assert known[method, path]()


def test_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compose file starts the emulator as its command line allows, and its connection leads to that service."""
    import yaml

    from airflow_provider_comet.emulator.__main__ import parser
    from airflow_provider_comet.hooks.connection import get_config

    (block,) = blocks("yaml")
    services = yaml.safe_load(block.values[0])["services"]
    (command,) = shlex.split(services["comet-emulator"]["command"])[2:]
    options = parser().parse_args(shlex.split(command)[3:])
    monkeypatch.setenv(
        "AIRFLOW_CONN_COMETAPI_DEFAULT", services["airflow"]["environment"]["AIRFLOW_CONN_COMETAPI_DEFAULT"]
    )
    config = get_config("cometapi_default")
    assert (config.base_url, config.api_key) == (f"http://comet-emulator:{options.port}", options.api_key)
    assert options.host == "0.0.0.0"  # the other container is another machine


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands(code: str) -> None:
    """Make targets, extras, modules and commands of Airflow that are named exist, and take these arguments."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", code)) <= targets
    assert set(re.findall(r"airflow-provider-comet\[([\w-]+)\]", code)) <= set(extras)
    for module in re.findall(rf"python -m ({PACKAGE}[\w.]*)", code):
        assert (ROOT / module.replace(".", "/") / "__main__.py").exists()
    from airflow.cli.cli_parser import get_parser

    for command in re.findall(r"^airflow .*", code.replace(" && ", "\n"), re.MULTILINE):
        get_parser().parse_args(shlex.split(command)[1:])


def test_every_error_is_in_the_table() -> None:
    """What Airflow does about an error, and what to do about it oneself, stands in docs/errors-and-retries.md."""
    bases = {"CometError", "APIError", "PredictionError"}
    page = (ROOT / "docs" / "errors-and-retries.md").read_text(encoding="utf-8")
    kinds = [value for module in (errors, file_errors) for value in vars(module).values() if isinstance(value, type)]
    names = {kind.__name__ for kind in kinds if issubclass(kind, errors.CometError)} - bases
    in_table = set(re.findall(r"`(\w+Error)`", "".join(line for line in page.splitlines() if line.startswith("|"))))
    assert names - in_table == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Links to files and headings of this repository lead somewhere."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings]
            assert heading in anchors, target


def test_every_page_can_be_found() -> None:
    """From the README one gets to every page."""
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8"))
        todo += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert set(PAGES) <= seen
