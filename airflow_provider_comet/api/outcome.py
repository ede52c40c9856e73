"""The one judgement of a finished wait, the same in every mode: a result, or the error that says why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import leaves
from airflow_provider_comet.api.prediction import STATUSES, SUCCEEDED, Prediction
from airflow_provider_comet.api.redaction import READ_CHARACTERS

Outcome: TypeAlias = Prediction | e.CometError | Mapping[str, Any]
"""How a wait ended: with a prediction, with its ``summary()``, or with an error."""

# Words of a failed prediction that blame its input: paying for it again buys the same refusal. Seen in errors of
# Replicate's models (replicate-python #397, pollinations #10801 and #11809, puter #3719) and of cog's validation.
# Text: `re` compiles and keeps it when it is first used. All DAG files that import an operator would pay 5 ms for it.
_REFUSALS = (
    r"(?i)\b(nsfw|E005|flagged|moderated|moderation|safety (filter|system|checker|policy)|sensitive content|prohibited"
    r"|content[ _-](policy|policies|filter|violation)\w*|input validation|validation error|field required"
    r"|invalid (input|prompt|image|video|audio|url|parameter|argument|value)s?)\b"
)


def judge(outcome: Outcome, *, allow_empty: bool) -> dict[str, Any]:
    """Return the summary of a prediction that succeeded, and raise an error for every other outcome.

    :param allow_empty: whether a success without output is a result.
    :raises PredictionError: the prediction ended in any other way.
    :raises CometError: ``outcome`` is this error.
    """
    if isinstance(outcome, e.CometError):
        raise outcome
    summary = outcome.summary() if isinstance(outcome, Prediction) else outcome
    prediction_id, status, words = str(summary["id"]), summary["status"], str(summary["error"] or "")
    if status == "failed" and blames_input(words):
        raise e.PredictionRefusedError(words, prediction_id=prediction_id)
    if status in STATUSES and (error_class := STATUSES[status].error):
        raise error_class(words, prediction_id=prediction_id)
    if status != SUCCEEDED:
        raise e.CometError(f"still {status!r} although it was reported as finished", prediction_id=prediction_id)
    if all(leaf is None or leaf == "" for leaf in leaves(summary["output"])):
        if summary["data_removed"]:
            raise e.PredictionExpiredError(words, prediction_id=prediction_id)
        if not allow_empty:
            raise e.EmptyOutputError(words, prediction_id=prediction_id)
    return dict(summary)


def judge_all(
    outcomes: Mapping[str, Outcome], *, allow_empty: bool
) -> tuple[dict[str, dict[str, Any] | None], list[e.CometError]]:
    """Return what is known of each prediction, by id, and an error for each that has no result.

    A prediction that ended badly keeps its summary, with its status and error. ``None`` stands for a prediction whose
    end was not seen.
    """
    summaries: dict[str, dict[str, Any] | None] = {}
    errors: list[e.CometError] = []
    for prediction_id, outcome in outcomes.items():
        try:
            summaries[prediction_id] = judge(outcome, allow_empty=allow_empty)
        except e.CometError as error:
            errors.append(error.about(prediction_id))
            known = outcome.summary() if isinstance(outcome, Prediction) else outcome
            summaries[prediction_id] = None if isinstance(known, e.CometError) else dict(known)
    return summaries, errors


def blames_input(words: str) -> bool:
    """Return whether the error of a failed prediction blames its input, so that the same input fails again."""
    return re.search(_REFUSALS, words[:READ_CHARACTERS]) is not None
