"""``polling/backoff.py``: how long to pause between two attempts of the same call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.polling.backoff import RETRY_BUDGET_SECONDS, Backoff

CHANCES = st.floats(0, 1)
HINTS = st.none() | st.floats(0, 86_400)


def pauses(backoff: Backoff, *, chance: float = 1.0, retry_after: float | None = None) -> list[float]:
    """Return all pauses until the budget is used up, if each attempt fails at once."""
    now, found = 0.0, []
    while (pause := backoff.next_pause(now, chance=chance, retry_after=retry_after)) is not None:
        found.append(pause)
        now += pause
    return found


def test_pauses_double_up_to_the_longest() -> None:
    """The second pause is twice the first, and so on, until the longest."""
    assert pauses(Backoff(120.0)) == [1, 2, 4, 8, 16, 30, 30]


def test_chance_shortens_by_up_to_half() -> None:
    """With a chance of zero each pause is half as long."""
    assert pauses(Backoff(10.0), chance=0.0) == [0.5, 1, 2, 4]


def test_a_fixed_pause() -> None:
    """Equal first and longest pauses: a fixed interval, and the last attempt begins when the budget ends."""
    assert pauses(Backoff(300.0, first_pause=5.0, longest_pause=5.0)) == [5.0] * 60


def test_a_budget_of_zero_retries_nothing() -> None:
    """Without a budget the first failure is the last."""
    assert Backoff(0.0).next_pause(0.0) is None


def test_what_the_server_asks_for_is_never_undercut() -> None:
    """``Retry-After`` counts if it is longer; a little is added, so that clients do not return together."""
    assert pauses(Backoff(25.0), retry_after=10.0) == [11.0, 11.0]
    assert Backoff(25.0).next_pause(0.0, chance=0.0, retry_after=10.0) == 10.0
    assert Backoff(25.0).next_pause(0.0, retry_after=26.0) is None


def test_the_budget_counts_from_the_start_of_the_call() -> None:
    """A call that took most of the budget to fail is not repeated for all of it again."""
    assert Backoff(120.0, started_at=0.0).next_pause(119.5) is None
    assert Backoff(120.0).next_pause(119.5) == 1.0


def test_progress_begins_anew() -> None:
    """After progress the next failure counts as the first, and the budget begins with it."""
    backoff = Backoff(5.0)
    assert backoff.next_pause(0.0) == 1.0
    assert backoff.next_pause(4.9) is None
    backoff.reset()
    assert backoff.next_pause(100.0) == 1.0


def test_an_endless_budget_does_not_overflow() -> None:
    """Thousands of failures give the longest pause, not an error."""
    backoff = Backoff(float("inf"))
    assert [backoff.next_pause(0.0) for _ in range(2000)][-1] == 30.0


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (2000, 30)]
)
def test_the_pause_doubles_up_to_half_a_minute(attempt: int, longest: float) -> None:
    """Pauses double from a second to thirty, each between a half and the whole, for any number of attempts."""
    for chance, expected in ((1.0, longest), (0.0, longest / 2)):
        backoff = Backoff(float("inf"))
        assert [backoff.next_pause(0.0, chance=chance) for _ in range(attempt)][-1] == expected


@given(st.integers(1, 100), st.floats(0, 1000), CHANCES, HINTS)
def test_a_call_stays_within_its_budget(attempt: int, elapsed: float, chance: float, hint: float | None) -> None:
    """A pause is never shorter than the hint and never ends after 120 seconds: then the call is given up instead."""
    backoff = Backoff(RETRY_BUDGET_SECONDS, started_at=0.0)
    for _ in range(attempt - 1):
        backoff.next_pause(0.0, chance=chance)
    pause = backoff.next_pause(elapsed, chance=chance, retry_after=hint)
    if pause is None:
        assert elapsed + max(30, (hint or 0) * 1.1) > RETRY_BUDGET_SECONDS
    else:
        assert pause >= max(0.5, hint or 0)
        assert elapsed + pause <= RETRY_BUDGET_SECONDS == 120


def test_a_hint_beyond_the_budget_gives_up_at_once() -> None:
    """If the server asks for more than two minutes, the rest is left to Airflow's retries."""

    def pause(retry_after: float, now: float = 0.0) -> float | None:
        return Backoff(RETRY_BUDGET_SECONDS, started_at=0.0).next_pause(now, chance=0.0, retry_after=retry_after)

    assert pause(121) is None
    assert pause(119) == 119
    assert pause(119, now=2) is None


@given(CHANCES)
def test_the_number_of_attempts_is_bounded(chance: float) -> None:
    """A call is attempted at most a dozen times or so, even if every answer comes at once."""
    assert 7 <= len(pauses(Backoff(RETRY_BUDGET_SECONDS, started_at=0.0), chance=chance)) + 1 <= 14
