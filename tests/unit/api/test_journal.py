"""``api/journal.py``: what a journal is told."""

from __future__ import annotations

from airflow_provider_comet.api.journal import Journal


def test_a_journal_knows_every_end_of_a_create() -> None:
    """Before a create is sent, and after each way in which it can end: there is no end that nobody is told of."""
    assert {name for name in vars(Journal) if not name.startswith("_")} == {
        "sending",
        "rejected",
        "unclear",
        "accepted",
        "interrupted",
    }
