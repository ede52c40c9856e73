"""Runs stories, and makes a failing one as short as it can be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.simulation.cast import DEFAULTS
from tests.simulation.invariants import Violated
from tests.simulation.story import Story
from tests.simulation.world import World


@dataclass(frozen=True)
class Result:
    """How a story went.

    :param wrong: what does not hold; ``None``: everything holds.
    :param trace: what happened, a line for each effect.
    :param pairs: which events met which state of a record.
    """

    wrong: str | None
    trace: list[str] = field(repr=False)
    pairs: set[tuple[str, str]] = field(repr=False)

    @property
    def kind(self) -> str:
        """What is wrong, without the names and numbers of this story."""
        return re.sub(r"\S*[\d\[]\S*", "#", self.wrong or "")[:120]


def run_story(story: Story) -> Result:
    """Let a story happen, and return how it went."""
    world = World(story)
    wrong = None
    try:
        world.run()
    except (Exception, Violated) as error:
        wrong = f"{type(error).__name__}: {error}"
    return Result(wrong, world.trace, world.pairs)


def shorten(story: Story, still_fails: Callable[[Story], bool]) -> Story:
    """Return the shortest story, by removal of events and of options, that still fails."""
    found = True
    while found:
        found = False
        for shorter in _shorter(story):
            if still_fails(shorter):
                story, found = shorter, True
                break
    return story


def _shorter(story: Story) -> Iterator[Story]:
    for number in reversed(range(len(story.events))):
        events = [event for other, event in enumerate(story.events) if other != number]
        yield dataclasses.replace(story, events=events)
    if story.order:
        yield dataclasses.replace(story, order=0)
    for name in story.cast:
        if name != "shape" and story.cast[name] != DEFAULTS[name]:
            yield dataclasses.replace(story, cast={**story.cast, name: DEFAULTS[name]})
    for number, event in enumerate(story.events):
        for name in ("nth", "attempt", "number"):
            if event.get(name, 1) != 1:
                events = [*story.events]
                events[number] = {**event, name: event[name] - 1}
                yield dataclasses.replace(story, events=events)
