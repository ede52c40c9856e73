"""What the documents show: each block of code runs, each link leads somewhere, each page can be found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("code", [one for one in blocks("python") if "def test_" not in one.values[0]])
def test_python(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Python is part of a DAG file that Airflow can load: operators take these parameters, names exist."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(IMPORTS, names)
    from airflow.sdk import DAG

    if "@dag" in code:
        exec(compile(code, "docs", "exec"), names)
        return
    with DAG("docs", schedule=None):
        names["create"] = names["CreatePredictionOperator"](task_id="a_create", model="a/b", input={"prompt": "x"})
        names["wait"] = names["PredictionSensor"](task_id="a_wait", prediction_id=names["create"].output)
        exec(compile(code, "docs", "exec"), names)


@pytest.mark.parametrize("code", [one for one in blocks("python") if "def test_" in one.values[0]])
def test_tests(code: str, tmp_path: Path) -> None:
    """A test that is shown is one that passes."""
    (tmp_path / "test_shown.py").write_text(code)
    dags = str(ROOT / "example_dags")
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__DAGS_FOLDER": dags}
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


@pytest.mark.parametrize("code", [one for one in blocks("bash") if f"{EMULATOR_URL}/_emulator" in one.values[0]])
def test_what_is_asked_of_the_emulator(code: str) -> None:
    """Each ``curl`` is a request that the emulator takes."""
    with Emulator() as emulator:
        command = code.replace(EMULATOR_URL, emulator.base_url).replace("curl ", "curl --silent --show-error --fail ")
        done = subprocess.run(["bash", "-e", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", blocks("bash", ""))
def test_commands(code: str) -> None:
    """Make targets, extras and modules that are named exist."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", code)) <= targets
    assert set(re.findall(r"airflow-provider-comet\[([\w-]+)\]", code)) <= set(extras)
    for module in re.findall(rf"python -m ({PACKAGE}[\w.]*)", code):
        assert (ROOT / module.replace(".", "/") / "__main__.py").exists()


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
