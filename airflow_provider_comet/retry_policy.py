"""``CometRetryPolicy``: a failed task is retried when CometAPI said to, and not at all where that is no use."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException, AirflowTaskTimeout

from airflow_provider_comet.airflow_errors import wait_exception
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

# A create that was refused for them is refused again. A look is repeated: a paid result must not be lost to them.
_NO_USE_TO_CREATE = (
    e.AuthenticationError,
    e.PermissionDeniedError,
    e.BalanceExhaustedError,
    e.BadRequestError,
    e.ModelNotFoundError,
    e.WrongURLError,
)


class CometRetryPolicy(RetryPolicy):
    """Retry when CometAPI said to (``Retry-After``), and stop at once where a retry is no use or might pay twice.

    ``retry_policy=CometRetryPolicy()`` works for the operators and sensors of this package, which stop by themselves
    where they must, and for tasks that use ``CometReplicateHook`` or one of its results themselves, which do not.
    Anything else follows the task's ``retries`` and ``retry_delay``; no policy can raise the number of ``retries``.

    :param creates: whether a task that uses the hook also creates predictions (default). Then an error about one of
        them stops it, because a retry would not wait for it again, but buy another one. ``False``: it only looks, and
        is retried.
    """

    def __init__(self, *, creates: bool = True) -> None:
        self.creates = creates

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide about a failure: the first ``CometError`` among the exception and its causes counts."""
        error = _comet_error(exception)
        if error is None or isinstance(exception, AirflowTaskTimeout):  # Airflow retries those, whatever their cause
            return RetryDecision.default()
        task: Any = context.get("task") if context else None
        if self._is_no_use(error, task):
            return RetryDecision.fail(f"a retry is no use: {error}")
        pause = timedelta(seconds=_pause(error))
        if pause > getattr(task, "retry_delay", timedelta()):
            return RetryDecision.retry(pause, f"CometAPI asked for a pause of {pause.total_seconds():g} s")
        return RetryDecision.default()

    def _is_no_use(self, error: e.CometError, task: Any) -> bool:
        if isinstance(error, e.AmbiguousSubmissionError):  # unless the task was told to take the risk
            return getattr(task, "on_ambiguous_submit", "fail") != "retry"
        if error.buys_again:  # who raises it as it is wants another one
            return False
        if isinstance(error, e.UnrecordedPredictionError) or wait_exception(error) is not error:
            return True
        if _is_ours(task):  # it knows what it has paid for, and has judged already
            return False
        return self.creates if error.prediction_id else isinstance(error, _NO_USE_TO_CREATE)

    def serialize(self) -> dict[str, Any]:
        """Return what makes an equal one."""
        return {"creates": self.creates}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CometRetryPolicy:
        """Make an equal one."""
        return cls(creates=data.get("creates", True))


def _comet_error(exception: BaseException | None) -> e.CometError | None:
    while exception is not None and not isinstance(exception, e.CometError):
        exception = exception.__cause__
    return exception


def _is_ours(task: object) -> bool:
    return any(cls.__module__.startswith("airflow_provider_comet.") for cls in type(task).__mro__)


def _pause(error: e.CometError) -> float:
    """The seconds that the server asked for, of an error that passes."""
    if isinstance(error, e.PredictionListError):
        return max(map(_pause, error.errors), default=0.0)
    return error.retry_after or 0.0 if error.retryable else 0.0
