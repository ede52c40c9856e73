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


def test_outcomes_are_taken_once() -> None:
    """Who has taken how waits have ended must not get it again: a store would store it twice."""
    pending = new_waits(3)
    waits = Waits(pending)
    done, refused = Prediction("p0", "succeeded"), e.AuthenticationError(status=401)
    waits.on_results([(pending[0], (done, 1.0, 1.0)), (pending[1], (refused, 1.0, 1.0))], chance=lambda: 0.5)
    assert waits.take_outcomes() == {"p0": done, "p1": refused}
    assert (waits.take_outcomes(), waits.outcomes, waits.errors) == ({}, {}, {})
    assert waits.pending == pending[2:], "what runs is waited for as before"
    later = Prediction("p2", "failed")
    waits.on_results([(pending[2], (later, 2.0, 2.0))], chance=lambda: 0.5)
    assert (waits.take_outcomes(), waits.delay(2.0)) == ({"p2": later}, None)


def test_what_was_taken_is_not_reopened() -> None:
    """An error that was reported is the end of its wait, and a trigger does not poll again for it."""
    (wait,) = new_waits(1)
    waits = Waits([wait])
    waits.on_results([(wait, (e.AuthenticationError(status=401), 1.0, 1.0))], chance=lambda: 0.5)
    waits.take_outcomes()
    assert waits.reopen(e.CometError) is False
    assert waits.pending == []


def test_how_many_have_ended() -> None:
    """The count is of the task: with those that ended before these waits, whether or not their outcomes were taken. A
    wait that is reopened has not ended."""
    pending = new_waits(3)
    waits = Waits(pending, ended_before=40)
    assert waits.ended == 40
    waits.on_results([(pending[0], (Prediction("p0", "succeeded"), 1.0, 1.0))], chance=lambda: 0.5)
    waits.take_outcomes()
    assert waits.ended == 41
    waits.on_results([(pending[1], (e.AuthenticationError(status=401), 1.0, 1.0))], chance=lambda: 0.5)
    assert waits.ended == 42
    waits.reopen(e.AuthenticationError)
    assert waits.ended == 41


def test_the_log_counts_what_has_ended_before() -> None:
    """After a hand-over the log continues with the numbers of the whole list."""
    pending = new_waits(2)
    lines = Waits(pending, ended_before=40).on_results(
        [(wait, (running(wait), 1.0, 1.0)) for wait in pending], chance=lambda: 0.5
    )
    assert [text for _, text in lines] == [
        "40 of 42 predictions have finished (2 processing, 40 before); the timeout comes in 3599 s"
    ]
