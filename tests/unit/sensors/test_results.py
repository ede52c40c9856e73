"""``sensors/results.py``: what a wait hands over, whatever way it went."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.outcome import Outcome
from airflow_provider_comet.api.prediction import Prediction

GOOD, BAD = Prediction("good", "succeeded", output="text"), Prediction("bad", "failed", error="no such luck")
LATE, AWAY = e.PredictionTimeoutError("late", prediction_id="late"), e.ServerError(status=503, prediction_id="away")
OUTCOMES: dict[str, Outcome] = {"good": GOOD, "bad": BAD, "late": LATE, "away": AWAY}


class TaskInstance:
    """Keeps what is pushed."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Take an XCom."""
        self.xcoms[key] = value


def hand_over(ids: Any, *, keep: bool) -> tuple[Any, dict[str, Any]]:
    """Return the results, or the error, and what was pushed."""
    from airflow_provider_comet.sensors.results import hand_over

    ti = TaskInstance()
    try:
        return hand_over(ti, ids, OUTCOMES, allow_empty=False, keep=keep), ti.xcoms
    except e.CometError as error:
        return error, ti.xcoms


@pytest.mark.parametrize("keep", [False, True])
def test_results_are_in_the_order_of_the_ids(keep: bool) -> None:
    """An id gives its result; a list gives a list of the same order and length, and nothing else is pushed."""
    result = GOOD.summary()
    assert hand_over("good", keep=keep) == (result, {})
    assert hand_over(["good", None, "good"], keep=keep) == ([result, None, result], {})


@pytest.mark.parametrize(
    ("ids", "is_kept"),
    [(["good", "bad"], True), (["good", "late"], True), (["good", "away"], False), (["bad", "late"], False)],
)
def test_what_is_kept(ids: list[str], is_kept: bool) -> None:
    """A list with failures is a result only if that is wanted, a prediction has succeeded, and no retry may find more;
    otherwise what is known is pushed, and the error names each failure."""
    known = [outcome.summary() if isinstance(outcome := OUTCOMES[key], Prediction) else None for key in ids]
    for keep in (False, True):
        outcome, xcoms = hand_over(ids, keep=keep)
        if keep and is_kept:
            assert (outcome, xcoms) == (known, {})
        else:
            assert isinstance(outcome, e.PredictionListError)
            assert xcoms == {"predictions": known}
            assert all(f"Prediction {key}" in str(outcome) for key in ids if key != "good")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("prediction_id", "error"), [("bad", e.PredictionFailedError), ("late", e.PredictionTimeoutError)]
)
def test_a_single_prediction_raises_its_own_error(prediction_id: str, error: type[e.CometError], keep: bool) -> None:
    """One prediction has a result or an error, and leaves no XCom besides."""
    outcome, xcoms = hand_over(prediction_id, keep=keep)
    assert (type(outcome), xcoms) == (error, {})
