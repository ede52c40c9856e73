"""``tests/simulation/lines.py``: a part of its sweep, and that the sweep strikes what it should."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_comet.client import sync_client
from airflow_provider_comet.submissions.batch_submission import BatchSubmission
from airflow_provider_comet.submissions.submission import Submission
from tests.simulation.cast import SHAPES
from tests.simulation.lines import Base, bases, failure, run_as_usual

EVERY = 100
"""One line of so many is tried; other ones in each story."""

BASES = bases()


@pytest.mark.parametrize("shape", SHAPES)
def test_an_exception_at_some_lines(shape: str) -> None:
    """Wherever it comes, all invariants hold, and the task ends as it does without it, for the same money."""
    for place, base in enumerate(BASES):
        if base.story.cast["shape"] == shape:
            usual = run_as_usual(base)
            assert usual.wrong is None, base.name
            tried = range(place * 7 % EVERY, len(usual.lines), EVERY)
            assert [found for number in tried if (found := failure(base, number, usual))] == [], base.name


def test_only_the_main_thread_is_traced() -> None:
    """Other threads run between two lines of it, and none of theirs is struck; afterwards it is still traced."""
    single = run_as_usual(_base("single, fail: its first try")).lines
    assert _reached(single, Submission.resume)
    assert not _reached(single, Submission.sending, Submission.accepted)
    assert _reached(single, Submission.delivered)
    batch = run_as_usual(_base("batch, fail: its first try")).lines
    assert _reached(batch, BatchSubmission.submit)
    assert not _reached(batch, BatchSubmission._submit, Submission.sending, Submission.accepted)
    assert _reached(batch, BatchSubmission.delivered)


def test_a_create_in_the_main_thread_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep finds what it is for: without a thread of its own, a create loses what was paid."""
    monkeypatch.setattr(sync_client, "run_uninterrupted", lambda call, on_interrupt: call())
    base = _base("single, fail: its first try")
    usual = run_as_usual(base)
    tried = range(0, len(usual.lines), 4)
    failures = [found for number in tried if (found := failure(base, number, usual))]
    assert any("'create[-1]': 'failed'" in found for found in failures), failures


def _base(name: str) -> Base:
    return next(base for base in BASES if base.name == name)


def _reached(lines: list[str], *functions: Callable[..., Any]) -> bool:
    """Return whether a line inside of one of these functions was run."""
    numbers = set()
    for function in functions:
        source, first = inspect.getsourcelines(function)
        file = f"submissions/{inspect.getmodule(function).__name__.rpartition('.')[2]}.py"  # type: ignore[union-attr]
        numbers |= {f"{file}:{number}" for number in range(first, first + len(source))}
    return not numbers.isdisjoint(lines)
