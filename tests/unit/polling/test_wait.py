"""``polling/wait.py``: how one result moves a wait, and what it means for the other waits of a task."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.wait import Wait

ID = "abc"
Result = Prediction | e.CometError

RUNNING = [Prediction(ID, "starting"), Prediction(ID, "processing", output=["half"]), Prediction(ID, "Teleporting")]
FINISHED = [Prediction(ID, status) for status in ("succeeded", "failed", "canceled", "aborted")]
TRANSIENT: list[e.CometError] = [
    e.RateLimitedError("slow", status=429, retry_after=3),
    e.ServerError("502", status=502, request_id="r1"),
    e.TransportError("reset"),
]
FATAL: list[e.CometError] = [
    e.AuthenticationError(status=401),
    e.PermissionDeniedError(status=403),
    e.WrongURLError(status=301),
    e.BadRequestError(status=400),
    e.BalanceExhaustedError(status=402),
    e.ConfigurationError("x"),
    e.InvalidInputError("x"),
    e.CometError("x"),
]
NAMED: Any = {"ids": lambda result: result.status if isinstance(result, Prediction) else type(result).__name__}


def new_wait(**fields: Any) -> Wait:
    """Return a wait of an hour that began at 1000."""
    return Wait(**{"prediction_id": ID, "started_at": 1000.0, "deadline": 4600.0, **fields})


@pytest.mark.parametrize("result", FINISHED, **NAMED)
@pytest.mark.parametrize("now", [0.0, 1000.0, 4599.0, 4600.0, 1e9])
def test_a_finished_prediction_ends_the_wait_at_any_time(result: Prediction, now: float) -> None:
    """A finished result is never lost to the clock, not even long after the deadline."""
    assert new_wait().on_result(result, now=now, chance=0.5) is result


@pytest.mark.parametrize("result", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [900.0, 1000.0, 1100.0, 4599.9])
def test_trouble_that_may_pass_is_waited_out(result: Result, now: float) -> None:
    """A running prediction and transient trouble lead to another poll, at the deadline at the latest."""
    delay = new_wait().on_result(result, now=now, chance=0.5)
    assert isinstance(delay, float)
    assert 0 < delay <= 4600 - now


@pytest.mark.parametrize("result", [*RUNNING, *TRANSIENT], **NAMED)
@pytest.mark.parametrize("now", [4600.0, 4600.1, 9999.0])
def test_the_deadline_ends_the_wait(result: Result, now: float) -> None:
    """From the deadline on, anything unfinished is a timeout that names the last result and the prediction's age."""
    outcome = new_wait().on_result(result, now=now, chance=0.5)
    assert type(outcome) is e.PredictionTimeoutError
    assert outcome.prediction_id == ID
    assert f", {now - 1000:.0f} s after it was created" in str(outcome)
    words = repr(result.status) if isinstance(result, Prediction) else result.summary
    assert words in str(outcome)
    if isinstance(result, e.CometError):
        assert (outcome.status, outcome.request_id) == (result.status, result.request_id)


@pytest.mark.parametrize("result", FATAL, **NAMED)
@pytest.mark.parametrize("now", [1000.0, 1100.0, 9999.0])
def test_an_error_that_no_retry_cures_ends_the_wait_at_once(result: e.CometError, now: float) -> None:
    """An error that waiting does not change is returned as it is."""
    assert new_wait().on_result(result, now=now, chance=0.5) is result


@pytest.mark.parametrize(
    ("age", "ends"), [(0, False), (30, False), (59.9, False), (60, True), (61, True), (3599, True)]
)
def test_a_new_id_may_be_unknown_for_a_minute(age: float, ends: bool) -> None:
    """A prediction that is not found is waited for in its first minute, and given up afterwards."""
    result = e.PredictionNotFoundError("task_not_exist", status=400)
    outcome = new_wait().on_result(result, now=1000 + age, chance=0.5)
    assert (outcome is result) is ends
    assert isinstance(outcome, float) is not ends


