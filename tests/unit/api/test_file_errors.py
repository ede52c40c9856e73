"""``api/file_errors.py``: which trouble with files a retry may cure, and which is a fact about the prediction."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api.errors import CometError, PredictionError
from airflow_provider_comet.api.file_errors import (
    DeliveryError,
    InputFileError,
    OutputExpiredError,
    OutputRefusedError,
    StorageError,
)


@pytest.mark.parametrize("cls", [InputFileError, DeliveryError, StorageError])
def test_what_a_retry_may_cure(cls: type[CometError]) -> None:
    """A file that can't be read, fetched or written now: it says nothing about the prediction, and buys nothing."""
    assert cls.retryable
    assert not cls.buys_again
    assert not issubclass(cls, PredictionError)


@pytest.mark.parametrize("cls", [OutputExpiredError, OutputRefusedError])
def test_what_no_retry_cures(cls: type[CometError]) -> None:
    """It is a fact about the prediction, and a task never buys a new one because of it."""
    assert issubclass(cls, PredictionError)
    assert not cls.retryable
    assert not cls.buys_again
