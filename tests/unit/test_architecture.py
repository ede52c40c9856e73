"""Who may import whom, what an import costs, and how long a module may be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_comet"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAME = PACKAGE.name
LONGEST_MODULE = 300


def imports(path: Path) -> set[str]:
    """The full names of all modules and names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def below(names: set[str], *packages: str) -> set[str]:
    """Those names that belong to one of the packages."""
    return {name for name in names if any(name == one or name.startswith(f"{one}.") for one in packages)}


def loaded_by(statements: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter after some statements."""
    code = f"import json, sys\n{statements}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def dotted(path: Path) -> str:
    """The module name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def identify(path: Path) -> str:
    """A file's name for a test id."""
    return str(path.relative_to(PACKAGE))


def under(folder: str) -> list[Path]:
    """The modules of a part of the package; there are some."""
    found = [path for path in MODULES if path.is_relative_to(PACKAGE / folder)]
    assert len(found) > 1
    return found


@pytest.mark.parametrize("path", under("api"), ids=identify)
def test_the_core_knows_neither_airflow_nor_http_libraries(path: Path) -> None:
    """``api`` imports nothing of Airflow, of the HTTP libraries, or of the package outside of itself."""
    names = imports(path)
    assert not below(names, "airflow", "requests", "aiohttp", "urllib3", "httpx", "http", "socket")
    assert below(names, NAME) == below(names, f"{NAME}.api")


def test_importing_the_core_loads_neither_airflow_nor_http_libraries() -> None:
    """All of ``api`` can be imported without loading Airflow, requests or aiohttp, directly or through others."""
    loaded = loaded_by("\n".join(f"import {dotted(path)}" for path in under("api")))
    assert f"{NAME}.api.protocol" in loaded
    assert not below(loaded, "airflow", "requests", "aiohttp", "urllib3")


@pytest.mark.parametrize("path", under("emulator"), ids=identify)
def test_the_emulator_is_a_program_of_its_own(path: Path) -> None:
    """The emulator imports nothing of the rest of the package and no Airflow: it can't share the package's mistakes."""
    names = imports(path)
    assert below(names, NAME) == below(names, f"{NAME}.emulator")
    assert not below(names, "airflow")


@pytest.mark.parametrize("path", [path for path in MODULES if "emulator" not in path.parts], ids=identify)
def test_nothing_of_the_package_needs_the_emulator(path: Path) -> None:
    """No other module imports the emulator."""
    assert not below(imports(path), f"{NAME}.emulator")


def test_importing_the_emulator_loads_nothing_else_of_the_package() -> None:
    """In a fresh interpreter the emulator loads of this package nothing but itself, and no Airflow."""
    loaded = loaded_by(f"import {NAME}.emulator.__main__")
    assert below(loaded, NAME) == below(loaded, f"{NAME}.emulator") | {NAME}
    assert not below(loaded, "airflow")


def test_a_dag_file_loads_no_http_library() -> None:
    """Operator and sensor load neither requests nor aiohttp beyond what Airflow's own base classes load, and none of
    Airflow's trigger classes, which cost as much as all that is ours."""
    bases = (
        "import airflow.sdk\nfrom airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator"
    )
    bases += ", AirflowFailException, AirflowSkipException, mask_secret, PokeReturnValue, AirflowSensorTimeout"
    bases += ", AirflowNotFoundException, BaseOperatorLink, XCom"
    ours = f"\nimport {NAME}.operators.prediction, {NAME}.sensors.prediction"
    added = loaded_by(bases + ours) - loaded_by(bases)
    assert f"{NAME}.operators.prediction" in added
    assert f"{NAME}.client" not in added
    assert not below(added, "requests", "aiohttp", "urllib3", "httpx", "airflow.triggers")


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_no_module_is_long(path: Path) -> None:
    """A module that grows beyond 300 lines does more than one thing."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_only_the_client_talks_to_the_network() -> None:
    """Outside of the modules that are there for it, and the emulator, none imports an HTTP library at run time."""
    offenders = {
        identify(path)
        for path in MODULES
        if "emulator" not in path.parts
        and path.name not in {"client.py", "async_client.py", "delivery.py", "delivery_session.py"}
        and _imports_at_run_time(path, "requests", "aiohttp", "urllib3")
    }
    assert offenders == set()


def _imports_at_run_time(path: Path, *packages: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return bool(below(names, *packages))
