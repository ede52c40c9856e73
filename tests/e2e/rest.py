"""What a test asks a running Airflow over its REST API (standard library only)."""

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


class RestError(Exception):
    """Airflow answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:500]}")
        self.status = status


@dataclass(frozen=True)
class Change:
    """A task instance has got another state."""

    seconds: float
    task_id: str
    map_index: int
    state: str | None
    task_instance: dict[str, Any]


class AirflowRest:
    """Calls the API server at `url` as the admin that every visitor is there (SIMPLE_AUTH_MANAGER_ALL_ADMINS)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(self, method: str, path: str, body: object = None, *, authorized: bool = True) -> Any:
        """The parsed JSON answer to one request; `path` starts with a slash."""
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
        """Component -> status (`healthy` when it is)."""
        answer = self.send("GET", "/api/v2/monitor/health", authorized=False)
        return {name: part["status"] for name, part in answer.items() if part}

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Return when the DAG processor has found it; an import error is raised as such."""
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
        """Let its schedule start runs."""
        self.send("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def make_pool(self, name: str, slots: int) -> None:
        """A pool: Airflow starts no task whose pool does not exist. A deferred task keeps its slot there."""
        self.send("POST", "/api/v2/pools", {"name": name, "slots": slots, "include_deferred": True})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        self.unpause(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self.send("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self.send("GET", _run(dag_id, run_id))["state"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG."""
        return list(self.send("GET", f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run, mapped ones included."""
        answer = self.send("GET", f"{_run(dag_id, run_id)}/taskInstances?limit=1000")
        return list(answer["task_instances"])

    def changes(self, dag_id: str, run_id: str, timeout: float = 180.0) -> Iterator[Change]:
        """Every change of state that can be seen, as it happens, until the run is finished."""
        start = time.monotonic()
        known: dict[tuple[str, int], str | None] = {}
        while True:
            # The run first: what is seen of the tasks afterwards is then what they ended with.
            finished = self.run_state(dag_id, run_id) in FINISHED
            for one in self.task_instances(dag_id, run_id):
                key = (one["task_id"], one["map_index"])
                if known.get(key) != one["state"]:
                    known[key] = one["state"]
                    yield Change(time.monotonic() - start, *key, one["state"], one)
            if finished:
                return
            if time.monotonic() - start > timeout:
                raise TimeoutError(f"the run {run_id} of {dag_id} was not finished after {timeout:.0f} s: {known}")
            time.sleep(0.15)

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """The value that a task has left."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.send("GET", f"{path}?map_index={map_index}&stringify=false")["value"]

    def log_entries(
        self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1
    ) -> list[dict[str, Any]]:
        """One attempt's log with everything that Airflow keeps of it."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self.send("GET", f"{path}?map_index={map_index}&full_content=true")["content"]
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in content]

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """One attempt's log for a person to read: time, level, text and the errors in a word."""
        entries = self.log_entries(dag_id, run_id, task_id, try_number=try_number, map_index=map_index)
        return "\n".join(_readable(entry) for entry in entries)

    def record(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> Any:
        """What the task's state store holds about its create; `None` if nothing."""
        try:
            return self.send("GET", _record(dag_id, run_id, task_id, map_index))["value"]
        except RestError as error:
            if error.status == 404:
                return None
            raise

    def put_record(self, dag_id: str, run_id: str, task_id: str, value: Any, *, map_index: int = -1) -> None:
        """What a user does who knows the id of a prediction that is not on record."""
        self.send("PUT", _record(dag_id, run_id, task_id, map_index), {"value": value})

    def delete_record(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> None:
        """What a user does who wants a new prediction although a paid one was not handed over."""
        self.send("DELETE", _record(dag_id, run_id, task_id, map_index))

    def question(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        """What a task asks a person."""
        return dict(self.send("GET", _question(dag_id, run_id, task_id, map_index)))

    def answer(self, dag_id: str, run_id: str, task_id: str, options: Sequence[str], *, map_index: int = -1) -> None:
        """What a person's choice under `Required Actions` does."""
        self.send("PATCH", _question(dag_id, run_id, task_id, map_index), {"chosen_options": list(options)})

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[Any], **options: Any) -> None:
        """What a user's click on `Clear` does for these tasks; one of a mapped task is `[task_id, map_index]`."""
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
    # Where the log was read from: the triggerer's part is a file of its own.
    lines += [str(source) for source in entry.get("sources") or []]
    lines += [f"  {error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
    return "\n".join(lines)
