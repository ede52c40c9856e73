"""Measure what hostile answers, and thousands of waits that act together, do to a triggerer's event loop and a worker.

A server in a process of its own (``benchmarks.answers_server``) sends each answer over loopback to waits in another
process (``benchmarks.answers_client``). An answer that blocks that process for too long costs it its life, and the
figure is the time until then: so the part ends, whatever the code at hand does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks import processes
from benchmarks.report import Part, Table, Target, number

LIMIT_MS = 50.0
"""The longest block of the event loop that an answer may cause. Airflow warns from 200 on."""
PATIENCE = 6.0
"""Seconds of a block after which a process is ended."""
WAIT_SECONDS = 1.0
GROWTH = {"blanks": 10_000, "request_ids": 20_000, "titles": 40_000, "open_titles": 40_000, "urls": 100_000}
"""The size of each refusal; measured with twice this, too."""
GROWTH["queries"] = 200_000
RESULT_BYTES = 990_000
RESULTS = (
    *("text", "words", "numbers", "nested", "nested_900", "keys", "links", "escapes", "escaped_texts"),
    *("data_uri", "data_words", "error_text"),
)
LOG_BYTES = 50_000_000
BOMB_BYTES = 500_000_000
TRICKLE_SECONDS = 8.0
READ_TIMEOUT = 1.0
HERD = 10_000
SILENT = 1_000
HERD_SECONDS = 6.0
NOTES = [
    "Block: the longest time for which a timer of the same event loop was late, from the request of a "
    "`PredictionTrigger` to its event. Of a block without collections, Python's own garbage collections are taken off: "
    "a full one visits every object of the process, Airflow's modules included, and no code of a "
    "provider shortens that.",
    "On a busy machine a block is longer than its CPU, because other processes run meanwhile.",
    f"A process that is blocked for {PATIENCE:g} s is ended; its row says so by `>`. Growth: the time for twice the "
    "size divided by that for the size. 2 is linear, 4 is quadratic.",
]


class _Client:
    """A client's process, replaced when an answer has blocked it for too long."""

    def __init__(self, server: processes.Process) -> None:
        self._server = server
        self._process: processes.Process | None = None

    def call(self, patience: float = PATIENCE, **command: Any) -> dict[str, Any]:
        """Return the measurements of a command, or only the seconds for which it was waited."""
        if self._process is None:
            self._process = processes.Process("answers_client")
            self._process.call(url=self._server.hello["url"], lists=[["running.1.warm"]], seconds=0.5, is_paced=False)
        began = time.monotonic()
        self._process.patience = patience
        try:
            result: dict[str, Any] = self._process.call(url=self._server.hello["url"], **command)
        except processes.NoAnswer:
            self.close()
            seconds = time.monotonic() - began
            return {
                **dict.fromkeys(("block", "net", "cpu", "seconds"), seconds),
                "memory": math.inf,
                "outcome": "ended from outside",
                "is_stuck": True,
            }
        return {**result, "is_stuck": False}

    def poll(self, name: str, size: int) -> dict[str, Any]:
        """Return the measurements of a wait that gets this answer."""
        self._server.call(name=name, size=size)
        return self.call(PATIENCE + WAIT_SECONDS, lists=[[f"{name}.{size}"]], seconds=WAIT_SECONDS, is_paced=False)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.__exit__(None, None, None)
            self._process = None


@contextmanager
def _client() -> Iterator[_Client]:
    with processes.Process("answers_server") as server:
        client = _Client(server)
        try:
            yield client
        finally:
            client.close()


def _shown(result: Mapping[str, Any], name: str, factor: float = 1000.0) -> str:
    return f"{'> ' if result['is_stuck'] else ''}{number(result[name] * factor)}"


def run() -> Part:
    """Measure everything once."""
    figures: dict[str, float] = {}
    with _client() as client:
        tables = [_growth(client, figures), _results(client, figures)]
        # Each in a process of its own: the most memory that a process ever had is what is measured.
        client.close()
        tables.append(_large(client, figures))
        tables += [_trickle(client, figures), _herds(client, figures)]
    targets = [
        Target(name, name.replace("_", " "), LIMIT_MS, unit=" ms") for name in figures if name.endswith("_net_ms")
    ]
    targets += [Target(name, name.replace("_", " "), 3, unit="x") for name in figures if name.endswith("_growth")]
    targets += [
        Target(name, name.replace("_", " "), 2 * READ_TIMEOUT, unit=" s") for name in figures if "trickle" in name
    ]
    targets += [Target(name, name.replace("_", " "), 64, unit=" MB") for name in figures if name.endswith("_mb")]
    return Part(title="Hostile answers", tables=tables, figures=figures, targets=targets, notes=NOTES)


