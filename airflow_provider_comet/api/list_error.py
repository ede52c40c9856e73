"""The error that stands for the errors of a list of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from airflow_provider_comet.api.comet_error import CometError

SHOWN_ERRORS = 50
"""Errors that the message of a ``PredictionListError`` shows."""


class PredictionListError(CometError):
    """Some predictions of a list have no result: ``errors``, ``reasons``. Whether a retry helps depends on each."""

    summary: ClassVar[str] = "Some predictions have no result"
    errors: Sequence[CometError] = ()
    reasons: Sequence[str] = ()

    @classmethod
    def of(cls, errors: Sequence[CometError], total: int) -> Self:
        """Return an error that lists these errors of a list of ``total`` predictions."""
        pauses = [error.retry_after for error in errors if error.retry_after]
        list_error = cls(f"{len(errors)} of {total}", retry_after=max(pauses, default=None))
        list_error.errors, list_error.reasons = errors, [str(error) for error in errors]
        return list_error

    def __str__(self) -> str:
        shown = [super().__str__(), *self.reasons[:SHOWN_ERRORS]]
        more = len(self.reasons) - SHOWN_ERRORS
        return "\n".join([*shown, f"... and {more} more: all of them are in the log."] if more > 0 else shown)
