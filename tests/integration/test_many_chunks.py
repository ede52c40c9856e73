"""More than a thousand prompts, as in `example_many_chunks`: what a longer list buys in a run that has paid."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import Clock, TaskRunner

EXAMPLE = Path(__file__).resolve().parents[2] / "example_dags" / "example_many_chunks.py"
SIZE = 20  # of a chunk that is cut by place
ROWS = [{"prompt": f"picture {number}"} for number in range(3 * SIZE)]
NEW = {"prompt": "the new row"}
Chunks = list[list[dict[str, Any]]]


class Run:
    """A run of the example, whose list may change.

    :param module: the example's file.
    """

    def __init__(self, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        self.module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.dag = self.module.example_many_chunks()
        self._runner, self._monkeypatch = runner, monkeypatch

    def by_content(self, rows: list[dict[str, Any]]) -> Chunks:
        """The example's own way."""
        self._monkeypatch.setattr(self.module, "INPUTS", rows)
        chunks: Chunks = self.dag.get_task("chunks").python_callable()
        return chunks

    def by_place(self, rows: list[dict[str, Any]]) -> Chunks:
        """What one would write first."""
        return [rows[start : start + SIZE] for start in range(0, len(rows), SIZE)]

    def create(self, chunks: Chunks, **attempt: int) -> list[str]:
        """Run the instances of `create`, and return their states."""
        task = self.dag.get_task("chunk.create")
        states = []
        for index, chunk in enumerate(chunks):
            task.inputs = chunk
            states.append(self._runner.run(task, map_index=index, **attempt).state)
        return states


@pytest.fixture
def run(runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(runner, monkeypatch)


def paid_but_not_handed_over(runner: TaskRunner, run: Run, chunks: Chunks) -> None:
    """A first try that pays for everything, and fails before it has handed anything over."""
    # The state store is away from the moment that the list of what was handed over is written.
    runner.on_store = lambda method, value: 422 if any((value or {}).get("items", {}).values()) else 200
    assert {*run.create(chunks)} == {"up_for_retry"}
    runner.on_store = lambda method, value: 200


def bought(comet: Emulator) -> Counter[str]:
    return Counter(create["input"]["prompt"] for create in comet.ledger()["creates"])


@pytest.mark.parametrize("max_tries", [2, 5], ids=["retry", "clear"])
def test_a_row_in_front_buys_only_itself(
    comet: Emulator, clock: Clock, runner: TaskRunner, run: Run, max_tries: int
) -> None:
    """All rows were paid for when a row is put in front of them: a retry, or a clear, pays for that row alone."""
    paid_but_not_handed_over(runner, run, run.by_content(ROWS))
    assert bought(comet) == Counter(row["prompt"] for row in ROWS)
    states = run.create(run.by_content([NEW, *ROWS]), try_number=2, max_tries=max_tries)
    assert {*states} == {"success"}
    assert bought(comet) == Counter(row["prompt"] for row in [NEW, *ROWS])


def test_a_list_cut_by_place_buys_a_row_at_each_boundary(
    comet: Emulator, clock: Clock, runner: TaskRunner, run: Run
) -> None:
    """Why the example does not do so: the last row of each chunk moves to the next one, which has no record of it."""
    paid_but_not_handed_over(runner, run, run.by_place(ROWS))
    assert {*run.create(run.by_place([NEW, *ROWS]), try_number=2, max_tries=5)} == {"success"}
    again = [prompt for prompt, count in bought(comet).items() if count == 2]
    assert again == [row["prompt"] for row in ROWS[SIZE - 1 :: SIZE]]


def test_all_rows_are_in_the_chunks(run: Run) -> None:
    """None is lost or doubled; equal rows stay together, and their order is that of the list."""
    chunks = run.by_content([*ROWS, ROWS[7]])
    assert sorted(row["prompt"] for chunk in chunks for row in chunk) == sorted(
        row["prompt"] for row in [*ROWS, ROWS[7]]
    )
    assert [chunk.count(ROWS[7]) for chunk in chunks if ROWS[7] in chunk] == [2]
    for chunk in chunks:
        assert sorted(chunk, key=[*ROWS].index) == chunk or ROWS[7] in chunk


@pytest.mark.parametrize("count", [1, 3500], ids=["an empty chunk", "a chunk of more than 1,000"])
def test_a_number_of_chunks_that_does_not_fit_is_an_error(run: Run, count: int) -> None:
    """Nothing is paid before the sizes are known, and the error names them and what to change."""
    with pytest.raises(Exception, match=r"chunks of \[.*\] inputs; a chunk takes 1 to 1,000: change CHUNKS \(3\)"):
        run.by_content([{"prompt": f"picture {number}"} for number in range(count)])
