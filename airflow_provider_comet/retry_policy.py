"""``CometRetryPolicy``: retry a failed task when CometAPI said to, and not at all where a retry can't help."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException, AirflowTaskTimeout

from airflow_provider_comet.airflow_errors import is_final
from airflow_provider_comet.api import errors as e

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    raise AirflowOptionalProviderFeatureException(
        "CometRetryPolicy needs Airflow 3.3 or later. Use plain `retries` before: the operators of this package do not "
        "retry what can't get better, and wait up to two minutes for a rate limit to pass."
    ) from None

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

# A create that was refused with these is refused again. A poll is repeated: a paid result must not be lost to them.
_FINAL_FOR_CREATE = (
    e.AuthenticationError,
    e.PermissionDeniedError,
    e.BalanceExhaustedError,
    e.BadRequestError,
    e.ModelNotFoundError,
    e.WrongURLError,
)


class CometRetryPolicy(RetryPolicy):
    """Retry when CometAPI said to (``Retry-After``), and stop at once where a retry can't help or might pay twice.

    ``retry_policy=CometRetryPolicy()`` works for the operators and sensors of this package, which stop by themselves
    where they must, and for tasks that use ``CometReplicateHook`` or one of its results themselves, which do not.
    Anything else follows the task's ``retries`` and ``retry_delay``; no policy can raise the number of ``retries``.

    :param creates: whether a task that uses the hook also creates predictions (default). Then an error about a
        prediction stops the task, because a retry would not wait for that prediction, but buy a new one. ``False``:
        the task only polls, and is retried.
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
        if self._is_final(error, task):
            return RetryDecision.fail(f"a retry can't help: {error}")
        pause = timedelta(seconds=_pause(error))
        if pause > getattr(task, "retry_delay", timedelta()):
            return RetryDecision.retry(pause, f"CometAPI asked for a pause of {pause.total_seconds():g} s")
        return RetryDecision.default()

    def _is_final(self, error: e.CometError, task: Any) -> bool:
        if isinstance(error, e.AmbiguousSubmissionError):  # unless the task was told to take the risk
            return getattr(task, "on_ambiguous_submit", "fail") != "retry"
        if error.buys_again:  # whoever raises it as it is wants a new prediction
            return False
        if isinstance(error, e.UnrecordedPredictionError) or is_final(error):
            return True
        if _is_ours(task):  # it knows what it has paid for, and has decided already
            return False
        return self.creates if error.prediction_id else isinstance(error, _FINAL_FOR_CREATE)

    def serialize(self) -> dict[str, Any]:
        """Return what makes an equal policy."""
        return {"creates": self.creates}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CometRetryPolicy:
        """Make an equal policy."""
        return cls(creates=data.get("creates", True))


def _comet_error(exception: BaseException | None) -> e.CometError | None:
    while exception is not None and not isinstance(exception, e.CometError):
        exception = exception.__cause__
    return exception


def _is_ours(task: object) -> bool:
    return any(cls.__module__.startswith("airflow_provider_comet.") for cls in type(task).__mro__)


def _pause(error: e.CometError) -> float:
    """Return the seconds that the server asked for, if a retry may help."""
    if isinstance(error, e.PredictionListError):
        return max(map(_pause, error.errors), default=0.0)
    return error.retry_after or 0.0 if error.retryable else 0.0
