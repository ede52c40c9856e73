"""Tests of the table of events and states of records."""

from __future__ import annotations

import pytest

from tests.simulation import coverage
from tests.simulation.run import run_story
from tests.simulation.story import STRIKES, Event, Story
from tests.simulation.users import KINDS

POSSIBLE = ("clear run", "accepted")
IMPOSSIBLE = ("post late", "delivered")


def line_of(table: str, event: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(f"{event} "))


def test_a_pair_that_was_met_is_marked() -> None:
    """The row of its event has a mark in the column of the state."""
    line = line_of(coverage.table({POSSIBLE}), "clear run")

    assert line.removeprefix("clear run").split() == ["+"]
    assert POSSIBLE not in coverage.unmet({POSSIBLE})


def test_a_pair_that_was_not_met_is_named() -> None:
    """A hole in the table is named below it."""
    others = {pair for pair in coverage.possible() if pair != POSSIBLE}

    assert coverage.unmet(others) == [POSSIBLE]
    assert coverage.table(others).splitlines()[-1] == "not met: clear run (accepted)"


def test_a_pair_that_cannot_happen_is_a_dot_with_a_reason() -> None:
    """It is no hole, and somebody has said why."""
    assert line_of(coverage.table(set()), "post late").removeprefix("post late").split() == ["."] * 8
    assert "written before each POST" in str(coverage.reason(IMPOSSIBLE))
    assert IMPOSSIBLE not in coverage.unmet(set())


def test_a_pair_that_cannot_happen_and_was_met_is_an_error() -> None:
    """Then the reason is wrong, or the world is."""
    (words,) = coverage.unexpected({POSSIBLE, IMPOSSIBLE})

    assert words.startswith("post late, delivered: was met, but: ")
    assert words in coverage.summary({POSSIBLE, IMPOSSIBLE})


def test_an_event_that_is_no_row_is_an_error() -> None:
    """A new event has to get its row."""
    assert coverage.unexpected({("an earthquake", "none")}) == ["an earthquake: is no row"]


def test_each_reason_is_of_use() -> None:
    """Each rule of what can't happen fits some pair."""
    for pattern, columns, words in coverage.RULES:
        found = [
            (event, column)
            for event in coverage.events()
            for column in columns.split()
            if coverage.reason((event, column)) == words
        ]
        assert found, pattern
        assert set(columns.split()) <= {*coverage.COLUMNS}


@pytest.mark.parametrize("kind", [*STRIKES, *KINDS])
def test_each_kind_of_event_has_rows(kind: str) -> None:
    """What a story may hold stands in the table."""
    assert any(event.startswith(kind) for event in coverage.events())


def test_an_event_meets_the_state_that_the_record_has_at_that_moment() -> None:
    """Before a write it is another one than after it."""

    def met(phase: str) -> set[tuple[str, str]]:
        place = {"task": "create", "index": -1, "attempt": 1, "effect": "store.set", "nth": 1, "phase": phase}
        events: list[Event] = [{"kind": "kill", **place}]
        return {pair for pair in run_story(Story({}, events)).pairs if pair[0].startswith("kill")}

    assert met("before") == {("kill before store.set", "none")}
    assert met("after") == {("kill after store.set", "sending")}


def test_an_event_in_a_batch_meets_the_record_of_its_input() -> None:
    """The records of the other inputs count for nothing."""
    story = Story({"shape": "batch"}, [{"kind": "post", "number": 3, "answer": "late"}])

    assert {pair for pair in run_story(story).pairs if pair[0] == "post late"} == {("post late", "sending")}


def test_a_task_that_waits_has_no_record() -> None:
    """It has a column of its own."""
    place = {"task": "wait", "index": -1, "attempt": 1, "effect": "get", "nth": 1, "phase": "before"}
    pairs = run_story(Story({}, [{"kind": "kill", **place}])).pairs

    assert {pair for pair in pairs if pair[0].startswith("kill")} == {
        ("kill before get", "wait"),
        ("kill of a later task", "delivered"),
    }
