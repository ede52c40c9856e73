"""``Journal``: who is told what becomes of a create."""

from __future__ import annotations

from typing import Protocol

from airflow_provider_comet.api.errors import CometError


class Journal(Protocol):
    """Is told before and after each time that a create is sent, so that a crash leaves a trace of what may be paid.

    Its methods may be called in a thread. What interrupts the task meanwhile does not interrupt them.
    """

    def sending(self, key_from: str) -> None:
        """Note that the request is about to be sent, and whose key pays. If this raises, it is not sent."""

    def rejected(self) -> None:
        """Note that the request was certainly not accepted."""

    def unclear(self, error: CometError) -> None:
        """Note that the request may have been accepted."""

    def accepted(self, prediction_id: str) -> None:
        """Note the id of what was accepted, and paid for."""

    def interrupted(self) -> None:
        """Note that the task was interrupted: nothing more may be sent."""
