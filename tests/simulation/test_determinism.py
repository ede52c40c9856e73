"""``tests/simulation``: the same seed is the same story, and happens in the same way, wherever it is run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import kernel
from tests.simulation.digest import digest_of_run, digest_of_stories
from tests.simulation.story import Story
from tests.simulation.world import World

SEEDS = range(40)
STORIES = "7120761f314b4c11"
"""Of the stories of seeds 0 to 199. A change of the generator changes it: then the new one is put here, on purpose."""


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return [digest_of_run(seed) for seed in SEEDS]


def test_a_seed_is_the_same_twice_in_a_process(digests: list[str]) -> None:
    """Nothing that one story leaves behind changes the next one: the second time, the order is another one."""
    backwards = [digest_of_run(seed) for seed in reversed(SEEDS)]
    assert backwards[::-1] == digests


def test_a_seed_is_the_same_with_other_hashes(digests: list[str]) -> None:
    """No order depends on the hash of a string, or on where an object is in memory."""
    command = [sys.executable, "-m", "tests.simulation.digest", "--seeds", str(len(SEEDS))]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
    lines = [line for line in ended.stdout.splitlines() if line.partition(" ")[0].isdigit()]  # Airflow logs there, too
    assert lines == [f"{seed} {digest}" for seed, digest in zip(SEEDS, digests, strict=True)]


def test_a_story_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads end with it: later, they would have their effects in another story."""
    monkeypatch.setattr(kernel, "MAX_SWITCHES", 60)
    world = World(Story({"shape": "batch"}))
    with pytest.raises(kernel.Stuck):
        world.run()
    assert [process.name for process in world.kernel.processes if process.threads] == []


def test_the_stories_of_the_seeds() -> None:
    """Two machines, and two releases of Python, speak of the same stories."""
    assert digest_of_stories(range(200)) == STORIES


def test_a_triggerer_that_dies_while_it_stands_still_leaves_nothing_behind() -> None:
    """Its tasks end with it, although its loop does not turn."""
    events = [
        {"kind": "triggerer_pauses", "seconds": 20.0, "when": ["wait", -1, "deferred", 5.0]},
        {"kind": "triggerer_dies", "when": ["wait", -1, "deferred", 10.0]},
    ]
    world = World(Story({}, events))
    world.run()
    triggerers = world.scheduler.triggerers.triggerers
    assert len(triggerers) == 2
    assert [asyncio.all_tasks(triggerer.loop) for triggerer in triggerers] == [set(), set()]
