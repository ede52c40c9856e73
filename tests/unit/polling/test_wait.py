"""``api/waits.py``: what the log says of many waits, and what one look means for the others. Time is a number here."""

from __future__ import annotations

import itertools
import logging

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.schedule import HEARTBEAT, Wait
from airflow_provider_comet.polling.wait import PROGRESS, Progress, Waits

Look = Prediction | e.CometError


def waits(count: int) -> list[Wait]:
    """So many waits of an hour."""
    return [Wait(f"p{n}", 0.0, 3600.0) for n in range(count)]


def look(wait: Wait, status: str = "processing") -> Prediction:
    return Prediction(wait.prediction_id, status)


def test_the_first_line_is_a_whole_picture() -> None:
    """Nothing is said of a list before each has been looked at."""
    given = waits(3)
    progress = Progress(given)
    assert progress.news(given[0], look(given[0]), 1.0) == []
    assert progress.news(given[0], look(given[0]), 50.0) == []
    assert progress.news(given[1], look(given[1], "starting"), 51.0) == []
    assert progress.news(given[2], look(given[2], "succeeded"), 60.0) == [
        (
            logging.INFO,
            "1 of 3 predictions have finished (1 processing, 1 starting, 1 succeeded); the timeout comes in 3540 s",
        )
    ]


def test_changes_come_together() -> None:
    """What changes within ten seconds is one line; without a change there is one every five minutes."""
    given = waits(1000)
    progress = Progress(given)
    for one in given:
        progress.news(one, look(one), 0.0)
    said = [
        news for n, one in enumerate(given[:500]) for news in progress.news(one, look(one, "succeeded"), 100.0 + n / 10)
    ]
    assert len(said) == 50 / PROGRESS
    assert "401 of 1,000 predictions have finished (599 processing, 401 succeeded)" in said[-1][1]
    quiet = [now for now in range(150, 3600, 10) for _ in progress.news(given[999], look(given[999]), float(now))]
    assert quiet[0] == 150  # what came after the last line
    assert [later - earlier for earlier, later in itertools.pairwise(quiet)] == [HEARTBEAT] * (len(quiet) - 1)


def test_the_last_line_is_a_whole_picture() -> None:
    """That all have finished is said at once."""
    given = waits(2)
    progress = Progress(given)
    for one in given:
        progress.news(one, look(one), 0.0)
    assert progress.news(given[0], look(given[0], "succeeded"), 1.0) == []
    (said,) = progress.news(given[1], look(given[1], "failed"), 1.5)
    assert said[1].startswith("2 of 2 predictions have finished (1 succeeded, 1 failed)")


def test_each_kind_of_trouble_is_one_warning() -> None:
    """Hundreds that fail in the same way are one warning, which names one of them, and a sign of life later."""
    given = waits(300)
    progress = Progress(given)

    def said(error: e.CometError, now: float) -> list[tuple[int, str]]:
        lines = [line for one in given for line in progress.news(one, error.about(one.prediction_id), now)]
        return [line for line in lines if "predictions have finished" not in line[1]]

    ((level, words),) = said(e.ServerError("bad gateway", status=502), 0.0)
    assert level == logging.WARNING
    assert words.startswith("Prediction p0: CometAPI failed for now (HTTP 502): bad gateway.")
    assert said(e.ServerError("bad gateway", status=502), HEARTBEAT - 1) == []
    ((level, _),) = said(e.AuthenticationError(status=401), 100.0)
    assert level == logging.WARNING
    ((level, _),) = said(e.ServerError("bad gateway", status=502), HEARTBEAT)
    assert level == logging.INFO


def test_an_unknown_status_is_said_once() -> None:
    """A status that is not known is a warning, once for all."""
    given = waits(5)
    progress = Progress(given)
    said = [line for one in given for line in progress.news(one, look(one, "Teleporting"), 0.0)]
    assert [words for level, words in said if level == logging.WARNING] == [
        "Prediction p0: status 'Teleporting' is unknown here; it counts as still running (Others may have the same.)"
    ]


def test_one_alone_has_its_own_lines() -> None:
    """A wait for one prediction says what it always said."""
    (one,) = waits(1)
    progress = Progress([one])
    assert progress.news(one, look(one), 0.0) == [(logging.INFO, "Prediction p0: status 'processing'")]
    assert progress.news(one, look(one), 1.0) == []


@pytest.mark.parametrize("hint", [None, 100.0])
def test_one_429_holds_all(hint: float | None) -> None:
    """If one look of a round was one too many, nobody looks before that one may be repeated."""
    given = waits(3)
    many = Waits(given)
    limited = e.RateLimitedError(status=429, retry_after=hint)
    seen: list[Look] = [look(given[0]), limited, look(given[2])]
    many.take([(wait, (one, 50.0)) for wait, one in zip(given, seen, strict=True)], chance=lambda: 0.5)
    assert many.delay(50.0) == pytest.approx(105.0 if hint else 10.0)
    assert len(many.due(50.0 + (many.delay(50.0) or 0.0))) == 3
    assert {wait.not_before for wait in given} == {given[1].due}


def test_a_503_holds_only_its_own() -> None:
    """What a server asks for about one prediction says nothing about the others."""
    given = waits(2)
    many = Waits(given)
    busy = e.ServerError(status=503, retry_after=1000)
    many.take([(given[0], (busy, 50.0)), (given[1], (look(given[1]), 50.0))], chance=lambda: 0.5)
    assert many.delay(50.0) == pytest.approx(10.0)
    assert (given[0].not_before, given[1].not_before) == (given[0].due, None)


def test_a_hold_ends_at_the_deadline() -> None:
    """However long the server asks us to wait, each is looked at when its time is up."""
    given = waits(2)
    many = Waits(given)
    limited = e.RateLimitedError(status=429, retry_after=10_000)
    many.take([(given[0], (limited, 50.0)), (given[1], (look(given[1]), 50.0))], chance=lambda: 0.5)
    assert many.delay(50.0) == 3550.0


def test_a_refused_key_may_be_waited_out() -> None:
    """What ended because the key was refused can go on; other errors are final."""
    given = waits(3)
    many = Waits(given)
    seen: list[Look] = [e.AuthenticationError(status=401), e.PermissionDeniedError(status=403), e.WrongURLError()]
    many.take([(wait, (one, 1.0)) for wait, one in zip(given, seen, strict=True)], chance=lambda: 0.5)
    assert (many.pending, [*many.ended]) == ([], ["p0", "p1", "p2"])
    assert many.reopen() is True
    assert (many.pending, [*many.ended]) == (given[:2], ["p2"])
    assert many.reopen() is False


@pytest.mark.parametrize("age", [0.5, 100.0, 4000.0])
def test_a_hint_is_taken_over(age: float) -> None:
    """Who takes a wait over does not look before the server allowed it, but at the deadline."""
    wait = Wait("p0", 0.0, 3600.0, looked_at=age, not_before=age + 200.0)
    delay = wait.first_delay(age, chance=0.5)
    assert delay == pytest.approx(200.0 if age < 3600 else 0.0)
    assert Wait("p0", 0.0, age + 50.0, looked_at=age, not_before=age + 200.0).first_delay(age, 0.5) == 50.0
