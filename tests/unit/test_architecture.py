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
MAX_LINES = 250
ROOMS = ("api", "client", "polling", "submissions", "inputs", "outputs")
"""The folders of capabilities. What is not of them belongs to Airflow, or is the emulator."""
IO_MODULES = (
    "client/async_client.py",
    "client/connections.py",
    "client/sync_client.py",
    "inputs/input_files.py",
    "inputs/prepare.py",
    "inputs/schema_files.py",
    "outputs/connections.py",
    "outputs/download.py",
    "outputs/file_download.py",
    "outputs/list_writer.py",
    "outputs/manifest_reader.py",
    "outputs/manifests.py",
    "outputs/object_upload.py",
    "outputs/storage.py",
    "outputs/writer.py",
    "polling/clock.py",
    "polling/prediction_ids.py",
    "submissions/batch_submission.py",
    "submissions/state_store.py",
    "submissions/stored_record.py",
    "submissions/submission.py",
)
"""The modules of the rooms that touch the network, a disk or Airflow. All others of them are pure."""
LAYERS = (
    {"__init__", "provider_info", "api"},
    {"client", "polling", "metrics"},
    {"submissions", "inputs", "outputs", "links"},
    {"hooks", "airflow_errors", "templated"},
    {"triggers", "retry_policy"},
    {"operators", "sensors"},
    {"decorators"},
)
"""From the bottom up: folders and single modules. Imports point down, or stay within a layer."""
HTTP_LIBRARIES = ("requests", "aiohttp", "urllib3", "httpx", "http.client", "socket", "ssl", "fsspec")


def imports(path: Path) -> set[str]:
    """The full names of all modules and names that a file imports, anywhere in it."""
    return _names_in(ast.parse(path.read_text(encoding="utf-8")))


def _names_in(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def run_time_imports(path: Path) -> set[str]:
    """The same, without what only a type checker imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return _names_in(tree)


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


def is_pure(path: Path) -> bool:
    """Whether a module only decides: no I/O, no Airflow, no HTTP library."""
    return path.relative_to(PACKAGE).parts[0] in ROOMS and identify(path) not in IO_MODULES


PURE = [path for path in MODULES if is_pure(path)]


def under(folder: str) -> list[Path]:
    """The modules of a part of the package; there are some."""
    found = [path for path in MODULES if path.is_relative_to(PACKAGE / folder)]
    assert len(found) > 1
    return found


def test_the_list_of_io_modules_is_true() -> None:
    """Each of ``IO_MODULES`` exists: one that was moved or became pure leaves the list."""
    assert {*IO_MODULES} <= {identify(path) for path in MODULES}
    assert len(PURE) > len(IO_MODULES)


def layer(name: str) -> int:
    """The number of the layer of a module, by its file or its full name."""
    return next(number for number, names in enumerate(LAYERS) if name.partition(".")[0] in names)


@pytest.mark.parametrize("path", [path for path in MODULES if "emulator" not in path.parts], ids=identify)
def test_imports_point_down(path: Path) -> None:
    """No module imports from a layer above its own, not even for a type."""
    own = layer(identify(path).removesuffix(".py").replace("/", "."))
    ours = {name.removeprefix(f"{NAME}.") for name in below(imports(path), NAME)}
    assert {name for name in ours if name != "__version__" and layer(name) > own} == set()


def test_rooms_of_one_layer_form_no_circle() -> None:
    """Of two rooms of a layer at most one imports the other."""
    pairs = {
        (identify(path).split("/")[0].removesuffix(".py"), name.split(".")[1])
        for path in MODULES
        if "emulator" not in path.parts
        for name in below(imports(path), NAME)
    }
    assert {(one, other) for one, other in pairs if one < other and (other, one) in pairs} == set()


@pytest.mark.parametrize("path", PURE, ids=identify)
def test_a_pure_module_knows_neither_airflow_nor_io(path: Path) -> None:
    """It imports, at run time, nothing of Airflow and of the HTTP libraries, and of the package only pure modules."""
    names = run_time_imports(path)
    assert not below(names, "airflow", *HTTP_LIBRARIES)
    ours = [name for name in below(names, NAME) if name != f"{NAME}.__version__"]
    assert {name.split(".")[1] for name in ours} <= {*ROOMS}
    assert not below({*ours}, *(f"{NAME}.{one[:-3].replace('/', '.')}" for one in IO_MODULES))


@pytest.mark.parametrize("path", under("api"), ids=identify)
def test_the_contract_knows_nothing_else_of_the_package(path: Path) -> None:
    """``api`` imports nothing of the package outside of itself."""
    names = imports(path)
    assert below(names, NAME) == below(names, f"{NAME}.api")


def test_importing_the_pure_modules_loads_neither_airflow_nor_http_libraries() -> None:
    """All of them can be imported without loading Airflow, requests or aiohttp, directly or through others."""
    loaded = loaded_by("\n".join(f"import {dotted(path)}" for path in PURE))
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
    assert f"{NAME}.client.sync_client" not in added
    assert not below(added, "requests", "aiohttp", "urllib3", "httpx", "airflow.triggers")


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_no_module_is_long(path: Path) -> None:
    """A module that grows beyond 250 lines does more than one thing."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_only_io_modules_do_io() -> None:
    """Outside of ``IO_MODULES``, and of the emulator, none imports an HTTP library, sockets or fsspec at run time."""
    offenders = {
        identify(path)
        for path in MODULES
        if "emulator" not in path.parts
        and identify(path) not in IO_MODULES
        and below(run_time_imports(path), *HTTP_LIBRARIES)
    }
    assert offenders == set()


def test_only_io_modules_know_airflows_store() -> None:
    """Airflow's task state store is named in ``IO_MODULES`` alone: all others get to it through ``submissions``."""
    named = {identify(path) for path in MODULES if "task_state_store" in path.read_text(encoding="utf-8")}
    assert named
    assert named <= {*IO_MODULES}


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__init__.py"], ids=identify)
def test_tests_mirror_the_package(path: Path) -> None:
    """Each module has a test file of its name at the mirrored path; a long one may have more beside it."""
    place = Path(identify(path))
    assert (ROOT / "tests" / "unit" / place.parent / f"test_{place.name}").exists()


@pytest.mark.parametrize("room", [*ROOMS, "hooks"])
def test_the_map_names_every_module(room: str) -> None:
    """Each module of a room stands in CONTRIBUTING's map, where the place of a change is found."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{room}/`")]
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
    assert {module for module in modules if f"`{module}`" not in row} == set()
