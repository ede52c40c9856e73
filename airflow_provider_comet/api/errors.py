"""The tree of errors, and whether a retry helps (* in file_errors.py).

CometError
├── ConfigurationError            the connection can't be used as it is
│   └── ConnectionLookupError     Airflow can't say what is in it (retry helps)
├── InvalidInputError             refused here, before anything was sent or paid
├── APIError                      the API answered, and the answer is no
│   ├── AuthenticationError       401: wrong key
│   ├── PermissionDeniedError     403: the key may not do this
│   ├── BalanceExhaustedError     no credit left on the account or the key
│   ├── BadRequestError           the request itself is wrong
│   ├── ModelNotFoundError        no such model, or none for this key
│   ├── PredictionNotFoundError   no such prediction
│   ├── WrongURLError             a redirect or a web page: not the API
│   ├── RateLimitedError          429 (retry helps)
│   └── ServerError               5xx and unreadable answers (retry helps)
├── TransportError                no answer at all (retry helps)
├── AmbiguousSubmissionError      a create that may or may not have been accepted
├── SubmissionRecordError         the record of a paid create can't be used (MalformedRecordError: it is none)
├── UnrecordedPredictionError     a prediction was paid for, but is not on record
├── PredictionListError           some predictions of a list have no result
├── InputFileError, DeliveryError, StorageError   a file can't be read, fetched or written (retry helps) *
└── PredictionError               a fact about a prediction
    ├── PredictionFailedError     it ended without a result
    │   ├── PredictionRefusedError    because of its input: the same input fails again
    │   ├── RepeatedFailureError      again with the same words
    │   ├── PredictionCanceledError
    │   └── PredictionAbortedError
    ├── UnusableIdError           created and paid for, under an id that can't be polled
    ├── ChangedInputError         paid for with another input than its task has now
    ├── PredictionExpiredError    succeeded, but its output was removed
    ├── EmptyOutputError          succeeded without output
    ├── OutputExpiredError        the links to its files have expired *
    ├── OutputRefusedError        a file of it may not be fetched, or is not what it should be *
    └── PredictionTimeoutError    still running at the deadline
"""

from __future__ import annotations

from airflow_provider_comet.api.comet_error import CometError as CometError  # part of the tree, so importable here
from airflow_provider_comet.api.list_error import SHOWN_ERRORS as SHOWN_ERRORS
from airflow_provider_comet.api.list_error import PredictionListError as PredictionListError


class ConfigurationError(CometError):
    """The connection can't be used as it is. A retry does not help until somebody changes it."""

    summary = "The CometAPI connection can't be used"


class ConnectionLookupError(ConfigurationError):
    """Airflow can't read the connection now: its API server, or a secrets backend, does not answer. A retry helps."""

    retryable = True
    summary = "The CometAPI connection can't be read"


class InvalidInputError(CometError):
    """Refused before anything was sent: nothing was paid. A retry does not help."""

    summary = "Not sent, nothing was paid"


class APIError(CometError):
    """The API answered, and the answer is no. Raised as one of the classes below."""


class AuthenticationError(APIError):
    """The API refused the key (401). A retry helps only after the key was replaced."""

    summary = "CometAPI refused the API key"
    next_step = "Put a valid key into the Airflow connection (its password), then clear what has failed."


class PermissionDeniedError(APIError):
    """The key may not do this (403). A retry helps only after access was granted."""

    summary = "CometAPI denied access"
    next_step = "Check that the key may use this model and route, then clear what has failed."


class BalanceExhaustedError(APIError):
    """The account or the key has no credit left. A retry helps only after it was topped up."""

    summary = "The balance of the CometAPI account or key is exhausted"
    next_step = "Top up the account or raise the key's limit, then clear the task."


class BadRequestError(APIError):
    """The request is wrong: 4xx, or 500 with a code that says so. The same request fails again."""

    summary = "CometAPI rejected the request"
    next_step = "Correct the model's input (see the model's page), then clear the task."


class ModelNotFoundError(APIError):
    """The model does not exist, or not for this key. A retry helps only after the name or the key changed."""

    summary = "CometAPI knows no such model for this key"
    next_step = "Check the model's owner/name in CometAPI's catalogue, then clear the task."


class PredictionNotFoundError(APIError):
    """The API does not know the prediction. A retry helps only in the first minute after its create."""

    summary = "CometAPI knows no such prediction"
    next_step = "Check that the id is complete and was created with the same account."

    def of_known(self, seen: str = "was seen") -> CometError:
        """Return the error for a prediction that exists: this answer proves nothing, and a retry may find it."""
        return CometError(f"it {seen} before, and is unknown now: {self.detail}", prediction_id=self.prediction_id)