ODD: list[e.CometError] = [
    e.WrongURLError("a web page came back", status=200),
    e.WrongURLError("a login page", status=302),
    e.WrongURLError("a web page came back", status=404),
    e.BadRequestError(status=400),
    e.BadRequestError(status=422),
    e.PredictionNotFoundError("task_not_exist", status=400),
    e.PredictionNotFoundError(status=404),
    e.ModelNotFoundError(status=503),
    e.BalanceExhaustedError(status=402),
]
KINDS: Any = {"ids": lambda result: f"{type(result).__name__} {result.status}"}


def poll_all(wait: Wait, results: list[tuple[float, Result]]) -> list[Result | float]:
    """Return what each of these polls, each with its time, leads to."""
    return [wait.on_result(result, now=now, chance=0.5) for now, result in results]


@pytest.mark.parametrize("odd", ODD, **KINDS)
def test_a_known_prediction_outlives_an_odd_answer(odd: e.CometError) -> None:
    """After a good poll, an answer without a status leads to another poll, and a terminal status ends the wait."""
    wait = new_wait()
    *delays, end = poll_all(wait, [(1001, RUNNING[0]), (1002, odd), (1003, odd), (1030, odd), (1040, FINISHED[0])])
    assert all(isinstance(delay, float) for delay in delays)
    assert end is FINISHED[0]


@pytest.mark.parametrize("odd", ODD, **KINDS)
@pytest.mark.parametrize(
    ("polls", "ends"),
    [
        ([2000, 2030, 2059.9], False),
        ([2000, 2030, 2060], True),
        ([2000, 2060], False),
        ([2000, 2600], False),
        ([2000, 2600, 3200], True),
        ([2000, *range(2001, 2060)], False),
    ],
    ids=["less than a minute", "a minute", "two polls", "two rare polls", "three rare polls", "many polls"],
)
def test_odd_answers_of_a_minute_end_a_wait(odd: e.CometError, polls: list[float], ends: bool) -> None:
    """The same kind of answer without a status ends the wait for a known prediction after a minute and three polls."""
    *earlier, last = poll_all(new_wait(is_known=True), [(now, odd) for now in polls])
    assert all(isinstance(delay, float) for delay in earlier)
    assert (last is odd) is ends
    assert isinstance(last, float) is not ends


@pytest.mark.parametrize("other", [*RUNNING, *TRANSIENT, e.WrongURLError(status=302), e.BadRequestError(status=404)])
def test_odd_answers_count_while_nothing_else_comes(other: Result) -> None:
    """A status, trouble that may pass, or another kind of answer begins the minute anew."""
    odd = e.WrongURLError(status=404)
    results: list[tuple[float, Result]] = [(2000, odd), (2030, odd), (2059, other), (2060, odd), (2100, odd)]
    wait = new_wait(is_known=True)
    assert all(isinstance(delay, float) for delay in poll_all(wait, [*results, (2119, odd)]))
    assert poll_all(wait, [(2120, odd)]) == [odd]


def test_other_words_are_the_same_kind() -> None:
    """Class and HTTP status make the kind of an answer, not its words, which name another request each time."""
    results = [e.WrongURLError(f"page {number}", status=200, request_id=str(number)) for number in range(3)]
    *_, last = poll_all(new_wait(is_known=True), [(2000, results[0]), (2030, results[1]), (2060, results[2])])
    assert last is results[2]


def test_odd_answers_up_to_the_deadline_are_a_timeout() -> None:
    """If kinds alternate, the wait ends at its deadline, with an error that names the last answer."""
    wait = new_wait()
    pages: list[e.CometError] = [e.WrongURLError(status=302), e.BadRequestError("nginx", status=400, request_id="r9")]
    polls = [(1100 + 50 * number, pages[number % 2]) for number in range(70)]
    *delays, error = poll_all(wait, [(1001, RUNNING[0]), *polls, (4600, pages[1])])
    assert all(isinstance(delay, float) for delay in delays)
    assert type(error) is e.PredictionTimeoutError
    assert f"last poll: {e.BadRequestError.summary}. nginx" in str(error)
    assert (error.status, error.request_id) == (400, "r9")


