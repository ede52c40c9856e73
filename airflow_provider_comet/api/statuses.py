"""The table of the statuses that a prediction may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.redaction import whole_characters


class Status(NamedTuple):
    """What is known about one status of a prediction. Each column has to be filled in.

    :param spellings: the words that CometAPI, its gateway and Replicate were seen to use for it, in lower case.
    :param is_terminal: whether a prediction with this status never changes again.
    :param error: the error of a terminal status without a result; ``None`` for every other status. Its class says by
        itself, and not by its base, whether a task that creates and waits buys again after it (``buys_again``).
    """

    spellings: tuple[str, ...]
    is_terminal: bool
    error: type[e.PredictionError] | None


SUCCEEDED = "succeeded"
STATUSES = {
    "starting": Status(("starting", "pending", "queued", "submitted", "not_start"), is_terminal=False, error=None),
    "processing": Status(("processing", "in_progress", "running"), is_terminal=False, error=None),
    SUCCEEDED: Status(("succeeded", "success", "succeed", "completed"), is_terminal=True, error=None),
    "failed": Status(("failed", "failure", "error", "violation"), is_terminal=True, error=e.PredictionFailedError),
    "canceled": Status(("canceled", "cancelled"), is_terminal=True, error=e.PredictionCanceledError),
    "aborted": Status(("aborted",), is_terminal=True, error=e.PredictionAbortedError),
}
"""Every status. A word that is not in this table counts as still running."""
_SPELLINGS = {spelling: name for name, status in STATUSES.items() for spelling in status.spellings}


def check_statuses(statuses: Mapping[str, Status]) -> None:
    """Refuse a row with which a prediction would never end, end twice, or be bought again without a word about it.

    :raises TypeError: by which this module can't be imported.
    """
    spellings = [spelling for row in statuses.values() for spelling in row.spellings]
    for name, row in statuses.items():
        if row.is_terminal != (name == SUCCEEDED or row.error is not None):
            raise TypeError(
                f"status {name!r}: every terminal status but {SUCCEEDED!r} has an error, and no other has one"
            )
        error: Any = row.error
        if error and (not issubclass(error, e.PredictionError) or error.retryable):
            raise TypeError(f"status {name!r}: {error.__name__} is no error of a prediction that has ended")
        if error and "buys_again" not in vars(error):
            raise TypeError(f"status {name!r}: {error.__name__} does not say whether a retry buys_again")
        for spelling in {name, *row.spellings}:
            if spellings.count(spelling) != 1 or spelling != spelling.strip().lower():
                raise TypeError(f"status {name!r}: {spelling!r} is one spelling of one status, in lower case")


check_statuses(STATUSES)


def normalise_status(raw: object) -> str:
    """Return the name of a status in ``STATUSES``, or the server's own word if the table does not know it."""
    text = raw if isinstance(raw, str) else ""
    return _SPELLINGS.get(text.strip().lower()) or whole_characters(text) or "unknown"


def is_terminal(status: str) -> bool:
    """Return whether a prediction with this status never changes again."""
    return status in STATUSES and STATUSES[status].is_terminal
