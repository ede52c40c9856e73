"""The one judgement of a finished wait, the same in every mode: a result, or the error that says why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.json_values import leaves
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.redaction import READ_CHARACTERS
from airflow_provider_comet.api.statuses import STATUSES, SUCCEEDED

Outcome: TypeAlias = Prediction | e.CometError | Mapping[str, Any]
"""How a wait ended: with a prediction, with its ``summary()``, or with an error."""

# Texts: `re` compiles and keeps them when they are first used. All DAG files that import an operator would pay for it.
# Words of a failed prediction that blame its input: paying for it again buys the same refusal. Seen in errors of
# Replicate's models (replicate-python #397, pollinations #10801 and #11809, puter #3719), of cog's validation, and
# reported by users. No such list is complete: submissions/record.py stops at what repeats.
_REFUSALS = (
    r"(?i)(?<![a-z0-9])(nsfw|E005|flagged|moderated|moderation|sensitive content|inappropriate|prohibited|disallowed"
    r"|safety (filter|system|checker|policy|reasons|guidelines|violation|settings)s?|copyright(ed|s)?|violat\w+"
    r"|usage (guideline|polic)\w+|not allowed by our|blocked by|input validation|validation error|field required"
    r"|content[ _-](policy|policies|filter|violation|moderation)\w*|exceeds? (the )?(maximum|max|limit)"
    r"|is required|too (long|short|large|small|big)"
    r"|(prompt|input|text|image|video|audio|file)s? (must|is not|was rejected|not supported)"
    r"|invalid (input|prompt|image|video|audio|url|parameter|argument|value)s?)(?![a-z0-9])"
)
# Words that blame machines: the same input may succeed, also if the reason repeats or holds a word of the list above.
# A model may have a parameter that is called timeout: what is said of its value blames the input.
_INFRASTRUCTURE = (
    r"(?i)(?<![a-z0-9])(out of memory|oom|cuda|unavailable|overload(ed)?|(at|no|out of|insufficient) capacity|throttled"
    r"|interrupted|preempted|restarted|bad gateway|(took|taking|takes|waited|waiting) too long"
    r"|(http|status|status[ _]code|returned|(?<!validation )error)[ :=]*(408|429|5(0\d|1[01]|2\d|30))"
    r"|timed[ -]?out|(?<!for )(?<!for ')time-?out(s|error)?(?!:? (must|should|has to|is|parameter|value|ensure)\b)"
    r"|(connection|connect|network)[ _]?(is )?(reset|refused|error|failure|closed|aborted|lost|failed|unreachable)"
    r"|e(timedout|conn(reset|refused|aborted))|deadline[ _]?exceeded|resource[ _]exhausted|too[ _]many[ _]requests"
    r"|internal[ _](server[ _])?error|(try again|retry) later|rate[ _-]?limit(ed|s)?|not responding"
    r"|(server|service|worker|queue|gpu|node|system) (is )?(error|failure|full|crashed|died|lost|busy|down))"
    r"(?![a-z0-9])"
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


def is_unfinished(outcome: Outcome) -> bool:
    """Return whether this is no end: the prediction is running, or could not be read for now."""
    if isinstance(outcome, Prediction):
        return not outcome.is_terminal
    return isinstance(outcome, e.CometError) and outcome.retryable


def id_of(value: Prediction | Mapping[str, Any] | object) -> Any:
    """Return the id of a prediction or of its summary; another value as it is."""
    return value.get("id") if isinstance(value, Mapping) else getattr(value, "id", value)


def model_of(value: Prediction | Mapping[str, Any]) -> Any:
    """Return the model of a prediction or of its summary."""
    return value.get("model") if isinstance(value, Mapping) else value.model


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
    return not blames_infrastructure(words) and re.search(_REFUSALS, words[:READ_CHARACTERS]) is not None


def blames_infrastructure(words: str) -> bool:
    """Return whether the error of a failed prediction blames machines, so that the same input may succeed later."""
    return re.search(_INFRASTRUCTURE, words[:READ_CHARACTERS]) is not None
