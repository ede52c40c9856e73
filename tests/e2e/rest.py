"""A client of Airflow's REST API for tests (standard library only)."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FINISHED = ("success", "failed")
DATABASE_SECONDS = 30.0
"""For this time a request is sent again to an Airflow whose database is locked."""


class RestError(Exception):
    """Airflow answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        """Show the status and the beginning of the body."""
        super().__init__(f"HTTP {status}: {text[:500]}")
        self.status = status


@dataclass(frozen=True)
class Change:
    """A change of a task instance's state.

    :param seconds: since the first request.
    """

    seconds: float
    task_id: str
    map_index: int
    state: str | None
    task_instance: dict[str, Any]


class AirflowRest:
    """Calls an API server as an admin, as SIMPLE_AUTH_MANAGER_ALL_ADMINS makes every user.

    :param url: the API server, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        """Prepare a client without proxies."""
        self.url = url
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(self, method: str, path: str, body: object = None, *, authorized: bool = True) -> Any:
        """Send a request and return the parsed JSON answer.

        A request that ends with HTTP 500 is sent again: Airflow rolled its transaction back, so nothing has happened.
        SQLite is the cause: it has one writer at a time, and on a busy machine others wait longer than five seconds.

        :param path: starts with a slash.
        """
        end = time.monotonic() + DATABASE_SECONDS
        while True:
            try:
                return self._send(method, path, body, authorized)
            except RestError as error:
                if error.status != 500 or time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def _send(self, method: str, path: str, body: object, authorized: bool) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if authorized:
            self._token = self._token or self.send("GET", "/auth/token", authorized=False)["access_token"]
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise RestError(error.code, error.read().decode(errors="replace")) from None
        return json.loads(content) if content else None

    def health(self) -> dict[str, str | None]:
        """Return the status of each component, such as `healthy`."""
        answer = self.send("GET", "/api/v2/monitor/health", authorized=False)
        return {name: part["status"] for name, part in answer.items() if part}

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Return when the DAG processor has found the DAG; raise an import error."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.send("GET", f"/api/v2/dags/{dag_id}")
                return
            except RestError as error:
                if error.status != 404:
                    raise
            for broken in self.send("GET", "/api/v2/importErrors")["import_errors"]:
                raise RuntimeError(f"{broken['filename']} cannot be imported:\n{broken['stack_trace']}")
            if time.monotonic() > end:
                raise TimeoutError(f"Airflow has not found the DAG {dag_id} in {timeout:.0f} s")
            time.sleep(0.3)

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG, so that its schedule starts runs."""
        self.send("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def make_pool(self, name: str, slots: int) -> None:
        """Create a pool in which a deferred task holds a slot; Airflow starts no task whose pool does not exist."""
        self.send("POST", "/api/v2/pools", {"name": name, "slots": slots, "include_deferred": True})

    def set_variable(self, key: str, value: str) -> None:
        """Make an Airflow variable, or change it."""
        body = {"key": key, "value": value}
        try:
            self.send("POST", "/api/v2/variables", body)
        except RestError as error:
            if error.status != 409:  # it exists
                raise
            self.send("PATCH", f"/api/v2/variables/{key}", body)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.send("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self.send("GET", _run(dag_id, run_id))["state"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return all runs of a DAG."""
        return list(self.send("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, mapped instances included."""
        answer = self.send("GET", f"{_run(dag_id, run_id)}/taskInstances?limit=1000")
        return list(answer["task_instances"])

    def changes(self, dag_id: str, run_id: str, timeout: float = 180.0) -> Iterator[Change]:
        """Yield each change of a task's state as it happens, until the run has finished."""
        start = time.monotonic()
        known: dict[tuple[str, int], str | None] = {}
        while True:
            # The run comes first: if it has finished, the states of its tasks are final.
            finished = self.run_state(dag_id, run_id) in FINISHED
            for task in self.task_instances(dag_id, run_id):
                key = (task["task_id"], task["map_index"])
                if known.get(key) != task["state"]:
                    known[key] = task["state"]
                    yield Change(time.monotonic() - start, *key, task["state"], task)
            if finished:
                return
            if time.monotonic() - start > timeout:
                raise TimeoutError(f"the run {run_id} of {dag_id} was not finished after {timeout:.0f} s: {known}")
            time.sleep(0.15)

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom of a task."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.send("GET", f"{path}?map_index={map_index}&stringify=false")["value"]

    def log_entries(
        self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1
    ) -> list[dict[str, Any]]:
        """Return the entries of an attempt's log with all their fields."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self.send("GET", f"{path}?map_index={map_index}&full_content=true")["content"]
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in content]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """Return an attempt's log as text: time, level, message and the class of each error."""
        entries = self.log_entries(dag_id, run_id, task_id, try_number=try_number, map_index=map_index)
        return "\n".join(_readable(entry) for entry in entries)

    def record(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Any:
        """Return the record of a create in the task's state store, or `None`."""
        try:
            return self.send("GET", _record(dag_id, run_id, task_id, map_index))["value"]
        except RestError as error:
            if error.status == 404:
                return None
            raise

    def put_record(self, dag_id: str, run_id: str, task_id: str, value: Any, *, map_index: int = -1) -> None:
        """Write the record of a create, as a user does who knows the id of a lost prediction."""
        self.send("PUT", _record(dag_id, run_id, task_id, map_index), {"value": value})

    def delete_record(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> None:
        """Delete the record of a create, as a user does to buy a new prediction in any case."""
        self.send("DELETE", _record(dag_id, run_id, task_id, map_index))

    def question(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """Return what a human-in-the-loop task asks."""
        return dict(self.send("GET", _question(dag_id, run_id, task_id, map_index)))

    def answer(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        options: Sequence[str],
        *,
        params: Mapping[str, Any] | None = None,
        map_index: int = -1,
    ) -> None:
        """Answer a human-in-the-loop task, as a choice under `Required Actions` does.

        :param params: what was put into its form.
        """
        body = {"chosen_options": list(options), "params_input": dict(params or {})}
        self.send("PATCH", _question(dag_id, run_id, task_id, map_index), body)

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[Any], **options: Any) -> None:
        """Clear tasks, as a click on `Clear` does; an instance of a mapped task is `[task_id, map_index]`."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "reset_dag_runs": True,
            **options,
        }
        self.send("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", body)


def _run(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"


def _record(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{task_id}/state-store/comet_submission?map_index={map_index}"


def _question(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{task_id}/{map_index}/hitlDetails"


def _readable(entry: dict[str, Any]) -> str:
    lines = [" ".join(str(entry[key]) for key in ("timestamp", "level", "event") if entry.get(key))]
    # The files of the log: the triggerer writes a file of its own.
    lines += [str(source) for source in entry.get("sources") or []]
    lines += [f"  {error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
    return "\n".join(lines)
