"""Run a private `airflow standalone`: scheduler, API server, DAG processor and triggerer."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tests.e2e.processes import Program, free_ports, tail
from tests.e2e.rest import AirflowRest

# SQLite has one writer at a time. On a busy machine others wait longer than its five seconds, and Airflow's scheduler
# ends then. An API server answers with 500, and is asked again; it must not wait longer for its own other requests.
SQLITE_SETTINGS = """import sys

CONNECT_ARGS = {"timeout": 60.0 if "scheduler" in sys.argv else 5.0}
"""
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def clean_env() -> dict[str, str]:
    """Return this process's environment without the settings of a user's Airflow and without a CometAPI key."""
    foreign = ("AIRFLOW", "_AIRFLOW", "COMETAPI")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # With it, every Airflow process would compile all its modules again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    # Airflow's processes talk to each other over loopback HTTP, which must not go through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1", "localhost"]))
    return env


def airflow_env(home: Path, dags_folder: Path) -> dict[str, str]:
    """Return the settings that every private Airflow has."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "NO_COLOR": "1",
    }


class Standalone:
    """A healthy Airflow and its REST client `rest`, within a `with` block.

    ``env`` is the environment of its processes.

    :param dags_folder: the folder of the DAG files.
    :param home: its AIRFLOW_HOME; by default a temporary folder, which is removed afterwards.
    :param env: more environment variables, such as AIRFLOW_CONN_COMETAPI_DEFAULT.
    :param timeout: seconds until all components must be healthy.
    :param progress: called about every second of the start with the seconds that have passed.
    """

    def __init__(
        self,
        *,
        dags_folder: Path,
        home: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 180.0,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Choose free ports and prepare the settings; the block starts Airflow."""
        self._temporary = home is None
        self.home = (home or Path(tempfile.mkdtemp(prefix="airflow-comet-"))).resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        api, worker_log, trigger_log = free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        self.rest = AirflowRest(self.url)
        self.log = self.home / "standalone.log"
        self._timeout = timeout
        self._progress = progress or (lambda seconds: None)
        settings = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            # A file is parsed when it is found, and rarely again: parsing costs a process of 1.5 s.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log),
        }
        if "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in (env or {}):
            (self.home / "config").mkdir(exist_ok=True)  # Airflow imports from this folder
            (self.home / "config" / "comet_database_settings.py").write_text(SQLITE_SETTINGS)
            settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"] = "comet_database_settings.CONNECT_ARGS"
        self.env = {**clean_env(), **airflow_env(self.home, dags_folder.resolve()), **settings, **(env or {})}
        self._program = self._airflow("standalone")
        self._replacements: list[Program] = []

    def _airflow(self, *arguments: str) -> Program:
        command = [str(Path(sys.executable).parent / "airflow"), *arguments]
        return Program(command, log=self.log, env=self.env, marker="AIRFLOW_HOME", cwd=self.home)

    def __enter__(self) -> Standalone:
        """Start Airflow and wait until it is healthy."""
        try:
            self._program.start()
            self.wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop Airflow."""
        self.stop()

    def stop(self) -> None:
        """Stop all processes and remove a temporary home."""
        try:
            for program in (
                self._program,
                *self._replacements,
            ):  # the first program stops all processes, each program reaps its own
                program.stop()
        finally:
            if self._temporary:
                shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines that its processes wrote."""
        return tail(self.log, lines)

    def members(self) -> list[psutil.Process]:
        """Return its processes, the oldest first; the first is `airflow standalone` itself."""
        return self._program.members()

    def component(self, name: str) -> psutil.Process:
        """Return the process of a component, such as `triggerer` or `api-server`."""
        for process in self.members():
            with suppress(psutil.Error):
                # Airflow's servers give themselves a title: `airflow api_server -- host: ...`
                if re.search(rf"\bairflow {re.sub('[-_]', '[-_]', name)}\b", " ".join(process.cmdline())):
                    return process
        raise RuntimeError(f"no {name} is running")

    def triggerer_pid(self) -> int:
        """Return the process id of the triggerer."""
        return int(self.component("triggerer").pid)

    def kill(self, name: str) -> None:
        """Kill a component and its child processes, as if its machine was lost; standalone does not replace it."""
        process = self.component(name)
        victims = [process, *process.children(recursive=True)]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=10)

    def start(self, name: str, *options: str) -> psutil.Process:
        """Start a component that was killed, or another instance of it; `stop` stops it, too."""
        self._replacements.append(self._airflow(name, *options))
        return self._replacements[-1].start()

    def wait_until_healthy(self) -> None:
        """Return when all components are healthy."""
        start = time.monotonic()
        status: dict[str, str | None] = {}
        while (seconds := time.monotonic() - start) < self._timeout:
            if self._program.exit_code is not None:
                raise RuntimeError(f"airflow standalone ended with {self._program.exit_code}\n{self.log_tail()}")
            with suppress(OSError):  # the API server is not listening yet
                status = self.rest.health()
            if all(status.get(component) == "healthy" for component in COMPONENTS):
                return
            self._progress(seconds)
            time.sleep(0.5)
        raise TimeoutError(f"Airflow was not healthy after {self._timeout:.0f} s: {status}\n{self.log_tail()}")
