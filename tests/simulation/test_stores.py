"""The world of a store that waits by itself: hand-overs happen, and storage fails as storage does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.simulation.story import Event, Story
from tests.simulation.world import World

LIVES: list[Event] = [
    {"kind": "prediction", "number": number, "seconds": seconds, "end": "succeeded"}
    for number, seconds in ((1, 10.0), (2, 100.0), (3, 400.0))
]


def happened(options: dict[str, Any], *events: Event) -> list[str]:
    """Return the trace of a story of a batch and a store."""
    world = World(Story({"shape": "batch", "has_sensor": False, "storage": "objects", **options}, [*LIVES, *events]))
    world.run()
    return world.trace


def moments(trace: list[str], pattern: str) -> list[float]:
    return [float(line.split()[0]) for line in trace if re.search(pattern, line)]


@pytest.mark.parametrize("options", [{"hand_over_count": 1}, {"hand_over_seconds": 20.0}])
def test_an_attempt_hands_over_several_times(options: dict[str, Any]) -> None:
    """The first results are stored while the last prediction runs, each by a process of its own."""
    trace = happened(options)

    stored = moments(trace, r"store\[-1\]\.\d+/main log comet\.stored ")
    assert len(moments(trace, r"store\[-1\] is deferred")) == 3
    assert stored[0] < 100 < stored[1] < 400 < stored[2]


def test_with_the_real_constants_short_predictions_are_stored_together() -> None:
    """A start of the task for each would be dear."""
    trace = happened({})

    assert len(moments(trace, r"store\[-1\] is deferred")) == 1


@pytest.mark.parametrize(
    ("storage", "operation", "words"),
    [("objects", "put", ": refused"), ("parts", "commit", ": refused"), ("others", "commit", "")],
)
def test_only_what_is_no_object_store_tears_files(storage: str, operation: str, words: str) -> None:
    """An object is there as a whole or not at all; another file system may keep half of a file."""
    options = {"shape": "single", "storage": storage}
    usual = happened(options)
    files = [line for line in usual if " file " in line]
    place = next(number for number, line in enumerate(files, 1) if f"file {operation} " in line)

    torn = happened(options, {"kind": "file", "number": place, "failure": "torn"})

    assert any(line.endswith(f"-0.png{words}") and f"file {operation} " in line for line in torn)
    assert len(moments(torn, rf"file {operation} \S+-0\.png")) == 2
