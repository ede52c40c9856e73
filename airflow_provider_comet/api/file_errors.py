"""What can go wrong with the files of an input or output; the tree stands in ``errors.py``."""

from __future__ import annotations

from airflow_provider_comet.api.errors import CometError, PredictionError


class InputFileError(CometError):
    """A file that belongs to the input can't be read now. Nothing was sent, nothing was paid."""

    retryable = True
    summary = "Not sent, nothing was paid: a file of the input can't be read"
    next_step = "Check its path, its connection and the permission to read it, then let the task retry."


class DeliveryError(CometError):
    """A file of an output can't be fetched now: network, an error of the server, too slow. A retry starts it again."""

    retryable = True
    summary = "A file of the output can't be fetched"
    next_step = "The links last about an hour: let the task retry soon."


class StorageError(CometError):
    """A file of an output can't be written where it should be: no space, no permission, no such bucket."""

    retryable = True
    summary = "A file of the output can't be written"
    next_step = "Check output_path, its connection and the space there; then retry, while the links last."


class OutputExpiredError(PredictionError):
    """The links to its files have expired, and asking for the prediction again gave no better ones."""

    summary = "the links to its files have expired (they last about an hour)"
    next_step = (
        "Store files right after the wait, for each prediction by itself. Clear the create task to run it again (a "
        "new, billed prediction)."
    )


class OutputRefusedError(PredictionError):
    """A file of its output may not be fetched from where it is, is too large, or is not what it should be."""

    summary = "a file of its output was refused"
    next_step = "If it is right as it is, output_hosts of the connection and max_bytes of the task say what is allowed."
