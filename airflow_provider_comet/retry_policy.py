"""``CometRetryPolicy``: a failed task is retried when CometAPI said to, and not at all where that is no use."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_comet import outcome
from airflow_provider_comet.api import errors as e

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    raise AirflowOptionalProviderFeatureException(
        "CometRetryPolicy needs Airflow 3.3 or later. Before, plain `retries` do: the operators of this package do not "
        "retry what can't get better, and wait up to two minutes for a rate limit to pass."
    ) from None

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# The same request fails again, or is paid again.
_NO_USE = (e.BadRequestError, e.ModelNotFoundError, e.UnrecordedPredictionError)


class CometRetryPolicy(RetryPolicy):
    """Retry when CometAPI said to (``Retry-After``), and stop at once where a retry is no use or might pay twice.

    ``retry_policy=CometRetryPolicy()`` works for the operators and sensors of this package, which stop by themselves
    where they must, and for tasks that use ``CometReplicateHook`` or one of its results themselves, which do not.
    Anything else follows the task's ``retries`` and ``retry_delay``; no policy can raise the number of ``retries``.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide about a failure: the first ``CometError`` among the exception and its causes counts."""
        error = _comet_error(exception)
        if error is None:
            return RetryDecision.default()
        if _is_no_use(error, context):
            return RetryDecision.fail(f"a retry is no use: {error}")
        if error.retry_after:
            return RetryDecision.retry(
                timedelta(seconds=error.retry_after), f"CometAPI asked for a pause of {error.retry_after:g} s"
            )
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """There is nothing to keep."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CometRetryPolicy:
        """Make another one."""
        return cls()


def _comet_error(exception: BaseException | None) -> e.CometError | None:
    while exception is not None and not isinstance(exception, e.CometError):
        exception = exception.__cause__
    return exception


def _is_no_use(error: e.CometError, context: Context | None) -> bool:
    if isinstance(error, e.AmbiguousSubmissionError):  # unless the task was told to take the risk
        return getattr(context and context.get("task"), "on_ambiguous_submit", "fail") != "retry"
    if error.buys_again:  # who raises it as it is wants another one
        return False
    return isinstance(error, _NO_USE) or outcome.airflow_error(error) is not error
