"""``api/statuses.py``: the table of statuses, and what is no row of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api import statuses as statuses_module
from airflow_provider_comet.api.statuses import STATUSES, Status, check_statuses

SPELLINGS = [
    *[(raw, "starting") for raw in ("starting", "pending", "queued", "submitted", "not_start")],
    *[(raw, "processing") for raw in ("processing", "in_progress", "running")],
    *[(raw, "succeeded") for raw in ("succeeded", "success", "succeed", "completed")],
    *[(raw, "failed") for raw in ("failed", "failure", "error", "violation")],
    *[(raw, "canceled") for raw in ("canceled", "cancelled")],
    ("aborted", "aborted"),
]
TERMINAL = {"succeeded", "failed", "canceled", "aborted"}


def test_the_table_of_statuses() -> None:
    """Every row has its spellings here, which are tried above: a status that is added to the table is added here."""
    assert {(raw, name) for name, status in STATUSES.items() for raw in status.spellings} == {*SPELLINGS}
    assert {name for name, status in STATUSES.items() if status.is_terminal} == TERMINAL


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Status(("by_test",), is_terminal=True, error=None), "every terminal status"),
        (Status(("by_test",), is_terminal=False, error=e.PredictionFailedError), "no other has one"),
        (Status(("by_test",), is_terminal=True, error=e.ServerError), "no error of a prediction"),  # type: ignore[arg-type]
        (Status(("by_test",), is_terminal=True, error=e.CometError), "no error of a prediction"),  # type: ignore[arg-type]
        (Status(("refused",), is_terminal=True, error=e.PredictionRefusedError), "is one spelling of one status"),
        (Status(("by_test", "REFUSED"), is_terminal=True, error=e.PredictionRefusedError), "in lower case"),
        (
            Status(("by_test", "failed"), is_terminal=True, error=e.PredictionRefusedError),
            "one spelling of one status",
        ),
    ],
    ids=["no error", "not terminal", "retryable", "no end", "own name", "upper case", "twice"],
)
def test_a_careless_row_is_refused(row: Status, says: str) -> None:
    """A status that never ends, ends by an error that Airflow retries, or has a spelling twice is a mistake."""
    with pytest.raises(TypeError, match=f"status '.*{says}"):
        check_statuses({**STATUSES, "by_test": row})


def test_an_error_of_a_status_does_not_inherit_what_costs_money() -> None:
    """Whether a retry buys a new prediction after a new kind of end, its error says, and not the error's base."""

    class SaysNothing(e.PredictionFailedError):
        """A new error of a bad end, whose author has not thought of money."""

    row = Status(("by_test",), is_terminal=True, error=SaysNothing)
    with pytest.raises(TypeError, match="SaysNothing does not say whether a retry buys_again"):
        check_statuses({**STATUSES, "by_test": row})


def test_a_whole_row_is_taken() -> None:
    """A new terminal status with its spellings and an error that says what a retry costs is all that it takes."""
    check_statuses({**STATUSES, "by_test": Status(("by_test",), is_terminal=True, error=e.PredictionRefusedError)})


@pytest.mark.parametrize(
    "row",
    [
        'Status(("by_test",), is_terminal=True, error=None)',
        'Status(("by_test",), is_terminal=True)',
        'Status(("by_test",))',
        'Status(("by_test",), is_terminal=True, error=e.ServerError)',
    ],
)
def test_a_careless_row_fails_at_import(row: str) -> None:
    """Whoever adds such a row is told when the module is imported, and not when a prediction ends so."""
    source = Path(statuses_module.__file__).read_text(encoding="utf-8")
    assert source.count("STATUSES = {\n") == 1
    with pytest.raises(TypeError):
        exec(
            compile(source.replace("STATUSES = {\n", f'STATUSES = {{\n    "by_test": {row},\n'), "x", "exec"),
            {"__name__": "x"},
        )