def _growth(client: _Client, figures: dict[str, float]) -> Table:
    rows = []
    for name, size in GROWTH.items():
        once, twice = client.poll(name, size), client.poll(name, 2 * size)
        # A block shorter than this is noise, and its growth, too.
        growth = math.inf if once["is_stuck"] else twice["net"] / max(once["net"], 0.02)
        figures |= {f"refusal_{name}_net_ms": twice["net"] * 1000, f"refusal_{name}_growth": growth}
        rows.append([
            f"`{name}`, {size:,} bytes",
            _shown(once, "net"),
            _shown(twice, "net"),
            number(growth),
            twice["outcome"],
        ])
    return Table(["a refusal", "block, ms", "of twice the size", "growth", "ends as"], rows)


def _results(client: _Client, figures: dict[str, float]) -> Table:
    rows = []
    for name in RESULTS:
        result = client.poll(name, RESULT_BYTES)
        figures[f"result_{name}_net_ms"] = result["net"] * 1000
        rows.append([
            f"`{name}`",
            _shown(result, "net"),
            _shown(result, "cpu"),
            _shown(result, "block"),
            result["outcome"],
        ])
    return Table(["a result just below 1 MB", "block, ms", "of it CPU", "with collections", "ends as"], rows)


def _large(client: _Client, figures: dict[str, float]) -> Table:
    rows = []
    for words, name, size in (("50 MB of logs", "logs", LOG_BYTES), ("gzip, 486 kB for 500 MB", "bomb", BOMB_BYTES)):
        result = client.poll(name, size)
        figures |= {f"{name}_net_ms": result["net"] * 1000, f"{name}_mb": result["memory"]}
        rows.append([f"trigger: {words}", _shown(result, "net"), *_cost(result)])
        client.close()
        result = client.call(prediction_id=f"{name}.{size}", read_timeout=75.0)
        figures[f"worker_{name}_mb"] = result["memory"]
        rows.append([f"worker: {words}", "", *_cost(result)])
        client.close()
    return Table(["a large answer", "block, ms", "memory, MB", "s", "ends as"], rows)


def _cost(result: Mapping[str, Any]) -> list[str]:
    memory = "not known" if result["is_stuck"] else number(result["memory"])
    return [memory, _shown(result, "seconds", 1.0), result["outcome"]]


def _trickle(client: _Client, figures: dict[str, float]) -> Table:
    prediction_id = f"trickle.{TRICKLE_SECONDS:g}"
    result = client.call(TRICKLE_SECONDS + PATIENCE, prediction_id=prediction_id, read_timeout=READ_TIMEOUT)
    figures["worker_trickle_s"] = result["seconds"]
    words = f"`read_timeout` {READ_TIMEOUT:g} s, a byte each 0.2 s for {TRICKLE_SECONDS:g} s"
    return Table(["a server that trickles, on a worker", "ends after, s", "ends as"], [[words, *_cost(result)[1:]]])


def _herds(client: _Client, figures: dict[str, float]) -> Table:
    ids = [f"silent.{n}" if n < SILENT else f"running.1.{n}" for n in range(HERD)]
    each = [[prediction_id] for prediction_id in ids]
    rows = []
    paced = ("as a triggerer starts them, 50 polls/s", True, 50.0)
    at_once = ("in one step, no rate limit", False, 80_000.0)
    triggers, one_list = (f"{HERD:,} triggers", each), (f"a list of {HERD // 2:,}", [ids[: HERD // 2]])
    for (words, lists), (start, is_paced, rate) in ((triggers, paced), (triggers, at_once), (one_list, at_once)):
        result = client.call(
            60.0 + HERD_SECONDS,
            lists=lists,
            seconds=HERD_SECONDS,
            grace=3.0,
            is_paced=is_paced,
            extra={"max_polls_per_second": rate, "read_timeout": 4.0},
        )
        name = f"herd_{'list' if len(lists) == 1 else 'triggers'}_{'paced' if is_paced else 'at_once'}"
        figures[f"{name}_net_ms"] = result["net"] * 1000
        figures[f"{name}_block"] = result["block"] * 1000
        rows.append([f"{words}, {start}", _shown(result, "net"), _shown(result, "cpu"), _shown(result, "block")])
        client.close()
    return Table([f"{SILENT:,} of them get no answer", "block, ms", "of it CPU", "with collections"], rows)
