"""Stories that went wrong once: each is kept as its list of events, and must go well for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation.run import run_story
from tests.simulation.story import Story

STORIES = sorted((Path(__file__).parent / "stories").glob("*.json"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_permanent_story(path: Path) -> None:
    """What must hold holds, and each event of the story still happens."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    result = run_story(Story.from_json(kept))
    assert result.wrong is None, kept["what"]
    for words in kept["happens"]:
        assert any(words in line for line in result.trace), words


def test_there_are_stories() -> None:
    """The folder was not moved."""
    assert STORIES
