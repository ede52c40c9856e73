"""``submissions/stored_record.py``: the record of a create in Airflow's store, and whether its task was cleared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.submissions import stored_record
from airflow_provider_comet.submissions.record import Record


class Store:
    """A store of its own, which fails while ``is_down``."""

    def __init__(self, **values: Any) -> None:
        self.values, self.is_down = values, False

    def get(self, key: str, default: object) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any, retention: object) -> None:
        if self.is_down:
            raise OSError("away")
        self.values[key] = value


def stored(store: Store | None, max_tries: int = 2, **options: Any) -> stored_record.StoredRecord:
    context: Any = {"ti": SimpleNamespace(max_tries=max_tries), **({"task_state_store": store} if store else {})}
    return stored_record.StoredRecord(context, **options)


def test_what_was_written_is_read_by_the_next_attempt() -> None:
    """Each key has a record of its own."""
    store = Store()
    first = stored(store, key="comet_submission.a")
    first.write(Record("accepted", "abc"))
    first.update(state="delivered")
    second, other = stored(store, key="comet_submission.a"), stored(store)
    second.read()
    other.read()
    assert second.record == Record("delivered", "abc")
    assert second.is_about("abc")
    assert not second.is_about("abd")
    assert (other.record, other.is_about(None)) == (None, False)


def test_a_write_that_fails_changes_nothing() -> None:
    """What is known of the record stays what the store has."""
    store = Store()
    record = stored(store)
    record.write(Record("sending"))
    store.is_down = True
    with pytest.raises(e.SubmissionRecordError):
        record.update(0.0, state="accepted", id="abc")
    assert record.record == Record("sending")


def test_without_a_record_there_is_nothing_to_update() -> None:
    """A user may have deleted it meanwhile: no record is made of a part."""
    store = Store()
    record = stored(store)
    record.update(state="delivered")
    assert (record.record, store.values) == (None, {})


def test_an_airflow_without_a_store() -> None:
    """The record lives as long as the attempt."""
    record = stored(None)
    record.read()
    record.write(Record("accepted", "abc", max_tries=2))
    assert (record.has_store, record.is_about("abc"), record.was_cleared) == (False, True, False)


@pytest.mark.parametrize(
    ("recorded", "now", "empties", "was_cleared"),
    [(2, 2, False, False), (2, 5, False, True), (5, 2, False, True), (None, 5, False, False), (2, 5, True, False)],
    ids=["retry", "clear", "retries lowered", "made by hand", "airflow 3.4"],
)
def test_a_clear_is_told_by_max_tries(
    monkeypatch: pytest.MonkeyPatch, recorded: int | None, now: int, empties: bool, was_cleared: bool
) -> None:
    """A clear raises it, an automatic retry does not; where that is not known, or the clear empties the store: no."""
    monkeypatch.setattr(stored_record, "CLEAR_EMPTIES_STORE", empties)
    record = stored(Store(), max_tries=now)
    record.write(Record("accepted", "abc", max_tries=recorded))
    assert record.was_cleared is was_cleared
