"""Errors about the files of an input or an output. ``errors.py`` shows the whole tree."""

from __future__ import annotations

from airflow_provider_comet.api.errors import CometError, PredictionError


class InputFileError(CometError):
    """A file of the input can't be read now. Nothing was sent, nothing was paid. A retry may read it."""

    retryable = True
    summary = "Not sent, nothing was paid: a file of the input can't be read"
    next_step = "Check its path, its connection and the permission to read it, then let the task retry."


class DeliveryError(CometError):
    """A file of an output can't be fetched now: network, server error, too slow. A retry fetches it again."""

    retryable = True
    summary = "A file of the output can't be fetched"
    next_step = "The links last about an hour: let the task retry soon."


class StorageError(CometError):
    """A stored file can't be written or read: no space, no permission, no such bucket. A retry does it again."""

    retryable = True
    summary = "A stored file can't be written or read"
    next_step = "Check its folder, the connection and the space there, then retry: links last about an hour."


class OutputExpiredError(PredictionError):
    """The links to a prediction's files have expired, and the API has no newer ones. A retry does not help."""

    summary = "the links to its files have expired (they last about an hour)"
    next_step = (
        "Store files right after the wait, for each prediction by itself. Clear the create task to run it again (a "
        "new, billed prediction)."
    )


class OutputRefusedError(PredictionError):
    """A file is too large, of an unexpected kind, or at a forbidden address. A retry does not help."""

    summary = "a file of its output was refused"
    next_step = "If it is right as it is, output_hosts of the connection and max_bytes of the task say what is allowed."
