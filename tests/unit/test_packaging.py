"""What we ship is the package and nothing else, and each setting has one home."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import airflow_provider_comet

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_comet"
DISTRIBUTION = "airflow-provider-comet"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in the wheel, built with what is installed: no download."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"{PACKAGE}-{airflow_provider_comet.__version__}.dist-info"
    shipped = {name for name in wheel if not name.startswith(f"{info}/")}
    tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shipped == tree
    assert {Path(name).suffix or name for name in shipped - {f"{PACKAGE}/py.typed"}} == {".py"}
    assert f"{PACKAGE}/py.typed" in shipped
    assert {name.removeprefix(f"{info}/") for name in wheel if name.startswith(info)} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_installed_version_is_the_one_of_the_package():
    assert version(DISTRIBUTION) == airflow_provider_comet.__version__


def test_entry_point_gives_the_provider_without_loading_airflow():
    (entry,) = [one for one in entry_points(group="apache_airflow_provider") if one.module.startswith(PACKAGE)]
    assert entry.load()()["package-name"] == DISTRIBUTION
    code = f"import sys; from {entry.module} import {entry.attr} as f; f(); print('airflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_what_dag_files_import_loads_no_http_library(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))  # importing Airflow writes its settings there
    ours = [f"{PACKAGE}.{kind}.prediction" for kind in ("operators", "sensors", "triggers")]
    # Compared with Airflow alone: what it loads by itself is not ours to change.
    airflow = "airflow.sdk.bases.sensor", "airflow.triggers.base", "airflow.providers.common.compat.connection"
    loaded = _modules_after_importing(*airflow, *ours) - _modules_after_importing(*airflow)
    assert set(ours) <= loaded
    assert {"aiohttp", "requests"} & loaded == set()


def _modules_after_importing(*names: str) -> set[str]:
    # The attributes make common-compat's lazy module load what we use of it.
    code = (
        f"import sys, {', '.join(names)}\nfrom airflow.providers.common.compat.sdk import BaseHook, BaseSensorOperator"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_setup_cfg_holds_tool_settings_only():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    assert {re.split(r"[:-]", name)[0] for name in parser.sections()} <= {"tool", "mypy", "coverage"}


def test_pyproject_leaves_pytest_mypy_and_coverage_to_setup_cfg():
    tables = re.findall(r"^\[+([^]]+)\]+$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert "project" in tables
    assert [name for name in tables if name.startswith(("tool.pytest", "tool.mypy", "tool.coverage"))] == []


@pytest.mark.parametrize("lock", ["airflow-3.0.txt", "airflow-3.3.txt"])
def test_locks_hold_names_and_versions_only(lock):
    lines = (ROOT / "constraints" / lock).read_text().splitlines()
    assert lines[0].startswith("# Made by `make lock`")
    pins = [line for line in lines if not line.startswith("# ")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[a-z0-9.+!]+", line)] == []
    assert f"apache-airflow=={lock.removeprefix('airflow-').removesuffix('.txt')}." in "\n".join(pins)


def test_every_path_named_in_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    links = {target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", readme) if "://" not in target}
    top = {path.name for path in ROOT.iterdir()}
    quoted = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?|[\w.-]+\.(?:md|cfg|toml))`", readme)
    named = links | {path for path in quoted if path.split("/")[0] in top - {"demo-output"}}
    assert sorted(path for path in named if path and not (ROOT / path).exists()) == []


def test_readme_shows_the_example_as_it_runs():
    assert (ROOT / "example_dags" / "example_prediction.py").read_text().strip() in (ROOT / "README.md").read_text()


def test_make_help_names_every_target():
    """Whoever runs `make` sees all there is to run."""
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in targets if f"make {name} " not in shown] == []
