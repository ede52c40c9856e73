"""`make test-compat`: test imports, provider metadata and every example DAG with the Airflow of this interpreter.

Each example runs by `airflow dags test` against the emulator. Its triggers run inline, so no scheduler is needed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

from airflow_provider_comet.emulator.runner import Emulator
from tests.e2e.processes import Interrupted, interruptible
from tests.e2e.standalone import airflow_env, clean_env

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PACKAGE = "airflow_provider_comet"
DISTRIBUTION = "airflow-provider-comet"
OF_AIRFLOW_3_1 = ("example_content_pipeline", "example_review")
EXAMPLES = sorted({path.stem for path in (ROOT / "example_dags").glob("*.py")} - {*OF_AIRFLOW_3_1})
DAGS = [*EXAMPLES, "example_new_pictures"]  # the second DAG of its file
# Prints what Airflow knows of this provider; it runs in a process of its own with the settings of airflow_env().
PROVIDERS = f"""
import json, sys
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
hook = manager.hooks.get("cometapi")
json.dump({{
    "version": getattr(manager.providers.get("{DISTRIBUTION}"), "version", None),
    "hook": hook and hook.hook_class_name,
}}, sys.stdout)
"""

OF_AIRFLOW_3_3 = f"{PACKAGE}.retry_policy"
# The error of a user who loads an example all the same.
REFUSED_EXAMPLE = """
import runpy, sys
from airflow.exceptions import AirflowOptionalProviderFeatureException
try:
    runpy.run_path(f"example_dags/{sys.argv[1]}.py")
except AirflowOptionalProviderFeatureException as error:
    assert "needs Airflow 3.1+" in str(error)
else:
    raise AssertionError("it was loaded")
"""
REFUSED = f"""
from airflow.exceptions import AirflowOptionalProviderFeatureException
try:
    import {OF_AIRFLOW_3_3}
except AirflowOptionalProviderFeatureException as error:
    assert "needs Airflow 3.3" in str(error)
else:
    raise AssertionError("it was imported")
"""
CREATES = {
    "CreatePredictionOperator",
    "CreatePredictionBatchOperator",
    "CometPredictionDecoratedOperator",  # what 3.0 calls a mapped @task.comet_prediction
    "@task.comet_prediction",
}


class CompatError(Exception):
    """A part of this package does not work with this Airflow."""


def airflow_version(expected: str) -> str:
    """Check that the set-up has installed the expected Airflow."""
    installed = version("apache-airflow-core")
    if installed != expected:
        raise CompatError(f"Airflow {expected} was expected and {installed} is installed")
    return f"Airflow {installed}, Python {sys.version.split()[0]}"


def imports(env: dict[str, str]) -> str:
    """Check that every module of the package can be imported, in a process of its own."""
    package = importlib.import_module(PACKAGE)
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    modules = [name for name in modules if not name.endswith(".__main__") and name != OF_AIRFLOW_3_3]
    call([sys.executable, "-c", "\n".join(f"import {name}" for name in modules)], env)
    call([sys.executable, "-c", REFUSED], env)
    return f"{len(modules)} modules; {OF_AIRFLOW_3_3} says what it needs"


def provider(env: dict[str, str]) -> str:
    """Check that Airflow lists the provider in our version, with its connection type."""
    output = call([sys.executable, "-c", PROVIDERS], env)
    listed = json.loads(output.splitlines()[-1])
    if listed["version"] != version(DISTRIBUTION) or not listed["hook"]:
        raise CompatError(f"Airflow's providers manager lists {DISTRIBUTION} as {listed}\n{output}")
    return f"{DISTRIBUTION} {listed['version']}, connection type cometapi"


def assets(env: dict[str, str]) -> str:
    """Register the assets: Airflow 3.0 runs no task with an unknown asset, and `dags test` registers none."""
    call([str(BIN / "airflow"), "dags", "reserialize"], env)
    with closing(sqlite3.connect(Path(env["AIRFLOW_HOME"]) / "airflow.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM asset_active").fetchone()
    return f"{count} registered"


def refused_example(name: str, env: dict[str, str]) -> str:
    """Check that an example that needs a later Airflow says so."""
    call([sys.executable, "-c", REFUSED_EXAMPLE, name], env)
    return "says what it needs"


def example(dag_id: str, env: dict[str, str], emulator: Emulator) -> str:
    """Check that all tasks of an example succeed, and that its creates return exactly what was bought."""
    before = len(emulator.ledger()["creates"])
    output = call([str(BIN / "airflow"), "dags", "test", dag_id], env)
    # The states come from the database: a last task that always runs makes the run a success despite a failed task.
    with closing(sqlite3.connect(Path(env["AIRFLOW_HOME"]) / "airflow.db")) as database:
        query = "SELECT task_id, map_index, operator, state FROM task_instance WHERE dag_id = ?"
        rows = database.execute(query, [dag_id]).fetchall()
        query = "SELECT task_id, map_index, value FROM xcom WHERE dag_id = ? AND key = 'return_value'"
        xcoms = {(task_id, map_index): value for task_id, map_index, value in database.execute(query, [dag_id])}
    states = {(task_id, map_index): state for task_id, map_index, _, state in rows}
    returned = [xcoms[task_id, map_index] for task_id, map_index, operator, _ in rows if operator in CREATES]
    bought = [create["id"] for create in emulator.ledger()["creates"][before:]]
    if set(states.values()) != {"success"} or sorted(bought) != sorted(re.findall(r"\w+", " ".join(returned))):
        raise CompatError(f"{dag_id}: {states}, bought {bought}, returned {returned}\n{_end(output)}")
    return f"{len(states)} tasks succeeded, {len(bought)} predictions bought"


def call(command: list[str], env: dict[str, str]) -> str:
    """Return what a command prints, and fail if it fails."""
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise CompatError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{_end(done.stdout + done.stderr)}")
    return done.stdout


def _end(text: str) -> str:
    return "\n".join(text.splitlines()[-60:])


def check(name: str, work: Callable[[], str]) -> None:
    """Run a check and print its result and its duration."""
    start = time.monotonic()
    result = work()
    print(f"{time.monotonic() - start:6.1f} s  {name:<28} {result}", flush=True)


def main() -> int:
    """Run all checks and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.compat", description=__doc__)
    parser.add_argument("--airflow", required=True, help="the version that must be installed")
    options = parser.parse_args()
    passed = 0
    try:
        with (
            interruptible(),
            tempfile.TemporaryDirectory(prefix="comet-compat-") as home,
            Emulator(duration=1.5) as emulator,
        ):
            env = {**clean_env(), **airflow_env(Path(home), ROOT / "example_dags")}
            env["AIRFLOW_CONN_COMETAPI_DEFAULT"] = emulator.connection_json()
            env["COMET_PICTURES"] = f"file://{home}/pictures"
            checks: dict[str, Callable[[], str]] = {
                "version": lambda: airflow_version(options.airflow),
                "import": lambda: imports(env),
                "database": lambda: call([str(BIN / "airflow"), "db", "migrate"], env) and "ready",
                "provider": lambda: provider(env),
                "assets": lambda: assets(env),
            }
            checks |= {name: partial(refused_example, name, env) for name in OF_AIRFLOW_3_1}
            checks |= {f"dags test {dag_id}": partial(example, dag_id, env, emulator) for dag_id in DAGS}
            for name, work in checks.items():
                check(name, work)
                passed += 1
    except Interrupted as stop:
        return stop.exit_code
    except Exception as error:
        print(f"\n{error}\n\n{passed} passed, 1 failed", file=sys.stderr, flush=True)
        return 1
    print(f"{passed} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