class WrongURLError(APIError):
    """A redirect or a web page came back: this is not the API. A retry does not help until the URL is corrected."""

    summary = "The answer is not from the CometAPI API: the base URL is wrong"
    next_step = "Set the Airflow connection's host to https://api.cometapi.com, no path, then clear what has failed."


class RateLimitedError(APIError):
    """Too many requests (429). A retry helps, after ``retry_after`` seconds if the server named them."""

    retryable = True
    summary = "CometAPI limits the request rate"
    next_step = "Retry later, or send fewer requests at once (an Airflow pool on the create tasks)."


class ServerError(APIError):
    """The server, or a proxy in front of it, failed for now. A retry helps."""

    retryable = True
    summary = "CometAPI failed for now"
    next_step = "Retry later; give CometAPI's support the request id if it lasts."


class TransportError(CometError):
    """No answer arrived: name look-up, connection, TLS, a dropped connection or a read timeout. A retry helps."""

    retryable = True
    summary = "CometAPI could not be reached"
    next_step = "Check the connection's host, the network and proxy of this machine, then retry."


class AmbiguousSubmissionError(CometError):
    """A create without a clear answer: it may have been accepted, and billed. A retry may pay a second time."""

    summary = "The create has no clear answer: it may have been accepted and billed"
    next_step = "Check the usage page of the CometAPI account before it is sent again."


class SubmissionRecordError(CometError):
    """The record of what was paid can't be read or written, so nothing is sent. A retry helps when it can be again."""

    summary = "The record of paid predictions (Airflow's task state store) can't be used"
    next_step = "Check that Airflow's API server and state store are up; the next try reads the record again."


class UnrecordedPredictionError(CometError):
    """A prediction was paid for, but its id could not be put on record. A retry would not know of it."""

    summary = "it was created and is paid for, but could not be put on record"


class PredictionError(CometError):
    """A fact about a prediction that no retry changes."""


class PredictionFailedError(PredictionError):
    """The model or its provider failed. Polling again does not help; a new prediction may."""

    buys_again = True
    summary = "it failed"
    next_step = "Clear the create task to run it again (a new, billed prediction)."


class PredictionRefusedError(PredictionFailedError):
    """It failed because of its input (content policy, invalid parameters). The same input fails again."""

    buys_again = False
    summary = "the model refused the input"
    next_step = "Change the input, then clear the create task (a new, billed prediction)."


class RepeatedFailureError(PredictionFailedError):
    """It failed with the same words as a prediction that was bought before. To buy another one is unlikely to help."""

    buys_again = False
    summary = "it failed again for the same reason, so no other one is bought"
    next_step = "Change the input, or clear the create task when the cause is gone (a new, billed prediction)."


class PredictionCanceledError(PredictionFailedError):
    """It was canceled while it ran. Polling again does not help."""

    buys_again = True
    summary = "it was canceled"


class PredictionAbortedError(PredictionFailedError):
    """It was aborted before it started. Polling again does not help."""

    buys_again = True
    summary = "it was aborted before it started"


class UnusableIdError(PredictionError):
    """It was created and is paid for, but its id can't be part of a request. No retry changes that."""

    summary = "it was created and is paid for, but CometAPI gave it an id that can't be polled"
    next_step = "The log has the id (comet.created): CometAPI's support may find the result by it."


class ChangedInputError(PredictionError):
    """It was created with another model or input than its task has now, so it is not handed over as that task's."""

    summary = "it is paid for, but was created with another model or input than this task has now"
    next_step = "Restore the input and clear this task, or give the id to a PredictionSensor: both cost nothing."


class PredictionExpiredError(PredictionError):
    """It succeeded, but its output was removed since. Polling again does not help."""

    summary = "it succeeded, but its output has been removed (results are kept for a limited time)"
    next_step = "Wait for it soon after creating it. Clear the create task to run it again (a new, billed prediction)."


class EmptyOutputError(PredictionError):
    """It succeeded without any output. Polling again does not help."""

    summary = "it succeeded without output"
    next_step = "If that is a result for you, wait for it with PredictionSensor(allow_empty=True)."


class PredictionTimeoutError(PredictionError):
    """It had not finished when the wait's timeout ended. It keeps running, and waiting longer may help."""

    summary = "it was not finished when the timeout ended; it keeps running at CometAPI and may be billed"
    next_step = "Raise the timeout and clear the task that waits: it waits for the same prediction again, at no cost."