@pytest.mark.parametrize("result", [*FATAL[:2], *FATAL[-3:]], **NAMED)
def test_a_refused_key_is_no_odd_answer(result: e.CometError) -> None:
    """A refusal of the key, or an error that is no answer of a server, ends the wait for a known prediction, too."""
    assert new_wait(is_known=True).on_result(result, now=2000, chance=0.5) is result


def test_a_stray_not_found_about_a_known_prediction() -> None:
    """The minute counts from the first "not found", at any age; a status in between begins it anew."""
    wait = new_wait()
    old = Prediction(ID, "processing", created_at="2026-03-01T12:00:00.000Z", seen_at="Sun, 01 Mar 2026 12:08:20 GMT")
    result = e.PredictionNotFoundError(status=404)
    results: list[tuple[float, Result]] = [(1001, old), (1066, result), (1100, old), (1500, result), (1559, result)]
    assert all(isinstance(delay, float) for delay in poll_all(wait, results))
    assert wait.started_at == pytest.approx(501.0)
    assert poll_all(wait, [(1560, result)]) == [result]


@pytest.mark.parametrize(("age", "is_known"), [(0, False), (59, False), (60, True), (1000, True)])
def test_who_takes_over_an_old_wait_takes_its_prediction_for_known(age: float, is_known: bool) -> None:
    """A triggerer that is restarted forgets what it has seen, so it tries for another minute."""
    wait = new_wait()
    wait.first_delay(1000 + age, 0.5)
    odd = e.WrongURLError(status=200)
    first, second, third = poll_all(wait, [(2100, odd), (2130, odd), (2160, odd)])
    assert [first is odd, second is odd] == [not is_known] * 2
    assert third is odd


def test_a_prediction_that_nobody_has_seen_is_missing() -> None:
    """A wait says whether its last poll did not find a prediction that may never have existed."""
    not_found = e.PredictionNotFoundError(status=404)
    wait = new_wait()
    seen = []
    for result in (not_found, TRANSIENT[1], not_found, RUNNING[0], not_found):
        wait.on_result(result, now=1010, chance=0.5)
        seen.append(wait.is_missing)
    assert seen == [True, False, True, False, False]


CLAIM = Prediction(ID, "processing", missing_output="the task says SUCCESS, its data is null")


@pytest.mark.parametrize(
    ("polls", "ends"),
    [
        ([1001, 1002, 1003, 1004, 1010.9], False),
        ([1001, 1002, 1003, 1011], True),
        ([1001, 1050, 1100], False),
        ([1001, 1050, 1100, 1150], True),
    ],
    ids=["too soon", "ten seconds", "three polls", "four polls"],
)
def test_a_success_that_brings_no_output_is_a_success_without_output(polls: list[float], ends: bool) -> None:
    """If a task says it has succeeded, three more polls wait for its output; then the wait ends without it."""
    *delays, last = poll_all(new_wait(), [(now, CLAIM) for now in polls])
    assert all(isinstance(delay, float) for delay in delays)
    assert isinstance(last, float) is not ends
    if ends:
        assert last == Prediction(ID, "succeeded", error=CLAIM.missing_output)


@pytest.mark.parametrize("late", [1, 2, 3])
def test_output_that_is_late_is_taken(late: int) -> None:
    """Output that comes some polls after its success is the result."""
    end = Prediction(ID, "succeeded", output=["x"])
    *_, last = poll_all(new_wait(), [*((1000.0 + 30 * number, CLAIM) for number in range(late)), (1100, end)])
    assert last is end


