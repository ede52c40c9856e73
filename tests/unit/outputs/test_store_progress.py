"""``outputs/store_progress.py``: what a store remembers while it is deferred."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.outputs.store_progress import READ_AT_ONCE, StoreProgress, parts

IDS = [f"prediction{number:03}" for number in range(1000)]


@given(st.sets(st.sampled_from(IDS)), st.sets(st.sampled_from(IDS)))
def test_it_is_read_back(stored: set[str], failed: set[str]) -> None:
    """What was written is read, whatever the list has come to; what is in neither set is still waited for."""
    known = StoreProgress(IDS, stored, failed)
    read = StoreProgress.read(IDS, json.loads(json.dumps(known.to_kwargs())))
    assert read is not None
    assert (read.stored, read.failed, read.missing) == (stored, failed, [*known.missing])
    assert {*read.missing} == {*IDS} - stored - failed


def test_the_order_of_the_list() -> None:
    """What is missing stays in the order given."""
    assert StoreProgress(["c", "a", "b"], stored=["a"]).missing == ["c", "b"]


def test_it_is_small() -> None:
    """Of a thousand predictions it takes less than a kilobyte, because it goes through Airflow's database."""
    assert len(json.dumps(StoreProgress(IDS, IDS[::2], IDS[1::2]).to_kwargs())) < 1000


@pytest.mark.parametrize("other", [IDS[1:], IDS[::-1], [*IDS, "more"], []], ids=["less", "order", "more", "none"])
def test_another_list(other: list[str]) -> None:
    """A create that was cleared meanwhile has left other ids: the bits would mean other predictions."""
    assert StoreProgress.read(other, StoreProgress(IDS, IDS[:3]).to_kwargs()) is None


@pytest.mark.parametrize("stored", [None, "", "zz", 7, [1], "-1", "f" * 500])
def test_what_can_not_be_read(stored: Any) -> None:
    """Whatever stands in the database, the worst that follows is that manifests are read once more."""
    kwargs = {**StoreProgress(IDS).to_kwargs(), "stored": stored}
    read = StoreProgress.read(IDS, kwargs)
    assert read is None or read.stored <= {*IDS}
    assert StoreProgress.read(IDS, None) is None
    assert StoreProgress.read(IDS, {"list": StoreProgress(IDS).to_kwargs()["list"]}) is None


def test_a_long_list_is_read_in_parts() -> None:
    """Every id comes once, in its order, and never more together than memory has room for."""
    found = [*parts(IDS)]
    assert [key for part in found for key in part] == IDS
    assert max(map(len, found)) == READ_AT_ONCE
    assert [*parts([])] == []


def test_nothing_is_known_at_first() -> None:
    """All predictions are missing."""
    progress = StoreProgress(["b", "a"])
    assert (progress.stored, progress.failed, progress.missing) == (set(), set(), ["b", "a"])


def test_what_it_was_given_stays_as_it_was() -> None:
    """It notes what is stored in sets of its own."""
    stored = {"a"}
    StoreProgress(["a", "b"], stored).stored.add("b")
    assert stored == {"a"}


def test_others_add_fields_of_their_own() -> None:
    """The keyword arguments of a deferral have more in them, such as the deadline."""
    known = {**StoreProgress(IDS, IDS[:2]).to_kwargs(), "deadline": 1.5, "output_path": "file:///tmp"}
    read = StoreProgress.read(IDS, known)
    assert read is not None
    assert read.stored == {*IDS[:2]}


def test_no_id_leaves_with_it() -> None:
    """The list is in the task's own field; a copy of it could be another one after a clear."""
    kwargs = json.dumps(StoreProgress(IDS, IDS[:3], IDS[3:5]).to_kwargs())
    assert not any(key in kwargs for key in IDS)


def test_an_error_that_passes_and_one_that_does_not() -> None:
    """Both mean that the wait has ended; the last word about a prediction counts."""
    progress = StoreProgress(["a", "b", "c"])
    progress.note_error("a", is_final=False)
    progress.note_error("b", is_final=True)
    assert (progress.delayed, progress.failed, progress.missing) == ({"a"}, {"b"}, ["c"])
    read = StoreProgress.read(["a", "b", "c"], progress.to_kwargs())
    assert read is not None
    assert (read.delayed, read.failed) == ({"a"}, {"b"})
    progress.note_error("a", is_final=True)
    progress.note_stored("b")
    assert (progress.delayed, progress.failed, progress.stored) == (set(), {"a"}, {"b"})
