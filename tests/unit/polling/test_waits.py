"""``Waits``: many waits of one task, and what one poll means for the others. Time is a number here."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.wait import Wait
from airflow_provider_comet.polling.waits import Waits

Result = Prediction | e.CometError


def new_waits(count: int) -> list[Wait]:
    """Return so many waits of an hour that began at 0."""
    return [Wait(f"p{n}", 0.0, 3600.0) for n in range(count)]


def running(wait: Wait) -> Prediction:
    """Return a result that says that the prediction is running."""
    return Prediction(wait.prediction_id, "processing")


@pytest.mark.parametrize("hint", [None, 100.0])
def test_a_429_holds_all_waits(hint: float | None) -> None:
    """If one poll of a round is answered by 429, no prediction is polled before that poll may be repeated."""
    pending = new_waits(3)
    waits = Waits(pending)
    results: list[Result] = [
        running(pending[0]),
        e.RateLimitedError(status=429, retry_after=hint),
        running(pending[2]),
    ]
    waits.on_results(
        [(wait, (result, 50.0, 50.0)) for wait, result in zip(pending, results, strict=True)], chance=lambda: 0.5
    )
    assert waits.delay(50.0) == pytest.approx(105.0 if hint else 10.0)
    assert len(waits.due(50.0 + (waits.delay(50.0) or 0.0))) == 3
    assert {wait.not_before for wait in pending} == {pending[1].due}


def test_a_503_holds_only_its_own_wait() -> None:
    """The delay that a server asks for about one prediction says nothing about the others."""
    pending = new_waits(2)
    waits = Waits(pending)
    busy = e.ServerError(status=503, retry_after=1000)
    waits.on_results(
        [(pending[0], (busy, 50.0, 50.0)), (pending[1], (running(pending[1]), 50.0, 50.0))], chance=lambda: 0.5
    )
    assert waits.delay(50.0) == pytest.approx(10.0)
    assert (pending[0].not_before, pending[1].not_before) == (pending[0].due, None)


def test_a_hold_ends_at_the_deadline() -> None:
    """However long the server asks for, each prediction is polled at its deadline."""
    pending = new_waits(2)
    waits = Waits(pending)
    refusal = e.RateLimitedError(status=429, retry_after=10_000)
    waits.on_results(
        [(pending[0], (refusal, 50.0, 50.0)), (pending[1], (running(pending[1]), 50.0, 50.0))], chance=lambda: 0.5
    )
    assert waits.delay(50.0) == 3550.0


def test_whether_all_that_is_left_is_missing() -> None:
    """Predictions that nobody has seen, and that the API does not know, are told from those that are running."""
    pending = new_waits(3)
    waits = Waits(pending)
    not_found = e.PredictionNotFoundError(status=404)
    assert not waits.are_missing
    done = Prediction("p2", "succeeded")
    results: list[Result] = [not_found, running(pending[1]), done]
    waits.on_results([(wait, (result, 1.0, 1.0)) for wait, result in zip(pending, results, strict=True)], lambda: 0.5)
    assert not waits.are_missing
    waits.on_results([(pending[1], (Prediction("p1", "failed"), 2.0, 2.0))], lambda: 0.5)
    assert waits.are_missing
    waits.on_results([(pending[0], (running(pending[0]), 3.0, 3.0))], lambda: 0.5)
    assert not waits.are_missing


def test_a_refused_key_may_be_waited_out() -> None:
    """Waits that ended because the key was refused can be reopened; other errors stay as they are."""
    pending = new_waits(4)
    waits = Waits(pending)
    results: list[Result] = [
        e.AuthenticationError(status=401),
        e.PermissionDeniedError(status=403),
        e.WrongURLError(),
        Prediction("p3", "succeeded"),
    ]
    waits.on_results(
        [(wait, (result, 1.0, 1.0)) for wait, result in zip(pending, results, strict=True)], chance=lambda: 0.5
    )
    assert (waits.pending, [*waits.outcomes]) == ([], ["p0", "p1", "p2", "p3"])
    assert [*waits.errors] == ["p0", "p1", "p2"]
    assert waits.reopen(e.AuthenticationError, e.PermissionDeniedError) is True
    assert (waits.pending, [*waits.errors]) == (pending[:2], ["p2"])
    assert waits.reopen(e.AuthenticationError, e.PermissionDeniedError) is False
    assert waits.reopen(e.CometError) is True
    assert (waits.pending, [*waits.outcomes]) == (pending[:3], ["p3"])


def test_the_deadline_is_that_of_its_waits() -> None:
    """All waits of a task have to end at the same time, whichever of them have ended."""
    pending = new_waits(1)
    waits = Waits(pending)
    waits.on_results([(pending[0], (Prediction("p0", "succeeded"), 1.0, 1.0))], chance=lambda: 0.5)
    assert (waits.pending, waits.deadline) == ([], 3600.0)