def test_a_success_that_is_taken_back() -> None:
    """The polls are counted while the task says nothing else."""
    results: list[Result] = [CLAIM, CLAIM, CLAIM, RUNNING[1], CLAIM, CLAIM, CLAIM]
    outcomes = poll_all(new_wait(), [(1000 + 20 * number, result) for number, result in enumerate(results)])
    assert all(isinstance(delay, float) for delay in outcomes)


def test_a_success_without_output_at_the_deadline() -> None:
    """At the deadline a single such poll is a timeout that says what came; after three more it is the result."""
    outcome = new_wait().on_result(CLAIM, now=4600, chance=0.5)
    assert type(outcome) is e.PredictionTimeoutError
    assert "last status 'processing' (the task says SUCCESS, its data is null)" in str(outcome)
    *_, last = poll_all(new_wait(), [(4597, CLAIM), (4598, CLAIM), (4599, CLAIM), (4600, CLAIM)])
    assert last == CLAIM.without_output()


def test_a_rate_limits_hint_decides_about_the_next_poll() -> None:
    """After a 429 the next poll comes no sooner than the server asked, but not after the deadline."""
    result = e.RateLimitedError(status=429, retry_after=100)
    assert new_wait().on_result(result, now=1001, chance=0.0) == 100
    assert new_wait().on_result(result, now=4590, chance=0.0) == 10


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_wait_polls_rarely_in_its_first_second(chance: float) -> None:
    """With the least luck and no latency, the first minute still has a small number of polls."""
    now, count = 1000.0, 0
    while now < 1060:
        delay = new_wait().on_result(RUNNING[0], now=now, chance=chance)
        assert isinstance(delay, float)
        now += delay
        count += 1
    assert count <= 30


@pytest.mark.parametrize("interval", [0.0, 0, -5.0, 0.001])
def test_an_interval_of_zero_does_not_flood_the_api(interval: float) -> None:
    """A fixed interval below the shortest delay does not make a wait poll without a pause."""
    delay = new_wait(poke_interval=interval).on_result(RUNNING[0], now=1100, chance=0.5)
    assert isinstance(delay, float)
    assert delay >= 0.4


def test_a_clock_that_was_set_back_does_no_harm() -> None:
    """Before its own beginning a wait behaves as at its beginning."""
    assert new_wait().on_result(RUNNING[0], now=0.0, chance=0.5) == pytest.approx(1)


@pytest.mark.parametrize("age", [0.5, 100.0, 4000.0])
def test_retry_after_is_taken_over(age: float) -> None:
    """Whoever takes a wait over does not poll before the server allowed it, but polls at the deadline."""
    wait = Wait("p0", 0.0, 3600.0, last_polled_at=age, not_before=age + 200.0)
    delay = wait.first_delay(age, chance=0.5)
    assert delay == pytest.approx(200.0 if age < 3600 else 0.0)
    assert Wait("p0", 0.0, age + 50.0, last_polled_at=age, not_before=age + 200.0).first_delay(age, 0.5) == 50.0


@pytest.mark.parametrize("result", TRANSIENT, **NAMED)
@pytest.mark.parametrize("sent_at", [1000.0, 4599.0])
def test_trouble_that_was_met_before_the_deadline_is_no_last_poll(result: e.CometError, sent_at: float) -> None:
    """A gateway gives up after a minute: the prediction may have finished meanwhile, so it is polled once more."""
    wait = new_wait()
    assert wait.on_result(result, now=4660.0, chance=0.5, sent_at=sent_at) == 0.0
    assert type(wait.on_result(result, now=4661.0, chance=0.5, sent_at=4660.0)) is e.PredictionTimeoutError


@pytest.mark.parametrize("result", RUNNING, **NAMED)
def test_a_status_that_came_late_is_a_last_poll(result: Prediction) -> None:
    """An answer says how the prediction is when it is sent, however early it was asked for."""
    assert type(new_wait().on_result(result, now=4660.0, chance=0.5, sent_at=4590.0)) is e.PredictionTimeoutError
