"""``submissions/submission.py``: predictions that were paid for, under ids that no request can name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.record import stored_id
from tests.support.characters import acting
from tests.support.task_runner import TaskRunner
from tests.unit.submissions import batches
from tests.unit.submissions.creates import operator, waiting

FORGED = "x\ncomet.created id=forged model=a/b reason=first"
UNUSABLE = [
    *(FORGED, "a b", "..", "a/b", "\u00fc", "\u202ea", "None", "-a", "a?b", "a\0b", "\ud83d"),
    *("a" * 201, "a" * 5_000_000, "\u202e" * 5_000),
]
EACH_ID = pytest.mark.parametrize("made", UNUSABLE, ids=lambda made: ascii(made[:12]))


def answer(comet: Emulator, made: str, count: int = 1) -> None:
    """The next creates are accepted and billed, under this id."""
    comet.fault(
        method="POST", status=201, accept=True, count=count, body={"id": made, "status": "starting", "model": "a/b"}
    )


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What our modules log, in lines; none of them holds a character that acts, or is long."""
    from airflow_provider_comet.operators import prediction  # noqa: F401  its first import sets up Airflow's logging

    caplog.set_level(logging.INFO)
    lines: list[str] = []
    yield lines
    lines += [record.getMessage() for record in caplog.records if "airflow_provider_comet" in record.name]
    assert [line for line in lines if acting(line) or len(line) > 1_800] == []


def created(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("comet.created")]


@EACH_ID
@pytest.mark.parametrize("make", [operator, waiting], ids=lambda make: make.__name__)
def test_an_unusable_id_is_kept_and_never_bought_again(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, made: str, make: Any
) -> None:
    """The task fails for good and says that it is paid; retry and clear say the same, and send nothing."""
    answer(comet, made)
    for options in ({}, {"try_number": 2}, {"try_number": 3, "max_tries": 5}):
        outcome = runner.run(make(), **options)
        assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
        assert "created and is paid for, but CometAPI gave it an id that can't be polled" in outcome.message
        assert "Not sent" not in outcome.message
        assert acting(outcome.message) == []
        assert len(outcome.message) < 1_500
    assert comet.ledger()["accepted"] == 1
    record = runner.record()
    assert (record["state"], record["id"]) == ("accepted", stored_id(made))
    (line,) = created(caplog)
    assert [part.partition("=")[0] for part in line.split()[1:]] == [
        *("id", "model", "dag", "run", "task", "map", "try", "reason")
    ]


@pytest.mark.usefixtures("no_store")
def test_without_a_record_it_fails_for_good(comet: Emulator, runner: TaskRunner) -> None:
    """Where no record is kept, Airflow does not try again: that would pay again."""
    answer(comet, FORGED)
    outcome = runner.run(operator())
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert comet.ledger()["accepted"] == 1


def test_a_batch_keeps_what_it_can_use(comet: Emulator, runner: TaskRunner) -> None:
    """The input is listed as rejected, with its record; its id is not handed over, and nothing is bought again."""
    answer(comet, FORGED)
    task = batches.operator(batches.inputs("a"), on_item_error="keep")
    for options in ({}, {"try_number": 2}):
        outcome = runner.run(task, **options)
        assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
        assert outcome.xcoms["created"] == [None]
        (rejected,) = outcome.xcoms["rejected"]
        assert rejected["type"] == "UnusableIdError"
        assert acting(rejected["error"]) == []
    grown = batches.operator(batches.inputs("a", "b"), on_item_error="keep")
    outcome = runner.run(grown, try_number=3, max_tries=5)
    assert (outcome.state, outcome.result) == ("success", [None, *batches.ids(comet, ["b"])])
    assert batches.bought(comet) == ["a", "b"]


def test_a_batch_stops_at_an_unusable_id(comet: Emulator, runner: TaskRunner) -> None:
    """A gateway that bills for what nobody can use is not sent the rest."""
    answer(comet, "..", count=3)
    outcome = runner.run(batches.operator(batches.inputs("a", "b", "c")))
    assert outcome.state == "failed"
    assert batches.bought(comet) == ["a"]
